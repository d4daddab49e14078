"""The other tables of a study's report: correlations, cost, pools, what is missing, every step."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from isogloss.report.statistics import Correlation
from isogloss.report.study_compare import TaskResult
from isogloss.report.study_data import PoolAttention, StudyData, StudyScore
from isogloss.report.study_distance import PREDICTORS, Link, Links
from isogloss.report.study_effects import effects_of
from isogloss.report.study_figures import as_score, source_name
from isogloss.report.study_index import Arm, factor_text, language_names, own, sources_in
from isogloss.report.study_tables import trace_of
from isogloss.report.study_training_figures import pool_entropy
from isogloss.report.tables import Column, Score, Table, Value

MOST_STEPS = 2000


def _r(found: Correlation | None) -> Value:
    return None if found is None or found.r is None else Score(found.r, found.low, found.high)


def correlation_tables(links: Links, data: StudyData) -> list[Table]:
    """Settings x predictors: Pearson's, Spearman's and partial correlation, and frozen against unfrozen."""
    by_arm: dict[Arm, dict[str, Link]] = defaultdict(dict)
    for link in links.links:
        by_arm[link.arm][link.predictor] = link
    shown = [name for name in PREDICTORS if any(name in found for found in by_arm.values())]
    if not shown or not by_arm:
        return []
    points = len(links.units)
    columns = [Column("setting", wide=True), *(Column(name, numeric=True, digits=2) for name in shown)]
    sure = [
        f"{link.arm.name} with {link.predictor}" for link in links.links if link.fdr is not None and link.fdr < 0.05
    ]
    tested = [link for link in links.links if link.fdr is not None]
    notes = [f"Over {points} test sets; negative: the farther, the lower. In brackets 95% intervals."]
    if tested:
        notes.append(f"{len(sure)} of {len(tested)} differ from 0 after Benjamini and Hochberg.")
    if links.missing:
        names = language_names(links.missing)
        notes.append(f"Without a distance of some kind, and so left out there: {', '.join(names.values())}.")
    task = links.board.task
    made = [
        Table(
            f"{task}: Pearson correlation of score with distance from the source and with pre-training share",
            columns,
            [
                [arm.name, *(_r(found[name].pearson if name in found else None) for name in shown)]
                for arm, found in by_arm.items()
            ],
            notes=notes,
            trace=trace_of(data, links.board),
        ),
        Table(
            f"{task}: Spearman correlation",
            columns,
            [
                [arm.name, *(_r(found[name].spearman if name in found else None) for name in shown)]
                for arm, found in by_arm.items()
            ],
            trace=trace_of(data, links.board),
        ),
    ]
    if any(link.partial is not None for link in links.links):
        made.append(
            Table(
                f"{task}: partial correlation, pre-training share taken out",
                columns,
                [
                    [arm.name, *(_r(found[name].partial if name in found else None) for name in shown)]
                    for arm, found in by_arm.items()
                ],
                notes=["The share's own column has the featural distance taken out."],
                trace=trace_of(data, links.board),
            )
        )
    if links.freezing:
        made.append(
            Table(
                f"{task}: correlation with the backbone frozen and unfrozen",
                [
                    Column("predictor"),
                    Column("r frozen", numeric=True, digits=2),
                    Column("r unfrozen", numeric=True, digits=2),
                    Column("difference", numeric=True, digits=2),
                ],
                [[name, *map(_r, found)] for name, found in links.freezing.items()],
                notes=[
                    "Pearson's r of the mean over frozen settings and of that over unfrozen ones. A difference above 0 for a "
                    "distance: freezing weakens the pull of near languages. Its 95% interval is from a bootstrap over target languages, "
                    "with the seeds as they are and without a correction for the number of rows."
                ],
                trace=trace_of(data, links.board),
            )
        )
    return made


def cost_table(results: Sequence[TaskResult], data: StudyData) -> Table:
    """What each setting costs."""
    rows: list[list[Value]] = []
    for result in results:
        board = result.board
        for one in result.main.standings:
            ours = [s for (name, _), ones in board.scores.items() if name == one.arm.name for s in ones]
            # One training serves all languages that it is scored on.
            trainings = {(s.source, s.seed): s for s in ours}.values()
            rows.append(
                [
                    f"{board.task}: {one.arm.name}",
                    one.estimate.value,
                    round(float(np.mean([s.trained_parameters for s in trainings]))),
                    float(np.mean([s.stored_bytes for s in trainings])) / 1e6,
                    float(np.mean([s.seconds for s in trainings])),
                    len(trainings),
                    sum(s.seconds for s in trainings) / 3600,
                ]
            )
    return Table(
        "Parameters and cost by setting",
        [
            Column("task: setting"),
            Column("score", numeric=True, note="mean of the task's main group, percent"),
            Column("trained parameters", numeric=True, note="in the task stage"),
            Column("stored MB", numeric=True, digits=2, note="the task module on disk"),
            Column("seconds", numeric=True, note="of one task training, mean"),
            Column("trainings", numeric=True),
            Column("hours in all", numeric=True, digits=2),
        ],
        rows,
        notes=["Language modules and backbones, which several settings share, are not counted."],
        trace=trace_of(data),
    )


def pool_table(pool: PoolAttention) -> Table:
    """How many keys each language uses, and which language attends most alike."""
    table = np.asarray(pool.attention, dtype=np.float64)
    unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -1.0)
    names = language_names(pool.languages)
    entropy = pool_entropy(pool)
    rows: list[list[Value]] = []
    for row, code in enumerate(pool.languages):
        near = int(np.argmax(alike[row]))
        several = len(pool.languages) > 1
        rows.append(
            [
                names[code],
                int(np.argmax(table[row])),
                2 ** entropy[row],
                entropy[row],
                names[pool.languages[near]] if several else None,
                float(alike[row, near]) if several else None,
            ]
        )
    return Table(
        f"Use of the pool by language: {pool.label}",
        [
            Column("language"),
            Column("first key", numeric=True),
            Column("keys used", numeric=True, note="2 to the power of the entropy"),
            Column("entropy", numeric=True, digits=2, note="bits"),
            Column("most alike"),
            Column("cosine", numeric=True, digits=2),
        ],
        rows,
    )


def missing_table(data: StudyData) -> Table:
    """Steps that failed or have not run."""
    return Table(
        "Steps that failed or have not run",
        [Column("step"), Column("reason", wide=True)],
        [[label, reason] for label, reason in data.missing],
        notes=["Nothing that depends on them is in the tables above."],
    )


def step_tables(results: Sequence[TaskResult]) -> list[Table]:
    """Every evaluation step with its seed, command and commit."""
    groups: dict[tuple[str, str, str, str, int], list[StudyScore]] = defaultdict(list)
    origins: dict[tuple[str, str], str] = {}
    for result in results:
        for (arm, (source, _)), ones in result.board.scores.items():
            for one in ones:
                groups[one.step, result.board.task, arm, source, one.seed].append(one)
                origins.setdefault((one.command, one.commit), f"c{len(origins) + 1}")
    keys = list(groups)[:MOST_STEPS]
    rows: list[list[Value]] = []
    for key in keys:
        step, task, arm, source, seed = key
        ones = groups[key]
        metric = ones[0].metric
        shown = language_names([ones[0].language])[ones[0].language] if len(ones) == 1 else f"{len(ones)} languages"
        rows.append(
            [
                step[:12],
                task,
                arm,
                source_name(source),
                shown,
                seed,
                float(np.mean([one.value for one in ones])),
                metric,
                origins[ones[0].command, ones[0].commit],
            ]
        )
    notes = ["The step is the first 12 letters of its key in the study's store."]
    if len(keys) < len(groups):
        notes.append(f"The first {len(keys):,} of {len(groups):,} steps; scores.csv has all.")
    return [
        Table(
            "Evaluation steps",
            [
                Column("step"),
                Column("task"),
                Column("setting", wide=True),
                Column("source"),
                Column("scored on"),
                Column("seed", numeric=True),
                Column("mean", numeric=True, digits=2),
                Column("metric"),
                Column("origin", note="command and commit, in the table below"),
            ],
            rows,
            notes=notes,
        ),
        Table(
            "Commands and commits",
            [Column("origin"), Column("command", wide=True), Column("commit")],
            [[name, command or None, commit or None] for (command, commit), name in origins.items()],
        ),
    ]


def effect_table(results: Sequence[TaskResult], data: StudyData) -> Table | None:
    """What each choice does, all others held fixed."""
    rows: list[list[Value]] = []
    for result in results:
        for one in effects_of(result):
            low, high = one.difference.low, one.difference.high
            apart = low is not None and high is not None and (low > 0 or high < 0)
            first, second = (factor_text(one.factor, value) or str(value) for value in (one.first, one.second))
            rows.append(
                [
                    f"{result.board.task}: {first} against {second}",
                    as_score(one.difference),
                    len(one.pairs),
                    one.wins,
                    ("first is higher" if one.difference.value > 0 else "second is higher")
                    if apart
                    else "not told apart",
                ]
            )
    if not rows:
        return None
    return Table(
        "What one choice does, all others held fixed",
        [
            Column("choice", wide=True),
            Column("first - second", numeric=True, note="mean over pairs of settings, points"),
            Column("pairs", numeric=True, note="pairs of settings that differ in this only"),
            Column("first higher", numeric=True, note="in how many of the pairs"),
            Column("verdict"),
        ],
        rows,
        notes=[
            "Means of the main group of each task. In brackets 95% intervals over examples and seeds, not corrected for the number "
            "of rows."
        ],
        trace=trace_of(data),
    )


def sources_of_pairs(results: Sequence[TaskResult]) -> Table | None:
    """Mean transfer from each source, with the target it serves best, over all settings."""
    rows: list[list[Value]] = []
    for result in results:
        board = result.board
        if len(board.sources) < 2:
            continue
        best = result.main.standings[0].arm
        for source in board.sources:
            units = [unit for unit in board.units if unit[0] == source and not own(unit)]
            values = {unit[1]: value for unit in units if (value := board.value(best, unit)) is not None}
            if values:
                top = max(values, key=lambda code: values[code])
                found = sources_in(source)
                rows.append(
                    [
                        f"{board.task}: {source_name(source)}",
                        sum(values.values()) / len(values),
                        language_names([top])[top],
                        values[top],
                        len(values),
                        best.name,
                        board.value(best, (source, found[0])) if len(found) == 1 else None,
                    ]
                )
    if not rows:
        return None
    return Table(
        "Sources compared, in the highest setting of each task",
        [
            Column("task: source"),
            Column("mean over targets", numeric=True),
            Column("serves best"),
            Column("there", numeric=True),
            Column("targets", numeric=True),
            Column("setting"),
            Column("on itself", numeric=True),
        ],
        rows,
    )
