"""The report of a study: one page that a person decides from, the same in Markdown, CSV and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.report.drawing import Figure, standalone
from isogloss.report.page import Block, Details, Facts, Page, Paragraph, Section, write_page
from isogloss.report.pool_clusters import agreement_table, attention_map, cluster_languages, dendrogram
from isogloss.report.study_compare import TaskResult, compare
from isogloss.report.study_data import PoolAttention, StudyData
from isogloss.report.study_distance import Links, links_of
from isogloss.report.study_figures import (
    cost_figure,
    distance_figure,
    factor_figures,
    language_figure,
    standing_figure,
    transfer_figures,
    win_figure,
)
from isogloss.report.study_files import (
    all_blocks,
    comparisons_csv,
    correlations_csv,
    scores_csv,
    study_latex,
    study_markdown,
)
from isogloss.report.study_index import backbone_of, boards_of
from isogloss.report.study_more_tables import (
    correlation_tables,
    cost_table,
    effect_table,
    missing_table,
    pool_table,
    sources_of_pairs,
    step_tables,
)
from isogloss.report.study_published import published_table
from isogloss.report.study_tables import (
    difference_table,
    language_table,
    pair_table,
    standing_table,
    summary_table,
    trace_of,
)
from isogloss.report.study_training_figures import curve_figures, gate_figure
from isogloss.report.study_words import (
    draws_sentence,
    freezing_sentence,
    group_sentence,
    listed,
    method_notes,
    missing_sentence,
    task_sentence,
)
from isogloss.storage import new_folder, write_text
from isogloss.storage.atomic import refuse_occupied


def write_study_report(data: StudyData, out: Path, overwrite: bool = False, *, draws: int | None = None) -> Path:
    """Writes a study's report, whole or not at all.

    Args:
        data: What the study found.
        out: Folder to make: `report.html` (self-contained), `report.md`, `tables.tex`, `scores.csv` (every score with step,
            seed, command and commit), `comparisons.csv`, `correlations.csv`, and `figures/*.svg`.
        overwrite: Replace what stands at `out`.
        draws: Resamples of tests and intervals; by default as many as the number of comparisons needs.

    Returns:
        The page's path.

    Raises:
        IsoglossError: There is no score, or `out` holds something and `overwrite` is false.
    """
    refuse_occupied(Path(out), overwrite=overwrite)
    boards, problems = boards_of(data)
    if not boards:
        raise IsoglossError(
            f"The study '{data.name}' has no score yet, so there is nothing to report; run it first with 'isogloss study run'."
        )
    results = [compare(board, data, draws=draws) for board in boards]
    links = [links_of(board, data) for board in boards]
    page = study_page(data, results, links, problems)
    with new_folder(out, overwrite=overwrite) as folder:
        write_page(folder / "report.html", page)
        write_text(folder / "report.md", study_markdown(page))
        write_text(folder / "tables.tex", study_latex(page))
        write_text(folder / "scores.csv", scores_csv(data))
        write_text(folder / "comparisons.csv", comparisons_csv(results))
        write_text(folder / "correlations.csv", correlations_csv(links))
        for figure in all_blocks(page, Figure):
            write_text(folder / "figures" / f"{figure.name}.svg", standalone(figure))
    return Path(out) / "report.html"


def study_page(
    data: StudyData, results: Sequence[TaskResult], links: Sequence[Links], problems: Sequence[str] = ()
) -> Page:
    """The page, from what was found."""
    notes = [
        *problems,
        *(note for result in results for note in result.notes),
        *(said for result in results if (said := draws_sentence(result))),
        *_unknown_shares(results, data),
    ]
    summary = [
        data.description,
        *(task_sentence(result) for result in results),
        group_sentence(results),
        freezing_sentence(links),
        missing_sentence(data, results),
    ]
    sections = [
        _winners(results, data, notes),
        *(_task_section(result, data, place) for place, result in enumerate(results)),
        Section("Sources", [table] if (table := sources_of_pairs(results)) else []),
        _distance_section(links, data),
        Section(
            "Single choices: freezing, length, shots and others",
            [
                *([effects] if (effects := effect_table(results, data)) else []),
                *(figure for place, one in enumerate(results) for figure in factor_figures(one, place)),
            ],
        ),
        Section(
            "Parameters and cost",
            [*(f for place, one in enumerate(results) if (f := cost_figure(one, place))), cost_table(results, data)],
        ),
        Section(
            "Gates",
            [gate_figure(gates, place) for place, gates in enumerate(data.gates) if gates.values and gates.values[0]],
        ),
        Section(
            "Prompt pool",
            [
                block
                for place, pool in enumerate(data.pools)
                if len(pool.attention) and len(pool.attention[0])
                for block in _pool_blocks(pool, place)
            ],
        ),
        Section("Learning curves", curve_figures(data.curves)),
        Section("Published numbers", [published_table(results, data)] if data.published else []),
        Section(
            "Failed or missing",
            [*([missing_table(data)] if data.missing else []), *(Paragraph(f"Plan: {text}.") for text in data.notes)],
        ),
        Section("How to read this", [Paragraph(text) for text in method_notes(results)]),
        Section(
            "Where every number comes from",
            [
                Facts(
                    [
                        (
                            "scores",
                            f"{sum(len(ones) for one in results for ones in one.board.scores.values()):,} in scores.csv beside this page",
                        ),
                        ("comparisons", "comparisons.csv has every pair of settings in every group and language"),
                        ("correlations", "correlations.csv"),
                    ]
                ),
                Details("All evaluation steps, their seeds, commands and commits", step_tables(results)),
            ],
        ),
    ]
    return Page(
        title=data.name,
        summary=[text for text in summary if text],
        sections=[section for section in sections if section.blocks],
        trace=trace_of(data),
    )


def _pool_blocks(pool: PoolAttention, place: int) -> list[Block]:
    clusters = cluster_languages(pool)
    several = len(pool.languages) > 1
    origin = " ".join(filter(None, (pool.source, f"Step {pool.step}." if pool.step else "")))
    blocks: list[Block] = [attention_map(f"pool-{place}", pool, clusters), pool_table(pool)]
    if several:
        blocks = [dendrogram(f"pool-tree-{place}", pool, clusters), agreement_table(clusters), *blocks]
    return [*blocks, Paragraph(f"{pool.label}: {origin}")] if origin else blocks


def _unknown_shares(results: Sequence[TaskResult], data: StudyData) -> list[str]:
    used = dict.fromkeys(backbone_of(arm) for result in results for arm in result.board.arms)
    names = [name for name in used if name and not data.shares.get(name)]
    if not names:
        return []
    return [
        f"Which languages {listed(names)} was trained on is not known here, so no group and no correlation says how that matters; "
        "`shares` in the study file can."
    ]


def _winners(results: Sequence[TaskResult], data: StudyData, notes: Sequence[str]) -> Section:
    coarse, fine = summary_table(results, data), summary_table(results, data, finer=True)
    blocks: list[Block] = [coarse] if coarse else []
    if fine:
        blocks.append(Details("All languages together, by script and by family", [fine]))
    return Section("What won", [*blocks, *(Paragraph(note) for note in notes)])


def _task_section(result: TaskResult, data: StudyData, place: int) -> Section:
    blocks: list[Block] = [standing_figure(result, place), standing_table(result, data)]
    if (languages := language_figure(result, place)) is not None:
        blocks.append(languages)
    transfers = transfer_figures(result, place)
    blocks += transfers[:1]
    if transfers[1:]:
        blocks.append(Details(f"Source and target in {len(transfers) - 1} other settings", transfers[1:]))
    blocks.append(Details("Scores by language", [language_table(result, data)]))
    if (differences := difference_table(result, data)) is not None:
        heading = differences.title.removeprefix(f"{result.board.task}: ")
        blocks.append(Details(f"{heading[0].upper()}{heading[1:]}", [differences]))
    if (wins := win_figure(result, place)) is not None:
        blocks.append(wins)
    if (pairs := pair_table(result, data)) is not None:
        blocks.append(Details("Every two settings compared", [pairs]))
    return Section(f"Task: {result.board.task}", blocks)


def _distance_section(links: Sequence[Links], data: StudyData) -> Section:
    blocks: list[Block] = []
    for place, one in enumerate(links):
        figure = distance_figure(one, place)
        if figure is None:
            continue
        blocks.append(figure)
        first, *others = correlation_tables(one, data)
        blocks.append(first)
        frozen = [table for table in others if "frozen" in table.title]
        blocks += frozen
        rest = [table for table in others if table not in frozen]
        blocks.append(Details("Rank and partial correlations", rest))
    return Section("Distance and pre-training", blocks)
