"""The tables of scores in a study's report."""

from collections.abc import Iterable, Sequence

from isogloss.report.statistics import Estimate
from isogloss.report.study_compare import LEVEL, Pair, TaskResult
from isogloss.report.study_data import StudyData
from isogloss.report.study_figures import as_score, source_name, win_matrix
from isogloss.report.study_index import Arm, Board, Unit, language_names, metric_name, own
from isogloss.report.study_words import listed, verdict
from isogloss.report.tables import Column, Score, Table, Value
from isogloss.report.trace import Trace

_MOST_WIDE = 24
_MOST_NAMES = 20  # Languages that a note names.


def trace_of(data: StudyData, board: Board | None = None) -> Trace:
    """Where the numbers of a study, or of one task of it, come from."""
    scores = [one for ones in board.scores.values() for one in ones] if board else list(data.scores)
    steps = {one.step for one in scores}
    used = {str(value) for one in scores if (value := one.factors.get("backbone")) is not None}
    names = [name for name in data.backbones if name in used] or list(data.backbones) or sorted(used)
    marks = [data.backbones[name] for name in names if data.backbones.get(name)]
    return Trace(
        command=data.command,
        seeds=sorted({one.seed for one in scores}),
        backbone=", ".join(names),
        fingerprint=", ".join(marks),
        date=data.date,
        version=data.version,
        steps=f"{len(steps):,} evaluation steps; scores.csv has every score with its step, seed, command and commit",
        commit=data.commit,
    )


def summary_table(results: Sequence[TaskResult], data: StudyData, *, finer: bool = False) -> Table | None:
    """The winner by task and group, and how sure that is.

    Args:
        results: By task.
        data: The study.
        finer: The groups by script and family and all languages together, instead of the others.
    """
    chosen = [
        (result, one)
        for result in results
        for one in result.groups
        if one.standings and finer is (one.group.name == "all" or one.group.name.startswith(("script ", "family ")))
    ]
    rows: list[list[Value]] = []
    for result, one in chosen:
        best = one.standings[0]
        gap = one.pairs[0] if one.pairs else None
        rows.append(
            [
                f"{result.board.task}: {one.group.name}",
                best.arm.name,
                as_score(best.estimate),
                gap.second.name if gap else None,
                as_score(gap.difference) if gap else None,
                verdict(one),
                None if best.best is None else 100 * best.best,
                len({language for _, language in one.units}),
                listed(_named(dict.fromkeys([*one.left_out, *one.group.lacking])), 6) or None,
            ]
        )
    if not rows:
        return None
    notes = {
        one.group.name: one.group.note
        for _, one in chosen
        if one.group.note and (" " not in one.group.name or one.group.backbone is not None)
    }
    return Table(
        "The highest setting by script and family" if finer else "The highest setting by task and group of languages",
        [
            Column("task: group"),
            Column("highest"),
            Column("score", numeric=True, note="mean over languages and seeds, percent, with its 95% interval"),
            Column("next"),
            Column("ahead by", numeric=True, note="points, with the 95% interval of the paired difference"),
            Column("how sure", note="after correction for all pairs of settings", wide=True),
            Column("best in %", numeric=True, digits=0, note="share of resamples in which it is the highest"),
            Column("languages", numeric=True),
            Column(
                "missing",
                note="languages of the group that are not in the means: a setting lacks them, or all do",
                wide=True,
            ),
        ],
        rows,
        notes=[f"{name[0].upper()}{name[1:]}: {note}." for name, note in notes.items()],
        trace=trace_of(data),
    )


def _named(codes: Iterable[str]) -> list[str]:
    """English names, in the order of the codes."""
    return list(language_names(codes).values())


