"""Labelled data sets: which languages and splits are there, and one split as a list of examples.

A data set is a folder ``DIR/<language>/<split>.{jsonl,json,tsv,csv,conllu,conll,iob2}[.gz]``, the bundled set
``bundled:parallel``, or a Hub id. What the rows may look like is in ``registry`` (columns, labels) and
``_rows`` (file formats). What happens to rows that cannot be used:

* malformed rows (a column missing, a wrong type, an empty text, an unknown label, an invalid tag, an answer
  that does not stand in its context) are an error that names file and line; ``bad_rows="skip"`` leaves them
  out (a file that breaks its own format, such as invalid JSON or UTF-8, is an error all the same);
* unanswerable questions and rows without a gold label (``-`` or ``-1``) are left out and counted;
* an ``answer_start`` that is off is moved when the answer stands just once within 64 characters, or just once
  in the whole context; a span that begins with ``I-`` is read as beginning with ``B-``. Both are counted.

The counts go to the log of this module (a warning a file), and are in what ``read`` returns.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.storage import package_data
from isogloss.tasks import _hub
from isogloss.tasks._build import Builder, RowProblem
from isogloss.tasks._folders import language_of
from isogloss.tasks._rows import RawRow, read_rows, split_of_file
from isogloss.tasks.examples import Example
from isogloss.tasks.task import Task

BUNDLED = "bundled:parallel"
PIVOT = "eng_Latn"
_ALIASES = ({"dev", "validation", "val", "valid"}, {"train", "training"}, {"test"})
# From this many rows on, a test split with one single label is taken for one whose labels were withheld.
_PLACEHOLDER_ROWS = 50
# Most folders that an error names one by one.
_LISTED = 12

log = logging.getLogger(__name__)

BadRows = Literal["error", "skip"]


@dataclass(frozen=True)
class SplitRead:
    """One split as read.

    Attributes:
        examples: In file order.
        dropped: Why rows were left out, to how many.
        repaired: What was mended, to how many rows.
        source: The file or Hub path.
    """

    examples: list[Example]
    dropped: Mapping[str, int]
    repaired: Mapping[str, int]
    source: str


def _root(data: str | Path) -> Path | None:
    """The folder of a data set; None when ``data`` is a Hub id.

    Raises:
        IsoglossError: It is neither.
    """
    text = str(data)
    if text.startswith("bundled:"):
        if text != BUNDLED:
            raise IsoglossError(f"--data {text}: there is no such bundled data set; the one there is {BUNDLED}.")
        return package_data() / "parallel"
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise IsoglossError(f"--data {text}: this is a file; expected the folder DIR of DIR/<language>/<split>.")
    # "results/x" with a folder "results" here is a mistyped path and not a Hub id; no network for that
    mistyped = len(path.parts) > 1 and Path(path.parts[0]).is_dir()
    if isinstance(data, Path) or mistyped or not _hub.is_hub_id(text):
        raise IsoglossError(
            f"--data {text}: there is no such folder; expected DIR with DIR/<language>/<split>.jsonl, "
            f"{BUNDLED}, or the id of a Hub data set."
        )
    return None


def _folders(data: str | Path, root: Path | None) -> list[str]:
    if root is None:
        return _hub.configs(str(data))
    return sorted(
        item.name
        for item in root.iterdir()
        if item.is_dir() and any(split_of_file(file) is not None for file in item.iterdir())
    )


def available(data: str | Path) -> dict[str, str]:
    """Languages of a data set: code to folder name (or Hub configuration), sorted by folder.

    Raises:
        IsoglossError: No such data set, nothing in it, or two folders for one language.
    """
    root = _root(data)
    names = _folders(data, root)
    found: dict[str, str] = {}
    for folder in names:
        language = language_of(folder, root)
        if language is None:
            continue
        if language.code in found:
            raise IsoglossError(
                f"--data {data}: the folders {found[language.code]} and {folder} are both {language.name} "
                f"({language.code}); keep one of them there, or name the folder itself as the language."
            )
        found[language.code] = folder
    if not found:
        raise IsoglossError(
            f"--data {data}: no folder of a language in it (found: {', '.join(names) or 'nothing'}); "
            "expected DIR/<language>/<split>.jsonl."
        )
    return found


def find_folder(data: str | Path, language: str) -> str:
    """The folder of a language: one of exactly this name, else the one that means the same language.

    Raises:
        IsoglossError: The language is unknown or not there, or two folders fit.
    """
    root = _root(data)
    names = _folders(data, root)
    if language in names:
        return language
    wanted = resolve(language)
    fitting = [name for name in names if (found := language_of(name, root)) and found.code == wanted.code]
    if len(fitting) > 1:
        raise IsoglossError(
            f"--data {data}: the folders {' and '.join(fitting)} are both {wanted.name} ({wanted.code}); "
            "name one of them as the language."
        )
    if not fitting:
        there = [name for name in names if language_of(name, root)]
        raise IsoglossError(f"--data {data}: nothing for {wanted.name} ({wanted.code}); it has {_listed(there)}.")
    return fitting[0]


def _listed(folders: list[str]) -> str:
    """Folder names for an error; of many only the first, with the way to see all."""
    if len(folders) <= _LISTED:
        return ", ".join(folders) or "no language folder"
    return (
        f"{len(folders)} languages: {', '.join(folders[:8])} and {len(folders) - 8} more "
        "(`isogloss evaluate --targets all` takes all of them)"
    )


def _split_names(split: str) -> set[str]:
    return next((group for group in _ALIASES if split in group), {split})


def splits(data: str | Path, language: str) -> list[str]:
    """Split names of one language, as the files have them."""
    folder = find_folder(data, language)
    root = _root(data)
    if root is None:
        return _hub.splits(str(data), folder)
    return sorted({name for file in (root / folder).iterdir() if (name := split_of_file(file)) is not None})


def _rows(data: str | Path, folder: str, split: str) -> tuple[str, str, Iterator[RawRow]]:
    """Source name, the split's own name, and its rows."""
    root = _root(data)
    wanted = _split_names(split)
    if root is None:
        present = _hub.splits(str(data), folder)
        fitting = [name for name in present if name == split] or [name for name in present if name in wanted]
        if fitting:
            return f"{data} {folder}/{fitting[0]}", fitting[0], _hub.rows(str(data), folder, fitting[0])
    else:
        there = sorted((file, name) for file in (root / folder).iterdir() if (name := split_of_file(file)))
        present = [name for _, name in there]
        matches = [(f, n) for f, n in there if n == split] or [(f, n) for f, n in there if n in wanted]
        if len(matches) > 1:
            raise IsoglossError(
                f"{matches[0][0]} and {matches[1][0].name} are both the split {split}; keep one of them."
            )
        if matches:
            return str(matches[0][0]), matches[0][1], read_rows(matches[0][0])
    raise IsoglossError(
        f"--split {split}: {data} has no such split for {folder}; it has {', '.join(dict.fromkeys(present)) or 'none'}."
    )


