"""The figures of a study's report."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from isogloss.report.drawing import COLOURS, Figure
from isogloss.report.figures import Series, dot_plot
from isogloss.report.heat_map import heat_map
from isogloss.report.line_plot import Line, line_plot
from isogloss.report.scatter_plot import Cloud, Panel, scatter_plot
from isogloss.report.statistics import Estimate
from isogloss.report.study_compare import TaskResult
from isogloss.report.study_data import Factor, StudyScore
from isogloss.report.study_distance import PREDICTORS, SHARE, Links
from isogloss.report.study_index import Arm, Board, Unit, arms_of, language_names, metric_name, own, sources_in
from isogloss.report.study_words import number
from isogloss.report.tables import Score

_MOST_ARMS = 24


def slug(text: str) -> str:
    """A name for ids and files: letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def as_score(estimate: Estimate) -> Score:
    """With its interval."""
    return Score(estimate.value, estimate.low, estimate.high)


def source_name(source: str) -> str:
    """English names of the languages trained on."""
    names = language_names(sources_in(source))
    return " + ".join(names.values())


def standing_figure(result: TaskResult, place: int) -> Figure:
    """Settings with intervals, best on top."""
    main = result.main
    shown = main.standings[:_MOST_ARMS]
    best = shown[0]
    rivals = {arm.name for arm in main.rivals()}
    kinds = [
        Series("highest", {best.arm.name: as_score(best.estimate)}, 3),
        Series("may be as good", {one.arm.name: as_score(one.estimate) for one in shown if one.arm.name in rivals}, 1),
        Series(
            "surely below", {one.arm.name: as_score(one.estimate) for one in shown[1:] if one.arm.name not in rivals}, 0
        ),
    ]
    notes = [
        "Lines are 95% intervals. They overlap even for settings that differ surely, because the settings share examples."
    ]
    if len(main.standings) > len(shown):
        notes.append(f"The {len(shown)} highest of {len(main.standings)} settings; the table has all.")
    return dot_plot(
        f"standing-{place}",
        f"{result.board.task}: mean {metric_name(result.board)} by setting, {main.group.name} languages",
        [one.arm.name for one in shown],
        [kind for kind in kinds if kind.values],
        axis=f"{metric_name(result.board)}, percent",
        level=True,
        alt=f"Highest is {best.arm.name} with {number(best.estimate.value)}; lowest shown {shown[-1].arm.name} with {number(shown[-1].estimate.value)}.",
        notes=notes,
    )


def language_figure(result: TaskResult, place: int) -> Figure | None:
    """Languages x settings, the mean over sources where there are several."""
    board = result.board
    arms = [one.arm for one in result.main.standings][:_MOST_ARMS]
    codes = board.languages
    names = language_names(codes)
    if len(codes) < 2 or not arms:
        return None
    values = [[board.mean(arm, [u for u in board.units if u[1] == code]) for arm in arms] for code in codes]
    means = [
        float(np.mean(known)) if (known := [value for value in row if value is not None]) else -math.inf
        for row in values
    ]
    order = sorted(range(len(codes)), key=lambda row: -means[row])
    top, low = names[codes[order[0]]], names[codes[order[-1]]]
    trained = {code for source in board.sources for code in sources_in(source)}
    single = len(board.sources) == 1
    return heat_map(
        f"languages-{place}",
        f"{board.task}: {metric_name(board)} by language and setting",
        [f"{names[codes[row]]} (source)" if single and codes[row] in trained else names[codes[row]] for row in order],
        [arm.name for arm in arms],
        [values[row] for row in order],
        scale=f"{metric_name(board)}, percent",
        digits=1 if len(arms) <= 9 else 0,
        alt=f"Highest on average over settings: {top}; lowest: {low}. Settings from left to right: best to worst mean.",
    )


