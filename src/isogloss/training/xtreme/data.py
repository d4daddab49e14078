"""Where the suite's data are: the folder of each task, its English training rows, and what tells these data from others."""

from collections.abc import Sequence
from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.storage import file_digest
from isogloss.tasks import available, canonical_split, split_of_file, splits
from isogloss.training.xtreme.settings import SUITE, SuiteTask, TrainData

ENGLISH = "eng_Latn"


class NothingToScoreError(IsoglossError):
    """Of a task, or of a language of it, nothing can be scored, as in downloads that withhold the labels."""


def check_names(names: Sequence[str]) -> None:
    """Refuses names of tasks that the suite does not have.

    Raises:
        IsoglossError: Names the first one.
    """
    unknown = [name for name in names if name not in SUITE]
    if unknown:
        raise IsoglossError(f"--tasks {unknown[0]}: the suite has no such task; it has {', '.join(SUITE)}.")


def find_data(root: str | Path, names: Sequence[str] = ()) -> dict[str, Path]:
    """The suite's tasks that have a folder below `root`.

    Args:
        root: The suite's data folder.
        names: Tasks that must be there; empty takes those that are.

    Raises:
        IsoglossError: No such folder, an unknown task, a task without its folder, or none at all.
    """
    place = Path(root).expanduser()
    if not place.is_dir():
        raise IsoglossError(
            f"--data {root}: there is no such folder; expected one with {', '.join(SUITE)} in it, or hub:xtreme."
        )
    check_names(names)
    found = {}
    for name in names or SUITE:
        folder = next((place / folder for folder in SUITE[name].folders if (place / folder).is_dir()), None)
        if folder is not None:
            found[name] = folder
        elif names:
            raise IsoglossError(f"--tasks {name}: '{place}' has no folder {' or '.join(SUITE[name].folders)}.")
    if not found:
        raise IsoglossError(f"--data {root}: none of the suite's folders is there ({', '.join(SUITE)}).")
    return found


def train_data(item: SuiteTask, root: Path) -> tuple[Path, TrainData]:
    """The first training data that are there in English.

    Raises:
        IsoglossError: None are.
    """
    for place in item.train:
        folder = root / place.folder
        if folder.is_dir() and ENGLISH in available(folder):
            there = map(canonical_split, splits(folder, ENGLISH))
            if place.split in there:
                return folder, place
    wanted = " or ".join(dict.fromkeys(f"{place.folder}/en/{place.split}" for place in item.train))
    raise IsoglossError(f"The task {item.name} has no English training rows below '{root}'; expected {wanted}.")


def dev_folder(root: Path, place: TrainData) -> Path | None:
    """The folder whose English `dev` split selects the weights; None where there is no such split to be had."""
    # Rows that are trained on select nothing, and TyDiQA is scored on its development split: that would be choosing by the test.
    if place.split != "train" or place.folder in ("tydiqa-goldp", "tydiqa"):
        return None
    wanted = [root / name for name in (place.dev, place.folder) if name]
    return next((folder for folder in wanted if folder.is_dir() and has_split(folder, ENGLISH, "dev")), None)


def has_split(folder: Path, code: str, split: str) -> bool:
    """Whether a language of a folder has a split, under any usual name of it."""
    return split in map(canonical_split, splits(folder, code))


def tested_split(item: SuiteTask, folder: Path) -> str:
    """The split of a task's folder that is scored.

    Raises:
        IsoglossError: It has none.
    """
    split = next(
        (name for name in item.splits if any(has_split(folder, code, name) for code in available(folder))), None
    )
    if split is None:
        raise IsoglossError(f"The task {item.name} has no split {' or '.join(item.splits)} in '{folder}'.")
    return split


def digests(item: SuiteTask, root: Path, folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a task's scores come from, by its path below `root`.

    Args:
        item: The task.
        root: The suite's data folder.
        folder: The task's.

    Raises:
        IsoglossError: Training rows or the tested split are missing.
    """
    if item.name == "bucc":
        files = [path for path in folder.rglob("*-en.*") if path.is_file()]
    else:
        files = _files(folder, list(available(folder)), {tested_split(item, folder)})
    if item.train:
        source, place = train_data(item, root)
        files += _files(source, [ENGLISH], {place.split, "dev"})
        if (dev := dev_folder(root, place)) is not None:
            files += _files(dev, [ENGLISH], {"dev"})
    return {path.relative_to(root).as_posix(): file_digest(path) for path in sorted(set(files))}


def _files(folder: Path, codes: Sequence[str], wanted: set[str]) -> list[Path]:
    """Files of some splits of some languages."""
    names = available(folder)
    return [
        file
        for code in codes
        for file in (folder / names[code]).iterdir()
        if (split := split_of_file(file)) is not None and canonical_split(split) in wanted
    ]
