"""What one choice does with all others held fixed: frozen against unfrozen, a shorter prompt against a longer one."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from isogloss.report.statistics import Estimate, estimate, seed_error
from isogloss.report.study_compare import TaskResult
from isogloss.report.study_data import Factor
from isogloss.report.study_index import Arm

_PROMPT_OPTIONS = ("placement", "length", "reparameterisation")


@dataclass(frozen=True)
class Effect:
    """Two values of one factor, over pairs of settings that differ in nothing else.

    Attributes:
        factor: The factor.
        first: Its value on the one side.
        second: Its value on the other.
        pairs: The settings compared.
        difference: Mean of first - second, points.
        wins: How many of the pairs have the first side higher.
    """

    factor: str
    first: Factor
    second: Factor
    pairs: Sequence[tuple[Arm, Arm]]
    difference: Estimate
    wins: int


def effects_of(result: TaskResult) -> list[Effect]:
    """Effects in the main group. Numeric factors: each value against the next; others: every two values."""
    arms = [one.arm for one in result.main.standings]
    keys = [key for key in dict.fromkeys(key for arm in arms for key in arm.factors) if key != "language_seed"]
    varying = [key for key in keys if len({arm.factors.get(key) for arm in arms}) > 1]
    options = [key for key in varying if key in _PROMPT_OPTIONS]
    if options and _follows(arms, "task_module", "cell", *options):
        # The module's spec says the options of a prompt again; held fixed, it would hold all of them.
        varying = [key for key in varying if key != "task_module"]
    found = []
    for place, key in enumerate(varying):
        # A factor that goes with an earlier one (the spec prompt:20 with length 20) is the same choice said twice.
        if any(_follows(arms, key, other) and _follows(arms, other, key) for other in varying[:place]):
            continue
        rest = [other for other in varying if other != key and not _follows(arms, other, key)]
        matched: dict[tuple[Factor, ...], dict[Factor, Arm]] = defaultdict(dict)
        for arm in arms:
            if arm.factors.get(key) is not None:
                matched[tuple(arm.factors.get(other) for other in rest)].setdefault(arm.factors[key], arm)
        values = list(dict.fromkeys(arm.factors[key] for arm in arms if arm.factors.get(key) is not None))
        numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        if numeric:
            values.sort(key=lambda value: float(value or 0))
            couples = list(pairwise(values))
        else:
            couples = [(a, b) for place, a in enumerate(values) for b in values[place + 1 :]]
        for first, second in couples[:20]:
            pairs = [(side[first], side[second]) for side in matched.values() if first in side and second in side]
            # One pair alone is the comparison of two settings, which stands elsewhere.
            if len(pairs) > 1:
                found.append(_effect(result, key, first, second, pairs))
    return found


def _follows(arms: Sequence[Arm], other: str, *keys: str) -> bool:
    """Whether the values of `keys` fix that of `other`."""
    by_value: dict[tuple[Factor, ...], set[Factor]] = defaultdict(set)
    for arm in arms:
        by_value[tuple(arm.factors.get(key) for key in keys)].add(arm.factors.get(other))
    return all(len(found) == 1 for found in by_value.values())


def _effect(result: TaskResult, key: str, first: Factor, second: Factor, pairs: Sequence[tuple[Arm, Arm]]) -> Effect:
    board, units = result.board, result.main.units
    gaps, by_seed = [], []
    for a, b in pairs:
        one, other = board.mean(a, units), board.mean(b, units)
        assert one is not None and other is not None
        gaps.append(one - other)
        left, right = board.by_seed(a, units), board.by_seed(b, units)
        by_seed.append({seed: left[seed] - right[seed] for seed in left if seed in right})
    shared = sorted(set.intersection(*(set(one) for one in by_seed)))
    seeds = [float(np.mean([one[seed] for one in by_seed])) for seed in shared]
    error = None
    if result.boot is not None:
        row = {arm: place for place, arm in enumerate(board.arms)}
        drawn = np.mean([result.boot[:, row[a]] - result.boot[:, row[b]] for a, b in pairs], axis=0)
        error = None if np.isnan(drawn).any() else float(drawn.std())
    difference = estimate(
        float(np.mean(gaps)),
        examples_error=error,
        examples=result.examples,
        seeds_error=seed_error(seeds)[1] if seeds else None,
        seeds_freedom=len(seeds) - 1,
        seeds=max(1, len(seeds)),
    )
    return Effect(key, first, second, pairs, difference, sum(gap > 0 for gap in gaps))