def standing_table(result: TaskResult, data: StudyData) -> Table:
    """Settings by group of languages, with the gap to the source."""
    board, main = result.board, result.main
    gaps = dict(result.gaps)
    groups = [one for one in result.groups if one is not main]
    values = {one.group.name: {s.arm: s.estimate for s in one.standings} for one in groups}
    rows: list[list[Value]] = []
    for one in main.standings:
        gap = gaps.get(one.arm)
        rows.append(
            [
                one.arm.name,
                as_score(one.estimate),
                one.estimate.sd,
                one.estimate.seeds,
                None if one.best is None else 100 * one.best,
                as_score(gap) if gap else None,
                *(None if (found := values[g.group.name].get(one.arm)) is None else found.value for g in groups),
            ]
        )
    for arm, value, missing in main.unranked:
        has = len(main.group.units) - len(missing)
        rows.append([f"{arm.name} (on {has} of {len(main.group.units)} only)", value, *[None] * (4 + len(groups))])
    notes = []
    if main.left_out:
        notes.append(f"Not in the means, because a setting lacks them: {', '.join(_named(main.left_out))}.")
    if main.group.lacking:
        names = _named(main.group.lacking)
        notes.append(f"Not in the means, because no setting has a score there: {listed(names, _MOST_NAMES)}.")
    for one_group in groups:
        lacking = {*one_group.left_out, *one_group.group.lacking} - {*main.left_out, *main.group.lacking}
        if lacking:
            notes.append(f"{one_group.group.name}: without {listed(_named(sorted(lacking)), _MOST_NAMES)}.")
    for one_group in result.groups:
        if one_group.group.also:
            names = [one_group.group.name, *one_group.group.also]
            notes.append(f"{listed(names, _MOST_NAMES)} are the same languages here, and stand in one column.")
    for arm, _, missing in main.unranked:
        notes.append(f"{arm.name} is not ranked: it lacks {listed(_named(dict.fromkeys(missing)), 8)}.")
    covers = sorted({one.estimate.covers for one in main.standings if one.estimate.covers})
    if covers:
        notes.append(f"95% intervals cover {listed(covers)}.")
    return Table(
        f"{board.task}: mean {metric_name(board)} by setting and group of languages",
        [
            Column("setting"),
            Column(main.group.name, numeric=True, note=f"{main.group.note}; percent, with a 95% interval"),
            Column("sd", numeric=True, digits=2, note="standard deviation over seeds"),
            Column("seeds", numeric=True),
            Column("best in %", numeric=True, digits=0, note="share of resamples in which it is the highest"),
            Column("gap", numeric=True, note="source minus zero-shot mean, points"),
            *(Column(one.group.name, numeric=True, note=one.group.note) for one in groups),
        ],
        rows,
        notes=notes,
        trace=trace_of(data, board),
    )


def language_table(result: TaskResult, data: StudyData) -> Table:
    """Test sets x settings, with the highest and how sure that is."""
    board = result.board
    arms = [one.arm for one in result.main.standings][:_MOST_WIDE]
    several = len(board.sources) > 1
    names = language_names(board.languages)
    rows: list[list[Value]] = []
    for unit in board.units:
        values = {arm: value for arm in arms if (value := board.value(arm, unit)) is not None}
        if not values:
            continue
        best = max(values, key=lambda arm: values[arm])
        tied = [other for other in values if other != best and not _beats(result, unit, best, other)]
        said = "sure" if not tied else f"open: {listed([arm.name for arm in tied], 2)}"
        n = max(one.n for arm in values for one in board.scores[arm.name, unit])
        label = f"{names[unit[1]]} (source)" if own(unit) else names[unit[1]]
        rows.append(
            [
                label,
                unit[1],
                *([source_name(unit[0])] if several else []),
                n,
                *(_spread(board, arm, unit) for arm in arms),
                best.name if len(values) > 1 else None,
                said if len(values) > 1 else None,
            ]
        )
    notes = ["In brackets the mean minus and plus one standard deviation over seeds."]
    if len(board.arms) > len(arms):
        notes.append(f"The {len(arms)} highest of {len(board.arms)} settings; scores.csv has all.")
    notes.append(
        f"How sure: sure where every difference from the highest has a p-value below {LEVEL} after Benjamini and Hochberg over "
        "all pairs and languages of the task, and a 95% interval without 0; else the settings that it is not told apart from."
    )
    return Table(
        f"{board.task}: {metric_name(board)} by language",
        [
            Column("language"),
            Column("code"),
            *([Column("source")] if several else []),
            Column("n", numeric=True, note="test examples"),
            *(Column(arm.name, numeric=True) for arm in arms),
            Column("highest"),
            Column("how sure", wide=True),
        ],
        rows,
        notes=notes,
        trace=trace_of(data, board),
    )


def _spread(board: Board, arm: Arm, unit: Unit) -> Value:
    found = board.scores.get((arm.name, unit))
    value = board.value(arm, unit)
    if not found or value is None:
        return None
    values = list(board.by_seed(arm, [unit]).values())
    if len(values) < 2:
        return value
    sd = (sum((one - value) ** 2 for one in values) / (len(values) - 1)) ** 0.5
    return Score(value, value - sd, value + sd)


