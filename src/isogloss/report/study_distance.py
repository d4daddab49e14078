"""How scores go with the distance from the source and with the backbone's pre-training text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from isogloss.languages import DISTANCE_KINDS, distances
from isogloss.report.statistics import (
    Correlation,
    benjamini_hochberg,
    correlate,
    correlation_difference,
    partial_correlation,
)
from isogloss.report.study_data import StudyData
from isogloss.report.study_index import (
    Arm,
    Board,
    Unit,
    backbone_of,
    frozen_of,
    language_of,
    shares_of,
    sources_in,
)

SHARE = "log share"
PREDICTORS = (*DISTANCE_KINDS, SHARE)


@dataclass(frozen=True)
class Link:
    """A setting's scores against one predictor, over languages.

    Attributes:
        arm: The setting.
        predictor: A kind of distance, or `log share`.
        pearson: Of the raw columns.
        spearman: Of their ranks.
        partial: Pearson's, with the log share taken out of a distance and the featural distance out of the share; None
            without shares.
        fdr: Pearson's p-value after Benjamini and Hochberg over all links of the task.
    """

    arm: Arm
    predictor: str
    pearson: Correlation
    spearman: Correlation
    partial: Correlation | None
    fdr: float | None


@dataclass(frozen=True)
class Links:
    """All links of a task.

    Attributes:
        board: Its scores.
        units: Test sets used: the zero-shot ones, whose language no setting was trained on or chosen by.
        columns: Distances by kind, in the order of `units`; NaN where unknown.
        shares: Log shares by setting, each of its own backbone, in the order of `units`; NaN where unknown.
        values: Scores by setting, in the order of `units`; NaN where missing.
        links: By setting and predictor.
        freezing: By predictor, Pearson's r of the frozen settings' mean score, that of the unfrozen ones', and the first
            minus the second.
        missing: Languages without a distance.
    """

    board: Board
    units: Sequence[Unit]
    columns: Mapping[str, Sequence[float]]
    shares: Mapping[Arm, Sequence[float]]
    values: Mapping[Arm, Sequence[float]]
    links: Sequence[Link]
    freezing: Mapping[str, tuple[Correlation, Correlation, Correlation]]
    missing: Sequence[str]

    def mean_of(self, frozen: bool) -> list[float] | None:
        """The mean score of the frozen or unfrozen settings by test set; None where there are none."""
        arms = self.frozen_arms(frozen)
        # A test set that one of them lacks would shift the mean.
        return _means([self.values[arm] for arm in arms]) if arms else None

    def frozen_arms(self, frozen: bool) -> list[Arm]:
        """The frozen or unfrozen settings."""
        return [arm for arm in self.board.arms if frozen_of(arm) is frozen]

    def column(self, name: str, arms: Sequence[Arm]) -> Sequence[float]:
        """A predictor by test set; the share is the mean of the log shares of the settings' backbones."""
        return _means([self.shares[arm] for arm in arms]) if name == SHARE else self.columns[name]


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [float(value) for value in np.array(rows, dtype=np.float64).mean(axis=0)]


def links_of(board: Board, data: StudyData) -> Links:
    """Correlates all settings of a task with all predictors."""
    # Auxiliary languages of a learned update took part too; what they score says nothing of distance from the source.
    units = [unit for unit in board.units if unit not in board.trained_on]
    known = shares_of(board, data)
    columns: dict[str, list[float]] = {kind: [_distance(kind, unit) for unit in units] for kind in DISTANCE_KINDS}
    by_backbone = {
        name: log_shares(known.get(name, {}), [language for _, language in units])
        for name in {backbone_of(arm) for arm in board.arms}
    }
    shares = {arm: by_backbone[backbone_of(arm)] for arm in board.arms}
    values = {
        arm: [math.nan if (value := board.value(arm, unit)) is None else value for unit in units] for arm in board.arms
    }
    blocks, clusters = [source for source, _ in units], [language for _, language in units]
    found: list[Link] = []
    for arm in board.arms:
        for name in PREDICTORS:
            x, y = shares[arm] if name == SHARE else columns[name], values[arm]
            control = columns["featural"] if name == SHARE else shares[arm]
            controlled = not all(math.isnan(value) for value in control)
            if all(math.isnan(value) for value in x):
                continue
            found.append(
                Link(
                    arm,
                    name,
                    correlate(x, y, blocks=blocks, clusters=clusters),
                    correlate(x, y, ranks=True, blocks=blocks, clusters=clusters),
                    partial_correlation(x, y, [control], blocks=blocks, clusters=clusters) if controlled else None,
                    None,
                )
            )
    adjusted = benjamini_hochberg([math.nan if link.pearson.p is None else link.pearson.p for link in found])
    links = [
        Link(one.arm, one.predictor, one.pearson, one.spearman, one.partial, None if math.isnan(p) else float(p))
        for one, p in zip(found, adjusted, strict=True)
    ]
    plain = Links(board, units, columns, shares, values, links, {}, _without(units))
    frozen, unfrozen = plain.mean_of(True), plain.mean_of(False)
    freezing = {}
    if frozen and unfrozen:
        for name in PREDICTORS:
            column = plain.column(name, plain.frozen_arms(True))
            if not np.allclose(column, plain.column(name, plain.frozen_arms(False)), atol=1e-9, equal_nan=True):
                continue  # Shares of other backbones on the one side than on the other.
            change = correlation_difference(column, frozen, unfrozen, blocks=blocks, clusters=clusters)
            if change.r is not None:
                alone = [correlate(column, one, blocks=blocks, clusters=clusters) for one in (frozen, unfrozen)]
                freezing[name] = (alone[0], alone[1], change)
    return replace(plain, freezing=freezing)


def log_shares(shares: Mapping[str, float | None], languages: Sequence[str]) -> list[float]:
    """Decimal logarithm of the shares; a language that is not in the text gets half of the smallest share there is.

    All are NaN where a share is unknown: one that is left out may be the smallest.
    """
    numbers = {code: share for code, share in shares.items() if share is not None}
    present = [share for share in numbers.values() if share > 0]
    if not present or len(numbers) < len(shares):
        return [math.nan] * len(languages)
    floor = min(present) / 2
    return [math.log10(max(numbers.get(language, 0.0), floor)) for language in languages]


def _distance(kind: str, unit: Unit) -> float:
    """To the nearest of the sources; NaN where unknown."""
    found = [value for source in sources_in(unit[0]) if (value := _all(source, unit[1]).get(kind)) is not None]
    return min(found) if found else math.nan


@cache
def _all(source: str, language: str) -> dict[str, float | None]:
    if language_of(source) is None or language_of(language) is None:
        return {}
    return {kind: found.value for kind, found in distances(source, language).items()}


def _without(units: Sequence[Unit]) -> list[str]:
    return list(
        dict.fromkeys(
            language
            for source, language in units
            if any(math.isnan(_distance(kind, (source, language))) for kind in DISTANCE_KINDS)
        )
    )
