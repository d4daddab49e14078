"""Intervals for scores on small test sets."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# 97.5th percentile of the normal distribution.
_Z = 1.959963984540054


def wilson(correct: float, count: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson 1927), in percent.

    Args:
        correct: Number right; the mean over seeds may be fractional.
        count: Number asked, at least 1.
    """
    share, spread = correct / count, _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def bootstrap_mean(
    columns: Sequence[NDArray[np.float64]], *, paired: bool, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of the mean of column means.

    It says how far the number may move on other test examples; it does not cover other languages or other seeds.

    Args:
        columns: For each language, one value an example: right (1) or wrong (0), or a difference of two systems.
        paired: The same examples stand in every column at the same place (parallel data), so an example is drawn
            for all languages at once. Drawing them independently would make the interval too narrow.
        draws: Number of resamples.
        seed: Of the resampling.

    Returns:
        The 2.5th and 97.5th percentile, in the unit of `columns`.
    """
    generator = np.random.default_rng(seed)
    if paired:
        rows = np.stack(columns, axis=1).mean(axis=1)
        means = rows[generator.integers(0, len(rows), (draws, len(rows)))].mean(axis=1)
    else:
        drawn = [column[generator.integers(0, len(column), (draws, len(column)))].mean(axis=1) for column in columns]
        means = np.mean(drawn, axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