def _pair(result: TaskResult, unit: Unit, first: Arm, second: Arm) -> tuple[Pair, int] | None:
    for pair in result.by_unit[unit]:
        if (pair.first, pair.second) == (first, second):
            return pair, 1
        if (pair.first, pair.second) == (second, first):
            return pair, -1
    return None


def _beats(result: TaskResult, unit: Unit, first: Arm, second: Arm) -> bool:
    found = _pair(result, unit, first, second)
    return found is not None and found[0].surer and found[1] * found[0].difference.value > 0


def reference_of(result: TaskResult, data: StudyData) -> Arm:
    """What per-language differences are taken against."""
    standings = result.main.standings
    for wanted in (data.reference, "TA"):
        for one in standings:
            if wanted and wanted in (one.arm.name, one.arm.factors.get("cell")):
                return one.arm
    return standings[0].arm


def difference_table(result: TaskResult, data: StudyData) -> Table | None:
    """Per test set, each setting minus the reference."""
    board = result.board
    base = reference_of(result, data)
    arms = [one.arm for one in result.main.standings if one.arm != base][:_MOST_WIDE]
    if not arms:
        return None
    several = len(board.sources) > 1
    names = language_names(board.languages)
    rows: list[list[Value]] = []
    counts = {arm: [0, 0, 0] for arm in arms}
    for unit in board.units:
        cells: list[Value] = []
        for arm in arms:
            found = _pair(result, unit, arm, base)
            if found is None:
                cells.append(None)
                continue
            pair, sign = found
            cells.append(_signed(pair.difference, sign))
            counts[arm][0 if not pair.surer else 1 if sign * pair.difference.value > 0 else 2] += 1
        if any(cell is not None for cell in cells):
            source = f"{names[unit[1]]} (source)" if own(unit) else names[unit[1]]
            rows.append([source, *([source_name(unit[0])] if several else []), *cells])
    empty = [""] if several else []
    footer: list[list[Value]] = [
        ["surely above", *empty, *(counts[arm][1] for arm in arms)],
        ["surely below", *empty, *(counts[arm][2] for arm in arms)],
        ["not told apart", *empty, *(counts[arm][0] for arm in arms)],
    ]
    return Table(
        f"{board.task}: points above {base.name}, by language",
        [
            Column("language"),
            *([Column("source")] if several else []),
            *(Column(arm.name, numeric=True) for arm in arms),
        ],
        rows,
        footer=footer,
        notes=[
            "In brackets the 95% interval of the paired difference. Surely: corrected by Benjamini and Hochberg over all pairs of "
            "settings and all languages of the task."
        ],
        trace=trace_of(data, board),
    )


def _signed(estimate: Estimate, sign: int) -> Score:
    if estimate.low is None or estimate.high is None:
        return Score(sign * estimate.value)
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return Score(sign * estimate.value, low, high)


def pair_table(result: TaskResult, data: StudyData) -> Table | None:
    """All pairs of settings in the main group."""
    pairs = result.main.pairs
    if not pairs:
        return None
    shown = sorted(pairs, key=lambda pair: -abs(pair.difference.value))[:300]
    rows: list[list[Value]] = []
    for pair in shown:
        wins = win_matrix(result.board, [pair.first, pair.second], result.main.units)[0][1]
        rows.append(
            [
                pair.first.name,
                pair.second.name,
                as_score(pair.difference),
                wins,
                pair.p,
                pair.adjusted,
                pair.fdr,
                "told apart" if pair.surer else "not told apart",
            ]
        )
    tests = sorted({pair.test for pair in pairs if pair.test})
    return Table(
        f"{result.board.task}: every two settings, {result.main.group.name} languages",
        [
            Column("higher"),
            Column("lower"),
            Column("difference", numeric=True, note="points, with a 95% interval"),
            Column("wins %", numeric=True, digits=0, note="share of test sets where the first is above the second"),
            Column("p", numeric=True, digits=4, note=f"two-sided, {' and '.join(tests) or 'not tested'}"),
            Column("p Holm", numeric=True, digits=4, note="bounds the chance of one wrong finding or more"),
            Column("p BH", numeric=True, digits=4, note="bounds the share of wrong findings"),
            Column("verdict"),
        ],
        rows,
        notes=[f"The {len(shown)} largest differences of {len(pairs)} pairs; comparisons.csv has all."]
        if len(shown) < len(pairs)
        else [],
        trace=trace_of(data, result.board),
    )
