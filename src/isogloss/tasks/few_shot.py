"""Few examples per class, drawn so that every run with one seed has the same ones.

The rules are those of "Soft Prompt Tuning for Cross-Lingual Transfer: When Less is More" (arXiv 2402.03782,
its code): train and dev data are first undersampled to the rarest class, then k examples a class are taken
for training and ceil(k / 4) a class for dev, except that k = 32 takes the whole undersampled dev set. That
code drew without a seed; ``legacy_unseeded`` does so too.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from isogloss.errors import IsoglossError
from isogloss.tasks.examples import Example
from isogloss.tasks.task import Task

# The k for which S2 keeps its whole balanced dev set (8 a class in SIB-200, which is also ceil(32 / 4)).
_FULL_DEV = 32


@dataclass(frozen=True)
class FewShot:
    """Sampled train and dev examples; ``per_class`` is k, or 0 where there are no classes."""

    train: list[Example]
    dev: list[Example]
    per_class: int


def _by_class(task: Task, examples: Sequence[Example], what: str) -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = {str(label): [] for label in task.labels or ()}
    for example in examples:
        if example.label is None:
            raise IsoglossError(f"Example {example.id} has no label, so it cannot be drawn per class.")
        groups.setdefault(str(example.label), []).append(example)
    empty = [label for label, group in groups.items() if not group]
    if empty or not groups:
        raise IsoglossError(
            f"The {what} data have no example of the class {empty[0] if empty else 'any'!r}, so no balanced "
            "sample can be drawn; give data of every class."
        )
    return groups


def _random(seed: int, legacy_unseeded: bool) -> random.Random:
    return random.Random() if legacy_unseeded else random.Random(seed)


def undersample(
    task: Task,
    examples: Sequence[Example],
    seed: int = 0,
    *,
    what: str = "training",
    legacy_unseeded: bool = False,
) -> dict[str, list[Example]]:
    """As many examples of every class as the rarest has: label to examples in random order.

    Raises:
        IsoglossError: A class has no example.
    """
    rng = _random(seed, legacy_unseeded)
    groups = _by_class(task, examples, what)
    count = min(map(len, groups.values()))
    # the classes in a fixed order, and the examples too, so that only the seed decides
    return {label: rng.sample(groups[label], count) for label in sorted(groups)}


def dev_size(k: int, full: int) -> int:
    """Dev examples a class for k training examples, where the balanced dev set has ``full`` a class."""
    return full if k == _FULL_DEV else min(math.ceil(k / 4), full)


def few_shot(
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    k: int,
    seed: int = 0,
    *,
    legacy_unseeded: bool = False,
) -> FewShot:
    """Draw k training examples a class and the dev examples that go with them.

    Tagging, QA and retrieval have no classes of examples: k is then the number of examples, with ceil(k / 4)
    for dev. The answer of a multiple choice is no class either.

    Args:
        task: Says whether there are classes.
        train: Examples to draw from.
        dev: Examples to draw the dev set from; may be empty, then so is the sample.
        k: Training examples a class, at least 1.
        seed: Of the draw; different seeds give different samples.
        legacy_unseeded: Ignore the seed, as S2's code does.

    Raises:
        IsoglossError: k is less than 1 or more than the rarest class has.
    """
    if k < 1:
        raise IsoglossError(f"Few-shot: {k} examples a class are too few; give at least 1.")
    if task.kind not in ("classification", "pair-classification"):
        rng = _random(seed, legacy_unseeded)
        if k > len(train):
            raise IsoglossError(f"Few-shot: {k} examples wanted, but the training data have {len(train)}.")
        return FewShot(rng.sample(list(train), k), rng.sample(list(dev), dev_size(k, len(dev))), 0)
    groups = undersample(task, train, seed, legacy_unseeded=legacy_unseeded)
    most = min(map(len, groups.values()))
    if k > most:
        raise IsoglossError(
            f"Few-shot: {k} examples a class wanted, but the rarest class of the training data has {most}; "
            f"give at most {most}."
        )
    rng = _random(seed + 1, legacy_unseeded)
    chosen = [example for group in groups.values() for example in group[:k]]
    rng.shuffle(chosen)
    kept: list[Example] = []
    if dev:
        dev_groups = undersample(task, dev, seed, what="dev", legacy_unseeded=legacy_unseeded)
        size = dev_size(k, min(map(len, dev_groups.values())))
        kept = [example for group in dev_groups.values() for example in group[:size]]
        rng.shuffle(kept)
    return FewShot(chosen, kept, k)
