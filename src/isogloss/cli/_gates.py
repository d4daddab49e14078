"""A learned rule as the report shows it: one page with its gates as figure and table."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isogloss.meta.saved import RuleRecord
    from isogloss.report.study_data import GateTable


def gate_table(record: "RuleRecord", *, step: str, label: str) -> "GateTable":
    """The gates of a rule for a report: a row a group, a column a part of the fine-tuning.

    Args:
        record: Of a saved rule.
        step: What the report calls it by.
        label: Of the figure.
    """
    from isogloss.report.study_data import GateTable

    values = [[row[place] for row in record.gates] for place in range(len(record.groups))]
    return GateTable(step, label, list(record.groups), values)


def write_gates(record: "RuleRecord", path: Path, *, name: str) -> Path:
    """Writes the page.

    Args:
        record: Of a saved rule.
        path: HTML file.
        name: Of the rule's folder.
    """
    from isogloss.formats.saved import isogloss_version
    from isogloss.report import Facts, Page, Section, Trace, write_page
    from isogloss.report.study_training_figures import gate_figure

    table = gate_table(record, step=name, label=f"{record.method}, {record.task}")
    facts = Facts(
        [
            ("method", record.method),
            ("backbone", f"{record.backbone} (fingerprint {record.fingerprint})"),
            ("task", record.task),
            ("source languages", ", ".join(record.source)),
            ("auxiliary languages", ", ".join(record.auxiliary)),
            ("mean gate", f"{record.mean_gate:.3f}"),
        ]
    )
    page = Page(
        f"Update rule {name}",
        [
            "How far each group of weights moves in fine-tuning, as meta-training left it: columns are parts of the "
            "fine-tuning from its beginning to its end.",
            f"Labels of {', '.join(record.seen)} took part, so their scores are not zero-shot.",
        ],
        [Section("Gates", [gate_figure(table, 1)]), Section("What it was learned on", [facts])],
        Trace(
            command=f"isogloss meta show {name}",
            seeds=[int(record.training.get("seed", 0))],
            backbone=record.backbone,
            fingerprint=record.fingerprint,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            version=isogloss_version(),
            data=str(record.training.get("data", "")),
        ),
    )
    return write_page(path, page)
