"""Means, intervals and differences of cells over languages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isogloss.report.intervals import bootstrap_mean

Correct = Mapping[str, NDArray[np.float64]]


def mean_and_interval(correct: Correct, languages: Sequence[str], *, paired: bool) -> tuple[float, list[float]]:
    """Mean over languages in percent, and its 95% bootstrap interval.

    Args:
        correct: By language, one value an example, 0 to 1 (or a difference of two such).
        languages: Over which to take the mean.
        paired: See `bootstrap_mean`.
    """
    columns = [100 * correct[code] for code in languages]
    mean = float(np.mean([column.mean() for column in columns]))
    return mean, list(bootstrap_mean(columns, paired=paired))


def differences(
    correct: Mapping[str, Correct], against: Mapping[str, str], languages: Sequence[str], *, paired: bool
) -> dict[str, dict[str, Any]]:
    """Gain of cells over other cells on the same examples.

    Args:
        correct: By cell and language.
        against: Cell -> the cell it is compared with; pairs that were not both run are left out.
        languages: Over which to take the mean.
        paired: See `bootstrap_mean`.
    """
    found = {}
    for name, other in against.items():
        if name in correct and other in correct:
            gain = {code: correct[name][code] - correct[other][code] for code in languages}
            mean, interval = mean_and_interval(gain, languages, paired=paired)
            found[name] = {"against": other, "difference": mean, "interval": interval}
    return found
