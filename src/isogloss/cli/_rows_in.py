"""What `predict` reads: one text a line, tab separated pairs, or JSONL with the task's fields."""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.errors import IsoglossError
from isogloss.storage.lines import decoded_lines

if TYPE_CHECKING:
    from isogloss.tasks import Example, Task

# Columns of a plain line, by kind of task.
_COLUMNS = {
    "classification": ("text",),
    "pair-classification": ("text", "text_pair"),
    "tagging": ("tokens",),
    "qa": ("question", "context"),
    "choice": ("text", "choice1", "choice2"),
}


@dataclass(frozen=True)
class InputRow:
    """One row to answer.

    Attributes:
        line: Number of its line, from 1.
        text: The line as it stood.
        fields: What the row holds, by column.
        example: The same for a head, without a language.
    """

    line: int
    text: str
    fields: dict[str, Any]
    example: "Example"


def split_inputs(values: list[str]) -> tuple[list[str], str]:
    """Separates further module folders, as in `--modules a b c FILE`, from the one input; `-` is stdin.

    Raises:
        IsoglossError: There are two inputs.
    """
    folders = [value for value in values if value != "-" and Path(value).is_dir()]
    files = [value for value in values if value not in folders]
    if len(files) > 1:
        raise IsoglossError(f"FILE: '{files[0]}' and '{files[1]}' are both given; give one file, or - for stdin.")
    return folders, files[0] if files else "-"


def read_input(file: str, task: "Task") -> Iterator[InputRow]:
    """Rows of a file or of stdin, as they come; blank lines are left out.

    Args:
        file: Path, or `-`.
        task: Says what a row must hold.

    Raises:
        IsoglossError: The file cannot be read, or a line is not what the task needs; names file and line.
    """
    if file != "-" and not Path(file).is_file():
        raise IsoglossError(f"FILE {file}: there is no such file; give a text, TSV or JSONL file, or - for stdin.")
    return _rows(file, task)


def _rows(file: str, task: "Task") -> Iterator[InputRow]:
    from isogloss.tasks.rows_in import unlabelled_example

    name = "stdin" if file == "-" else file
    objects: bool | None = True if file.endswith(".jsonl") else None
    columns = _COLUMNS.get(task.kind)
    if columns is None:
        raise IsoglossError(f"Task {task.name!r} ({task.kind}) has nothing to predict for single rows.")
    for number, line in _lines(file, name):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        if objects is None:
            objects = _is_object(line)
        if objects:
            values = _object(line, where)
        else:
            cells = line.split("\t") if len(columns) > 1 else [line]
            if len(cells) != len(columns):
                raise IsoglossError(
                    f"{where}: {len(cells)} tab-separated texts, but task {task.name!r} needs {len(columns)} "
                    f"({', '.join(columns)}); or give JSONL."
                )
            values = {task.fields[logical][0]: cell for logical, cell in zip(columns, cells, strict=True)}
        example = unlabelled_example(values, task, where=where, number=number - 1)
        shown = line if not objects else " ".join(example.content().split())
        yield InputRow(number, shown, values, example)


def _lines(file: str, name: str) -> Iterator[tuple[int, str]]:
    with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
        yield from decoded_lines(stream, name)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise IsoglossError(f"{where}: not valid JSON ({problem}); expected one object a line.") from None
    if not isinstance(found, dict):
        raise IsoglossError(f"{where}: expected a JSON object, found {type(found).__name__}.")
    return found