def transfer_figures(result: TaskResult, place: int) -> list[Figure]:
    """Source x target, one figure a setting; nothing with one source."""
    board = result.board
    if len(board.sources) < 2:
        return []
    sources, targets = board.sources, board.languages
    known = [value for arm in board.arms for unit in board.units if (value := board.value(arm, unit)) is not None]
    found = []
    for row, standing in enumerate(result.main.standings[:_MOST_ARMS]):
        arm = standing.arm
        pairs = [
            (unit, value) for unit in board.units if not own(unit) and (value := board.value(arm, unit)) is not None
        ]
        if not pairs:
            continue
        best, worst = max(pairs, key=lambda one: one[1]), min(pairs, key=lambda one: one[1])

        def said(one: tuple[Unit, float]) -> str:
            return f"{source_name(one[0][0])} to {language_names([one[0][1]])[one[0][1]]} with {number(one[1])}"

        found.append(
            heat_map(
                f"transfer-{place}-{row}",
                f"{board.task}, {arm.name}: {metric_name(board)} from each source to each target",
                [source_name(source) for source in sources],
                list(language_names(targets).values()),
                [[board.value(arm, (source, target)) for target in targets] for source in sources],
                scale=f"{metric_name(board)}, percent",
                row_axis="source",
                column_axis="target",
                digits=1 if len(targets) <= 9 else 0,
                bounds=(min(known), max(known)),
                alt=f"Best transfer: {said(best)}; worst: {said(worst)}. All settings share one palette.",
            )
        )
    return found


def win_figure(result: TaskResult, place: int) -> Figure | None:
    """How often the row beats the column over single test sets."""
    arms = [one.arm for one in result.main.standings][:16]
    if len(arms) < 3:
        return None
    table = win_matrix(result.board, arms, result.main.units)
    wins = [float(np.mean([value for value in row if value is not None])) for row in table]
    best = arms[int(np.argmax(wins))]
    return heat_map(
        f"wins-{place}",
        f"{result.board.task}: on how many of {len(result.main.units)} test sets the row is above the column, percent",
        [arm.name for arm in arms],
        [arm.name for arm in arms],
        table,
        scale="test sets, percent",
        middle=50.0,
        bounds=(0.0, 100.0),
        alt=f"{best.name} is above the others most often. Equal scores count half. A mean over seeds is above another one here however small the gap.",
    )


def win_matrix(board: Board, arms: Sequence[Arm], units: Sequence[Unit]) -> list[list[float | None]]:
    """Percent of test sets where the row's mean over seeds is above the column's; ties count half."""
    table = []
    for first in arms:
        row: list[float | None] = []
        for second in arms:
            points = [
                (a > b) + 0.5 * (a == b)
                for unit in units
                if (a := board.value(first, unit)) is not None and (b := board.value(second, unit)) is not None
            ]
            row.append(100 * float(np.mean(points)) if points and first != second else None)
        table.append(row)
    return table


def distance_figure(links: Links, place: int) -> Figure | None:
    """Score against each predictor, with fitted lines: frozen and unfrozen, or the highest settings."""
    frozen, unfrozen = links.mean_of(True), links.mean_of(False)
    clouds: list[tuple[str, Sequence[float], Sequence[Arm]]] = []
    if frozen and unfrozen:
        clouds = [
            ("frozen backbone", frozen, links.frozen_arms(True)),
            ("unfrozen backbone", unfrozen, links.frozen_arms(False)),
        ]
        meaning = "Each point is a language: the mean over the frozen or unfrozen settings."
    else:
        means = {arm: float(np.nanmean(values)) for arm, values in links.values.items() if not np.isnan(values).all()}
        arms = sorted(means, key=lambda arm: -means[arm])[:4]
        clouds = [(arm.name, links.values[arm], [arm]) for arm in arms]
        meaning = "Each point is a language. " + (
            f"The {len(arms)} highest of {len(means)} settings." if len(means) > len(arms) else ""
        )
    panels = []
    for name in PREDICTORS:
        shown = []
        for label, values, behind in clouds:
            column = links.column(name, behind)
            pairs = [(x, y) for x, y in zip(column, values, strict=True) if not math.isnan(x) and not math.isnan(y)]
            if name == SHARE:
                pairs = [(10**x, y) for x, y in pairs]
            if len(pairs) > 1:
                shown.append(Cloud(label, [x for x, _ in pairs], [y for _, y in pairs]))
        if shown:
            panels.append(
                Panel("share of the pre-training text" if name == SHARE else f"{name} distance", shown, name == SHARE)
            )
    if not panels or len(links.units) < 3:
        return None
    strongest = max(
        (link for link in links.links if link.pearson.r is not None),
        key=lambda link: abs(link.pearson.r or 0),
        default=None,
    )
    said = (
        f"Strongest single correlation: {strongest.arm.name} with {strongest.predictor}, r = {strongest.pearson.r:.2f}."
        if strongest
        else "No correlation is defined."
    )
    return scatter_plot(
        f"distance-{place}",
        f"{links.board.task}: score against distance from the source and share of the pre-training text",
        panels,
        y_axis=metric_name(links.board),
        alt=f"{said} {meaning}".strip(),
    )


