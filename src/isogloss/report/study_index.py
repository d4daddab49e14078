"""The scores of a study put in order: settings, boards by task, and what is not as it should be."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isogloss.errors import IsoglossError
from isogloss.languages import Language, resolve
from isogloss.report.statistics import form_of
from isogloss.report.study_data import Factor, StudyData, StudyScore

# A test set as the report sees it: trained on the first language, scored on the second.
Unit = tuple[str, str]
_NOT_A_FACTOR = frozenset({"task", "source", "sources", "target", "targets", "language", "seed"})
# The first of these that tell settings apart give them their names.
_ORDER = (
    "cell", "backbone", "freeze", "freezing", "frozen", "length", "reparameterisation", "placement", "shots", "pool", "update",
    "language_module", "task_module",
)  # fmt: skip
_METRICS = {"f1": "F1", "macro_f1": "macro F1", "em": "exact match", "xtreme_f1": "XTREME's F1"}
_SHORT = {"reparameterisation": "reparameterised"}
FREEZING = ("freeze", "freezing", "frozen")


@dataclass(frozen=True)
class Arm:
    """One setting of the study: a combination of factors, over all seeds and languages.

    Attributes:
        name: What tells it apart from the others, for example `LP+TA · length 20 · frozen`.
        factors: All of its factors.
    """

    name: str
    factors: Mapping[str, Factor] = field(compare=False)


@dataclass(frozen=True)
class Board:
    """All scores of one task, or of one of its test sets, in its main metric.

    Attributes:
        task: Its name: that of the task, with that of the test set where there are several (`qa: xquad`).
        metric: The metric of all its scores.
        arms: Settings that have a score.
        units: (source, language) pairs that have a score, sources in order, each before its targets.
        scores: By setting name and unit, one score a seed, in the order of seeds.
        trained_on: Units whose language took part in training or choosing for some setting, absent ones too.
        absent: Units that the study asks for and no setting has a score on.
        test: The test set, where the task has several.
    """

    task: str
    metric: str
    arms: Sequence[Arm]
    units: Sequence[Unit]
    scores: Mapping[tuple[str, Unit], Sequence[StudyScore]]
    trained_on: frozenset[Unit]
    absent: Sequence[Unit] = ()
    test: str = ""

    @property
    def sources(self) -> list[str]:
        """Source languages, in order."""
        return list(dict.fromkeys(source for source, _ in self.units))

    @property
    def languages(self) -> list[str]:
        """Languages that anything was scored on, in order."""
        return list(dict.fromkeys(language for _, language in self.units))

    def value(self, arm: Arm, unit: Unit) -> float | None:
        """The mean over seeds, or None."""
        found = self.scores.get((arm.name, unit))
        return float(np.mean([one.value for one in found])) if found else None

    def mean(self, arm: Arm, units: Iterable[Unit]) -> float | None:
        """The unweighted mean over those of the units that the setting has, or None."""
        found = [value for unit in units if (value := self.value(arm, unit)) is not None]
        return float(np.mean(found)) if found else None

    def by_seed(self, arm: Arm, units: Sequence[Unit]) -> dict[int, float]:
        """The mean over units for each seed that has all of them."""
        values: dict[int, list[float]] = defaultdict(list)
        for unit in units:
            for one in self.scores.get((arm.name, unit), ()):
                values[one.seed].append(one.value)
        return {seed: float(np.mean(found)) for seed, found in sorted(values.items()) if len(found) == len(units)}


def metric_name(board: Board) -> str:
    """The metric as people write it."""
    return _METRICS.get(board.metric, board.metric.replace("_", " "))


def language_of(code: str) -> Language | None:
    """The language, or None for a code that the table does not know."""
    try:
        return resolve(code)
    except IsoglossError:
        return None


def language_names(codes: Iterable[str]) -> dict[str, str]:
    """English names by code; where two codes share a name the code is added."""
    found = {code: (known.name if (known := language_of(code)) else code) for code in dict.fromkeys(codes)}
    often = Counter(found.values())
    return {code: name if often[name] == 1 else f"{name} ({code})" for code, name in found.items()}


def arms_of(scores: Sequence[StudyScore]) -> dict[tuple[tuple[str, Factor], ...], Arm]:
    """The settings of a study by their factors, each named by the fewest factors that tell it apart."""
    keys = dict.fromkeys(key for one in scores for key in one.factors if key not in _NOT_A_FACTOR)
    order = sorted(keys, key=lambda key: (_ORDER.index(key) if key in _ORDER else len(_ORDER), key))
    combinations = list(dict.fromkeys(_identity(one, order) for one in scores))
    chosen: list[int] = []
    for place in range(len(order)):
        before = {tuple(item[number] for number in chosen) for item in combinations}
        after = {tuple(item[number] for number in [*chosen, place]) for item in combinations}
        if len(after) > len(before):
            chosen.append(place)
    if not chosen and order:
        chosen = [0]
    names = {}
    for item in combinations:
        # The cell comes first; `None` means that a choice has no meaning in a setting.
        parts = [text for number in chosen if (text := factor_text(*item[number]))]
        names[item] = " · ".join(parts) or "the only setting"
    return {item: Arm(name, {key: value for key, value in item if value is not None}) for item, name in names.items()}


def _identity(one: StudyScore, order: Sequence[str]) -> tuple[tuple[str, Factor], ...]:
    return tuple((key, one.factors.get(key)) for key in order)


def factor_text(key: str, value: Factor) -> str:
    """A choice in a few words; empty for one without meaning."""
    name = key.replace("_", " ")
    if value is None:
        return ""
    if key in FREEZING and isinstance(value, bool):
        return "frozen" if value else "unfrozen"
    if key == "reparameterisation" and value in (False, "none"):
        return "plain"
    if isinstance(value, bool):
        return _SHORT.get(key, name) if value else f"no {name}"
    if isinstance(value, str):
        if value in ("none", ""):
            return f"no {name}"
        return (
            value
            if key in ("cell", "backbone", "task_module", "reparameterisation", "placement")
            else f"{name} {value}"
        )
    # `g` keeps six digits, which would make one setting of two long seeds.
    return f"{name} {value}" if isinstance(value, int) else f"{name} {value:g}"


def frozen_of(arm: Arm) -> bool | None:
    """Whether a setting leaves the backbone as it is; None where its factors do not tell."""
    for key in FREEZING:
        value = arm.factors.get(key)
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            return value.lower() in ("frozen", "true", "yes", "modules")
    return None


def sources_in(source: str) -> list[str]:
    """The languages that a task module was trained on; several are written with a plus sign."""
    return source.split("+")


def own(unit: Unit) -> bool:
    """Whether a test set is in a language that was trained on."""
    return unit[1] in sources_in(unit[0])


def boards_of(data: StudyData) -> tuple[list[Board], list[str]]:
    """Scores by task and test set, and sentences on scores that could not be used."""
    arms = arms_of(data.scores)
    order = sorted({key for identity in arms for key, _ in identity}, key=lambda key: _place(arms, key))
    problems: list[str] = []
    boards = []
    for task in dict.fromkeys(one.board for one in data.scores):
        ours = [one for one in data.scores if one.board == task]
        counted = Counter(one.metric for one in ours)
        metric = counted.most_common(1)[0][0]
        if len(counted) > 1:
            others = ", ".join(sorted(set(counted) - {metric}))
            problems.append(f"{task}: scores in {others} are left out; most are in {metric}.")
        found: dict[tuple[str, Unit], dict[int, StudyScore]] = defaultdict(dict)
        doubled = unusable = 0
        for one in ours:
            if one.metric != metric:
                continue
            if not np.isfinite(one.value):
                unusable += 1
                continue
            place = found[arms[_identity(one, order)].name, (one.source, one.language)]
            doubled += one.seed in place and place[one.seed].value != one.value
            place.setdefault(one.seed, one)
        if doubled:
            problems.append(
                f"{task}: {doubled} scores with the same setting, languages and seed as another one were left out."
            )
        if unusable:
            problems.append(f"{task}: {unusable} scores that are not finite numbers were left out.")
        if not found:
            continue
        sources = sorted({source for _, (source, _) in found})
        units = sorted({unit for _, unit in found}, key=lambda unit: (sources.index(unit[0]), not own(unit), unit[1]))
        scores = {key: tuple(by_seed[seed] for seed in sorted(by_seed)) for key, by_seed in found.items()}
        planned = {(one.source, one.language): one.seen for one in data.planned if one.board == task}
        absent = [unit for unit in planned if unit not in units]
        boards.append(
            Board(
                task,
                metric,
                [arm for arm in arms.values() if any(name == arm.name for name, _ in scores)],
                units,
                scores,
                frozenset(
                    [unit for (_, unit), ones in scores.items() if own(unit) or any(one.seen for one in ones)]
                    + [unit for unit in absent if own(unit) or planned[unit]]
                ),
                absent,
                ours[0].test,
            )
        )
    return boards, problems


def _place(arms: Mapping[tuple[tuple[str, Factor], ...], Arm], key: str) -> int:
    return next(place for identity in arms for place, (name, _) in enumerate(identity) if name == key)


def backbone_of(arm: Arm) -> str:
    """The backbone of a setting; empty where its factors do not tell."""
    name = arm.factors.get("backbone")
    return "" if name is None else str(name)


def shares_of(board: Board, data: StudyData) -> dict[str, dict[str, float | None]]:
    """Shares of the pre-training text by backbone and language, of those backbones of a board that they are known for."""
    names = dict.fromkeys(backbone_of(arm) for arm in board.arms)
    return {
        name: {resolve_code(code): share for code, share in data.shares[name].items()}
        for name in names
        if data.shares.get(name)
    }


def resolve_code(code: str) -> str:
    """The code as isogloss writes it; one that is not known stays as it is."""
    known = language_of(code)
    return known.code if known else code


def parts_problem(one: StudyScore) -> str | None:
    """Why the per-example parts of a score cannot be used for tests, or None."""
    if one.parts is None or len(one.parts) == 0:
        return "no per-example results"
    if form_of(one.metric, len(one.parts[0])) is None:
        return f"per-example results that {one.metric} cannot be computed from"
    if one.items is not None and len(one.items) != len(one.parts):
        return "another number of names than of results"
    return None
