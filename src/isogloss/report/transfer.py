"""The pages of one transfer experiment: languages x cells. `isogloss quickstart` writes one."""

from collections.abc import Mapping
from typing import Any

from isogloss.report.drawing import Figure
from isogloss.report.figures import Series, dot_plot
from isogloss.report.page import Commands, Facts, Page, Paragraph, Section
from isogloss.report.tables import Column, Score, Table, Value
from isogloss.report.trace import Trace

CELL_NOTES = {
    "head only": "no module: a linear classifier on the frozen backbone",
    "TA": "task adapter, no language module",
    "TP": "task prompt, no language module",
    "LA+TA": "language adapter under a task adapter",
    "LP+TA": "language prompt with a task adapter",
    "LA+TP": "language adapter with a task prompt",
    "LP+TP": "language prompt with a task prompt",
}


def trace_of(results: Mapping[str, Any]) -> Trace:
    """The origin of all numbers of a results file."""
    return Trace(
        command=results["command"],
        seeds=results["seeds"],
        backbone=results["backbone"]["name"],
        fingerprint=results["backbone"]["fingerprint"],
        date=results["date"],
        version=results["isogloss"],
        data=f"{results['data']}, split {results['split']}, trained on {results['source_name']}",
    )


def score_table(results: Mapping[str, Any]) -> Table:
    """Languages x cells, the mean over zero-shot languages with its interval, and the majority class."""
    cells = results["cells"]
    columns = [
        Column("language"),
        Column("code"),
        Column("majority", numeric=True, note="always the most frequent training label"),
        *(Column(name, numeric=True, note=CELL_NOTES.get(name, "")) for name in cells),
    ]
    rows: list[list[Value]] = []
    for code, language in results["languages"].items():
        name = f"{language['name']} (source)" if code == results["source"] else language["name"]
        scores = [_score(cell["scores"].get(code), results["metric"]) for cell in cells.values()]
        rows.append([name, code, results["majority"]["scores"][code], *scores])
    means = [Score(cell["mean"], *cell["interval"]) for cell in cells.values()]
    count = len(results["zero_shot"])
    footer: list[list[Value]] = [[f"mean of {count} zero-shot", "", results["majority"]["mean"], *means]]
    return Table(
        title=f"{results['task'].capitalize()} classification, {results['metric']} in percent",
        columns=columns,
        rows=rows,
        footer=footer,
        notes=results["limits"],
        trace=trace_of(results),
    )


def _score(found: Mapping[str, float] | None, metric: str) -> Value:
    return None if found is None else found[metric]


def difference_table(results: Mapping[str, Any]) -> Table:
    """Each cell against the same task module without a language module."""
    return Table(
        title="Gain over the same task module without a language module, points",
        columns=[Column("cell"), Column("compared with"), Column("difference", numeric=True)],
        rows=[
            [name, found["against"], Score(found["difference"], *found["interval"])]
            for name, found in results["differences"].items()
        ],
        notes=[
            "Mean over the zero-shot languages; in brackets the 95% bootstrap interval over test sentences. An "
            "interval that contains 0 means that this test cannot tell the two apart."
        ],
        trace=trace_of(results),
    )


def score_figure(results: Mapping[str, Any]) -> Figure:
    """One dot a language and cell, best language on top, the mean at the bottom."""
    cells, metric = results["cells"], results["metric"]
    names = {code: language["name"] for code, language in results["languages"].items()}

    def height(code: str) -> float:
        found = [cell["scores"][code][metric] for cell in cells.values() if code in cell["scores"]]
        return float(sum(found) / len(found))

    order = sorted((code for code in names if code != results["source"]), key=height, reverse=True)
    source = f"{names[results['source']]} (source)"
    labels = {code: names[code] for code in order} | {results["source"]: source}
    bottom = f"mean of {len(results['zero_shot'])} zero-shot"
    series = [
        Series(
            name,
            {labels[code]: found[metric] for code, found in cell["scores"].items()}
            | {bottom: Score(cell["mean"], *cell["interval"])},
        )
        for name, cell in cells.items()
    ]
    best = max(cells, key=lambda name: cells[name]["mean"])
    return dot_plot(
        "scores",
        f"{metric.capitalize()} by language and cell",
        [source, *(labels[code] for code in order), bottom],
        series,
        axis=f"{metric}, percent",
        references={"majority": results["majority"]["mean"]},
        alt=(
            f"Highest mean over the zero-shot languages: {best} with {cells[best]['mean']:.1f}; majority class "
            f"{results['majority']['mean']:.1f}. Highest zero-shot language: {names[order[0]]}; lowest: {names[order[-1]]}."
        ),
        notes=["Lines through the dots of the last row are 95% intervals. All numbers stand in the table above."],
    )


