"""Whether rows that are scored stand in what a task module was trained on: a score on such rows is no test."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.tasks import Example, Task, read_split
from isogloss.tasks.leaks import shared_items


def rows_in_training(
    training: Mapping[str, Any], task: Task, data: str | Path, examples: Sequence[Example]
) -> dict[str, int]:
    """Counts by language the examples that the training data hold too, as texts or, in the same data, as translations.

    The splits that were trained on are read again where they still are; that takes about as long as reading the examples
    did. Of few-shot and limited trainings the whole split counts.

    Args:
        training: What the task module's record says of its training.
        task: With the columns of the training data.
        data: Where the examples are from.
        examples: Of any languages.

    Returns:
        Code to count, without languages that have none.
    """
    counts: dict[str, int] = {}
    for place, same, splits in _places(training, data):
        trained: list[Example] = []
        for language, split in splits:
            trained += _read(place, language, split, task)
        for example in shared_items(trained, examples, same_data=same):
            counts[example.language] = counts.get(example.language, 0) + 1
    return counts


def same_data(one: str | Path, other: str | Path) -> bool:
    """Whether two names mean one data set, as far as names tell."""
    return bool(str(one)) and Path(str(one)).name == Path(str(other)).name


def _places(training: Mapping[str, Any], data: str | Path) -> Iterator[tuple[str | Path, bool, list[tuple[str, str]]]]:
    """What was learned from, the source languages and those of meta-training: place, whether `data` is it, splits."""
    learned = str(training.get("data", ""))
    source = [(code, str(training.get("split") or "train")) for code in training.get("source", ())]
    meta = training.get("meta") or training.get("update") or {}
    other = str(meta.get("data") or learned)
    auxiliary = [(code, str(meta.get("split", "train"))) for code in meta.get("auxiliary", ())]
    for name, splits in ((learned, source), (other, auxiliary)):
        same = same_data(name, data)
        # Nothing is fetched from the Hub for this, unless it is there already for the evaluation.
        if name and splits and (same or Path(name).expanduser().is_dir() or name.startswith("bundled:")):
            yield data if same else name, same, splits


def _read(place: str | Path, language: str, split: str, task: Task) -> list[Example]:
    try:
        return read_split(place, language, split, task, labelled=False, bad_rows="skip")
    except IsoglossError:
        # The data have moved or changed since; then there is nothing to compare with.
        return []


__all__ = ["rows_in_training", "same_data"]
