"""Means with intervals that cover both the test examples and the seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A number and how far it may be off.

    Attributes:
        value: The mean over seeds.
        low: Lower end of the 95% interval; None where nothing is known about the spread.
        high: Upper end.
        sd: Standard deviation over seeds (n - 1); None for one seed.
        seeds: Number of seeds.
        covers: What the interval covers: `examples and seeds`, `examples`, `seeds`, or nothing.
    """

    value: float
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    seeds: int = 1
    covers: str = ""


def seed_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean over seeds and its standard error s / sqrt(n); None for one seed."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    return mean, float(np.std(values, ddof=1)) / math.sqrt(len(values))


def paired_seed_error(a: dict[int, float], b: dict[int, float]) -> tuple[float | None, int]:
    """Standard error over seeds of the difference of two means, and its degrees of freedom.

    Runs with the same seeds share their few-shot sample and data order, so their differences are taken seed by seed;
    otherwise the two errors are added (Welch).

    Args:
        a: Value by seed.
        b: Value by seed.

    Returns:
        None and 0 when a side has one seed only.
    """
    if len(a) < 2 or len(b) < 2:
        return None, 0
    if set(a) == set(b):
        differences = [a[seed] - b[seed] for seed in a]
        return seed_error(differences)[1], len(a) - 1
    parts = [(float(np.var(list(side.values()), ddof=1)) / len(side), len(side) - 1) for side in (a, b)]
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, min(freedom for _, freedom in parts)
    freedom = total**2 / sum(variance**2 / degrees for variance, degrees in parts)
    return math.sqrt(total), max(1, int(freedom))


def estimate(
    value: float,
    *,
    examples_error: float | None,
    examples: int,
    seeds_error: float | None,
    seeds_freedom: int,
    sd: float | None = None,
    seeds: int = 1,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """The 95% interval from the two independent errors, with Satterthwaite's degrees of freedom.

    The part of the error that comes from seeds on these very examples is in both errors, so the interval is rather
    too wide than too narrow.

    Args:
        value: The number.
        examples_error: Standard error over test examples (bootstrap), or None.
        examples: Their number.
        seeds_error: Standard error over seeds, or None.
        seeds_freedom: Its degrees of freedom.
        sd: Standard deviation over seeds, carried through.
        seeds: Number of seeds, carried through.
        bounds: Where the number can lie.
    """
    parts = [
        (error, freedom, name)
        for error, freedom, name in (
            (examples_error, examples - 1, "examples"),
            (seeds_error, seeds_freedom, "seeds"),
        )
        if error is not None and freedom > 0
    ]
    if not parts:
        return Estimate(value, sd=sd, seeds=seeds)
    variance = sum(error**2 for error, _, _ in parts)
    spread = sum(error**4 / freedom for error, freedom, _ in parts)
    half = float(stats.t.ppf(0.975, variance**2 / spread)) * math.sqrt(variance) if spread > 0 else 0.0
    low, high = max(bounds[0], value - half), min(bounds[1], value + half)
    return Estimate(value, low, high, sd, seeds, " and ".join(name for _, _, name in parts))


def seeds_p(difference: float, error: float | None, freedom: int) -> float | None:
    """Two-sided p-value of the t-test that seeds alone make the difference; None where it cannot be done.

    Args:
        difference: Mean over seeds.
        error: Its standard error over seeds, or None.
        freedom: Degrees of freedom of the error.
    """
    if error is None or freedom < 1:
        return None
    if error == 0:
        return None if difference else 1.0
    return float(2 * stats.t.sf(abs(difference) / error, freedom)) if math.isfinite(error) else None
