"""Pearson, Spearman and partial correlation with intervals; missing values are left out, never filled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
_Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Correlation:
    """A correlation coefficient.

    Attributes:
        r: The coefficient; None where it is not defined (fewer than three points, or one side constant).
        low: Lower end of the 95% interval, or None.
        high: Upper end.
        p: Two-sided p-value of no correlation (t-test), or None.
        n: Points used.
        interval: How the interval was made: `Fisher`, `bootstrap` or nothing.
    """

    r: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int = 0
    interval: str = ""


def correlate(
    x: Sequence[float],
    y: Sequence[float],
    *,
    ranks: bool = False,
    blocks: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Correlation of two columns.

    With one block the interval is Fisher's (for ranks with Bonett and Wright's error, 2000). With several blocks both
    columns are centred within each block, since sources differ in level, and the interval comes from a bootstrap over
    clusters, since the points of one target language are not independent; there is no p-value then.

    Args:
        x: [n]; NaN is missing.
        y: [n]; NaN is missing.
        ranks: Spearman's (ranks within each block) instead of Pearson's.
        blocks: [n], for example the source of each point.
        clusters: [n], for example the target of each point.
        draws: Bootstrap resamples.
        seed: Of the bootstrap.
    """
    return partial_correlation(x, y, [], ranks=ranks, blocks=blocks, clusters=clusters, draws=draws, seed=seed)


