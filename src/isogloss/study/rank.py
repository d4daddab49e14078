"""Which language to transfer from: typology, how much labelled data there is, and what a study has measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isogloss.errors import IsoglossError
from isogloss.languages import Language, distances, resolve
from isogloss.report.study_data import Factor, StudyScore

# What each part counts; a part that is not known for any candidate counts for none.
WEIGHTS: Mapping[str, float] = {"measured": 0.6, "typology": 0.25, "data": 0.15}
_Setting = tuple[tuple[tuple[str, Factor], ...], int, str]  # Factors, seed and test set of a score.
_UNKNOWN = 0.5  # A part that is known for some candidates but not for this one is taken to be average.


@dataclass(frozen=True)
class Candidate:
    """A possible source language.

    Attributes:
        language: Which.
        score: 0 to 1; only the order means something.
        distance: Mean of the six URIEL distances to the target, 0 to 1.
        imputed: Share of guesses in the typological ones.
        rows: Labelled training rows, or None when no data set was given.
        measured: Mean score on the target of models trained on this source, or None.
        runs: How many models that mean is over.
        on: Language that was measured: the target, or the nearest one to it that was.
    """

    language: Language
    score: float
    distance: float | None
    imputed: float
    rows: int | None = None
    measured: float | None = None
    runs: int = 0
    on: str = ""


def rank_sources(
    target: Language,
    candidates: Sequence[Language],
    *,
    rows: Mapping[str, int] | None = None,
    scores: Sequence[StudyScore] = (),
) -> list[Candidate]:
    """Ranks source languages for a target, the most promising first.

    Each part is brought to 0..1 among the candidates: nearness is 1 minus the mean URIEL distance; data is the logarithm of the
    training rows over that of the largest set; measured is the mean score on the target (where a study scored it; else on the
    nearest language that it scored from several sources), over the settings and seeds that all sources have, between the worst
    and the best source. The parts are added with `WEIGHTS`, renormalised
    over those that are known at all.

    Args:
        target: Language without labels.
        candidates: Without the target.
        rows: Training rows by code.
        scores: Of one task, from a study.

    Raises:
        IsoglossError: No candidate.
    """
    others = [language for language in candidates if language.code != target.code]
    if not others:
        raise IsoglossError(
            f"There is no candidate to transfer from to {target.name} ({target.code}); give --source or --data."
        )
    far = {language.code: _distance(language, target) for language in others}
    found, on = _measured(target, others, scores)
    parts: dict[str, dict[str, float]] = {
        "typology": {code: 1.0 - value for code, (value, _) in far.items() if value is not None},
        "data": _data(rows or {}, others),
        "measured": _between(found),
    }
    weights = {name: WEIGHTS[name] for name, values in parts.items() if values}
    total = sum(weights.values()) or 1.0
    ranked = []
    for language in others:
        code = language.code
        score = sum(weight * parts[name].get(code, _UNKNOWN) for name, weight in weights.items()) / total
        value, imputed = far[code]
        mean = found.get(code)
        ranked.append(
            Candidate(
                language,
                score,
                value,
                imputed,
                None if rows is None else rows.get(code, 0),
                None if mean is None else mean[0],
                0 if mean is None else mean[1],
                on if mean is not None else "",
            )
        )
    return sorted(ranked, key=lambda item: (-item.score, item.language.code))


def _distance(a: Language, b: Language) -> tuple[float | None, float]:
    found = [item for item in distances(a, b).values() if item.value is not None]
    if not found:
        return None, 1.0
    typological = [item.imputed for item in found if item.kind not in ("genetic", "geographic")]
    mean = sum(float(item.value or 0.0) for item in found) / len(found)
    return mean, sum(typological) / len(typological) if typological else 1.0


def _data(rows: Mapping[str, int], others: Sequence[Language]) -> dict[str, float]:
    most = max((rows.get(language.code, 0) for language in others), default=0)
    if not most:
        return {}
    return {language.code: math.log1p(rows.get(language.code, 0)) / math.log1p(most) for language in others}


def _measured(
    target: Language, others: Sequence[Language], scores: Sequence[StudyScore]
) -> tuple[dict[str, tuple[float, int]], str]:
    """Mean score and number of models by source, on the target or on the measured language nearest to it."""
    codes = {language.code for language in others}
    usable = [score for score in scores if not score.seen and score.source in codes]
    sources: dict[str, set[str]] = {}
    for score in usable:
        sources.setdefault(score.language, set()).add(score.source)
    if not sources:
        return {}, ""
    on = target.code
    if on not in sources:
        # One source alone is compared with nothing: the nearest may be a source itself, scored from the other one only.
        there = [code for code in sorted(sources) if len(sources[code]) > 1] or sorted(sources)
        near = {code: _distance(resolve(code), target)[0] for code in there}
        on = min(there, key=lambda code: (near[code] is None, near[code] or 0.0))
    values: dict[str, dict[_Setting, list[float]]] = {}
    for score in usable:
        if score.language == on:
            values.setdefault(score.source, {}).setdefault(_setting(score), []).append(score.value)
    # A study that has not finished has more of one source's settings than of another's, perhaps only its best.
    shared = set.intersection(*(set(found) for found in values.values()))
    means = {}
    for code, found in values.items():
        kept = [value for setting, ones in found.items() if setting in shared or not shared for value in ones]
        means[code] = (sum(kept) / len(kept), len(kept))
    return means, on


def _setting(score: StudyScore) -> _Setting:
    return tuple(sorted(score.factors.items())), score.seed, score.test


def _between(found: Mapping[str, tuple[float, int]]) -> dict[str, float]:
    if len(found) < 2:
        return {}
    low, high = min(mean for mean, _ in found.values()), max(mean for mean, _ in found.values())
    return {code: (mean - low) / (high - low) if high > low else _UNKNOWN for code, (mean, _) in found.items()}