def factor_figures(result: TaskResult, place: int) -> list[Figure]:
    """Curves over each numeric factor, such as the length of prompts or the shots."""
    board, main = result.board, result.main
    keys = dict.fromkeys(key for arm in board.arms for key, value in arm.factors.items() if _numeric(value))
    estimates = {one.arm: one.estimate for one in main.standings}
    found = []
    for key in keys:
        if key in ("seed", "language_seed"):
            continue
        series: dict[tuple[tuple[str, Factor], ...], list[tuple[float, Arm]]] = defaultdict(list)
        for arm in estimates:
            value = arm.factors.get(key)
            if _numeric(value):
                rest = tuple(
                    (name, item)
                    for name, item in sorted(arm.factors.items())
                    # A spec such as prompt:20 says the length again.
                    if name != key and not (isinstance(item, str) and re.search(rf":{value:g}\b", item))
                )
                series[rest].append((float(value), arm))  # type: ignore[arg-type]
        curves = {rest: sorted(points, key=lambda one: one[0]) for rest, points in series.items() if len(points) > 1}
        if not curves:
            continue
        labels = _labels(list(curves))
        lines = [
            Line(labels[rest], [(x, as_score(estimates[arm])) for x, arm in points]) for rest, points in curves.items()
        ]
        lines.sort(key=lambda line: -max(plain(y) for _, y in line.points))
        ticks = sorted({x for line in lines for x, _ in line.points})
        best = max(
            ((x, arm) for points in curves.values() for x, arm in points), key=lambda one: estimates[one[1]].value
        )
        name = key.replace("_", " ")
        for start in range(0, len(lines), len(COLOURS)):
            part = lines[start : start + len(COLOURS)]
            found.append(
                line_plot(
                    f"{slug(key)}-{place}-{start}",
                    f"{board.task}: {metric_name(board)} by {name}, {main.group.name} languages",
                    part,
                    x_axis=name,
                    y_axis=f"{metric_name(board)}, percent",
                    log=ticks[0] > 0 and ticks[-1] / ticks[0] >= 8,
                    ticks=ticks,
                    alt=f"Highest at {name} {best[0]:g} ({best[1].name}) with {number(estimates[best[1]].value)}.",
                    notes=["Bars are 95% intervals."],
                )
            )
    return found


def plain(value: float | Score) -> float:
    """Without its interval."""
    return value.value if isinstance(value, Score) else value


def _numeric(value: Factor) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _labels(rests: Sequence[tuple[tuple[str, Factor], ...]]) -> dict[tuple[tuple[str, Factor], ...], str]:
    """Names of what is held fixed along each curve, by what differs between the curves."""
    scores = [StudyScore("", dict(rest), "", "", "", 0, "", 0.0, 0) for rest in rests]
    arms = arms_of(scores)
    by_factors = {tuple(sorted(arm.factors.items())): arm.name for arm in arms.values()}
    return {rest: by_factors[tuple(sorted((key, value) for key, value in rest if value is not None))] for rest in rests}


def cost_figure(result: TaskResult, place: int) -> Figure | None:
    """Score against trained parameters."""
    board, main = result.board, result.main
    points = []
    for one in main.standings:
        sizes = [s.trained_parameters for unit in main.units for s in board.scores[one.arm.name, unit]]
        if np.mean(sizes) > 0:
            points.append((float(np.mean(sizes)), one))
    if len({size for size, _ in points}) < 2:
        return None
    shown = points[: len(COLOURS)]
    cheapest = min(points, key=lambda point: point[0])
    return line_plot(
        f"cost-{place}",
        f"{board.task}: mean {metric_name(board)} against trained parameters",
        [Line(one.arm.name, [(size, as_score(one.estimate))]) for size, one in shown],
        x_axis="parameters trained in the task stage",
        y_axis=f"{metric_name(board)}, percent",
        log=True,
        alt=f"The smallest, {cheapest[1].arm.name}, trains {cheapest[0]:,.0f} parameters and reaches {number(cheapest[1].estimate.value)}; the best reaches {number(main.standings[0].estimate.value)}.",
        notes=["Bars are 95% intervals."]
        + ([f"The {len(shown)} highest settings."] if len(points) > len(shown) else []),
    )
