"""Corrections of p-values for many comparisons."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def holm(p: Sequence[float] | Array) -> Array:
    """Adjusted p-values that bound the chance of one wrong finding or more (Holm 1979).

    Args:
        p: [m] p-values; NaN where no test was possible, which is not counted as a comparison.

    Returns:
        [m], in the order of `p`; compare with the level wanted, for example 0.05.
    """
    return _adjust(p, lambda ordered: np.maximum.accumulate(ordered * np.arange(len(ordered), 0, -1)))


def benjamini_hochberg(p: Sequence[float] | Array) -> Array:
    """Adjusted p-values that bound the expected share of wrong ones among the findings (Benjamini and Hochberg 1995).

    Args:
        p: [m] p-values; NaN where no test was possible.

    Returns:
        [m], in the order of `p`.
    """

    def step_up(ordered: Array) -> Array:
        scaled = ordered * len(ordered) / np.arange(1, len(ordered) + 1)
        return np.minimum.accumulate(scaled[::-1])[::-1]

    return _adjust(p, step_up)


def _adjust(p: Sequence[float] | Array, rule: Callable[[Array], Array]) -> Array:
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    places = np.flatnonzero(~np.isnan(values))
    order = places[np.argsort(values[places], kind="stable")]
    adjusted[order] = np.minimum(1.0, rule(values[order]))
    return adjusted