def canonical_split(split: str) -> str:
    """``train``, ``dev`` or ``test`` for any usual name of these, another name as it is."""
    if split in _ALIASES[0]:
        return "dev"
    return "train" if split in _ALIASES[1] else split


def read(
    data: str | Path,
    language: str,
    split: str,
    task: Task,
    *,
    labelled: bool = True,
    bad_rows: BadRows = "error",
    limit: int | None = None,
) -> SplitRead:
    """One split of one language, with the counts of what was left out and mended.

    Args:
        data: Folder, ``bundled:parallel`` or Hub id.
        language: In any form that ``languages.resolve`` knows, or the exact name of a folder.
        split: ``train``, ``dev`` (= ``validation`` = ``val``), ``test``, or another name such as ``debate1``.
        task: Names the columns and the labels.
        labelled: Whether the rows must carry labels; False reads the inputs only.
        bad_rows: ``error`` stops at a malformed row, ``skip`` leaves it out and counts it.
        limit: Read at most this many examples.

    Raises:
        IsoglossError: See the module's text.
    """
    folder = find_folder(data, language)
    found = language_of(folder, _root(data)) or resolve(language)
    if task.kind == "retrieval" and found.code == PIVOT:
        raise IsoglossError(
            f"--language {language}: retrieval looks for English translations, so English cannot be a target."
        )
    source, own_name, rows = _rows(data, folder, split)
    if task.kind == "retrieval":
        rows = _with_pivot(data, own_name, task, rows)
    builder = Builder(task, found.code, folder, canonical_split(own_name), labelled)
    examples: list[Example] = []
    for row in rows:
        try:
            example = builder.build(row)
        except RowProblem as problem:
            if bad_rows == "error":
                raise
            builder.dropped[problem.reason] += 1
            continue
        if example is not None:
            examples.append(example)
        if limit is not None and len(examples) >= limit:
            break
    if not examples:
        counts = "; ".join(f"{count} {reason}" for reason, count in builder.dropped.items())
        hint = (
            f"every row was left out ({counts}), as in downloads that withhold the labels"
            if counts
            else "it holds no row"
        )
        raise IsoglossError(f"{source}: {hint}; expected at least one usable row.")
    if labelled and canonical_split(own_name) != "train":
        # Behind a limit too: SIB-200 is sorted by class, so one label among the first rows alone says nothing.
        _check_not_placeholder(source, task, chain(examples, _further(builder, rows)))
    for verb, counter in (("left out", builder.dropped), ("mended", builder.repaired)):
        for reason, count in counter.items():
            log.warning("%s: %d rows %s (%s)", source, count, verb, reason)
    return SplitRead(examples, dict(builder.dropped), dict(builder.repaired), source)


