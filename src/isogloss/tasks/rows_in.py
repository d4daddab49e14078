"""Rows that come from elsewhere than a data set (typed, piped, posted): dicts to examples without labels."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.tasks._build import Builder
from isogloss.tasks._rows import RawRow
from isogloss.tasks.examples import Example
from isogloss.tasks.task import Task


def unlabelled_examples(
    rows: Iterable[Mapping[str, Any]], task: Task, *, language: str = "", where: str = "row"
) -> Iterator[Example]:
    """Examples of the task's inputs, one a row, as the rows come; labels are not read.

    Args:
        rows: Columns to values; `task.fields` says which column holds what.
        task: What will be asked.
        language: Code of the language of all rows; empty when it is found out later.
        where: What a row is called in errors, with its number from 1 behind it.

    Raises:
        IsoglossError: A row is not what the task needs; names the row and what was expected.
    """
    for number, row in enumerate(rows, 1):
        yield unlabelled_example(row, task, language=language, where=f"{where} {number}", number=number - 1)


def unlabelled_example(
    row: Mapping[str, Any], task: Task, *, language: str = "", where: str = "row", number: int = 0
) -> Example:
    """The example of one row without its label.

    Args:
        row: Columns to values.
        task: What will be asked.
        language: Code of its language.
        where: What the row is called in errors.
        number: Goes into the id of a row that has none.

    Raises:
        IsoglossError: The row is not what the task needs.
    """
    if not isinstance(row, Mapping):
        raise IsoglossError(f"{where}: expected columns and values, found {type(row).__name__}.")
    example = Builder(task, language, "", "predict", labelled=False).build(RawRow(where, number, dict(row)))
    assert example is not None  # only labels, which are not read here, make a row be left out
    return example


__all__ = ["unlabelled_example", "unlabelled_examples"]
