"""Per-example results of a study's settings, brought into the same order of the same examples."""

from collections import Counter
from collections.abc import Sequence
from math import lcm

import numpy as np

from isogloss.report.statistics import ScoredSet, as_columns, form_of, score
from isogloss.report.study_data import StudyScore
from isogloss.report.study_index import Board, Unit, parts_problem

_MOST_RUNS = 60


def aligned_sets(board: Board) -> tuple[dict[Unit, ScoredSet], list[str]]:
    """Per-example results of all settings on each test set, in the same order of the same examples."""
    problems: Counter[str] = Counter()
    sets = {}
    for unit in board.units:
        usable: dict[int, list[StudyScore]] = {}
        for place, arm in enumerate(board.arms):
            ones = board.scores.get((arm.name, unit), ())
            reasons = [reason for one in ones if (reason := parts_problem(one) or _disagrees(one))]
            problems.update(reasons)
            if ones and not reasons:
                usable[place] = list(ones)
        if usable:
            made = _test_set(board, unit, usable)
            if made is None:
                problems["no example that all settings were scored on"] += 1
            else:
                sets[unit] = made
    return sets, [
        f"{board.task}: {count} {'score' if count == 1 else 'scores'} with {reason}; there the tests rest on seeds alone."
        for reason, count in problems.items()
    ]


def _labels(one: StudyScore) -> int:
    return 1 + int(np.max(np.asarray(one.parts, dtype=np.float64))) if one.parts else 0


def _disagrees(one: StudyScore) -> str | None:
    parts = np.asarray(one.parts, dtype=np.float64)
    form = form_of(one.metric, parts.shape[1])
    assert form is not None
    columns = as_columns(form, parts, _labels(one))
    again = float(score(form, columns.sum(axis=0), float(len(columns))))
    return None if abs(again - one.value) <= 0.05 else "per-example results that do not give the score"


def _test_set(board: Board, unit: Unit, usable: dict[int, list[StudyScore]]) -> ScoredSet | None:
    everything = [one for ones in usable.values() for one in ones]
    names = [_item_names(one, unit) for one in everything]
    shared = set(names[0]).intersection(*names[1:])
    items = [name for name in names[0] if name in shared]
    if not items:
        return None
    width = len((everything[0].parts or [[]])[0])
    form = form_of(board.metric, width)
    if form is None or any(len((one.parts or [[]])[0]) != width for one in everything):
        return None
    classes = max(_labels(one) for one in everything) if form == "labels" else 0
    seeds = 1 if form == "mean" else _rounds([len(ones) for ones in usable.values()])
    columns = np.zeros((len(board.arms), seeds, len(items), 3 * classes if classes else width))
    present = np.zeros(len(board.arms), dtype=bool)
    for place, ones in usable.items():
        runs = []
        for one in ones:
            row = {name: number for number, name in enumerate(_item_names(one, unit))}
            runs.append(as_columns(form, one.parts or [], classes)[[row[name] for name in items]])
        present[place] = True
        # Other numbers of seeds: they are taken round again, so that each side of a swap has as many.
        columns[place] = np.mean(runs, axis=0) if form == "mean" else [runs[seed % len(runs)] for seed in range(seeds)]
    return ScoredSet(items, columns, present, form)


def _rounds(seeds: Sequence[int]) -> int:
    """How many runs stand for each setting: so many that each of its seeds stands there equally often.

    Where that would be very many, some stand there once more than others.
    """
    return found if (found := lcm(*seeds)) <= _MOST_RUNS else max(seeds)


def _item_names(one: StudyScore, unit: Unit) -> list[str]:
    if one.items is None:
        # Unknown examples: the order stands for the name, within this language only.
        return [f"{unit[1]} {number}" for number in range(len(one.parts or ()))]
    counted: Counter[str] = Counter()
    names = []
    for item in one.items:
        counted[item] += 1
        names.append(item if counted[item] == 1 else f"{item} #{counted[item]}")
    return names
