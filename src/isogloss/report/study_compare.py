"""Which setting is best on a task and group of languages, by how much, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from isogloss.report.statistics import (
    Estimate,
    Resampled,
    ScoredSet,
    benjamini_hochberg,
    draws_for,
    estimate,
    holm,
    paired_seed_error,
    resample,
    seed_error,
    seeds_p,
)
from isogloss.report.study_data import StudyData
from isogloss.report.study_groups import Group, groups_of
from isogloss.report.study_index import Arm, Board, Unit, backbone_of, own
from isogloss.report.study_sets import aligned_sets

LEVEL = 0.05


@dataclass(frozen=True)
class Standing:
    """A setting's place in a group.

    Attributes:
        arm: The setting.
        estimate: Its mean over the group's test sets.
        best: Share of resamples (examples and seeds) in which it is the best one; None without a spread.
    """

    arm: Arm
    estimate: Estimate
    best: float | None


@dataclass(frozen=True)
class Pair:
    """Two settings on the same test sets.

    Attributes:
        first: The one whose surplus is meant.
        second: The other.
        difference: first - second.
        p: Permutation test over examples, or a t-test over seeds where there are no per-example results; None where
            neither is possible.
        adjusted: `p` after Holm over all pairs of the group.
        fdr: `p` after Benjamini and Hochberg over the same.
        test: `permutation` or `seeds`.
        sets: Number of test sets.
    """

    first: Arm
    second: Arm
    difference: Estimate
    p: float | None
    adjusted: float | None
    fdr: float | None
    test: str
    sets: int

    @property
    def ran_higher(self) -> bool:
        """Whether the trained models differ on such examples, whatever other seeds would do."""
        return self.adjusted is not None and self.adjusted < LEVEL

    @property
    def surer(self) -> bool:
        """Whether the two can be told apart: after correction, and with an interval that leaves 0 out."""
        interval = self.difference
        apart = interval.low is not None and interval.high is not None and (interval.low > 0 or interval.high < 0)
        return apart and self.ran_higher


@dataclass(frozen=True)
class GroupResult:
    """A task's settings on a group of languages.

    Attributes:
        group: The group.
        units: Test sets that every ranked setting has; means and tests are over these.
        left_out: Languages of the group that are not among them.
        standings: Ranked settings, best first.
        unranked: Settings that lack too much, with their mean over what they have and the languages they lack.
        pairs: All pairs of ranked settings, the better one first.
    """

    group: Group
    units: Sequence[Unit]
    left_out: Sequence[str]
    standings: Sequence[Standing]
    unranked: Sequence[tuple[Arm, float | None, Sequence[str]]]
    pairs: Sequence[Pair]

    def rivals(self) -> list[Arm]:
        """Settings that cannot be told apart from the best one."""
        best = self.standings[0].arm
        beaten = {pair.second for pair in self.pairs if pair.first == best and pair.surer}
        return [one.arm for one in self.standings[1:] if one.arm not in beaten]


@dataclass(frozen=True)
class TaskResult:
    """Everything found about one task.

    Attributes:
        board: Its scores.
        groups: By group of languages.
        by_unit: All pairs on single test sets, corrected together by Benjamini and Hochberg; one list a test set.
        gaps: Source score minus zero-shot mean, by setting.
        draws: Resamples taken; 0 where no test over examples was possible.
        notes: What could not be used, in sentences.
        boot: [draws, settings] bootstrap values of the main group; None where that was not possible.
        examples: Examples of the smallest test set in the main group; 0 where unknown.
    """

    board: Board
    groups: Sequence[GroupResult]
    by_unit: dict[Unit, Sequence[Pair]]
    gaps: Sequence[tuple[Arm, Estimate]]
    draws: int
    notes: Sequence[str]
    boot: NDArray[np.float64] | None = None
    examples: int = 0

    def group(self, name: str) -> GroupResult | None:
        """The group of that name, or the one of the same languages under another name; None if it has none."""
        return next((one for one in self.groups if name in (one.group.name, *one.group.also)), None)

    @property
    def main(self) -> GroupResult:
        """The group that the summary speaks of: zero-shot languages, or all where there are none."""
        return self.groups[0]


def compare(board: Board, data: StudyData, *, draws: int | None = None, seed: int = 0) -> TaskResult:
    """Compares all settings of a task, by group and by test set."""
    plans = [_plan(board, group) for group in groups_of(board, data)]
    plans = [plan for plan in plans if plan[1] and plan[2]]
    sets, notes = aligned_sets(board)
    units = [unit for unit in board.units if unit in sets]
    pairs = list(combinations(range(len(board.arms)), 2))
    source_units = [unit for unit in board.units if own(unit)]
    sampled = None
    taken = 0
    if units:
        width = max(one.columns.shape[1] * one.columns.shape[3] for one in sets.values())
        taken = draws or draws_for(len(pairs), 2.0 * max(1, len(pairs)) * len(units) * width)
        weights = np.zeros((len(plans), len(units)))
        for row, (_, used, _, _) in enumerate(plans):
            # A group whose test sets cannot all be resampled has no weights, and so no result over examples.
            if all(unit in sets for unit in used):
                for unit in used:
                    weights[row, units.index(unit)] = 1 / len(used)
        sampled = resample([sets[unit] for unit in units], pairs, weights, draws=taken, seed=seed)
    examples = _examples(plans[0][1], sets)
    found = [_group(board, plan, place, sampled, pairs, sets, seed) for place, plan in enumerate(plans)]
    return TaskResult(
        board,
        found,
        _by_unit(board, units, sampled, pairs, sets),
        _gaps(board, found, sampled, sets) if source_units else [],
        taken,
        notes,
        sampled.boot[:, :, 0] if sampled is not None and examples else None,
        examples,
    )


_Plan = tuple[Group, list[Unit], list[Arm], list[Arm]]


def _plan(board: Board, group: Group) -> _Plan:
    """The test sets that all ranked settings share, the ranked settings, and the others."""
    arms = [arm for arm in board.arms if group.backbone in (None, backbone_of(arm))]
    has = {arm: [unit for unit in group.units if (arm.name, unit) in board.scores] for arm in arms}
    # A setting with less than half of what the fullest one has would leave too little to compare the others on.
    most = max((len(units) for units in has.values()), default=0)
    ranked = [arm for arm in arms if has[arm] and len(has[arm]) >= most / 2]
    common = [unit for unit in group.units if all(unit in has[arm] for arm in ranked)]
    while ranked and not common:
        ranked.remove(min(ranked, key=lambda arm: len(has[arm])))
        common = [unit for unit in group.units if all(unit in has[arm] for arm in ranked)]
    return group, common, ranked, [arm for arm in arms if arm not in ranked]


def _group(
    board: Board,
    plan: _Plan,
    place: int,
    sampled: Resampled | None,
    pairs: Sequence[tuple[int, int]],
    sets: dict[Unit, ScoredSet],
    seed: int,
) -> GroupResult:
    group, units, ranked, others = plan
    number = {arm: row for row, arm in enumerate(board.arms)}
    examples = _examples(units, sets)
    boot = sampled.boot[:, :, place] if sampled is not None and examples else None
    by_seed = {arm: board.by_seed(arm, units) for arm in ranked}
    standings = []
    drawn = []
    generator = np.random.default_rng(seed + 1)
    for arm in ranked:
        value = board.mean(arm, units)
        assert value is not None
        error = _known(boot[:, number[arm]].std()) if boot is not None else None
        seeds_error = seed_error(list(by_seed[arm].values()))[1] if by_seed[arm] else None
        standings.append(Standing(arm, _estimate(value, error, examples, seeds_error, by_seed[arm]), None))
        noise = np.zeros(2000)
        if seeds_error is not None:
            # Student's t, as in the intervals: from few seeds their spread is itself uncertain.
            noise = seeds_error * generator.standard_t(len(by_seed[arm]) - 1, 2000)
        centred = np.zeros(2000)
        if boot is not None and error is not None:
            centred = boot[np.arange(2000) % len(boot), number[arm]] - value
        drawn.append(value + centred + noise)
    if any(one.estimate.low is not None for one in standings):
        table = np.stack(drawn)
        highest = np.isclose(table, table.max(axis=0), rtol=0, atol=1e-9)
        # Settings that are level in a resample share it.
        best = (highest / highest.sum(axis=0)).mean(axis=1)
        standings = [Standing(one.arm, one.estimate, float(best[row])) for row, one in enumerate(standings)]
    standings.sort(key=lambda one: -one.estimate.value)
    return GroupResult(
        group,
        units,
        list(dict.fromkeys(language for unit in group.units if unit not in units for language in [unit[1]])),
        standings,
        [
            (
                arm,
                board.mean(arm, group.units),
                [language for source, language in group.units if (arm.name, (source, language)) not in board.scores],
            )
            for arm in others
        ],
        _pairs(board, [one.arm for one in standings], units, place, sampled, pairs, examples, by_seed),
    )


def _pairs(
    board: Board,
    order: Sequence[Arm],
    units: Sequence[Unit],
    place: int,
    sampled: Resampled | None,
    pairs: Sequence[tuple[int, int]],
    examples: int,
    by_seed: dict[Arm, dict[int, float]],
) -> list[Pair]:
    number = {arm: row for row, arm in enumerate(board.arms)}
    row_of = {pair: row for row, pair in enumerate(pairs)}
    raw = []
    for first, second in combinations(order, 2):
        row = row_of[min(number[first], number[second]), max(number[first], number[second])]
        usable = sampled is not None and examples > 0
        error = _known(sampled.pair_error[row, place]) if sampled is not None and usable else None
        p = _known(sampled.p[row, place]) if sampled is not None and usable else None
        raw.append((first, second, error, p))
    return _adjusted(board, raw, units, examples, by_seed)


def _adjusted(
    board: Board,
    raw: Sequence[tuple[Arm, Arm, float | None, float | None]],
    units: Sequence[Unit],
    examples: int,
    by_seed: dict[Arm, dict[int, float]],
) -> list[Pair]:
    found = []
    for first, second, error, given in raw:
        a, b = board.mean(first, units), board.mean(second, units)
        assert a is not None and b is not None
        seeds_error, freedom = paired_seed_error(by_seed[first], by_seed[second])
        p, test = given, "permutation"
        if p is None:
            p, test = seeds_p(a - b, seeds_error, freedom), "seeds"
        difference = estimate(
            a - b, examples_error=error, examples=examples, seeds_error=seeds_error, seeds_freedom=freedom,
            seeds=min(len(by_seed[first]), len(by_seed[second])) or 1,
        )  # fmt: skip
        found.append((first, second, difference, p, test))
    values = [np.nan if p is None else p for *_, p, _ in found]
    strict, lenient = holm(values), benjamini_hochberg(values)
    return [
        Pair(
            first,
            second,
            difference,
            p,
            _known(strict[row]),
            _known(lenient[row]),
            test if p is not None else "",
            len(units),
        )
        for row, (first, second, difference, p, test) in enumerate(found)
    ]


def _by_unit(
    board: Board,
    units: Sequence[Unit],
    sampled: Resampled | None,
    pairs: Sequence[tuple[int, int]],
    sets: dict[Unit, ScoredSet],
) -> dict[Unit, Sequence[Pair]]:
    found: list[tuple[Unit, Pair]] = []
    for unit in board.units:
        by_seed = {arm: board.by_seed(arm, [unit]) for arm in board.arms}
        column = units.index(unit) if unit in units else -1
        raw = []
        for row, (a, b) in enumerate(pairs):
            first, second = board.arms[a], board.arms[b]
            if (first.name, unit) in board.scores and (second.name, unit) in board.scores:
                usable = sampled is not None and column >= 0
                error = _known(sampled.unit_pair_error[row, column]) if sampled is not None and usable else None
                p = _known(sampled.unit_p[row, column]) if sampled is not None and usable else None
                raw.append((first, second, error, p))
        found += [(unit, pair) for pair in _adjusted(board, raw, [unit], _examples([unit], sets), by_seed)]
    # On single test sets the question is where, not whether anywhere: all of them are corrected together.
    lenient = benjamini_hochberg([np.nan if pair.p is None else pair.p for _, pair in found])
    by_unit: dict[Unit, list[Pair]] = {unit: [] for unit in board.units}
    for (unit, pair), value in zip(found, lenient, strict=True):
        by_unit[unit].append(
            Pair(pair.first, pair.second, pair.difference, pair.p, _known(value), _known(value), pair.test, 1)
        )
    return dict(by_unit)


def _gaps(
    board: Board, groups: Sequence[GroupResult], sampled: Resampled | None, sets: dict[Unit, ScoredSet]
) -> list[tuple[Arm, Estimate]]:
    """How much is lost on the way from the source to the zero-shot languages."""
    at = {one.group.name: place for place, one in enumerate(groups)}
    if "source" not in at or "zero-shot" not in at:
        return []
    source, target = groups[at["source"]], groups[at["zero-shot"]]
    shared = [one.arm for one in target.standings if one.arm in {other.arm for other in source.standings}]
    examples = min(_examples(source.units, sets), _examples(target.units, sets))
    found = []
    for arm in shared:
        near, far = board.mean(arm, source.units), board.mean(arm, target.units)
        assert near is not None and far is not None
        error = None
        if sampled is not None and examples:
            row = list(board.arms).index(arm)
            error = _known((sampled.boot[:, row, at["source"]] - sampled.boot[:, row, at["zero-shot"]]).std())
        one, other = board.by_seed(arm, source.units), board.by_seed(arm, target.units)
        gaps = [one[seed] - other[seed] for seed in one if seed in other]
        seeds_error = seed_error(gaps)[1] if gaps else None
        found.append(
            (
                arm,
                estimate(
                    near - far, examples_error=error, examples=examples, seeds_error=seeds_error,
                    seeds_freedom=len(gaps) - 1, sd=float(np.std(gaps, ddof=1)) if len(gaps) > 1 else None,
                    seeds=max(1, len(gaps)),
                ),
            )
        )  # fmt: skip
    return found


def _examples(units: Sequence[Unit], sets: dict[Unit, ScoredSet]) -> int:
    """The smallest number of examples among the test sets; 0 when one cannot be resampled."""
    return min((len(sets[unit].items) if unit in sets else 0 for unit in units), default=0)


def _known(value: float | NDArray[np.float64]) -> float | None:
    number = float(value)
    return None if np.isnan(number) else number


def _estimate(
    value: float, error: float | None, examples: int, seeds_error: float | None, by_seed: dict[int, float]
) -> Estimate:
    values = list(by_seed.values())
    return estimate(
        value,
        examples_error=error,
        examples=examples,
        seeds_error=seeds_error,
        seeds_freedom=len(values) - 1,
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        seeds=max(1, len(values)),
        bounds=(0.0, 100.0),
    )
