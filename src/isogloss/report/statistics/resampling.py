"""Paired bootstrap and permutation over test examples, for many systems and test sets in one pass.

Every metric is a function of sums over examples (`metric`), so that a block of resamples is one matrix product. In the
permutation test the two systems of a pair change places on each example with chance one half, with all their seeds, and
where test sets are translations of one another, in all languages at once: what is exchangeable is the sentence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isogloss.report.statistics.metric import Array, Form, score

_BLOCK = 8_000_000
_EXACT = 12
# Number of sentences, and for each test set its place and the sentence of each of its examples.
_Component = tuple[int, list[tuple[int, NDArray[np.int_]]]]


@dataclass(frozen=True)
class ScoredSet:
    """One test set (a source and a language) with what every system did on it.

    Attributes:
        items: [n] names; equal names in different test sets are the same sentence in other languages.
        columns: [systems, seeds, n, k] from `as_columns`; zeros for an absent system.
        present: [systems] whether the system was scored on it.
        form: How the metric is computed from sums of `columns`.
    """

    items: Sequence[str]
    columns: Array
    present: NDArray[np.bool_]
    form: Form


@dataclass(frozen=True)
class Resampled:
    """What resampling found; NaN where a system or pair is not on all test sets.

    Attributes:
        boot: [draws, systems, groups] bootstrap values.
        unit_error: [systems, sets] bootstrap standard error.
        pair_error: [pairs, groups] bootstrap standard error of the difference.
        unit_pair_error: [pairs, sets] the same on single test sets.
        p: [pairs, groups] two-sided p-values of the permutation test.
        unit_p: [pairs, sets] the same on single test sets.
    """

    boot: Array
    unit_error: Array
    pair_error: Array
    unit_pair_error: Array
    p: Array
    unit_p: Array


def resample(
    sets: Sequence[ScoredSet],
    pairs: Sequence[tuple[int, int]],
    groups: Array,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Resampled:
    """Bootstraps all systems and permutes all pairs.

    Args:
        sets: Test sets, all with the same systems.
        pairs: Places of the two systems of each comparison.
        groups: [groups, sets] weights of the test sets in each mean, 0 for those outside it.
        draws: Bootstrap resamples and random permutations; with 12 sentences or fewer all permutations are taken.
        seed: Of the resampling.
    """
    systems = sets[0].columns.shape[0]
    first, second = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
    flat = [_flatten(one) for one in sets]
    components = _components(sets)
    total = sum(size for size, _ in components)
    exact = 2**total if total <= _EXACT else 0
    observed = np.stack(
        [_value(one, np.ones((1, len(one.items))), part)[0] for one, part in zip(sets, flat, strict=True)]
    )
    unit_gap = (observed[:, first] - observed[:, second]).T  # [pairs, sets]
    group_gap = _means(unit_gap, groups)
    boot = np.empty((draws, systems, len(groups)))
    moments = np.zeros((2, systems, len(sets)))
    pair_moments = np.zeros((2, len(pairs), len(sets)))
    beyond, unit_beyond = np.zeros(group_gap.shape), np.zeros(unit_gap.shape)
    generator = np.random.default_rng(seed)
    width = max(part.shape[1] // systems for part in flat) * max(systems, 2 * len(pairs)) + len(pairs) * len(sets)
    block = max(1, min(draws, _BLOCK // max(1, width)))
    for start in range(0, draws, block):
        size = min(block, draws - start)
        values = np.empty((size, systems, len(sets)))
        for count, members in components:
            weights = generator.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
            for place, rows in members:
                values[:, :, place] = _value(sets[place], weights[:, rows], flat[place])
        boot[start : start + size] = _means(values, groups)
        centred = values - observed.T
        moments += np.stack([centred.sum(axis=0), (centred**2).sum(axis=0)])
        gaps = centred[:, first] - centred[:, second]
        pair_moments += np.stack([gaps.sum(axis=0), (gaps**2).sum(axis=0)])
    done = 0
    while done < (exact or draws):
        size = min(block, (exact or draws) - done)
        swapped = np.empty((size, len(pairs), len(sets)))
        for masks, members in _masks(generator, components, size, done if exact else None):
            for place, rows in members:
                swapped[:, :, place] = _swapped(sets[place], masks[:, rows], flat[place], first, second)
        with np.errstate(invalid="ignore"):
            unit_beyond += (np.abs(swapped) >= np.abs(unit_gap) - 1e-9).sum(axis=0)
            beyond += (np.abs(_means(swapped, groups)) >= np.abs(group_gap) - 1e-9).sum(axis=0)
        done += size
    # The observed arrangement is one of the random ones, so that p is never 0 (Phipson and Smyth 2010).
    extra = 0 if exact else 1
    p = np.where(np.isnan(group_gap), np.nan, (beyond + extra) / (done + extra))
    unit_p = np.where(np.isnan(unit_gap), np.nan, (unit_beyond + extra) / (done + extra))
    return Resampled(
        boot,
        _deviation(moments, draws),
        (boot[:, first] - boot[:, second]).std(axis=0),
        _deviation(pair_moments, draws),
        p,
        unit_p,
    )


def _flatten(one: ScoredSet) -> Array:
    """[n, systems * seeds * k]; means need no seeds apart, and so become one column a system."""
    columns = one.columns.mean(axis=1, keepdims=True) if one.form == "mean" else one.columns
    return np.ascontiguousarray(np.moveaxis(columns, 2, 0).reshape(columns.shape[2], -1))


def _value(one: ScoredSet, weights: Array, flat: Array) -> Array:
    """Weights [draws, n] to values [draws, systems]."""
    systems, k = one.columns.shape[0], one.columns.shape[3]
    sums = (weights @ flat).reshape(len(weights), systems, -1, k)
    size = np.maximum(weights.sum(axis=1), 1.0)[:, None, None]
    values: Array = score(one.form, sums, size).mean(axis=-1)
    values[:, ~one.present] = np.nan
    return values


def _swapped(one: ScoredSet, masks: Array, flat: Array, first: NDArray[np.int_], second: NDArray[np.int_]) -> Array:
    """Masks [draws, n] to the difference of each pair after the swap, [draws, pairs]."""
    systems, k = one.columns.shape[0], one.columns.shape[3]
    whole = flat.sum(axis=0).reshape(systems, -1, k)
    moved = (masks @ flat).reshape(len(masks), systems, -1, k)
    change = moved[:, second] - moved[:, first]
    size = float(len(one.items))
    gaps = score(one.form, whole[first] + change, size) - score(one.form, whole[second] - change, size)
    found = gaps.mean(axis=-1)
    found[:, ~(one.present[first] & one.present[second])] = np.nan
    return np.asarray(found)


def _means(values: Array, groups: Array) -> Array:
    """Values [..., sets] to [..., groups]; a set outside a group does not touch it, missing or not."""
    found = [values[..., weights > 0] @ weights[weights > 0] for weights in groups]
    return np.stack(found, axis=-1) if found else np.empty((*values.shape[:-1], 0))


def _deviation(moments: Array, draws: int) -> Array:
    mean = moments[0] / draws
    return np.asarray(np.sqrt(np.maximum(0.0, moments[1] / draws - mean**2)))


def _components(sets: Sequence[ScoredSet]) -> list[_Component]:
    """Test sets that share sentences, each with the number of sentences and the row of each of its examples."""
    groups: list[tuple[dict[str, int], list[int]]] = []
    for place, one in enumerate(sets):
        names = dict.fromkeys(one.items, 0)
        joined, kept = [place], []
        for other, members in groups:
            if names.keys().isdisjoint(other):
                kept.append((other, members))
            else:
                names |= other
                joined = [*members, *joined]
        groups = [*kept, (names, joined)]
    found = []
    for names, members in groups:
        row = {name: number for number, name in enumerate(sorted(names))}
        found.append(
            (len(row), [(place, np.array([row[name] for name in sets[place].items])) for place in sorted(members)])
        )
    return found


def _masks(
    generator: np.random.Generator, components: Sequence[_Component], size: int, start: int | None
) -> Iterator[tuple[Array, list[tuple[int, NDArray[np.int_]]]]]:
    """Which sentences are swapped, by component: random, or the permutations numbered from `start`."""
    before = 0
    for count, members in components:
        if start is None:
            masks = generator.integers(0, 2, (size, count))
        else:
            masks = (np.arange(start, start + size)[:, None] >> np.arange(before, before + count)) & 1
            before += count
        yield masks.astype(np.float64), members


def draws_for(comparisons: int, work: float) -> int:
    """How many draws make a corrected p-value of 0.05 reachable, within the time that a report may take.

    Args:
        comparisons: Tests that are corrected together (Holm).
        work: Numbers touched in one draw.
    """
    wanted = min(20_000, max(2000, 50 * comparisons))
    return int(max(1000, min(wanted, 2e9 / max(1.0, work))))