def read_split(
    data: str | Path,
    language: str,
    split: str,
    task: Task,
    *,
    labelled: bool = True,
    bad_rows: BadRows = "error",
    limit: int | None = None,
) -> list[Example]:
    """The examples of ``read``, without the counts."""
    return read(data, language, split, task, labelled=labelled, bad_rows=bad_rows, limit=limit).examples


def _with_pivot(data: str | Path, split: str, task: Task, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """Rows that surely hold the English side: taken by id from the English folder where a row has none.

    Tatoeba brings both sides in a row; SIB-200 and the bundled set hold the same ids in every folder.
    """
    english: dict[str, str] | None = None
    for row in rows:
        if any(row.values.get(name) for name in task.fields["text_pair"]):
            yield row
            continue
        key = next((str(row.values[name]) for name in task.fields["id"] if name in row.values), None)
        if english is None:
            english = _pivot_texts(data, split, task)
        if key is None or key not in english:
            raise IsoglossError(
                f"{row.where}: no English side; expected a column {' or '.join(task.fields['text_pair'])}, "
                "or an id that the English folder has too."
            )
        yield RawRow(row.where, row.number, {**row.values, task.fields["text_pair"][0]: english[key]})


def _pivot_texts(data: str | Path, split: str, task: Task) -> dict[str, str]:
    _, _, rows = _rows(data, find_folder(data, PIVOT), split)
    texts: dict[str, str] = {}
    for row in rows:
        key = next((str(row.values[name]) for name in task.fields["id"] if name in row.values), None)
        text = next((row.values[name] for name in task.fields["text"] if name in row.values), None)
        if key is not None and isinstance(text, str):
            texts[key] = text
    return texts


def _further(builder: Builder, rows: Iterator[RawRow]) -> Iterator[Example]:
    """The usable rows that a limit leaves out, counted nowhere."""
    aside = replace(builder, dropped=Counter(), repaired=Counter())
    for row in rows:
        try:
            example = aside.build(row)
        except RowProblem:
            continue
        if example is not None:
            yield example


def _check_not_placeholder(source: str, task: Task, examples: Iterable[Example]) -> None:
    """Refuse a test split whose labels were withheld (the XTREME download fills in one label for all).

    Reads on until a second label is found.
    """
    labelled = task.kind == "tagging" or task.has_labels or task.kind == "choice"
    if not labelled or (task.labels is not None and len(task.labels) < 2):
        return
    seen: set[str | int | None] = set()
    count = 0
    for example in examples:
        count += 1
        seen |= set(example.tags or ()) if task.kind == "tagging" else {example.label}
        if len(seen) > 1:
            return
    if len(seen) == 1 and count >= _PLACEHOLDER_ROWS:
        raise IsoglossError(
            f"{source}: all {count} rows have the label {next(iter(seen))!r}, as in downloads that "
            "withhold the labels of the test split; put the real labels in."
        )
