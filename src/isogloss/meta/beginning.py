"""What learning a rule and learning a start have in common: the checks before it, and what is told afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.meta.episodes import check_languages
from isogloss.modules import TransferModule
from isogloss.tasks import Example, Task
from isogloss.tasks.heads import Head
from isogloss.training._processes import launched
from isogloss.training.config import FitResult
from isogloss.training.language_stage import language_of
from isogloss.training.outputs import claim_output


@dataclass(frozen=True)
class Beginning:
    """Checked input: the task with its labels, the languages in order of appearance, and the output folder, claimed."""

    task: Task
    sources: list[str]
    auxiliaries: list[str]
    target: Path

    def outcome(self, result: FitResult, memory: int) -> dict[str, Any]:
        """What both ways return of the training."""
        return {
            "task": self.task.name,
            "steps": result.steps,
            "seconds": round(result.seconds, 1),
            "seconds_a_step": round(result.seconds / max(1, result.steps), 3),
            "memory_estimate": memory,
            "outer_loss": last_loss(result),
            "source": self.sources,
            "auxiliary": self.auxiliaries,
        }


def begin(
    task: Task,
    source: Sequence[Example],
    auxiliary: Sequence[Example],
    targets: Sequence[str],
    language_modules: Sequence[TransferModule],
    out: str | Path,
    *,
    overwrite: bool,
) -> Beginning:
    """Checks the languages and the language modules, then claims the output folder.

    Raises:
        IsoglossError: Languages that do not fit, a missing language module, an occupied output folder.
    """
    sources, auxiliaries = (list(dict.fromkeys(example.language for example in found)) for found in (source, auxiliary))
    if launched():
        # Each process would walk a trajectory of its own, of which checkpoints hold one, and all would write the result.
        raise IsoglossError(
            "Meta-training runs in one process, but a launcher has started several; start `isogloss meta learn` without it."
        )
    if not sources:
        raise IsoglossError("There are no labelled rows of the source; check --data, --source and the split.")
    check_languages(sources, auxiliaries, targets)
    _check_language_modules(language_modules, [*sources, *auxiliaries])
    target = claim_output(out, overwrite=overwrite)
    if task.has_labels and task.labels is None:
        task = task.with_labels_from(source)
    return Beginning(task, sources, auxiliaries, target)


def check_smooth(head: Head, option: str, instead: str) -> None:
    """Refuses a head whose loss has no second derivative (the chunked cross-entropy over the vocabulary has none)."""
    if head.name not in ("linear", "span"):
        raise IsoglossError(
            f"{option}: the head '{head.name}' scores words by a kernel that has no second derivative; use {instead} or a "
            "linear head."
        )


def last_loss(result: FitResult) -> float | None:
    """The outer loss at the end."""
    return result.history[-1]["loss"] if result.history else None


def _check_language_modules(modules: Sequence[TransferModule], codes: Sequence[str]) -> None:
    there = [language_of(module) for module in modules]
    lacking = [code for code in codes if code not in there]
    if modules and lacking:
        raise IsoglossError(
            f"--language-module: there is none for {lacking[0]}; give one for every source and auxiliary language, or none."
        )