def loss_figure(results: Mapping[str, Any]) -> Figure | None:
    """Held-out loss on raw text with and without language modules; None when no module recorded it."""
    without: dict[str, float] = {}
    other_text: dict[str, float] = {}
    series: dict[str, dict[str, float]] = {}
    for module in results["language_modules"]:
        if "loss" not in module or "loss_without" not in module:
            continue
        name = results["languages"].get(module["language"], {}).get("name", module["language"])
        row = f"{name} (trained here)" if module["origin"] == "trained now" else name
        # Adapter and prompt were usually measured on the same text; where not, each needs its own comparison.
        if without.setdefault(row, module["loss_without"]) != module["loss_without"]:
            other_text[row] = module["loss_without"]
        series.setdefault(f"with {module['method']}", {})[row] = module["loss"]
    rows = sorted(without)
    if not rows:
        return None
    series = {"without": without, **({"without (prompt's text)": other_text} if other_text else {}), **series}
    gains = [
        module["loss_without"] - module["loss"] for module in results["language_modules"] if "loss_without" in module
    ]
    return dot_plot(
        "losses",
        "What language modules learn from raw text",
        rows,
        [Series(name, values) for name, values in series.items()],
        axis="loss on held-out text, nats a scored token (lower is better)",
        alt=(
            f"{sum(gain > 0 for gain in gains)} of {len(gains)} language modules lower the loss on held-out text of "
            f"their language; the mean change is {-sum(gains) / len(gains):+.3f} nats."
        ),
    )


def module_table(results: Mapping[str, Any]) -> Table:
    """Every module that was used, with its size."""
    rows: list[list[Value]] = [
        [module["module"], "language", module["spec"], module["origin"], module["parameters"]]
        for module in results["language_modules"]
    ]
    for cell in results["cells"].values():
        rows += [[run["module"], "task", cell["spec"], "trained now", run["parameters"]] for run in cell["runs"]]
    return Table(
        title="Module folders",
        columns=[
            Column("folder"),
            Column("role"),
            Column("module"),
            Column("origin"),
            Column("parameters", numeric=True, note="numbers stored, the task head included"),
        ],
        rows=rows,
        trace=trace_of(results),
    )


def transfer_page(results: Mapping[str, Any]) -> Page:
    """The report of one experiment, from its results file."""
    backbone = results["backbone"]
    loss = loss_figure(results)
    sections = [
        Section("Scores", [score_table(results), score_figure(results)]),
        Section(
            "What was done",
            [
                *(Paragraph(text) for text in results["done"]),
                Facts([(name, CELL_NOTES[name]) for name in results["cells"] if name in CELL_NOTES]),
            ],
        ),
        Section(
            "Language modules", [*([loss] if loss else []), *(Paragraph(text) for text in results["language_notes"])]
        ),
        Section("Modules and backbone", [module_table(results), Facts(_backbone_facts(backbone))]),
        Section("What to try next", [Commands([(line, meaning) for line, meaning in results["next"]])]),
    ]
    if results["differences"]:
        sections[0] = Section("Scores", [*sections[0].blocks, difference_table(results)])
    return Page(
        title=f"Carrying {results['task']} classification from {results['source_name']} to {len(results['zero_shot'])} languages",
        summary=[results["summary"]],
        sections=[section for section in sections if section.blocks],
        trace=trace_of(results),
    )


def _backbone_facts(backbone: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("backbone", str(backbone["name"])),
        ("kind", str(backbone["kind"])),
        ("parameters", f"{backbone['parameters']:,}"),
        ("fingerprint", str(backbone["fingerprint"])),
    ]
