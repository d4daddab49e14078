"""What a person reads as the name of a step: what it is, and of the other factors those that tell it from the rest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from isogloss.study.grid import Point
from isogloss.study.steps import Step

Words = Mapping[str, str]
# Factors that are named only where two steps would read the same without them.
_WHERE_NEEDED = ("backbone", "options", "language", "pool", "update", "language_seed", "test", "split")


def point_words(point: Point, short: Mapping[str, str]) -> dict[str, str]:
    """The factors of a point as words; `short` holds a name for each backbone."""
    head, _, options = point.task_module.partition(",")
    return {
        "task": point.task,
        "cell": point.cell,
        "module": head if head != "none" else "",
        "options": options,
        "language": f"over {point.language_module}" if point.language_module else "",
        "backbone": short.get(point.backbone, point.backbone),
        "pool": f"with {point.pool}" if point.pool != "none" else "",
        "update": f"by {point.update}" if point.update != "none" else "",
        "source": "+".join(point.source),
        "shots": f"{point.shots} shots" if point.shots else "",
        "freeze": "" if point.freeze else "unfrozen",
        "seed": f"seed {point.seed}",
        "language_seed": f"language seed {point.language_seed}" if point.language_seed is not None else "",
    }


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The last parts of names (of folders, on the Hub) where they tell them apart, else the whole names."""
    names = list(dict.fromkeys(names))
    ends = [name.rstrip("/").split("/")[-1] for name in names]
    return dict(zip(names, ends if len(set(ends)) == len(ends) else names, strict=True))


def labelled(steps: Mapping[str, Step], words: Mapping[str, Words]) -> dict[str, Step]:
    """Steps with their labels.

    Args:
        steps: By key.
        words: Of each step, in order: factor -> what is shown, empty where there is nothing to show.
    """
    by_kind: dict[str, list[Words]] = {}
    for key, step in steps.items():
        by_kind.setdefault(step.kind, []).append(words[key])
    left_out = {kind: _not_needed(alike) for kind, alike in by_kind.items()}
    return {
        key: replace(
            step,
            label=" ".join(text for name, text in words[key].items() if text and name not in left_out[step.kind]),
        )
        for key, step in steps.items()
    }


def _not_needed(alike: Sequence[Words]) -> set[str]:
    """Factors without which the steps of a kind can still be told apart."""
    out = set(_WHERE_NEEDED)
    groups: dict[tuple[str, ...], list[Words]] = {}
    for words in alike:
        always = tuple(text for name, text in words.items() if name not in out)
        groups.setdefault(always, []).append(words)
    for name in _WHERE_NEEDED:
        if any(len({words.get(name, "") for words in group}) > 1 for group in groups.values()):
            out.discard(name)
    return out
