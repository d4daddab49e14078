"""The files beside a study's page: Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Sequence
from typing import TypeVar

from isogloss.report.drawing import Figure
from isogloss.report.latex import to_latex
from isogloss.report.page import Block, Details, Facts, Page, Paragraph
from isogloss.report.study_compare import Pair, TaskResult
from isogloss.report.study_data import StudyData
from isogloss.report.study_distance import Links
from isogloss.report.study_index import arms_of
from isogloss.report.tables import Table, to_markdown

Kind = TypeVar("Kind", Figure, Table)


def all_blocks(page: Page, kind: type[Kind]) -> list[Kind]:
    """All blocks of a kind, in reading order, also those behind details."""

    def walk(blocks: Sequence[Block]) -> list[Kind]:
        found: list[Kind] = []
        for block in blocks:
            if isinstance(block, Details):
                found += walk(block.blocks)
            elif isinstance(block, kind):
                found.append(block)
        return found

    return [block for section in page.sections for block in walk(section.blocks)]


def study_markdown(page: Page) -> str:
    """The page as Markdown; figures are the files under `figures/`."""
    lines = [f"# {_plain(page.title)}", ""]
    for text in page.summary:
        lines += [f"- {_plain(text)}"]
    for section in page.sections:
        lines += ["", f"## {_plain(section.title)}", ""]
        for block in section.blocks:
            lines += _block(block)
    lines += ["", "---", "", f"*{_plain(page.trace.line())}*", ""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Text that Markdown and HTML leave alone."""
    for sign in "\\`*[]<>|&#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _block(block: Block) -> list[str]:
    match block:
        case Paragraph():
            return [_plain(block.text), ""]
        case Facts():
            return [*(f"- {_plain(name)}: {_plain(value)}" for name, value in block.pairs), ""]
        case Table():
            return [to_markdown(block)]
        case Figure():
            return [
                f"![{_plain(block.title)}](figures/{block.name}.svg)",
                "",
                f"*{_plain(block.title)}.* {_plain(block.alt)} {' '.join(_plain(note) for note in block.notes)}",
                "",
            ]
        case Details():
            return [f"### {_plain(block.title)}", "", *(line for inner in block.blocks for line in _block(inner))]
    return [line for name, meaning in block.lines for line in (_plain(meaning), "", f"    {name}", "")]


def study_latex(page: Page) -> str:
    """All tables but the list of steps."""
    head = [
        "% All tables of the study; needs \\usepackage{booktabs}.",
        f"% {' '.join(page.title.split())}",
        *(f"% {name}: {' '.join(value.split())}" for name, value in page.trace.facts()),
    ]
    # The list of steps is for the page and scores.csv; no paper prints it.
    tables = [
        table for table in all_blocks(page, Table) if table.title not in ("Evaluation steps", "Commands and commits")
    ]
    return "\n".join(["\n".join(head) + "\n", *(to_latex(table) for table in tables)])


def scores_csv(data: StudyData) -> str:
    """Every score with where it comes from."""
    keys = list(dict.fromkeys(key for one in data.scores for key in one.factors))
    arms = arms_of(data.scores)
    names = {tuple(sorted(arm.factors.items())): arm.name for arm in arms.values()}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fixed = ["task", "test_set", "setting", "source", "language", "seed", "metric", "value", "n", "seen"]
    cost = ["trained_parameters", "stored_bytes", "seconds", "step", "command", "commit"]
    writer.writerow([*fixed, *cost, *(f"factor: {key}" for key in keys)])
    for one in data.scores:
        known = {key: value for key, value in one.factors.items() if value is not None}
        writer.writerow(
            [
                one.task, one.test, names.get(tuple(sorted(known.items())), ""), one.source, one.language, one.seed, one.metric,
                repr(float(one.value)), one.n, one.seen, one.trained_parameters, one.stored_bytes, one.seconds, one.step,
                one.command, one.commit, *(one.factors.get(key, "") for key in keys),
            ]
        )  # fmt: skip
    return out.getvalue()


def comparisons_csv(results: Sequence[TaskResult]) -> str:
    """Every pair of settings in every group and language."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        ["task", "group", "source", "language", "first", "second", "difference", "low", "high", "covers", "test", "p",
         "p_corrected", "p_bh", "correction", "test_sets"]
    )  # fmt: skip

    def row(task: str, where: Sequence[str], pair: Pair, correction: str) -> None:
        gap = pair.difference
        writer.writerow(
            [task, *where, pair.first.name, pair.second.name, gap.value, gap.low, gap.high, gap.covers, pair.test, pair.p,
             pair.adjusted, pair.fdr, correction, pair.sets]
        )  # fmt: skip

    for result in results:
        task = result.board.task
        for group in result.groups:
            for pair in group.pairs:
                row(task, [group.group.name, "", ""], pair, "Holm over the pairs of the group")
        for unit, pairs in result.by_unit.items():
            for pair in pairs:
                row(task, ["", *unit], pair, "Benjamini-Hochberg over all pairs and languages of the task")
    return out.getvalue()


def correlations_csv(links: Sequence[Links]) -> str:
    """Every correlation."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["task", "setting", "predictor", "kind", "r", "low", "high", "p", "p_bh", "n", "interval"])
    for one in links:
        for link in one.links:
            kinds = {"pearson": link.pearson, "spearman": link.spearman, "partial": link.partial}
            for name, found in kinds.items():
                if found is not None:
                    adjusted = link.fdr if name == "pearson" else None
                    writer.writerow(
                        [one.board.task, link.arm.name, link.predictor, name, found.r, found.low, found.high, found.p, adjusted, found.n, found.interval]
                    )  # fmt: skip
        for predictor, (_, _, found) in one.freezing.items():
            writer.writerow(
                [one.board.task, "frozen minus unfrozen", predictor, "pearson difference", found.r, found.low, found.high, None, None, found.n, found.interval]
            )  # fmt: skip
    return out.getvalue()
