"""Checkpoints: whole or absent, the two newest kept, tensors as safetensors and the rest as JSON."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.storage import load_tensors, new_folder, read_json, save_tensors, write_json

_FORMAT = 1
_FOLDER = ".checkpoint"
_KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to continue to the same bits.

    Attributes:
        step: Optimiser steps done.
        facts: JSON data: counters, history, numbers of the optimiser, place in the data.
        tensors: Weights, optimiser state and generator state, by name.
        best_step: Step of the best weights so far, if any.
        best: Those weights.
    """

    step: int
    facts: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    best_step: int | None = None
    best: Mapping[str, Tensor] = field(default_factory=dict)


def has_checkpoint(folder: str | Path) -> bool:
    """Returns whether an unfinished (or unsaved) run left checkpoints in this output folder."""
    return any((Path(folder) / _FOLDER).glob("step-*"))


def discard_checkpoints(folder: str | Path) -> None:
    """Deletes the checkpoints of an output folder, to be called when its result is safely written."""
    shutil.rmtree(Path(folder) / _FOLDER, ignore_errors=True)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: The output folder; checkpoints live in its ".checkpoint".
        key: Content key of all that must not change between starts.
        settings: Another one, which checkpoints written before there was one may lack.
    """

    def __init__(self, folder: str | Path, key: str, settings: str = "") -> None:
        self.output, self.place, self._key, self._settings = Path(folder), Path(folder) / _FOLDER, key, settings
        self._best_written: int | None = None
        self.last_step: int | None = None

    def save(self, checkpoint: Checkpoint) -> None:
        """Writes one checkpoint, then deletes what is older than the two newest.

        Raises:
            IsoglossError: The disk is full or the folder cannot be written; earlier checkpoints stay as they
                are.
        """
        try:
            if checkpoint.best_step is not None and checkpoint.best_step != self._best_written:
                save_tensors(self._best(checkpoint.best_step), checkpoint.best)
                _flush(self._best(checkpoint.best_step))
                self._best_written = checkpoint.best_step
            with new_folder(self._step(checkpoint.step), overwrite=True) as folder:
                save_tensors(folder / "tensors.safetensors", checkpoint.tensors)
                head = {
                    "format": _FORMAT,
                    "key": self._key,
                    "settings": self._settings,
                    "step": checkpoint.step,
                    "best_step": checkpoint.best_step,
                }
                write_json(folder / "state.json", {**head, **checkpoint.facts})
                # A rename may reach the disk before the bytes do; after a power cut the folder would be
                # hollow.
                _flush(folder / "tensors.safetensors")
        except (OSError, IsoglossError) as problem:
            self._sweep()
            kept = f"from step {self.last_step}" if self.last_step is not None else "from the start"
            raise IsoglossError(
                f"The checkpoint of step {checkpoint.step} could not be written to '{self.place}' "
                f"({_reason(problem)}); "
                f"make room there and run the same command again (without --overwrite), it continues {kept}."
            ) from problem
        self.last_step = checkpoint.step
        self._prune()

    def load(self) -> Checkpoint | None:
        """Returns the newest whole checkpoint, None without one.

        Raises:
            IsoglossError: It belongs to other settings or data, or all checkpoints are damaged.
        """
        self._sweep()
        damage: IsoglossError | None = None
        for folder in sorted(self.place.glob("step-*"), reverse=True):
            try:
                facts = read_json(folder / "state.json")
                self._check_key(facts)
                best_step = facts["best_step"]
                checkpoint = Checkpoint(
                    step=int(facts["step"]),
                    facts=facts,
                    tensors=load_tensors(folder / "tensors.safetensors"),
                    best_step=best_step,
                    best={} if best_step is None else load_tensors(self._best(best_step)),
                )
            except OtherRunError:
                raise
            except (IsoglossError, KeyError, TypeError) as problem:
                damage = IsoglossError(
                    f"The checkpoint '{folder}' is damaged ({problem}); delete '{self.place}' to start again."
                )
                continue
            self._best_written, self.last_step = checkpoint.best_step, checkpoint.step
            return checkpoint
        if damage is not None:
            raise damage
        return None

    def _check_key(self, facts: Mapping[str, Any]) -> None:
        if facts["format"] != _FORMAT:
            raise OtherRunError(
                f"The checkpoints in '{self.place}' are of format {facts['format']}, this version reads "
                f"{_FORMAT}; delete them or choose another output folder."
            )
        if facts["key"] != self._key or facts.get("settings", self._settings) != self._settings:
            raise OtherRunError(
                f"The checkpoints in '{self.place}' belong to a run with other settings or data; "
                "use the same ones to continue it, or choose another output folder."
            )

    def _step(self, step: int) -> Path:
        return self.place / f"step-{step:010d}"

    def _best(self, step: int) -> Path:
        return self.place / f"best-{step:010d}.safetensors"

    def _sweep(self) -> None:
        # What a killed process was in the middle of writing has a temporary name and is of no use.
        for left in self.place.glob(".*"):
            if left.suffix in (".tmp", ".old"):
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)

    def _prune(self) -> None:
        folders = sorted(self.place.glob("step-*"), reverse=True)
        for old in folders[_KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        try:
            needed = {read_json(folder / "state.json")["best_step"] for folder in folders[:_KEPT]}
        except (IsoglossError, KeyError):
            return  # one of the two is damaged, and which best weights it needs is not known
        names = {self._best(step).name for step in needed if step is not None}
        for best in self.place.glob("best-*.safetensors"):
            if best.name not in names:
                best.unlink(missing_ok=True)


class OtherRunError(IsoglossError):
    """The checkpoint is whole but not ours, so an older one must not be tried."""


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(problem: Exception) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return str(problem).rstrip(".")