def partial_correlation(
    x: Sequence[float],
    y: Sequence[float],
    controls: Sequence[Sequence[float]],
    *,
    ranks: bool = False,
    blocks: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Correlation of what is left of two columns after a linear fit of the controls is taken out of both.

    Args:
        x: See `correlate`.
        y: See `correlate`.
        controls: Columns of [n] each; for `ranks` their ranks are used.
        ranks: See `correlate`.
        blocks: See `correlate`.
        clusters: See `correlate`.
        draws: See `correlate`.
        seed: See `correlate`.
    """
    columns = np.array([x, y, *controls], dtype=np.float64)
    known: NDArray[np.bool_] = np.asarray(~np.isnan(columns).any(axis=0))
    n = int(known.sum())
    group = _names(blocks, known, "one")
    columns = _prepared(columns[:, known], group, ranks)
    r = _defined(_coefficients(columns, group, np.ones((1, n)))[0])
    taken = len(np.unique(group)) - 1 + len(controls)
    if r is None:
        return Correlation(None, n=n)
    if len(np.unique(group)) > 1:
        units = _names(clusters, known, None)
        low, high = _percentiles(_coefficients(columns, group, _cluster_weights(units, draws, seed)))
        return Correlation(r, low, high, None, n, "bootstrap" if low is not None else "")
    freedom = n - 2 - taken
    if freedom < 1:
        return Correlation(r, n=n)
    p = 0.0 if abs(r) >= 1 else float(2 * stats.t.sf(abs(r) * math.sqrt(freedom / (1 - r * r)), freedom))
    if freedom < 2 or abs(r) >= 1:
        return Correlation(r, p=p, n=n)
    error = math.sqrt((1 + r * r / 2 if ranks else 1.0) / (freedom - 1))
    centre = math.atanh(r)
    return Correlation(r, math.tanh(centre - _Z * error), math.tanh(centre + _Z * error), p, n, "Fisher")


def correlation_difference(
    x: Sequence[float],
    first: Sequence[float],
    second: Sequence[float],
    *,
    blocks: Sequence[str] | None = None,
    clusters: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Correlation:
    """Pearson's r(x, first) - r(x, second) on the same points, with a bootstrap interval over points or clusters.

    Says whether, for example, freezing weakens the pull of distance. `r` holds the difference, which lies in -2..2.

    Args:
        x: [n], shared by both.
        first: [n].
        second: [n].
        blocks: See `correlate`.
        clusters: See `correlate`.
        draws: Bootstrap resamples.
        seed: Of the bootstrap.
    """
    columns = np.array([x, first, second], dtype=np.float64)
    known: NDArray[np.bool_] = np.asarray(~np.isnan(columns).any(axis=0))
    n = int(known.sum())
    group = _names(blocks, known, "one")
    units = _names(clusters, known, None)
    columns = _prepared(columns[:, known], group, False)

    def difference(weights: Array) -> Array:
        return _coefficients(columns[[0, 1]], group, weights) - _coefficients(columns[[0, 2]], group, weights)

    value = _defined(difference(np.ones((1, n)))[0])
    if value is None:
        return Correlation(None, n=n)
    low, high = _percentiles(difference(_cluster_weights(units, draws, seed)))
    return Correlation(value, low, high, None, n, "bootstrap" if low is not None else "")


def _names(given: Sequence[str] | None, known: NDArray[np.bool_], otherwise: str | None) -> NDArray[np.str_]:
    """The names of the points that are used; without names one for all, or one for each."""
    names = given if given is not None else [otherwise or str(place) for place in range(known.size)]
    return np.asarray(list(names), dtype=np.str_)[known]


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _prepared(columns: Array, group: NDArray[np.str_], ranks: bool) -> Array:
    """Ranks or values, centred within each block and scaled, for sums that lose no digits."""
    prepared = columns.copy()
    for name in np.unique(group):
        rows = group == name
        part = stats.rankdata(prepared[:, rows], axis=1) if ranks else prepared[:, rows]
        prepared[:, rows] = part - part.mean(axis=1, keepdims=True)
    # What is left of a constant after centring is rounding error, not variation.
    noise = np.abs(prepared) <= 1e-12 * np.maximum(1.0, np.abs(columns).max(axis=1, initial=0.0))[:, None]
    prepared[noise] = 0.0
    return np.asarray(prepared / np.maximum(np.sqrt((prepared**2).sum(axis=1)), 1e-300)[:, None])


def _coefficients(columns: Array, group: NDArray[np.str_], weights: Array) -> Array:
    """Correlation of the first two of [2 + controls, n] given the others, for each row of weights [draws, n].

    Weighted means are taken out within each block. NaN where undefined.
    """
    size = len(columns)
    covariance = np.zeros((len(weights), size, size))
    for name in np.unique(group):
        rows = group == name
        part, share = columns[:, rows], weights[:, rows]
        total = np.maximum(share.sum(axis=1), 1e-300)[:, None, None]
        sums = share @ part.T
        products = np.einsum("an,bn->nab", part, part).reshape(int(rows.sum()), -1)
        covariance += (share @ products).reshape(-1, size, size) - sums[:, :, None] * sums[:, None, :] / total
    top = covariance[:, :2, :2]
    if size > 2:
        cross = covariance[:, :2, 2:]
        top = top - cross @ np.linalg.pinv(covariance[:, 2:, 2:], rcond=1e-10, hermitian=True) @ cross.transpose(
            0, 2, 1
        )
    variance = top[:, 0, 0] * top[:, 1, 1]
    fit = (top[:, 0, 0] > 1e-12) & (top[:, 1, 1] > 1e-12) & ((weights > 0).sum(axis=1) >= 3)
    return np.where(fit, np.clip(top[:, 0, 1] / np.sqrt(np.where(fit, variance, 1.0)), -1, 1), np.nan)


def _cluster_weights(units: NDArray[np.str_], draws: int, seed: int) -> Array:
    """How often each point is drawn when whole clusters are drawn with replacement, [draws, n]."""
    _, member = np.unique(units, return_inverse=True)
    count = int(member.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), draws)
    return np.asarray(drawn[:, member], dtype=np.float64)


def _percentiles(values: Array) -> tuple[float, float] | tuple[None, None]:
    kept = values[~np.isnan(values)]
    if len(kept) < len(values) / 2:
        return None, None
    low, high = np.percentile(kept, [2.5, 97.5])
    return float(low), float(high)
