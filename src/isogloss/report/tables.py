"""One table, four forms: terminal (rich), Markdown, CSV, and HTML (through `page`)."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import rich.box
import rich.table
from rich.text import Text

from isogloss.errors import IsoglossError
from isogloss.report.trace import Trace


@dataclass(frozen=True)
class Score:
    """A number with an interval.

    Attributes:
        value: The number.
        low: Lower end, or None.
        high: Upper end, or None.
    """

    value: float
    low: float | None = None
    high: float | None = None


Value = str | int | float | Score | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        numeric: Aligned to the right and sorted by value.
        digits: Decimals shown; CSV keeps them all.
        note: What the heading means, in a few words.
        wide: Holds sentences, and so gets room on a page.
    """

    name: str
    numeric: bool = False
    digits: int = 1
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """What a table says, whatever form it takes.

    Attributes:
        title: What it shows.
        columns: Headings.
        rows: One value a column; None is shown as a dash.
        footer: Rows of means and the like, which stay below when the table is sorted.
        notes: Sentences below it.
        trace: Where its numbers come from.

    Raises:
        IsoglossError: A row whose length is not the number of columns.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    footer: Sequence[Sequence[Value]] = ()
    notes: Sequence[str] = ()
    trace: Trace | None = None

    def __post_init__(self) -> None:
        """Checks the lengths."""
        for row in (*self.rows, *self.footer):
            if len(row) != len(self.columns):
                raise IsoglossError(
                    f"The table '{self.title}' has {len(self.columns)} columns, but the row starting with "
                    f"'{row[0] if row else ''}' has {len(row)} values."
                )


def show(value: Value, digits: int = 1) -> str:
    """A value as people read it."""
    match value:
        case None:
            return "–"
        case str():
            return value
        case Score():
            return show(value.value, digits)
        case bool():
            return str(value)
        case int():
            return f"{value:,}" if abs(value) >= 10_000 else str(value)
    # The z keeps a rounded -0.0 from being shown as negative.
    return "–" if math.isnan(value) else f"{value:z.{digits}f}"


def show_interval(value: Value, digits: int = 1) -> str:
    """`[low, high]` of a score that has both, else nothing."""
    if isinstance(value, Score) and value.low is not None and value.high is not None:
        return f"[{show(value.low, digits)}, {show(value.high, digits)}]"
    return ""


def sort_key(value: Value) -> str:
    """What a page sorts by: the full number, or the text."""
    if isinstance(value, Score):
        value = value.value
    return "" if value is None or value != value else str(value)


def without_columns(table: Table, names: Sequence[str]) -> Table:
    """The table without some columns, for where there is little room."""
    kept = [place for place, column in enumerate(table.columns) if column.name not in names]
    return replace(
        table,
        columns=[table.columns[place] for place in kept],
        rows=[[row[place] for place in kept] for row in table.rows],
        footer=[[row[place] for place in kept] for row in table.footer],
    )


def to_rich(table: Table) -> rich.table.Table:
    """For a terminal."""
    shown = rich.table.Table(
        title=Text(table.title), box=rich.box.SIMPLE_HEAD, title_justify="left", show_edge=False, pad_edge=False
    )
    for column in table.columns:
        shown.add_column(Text(column.name), justify="right" if column.numeric else "left", no_wrap=column.numeric)
    for number, row in enumerate(table.rows):
        shown.add_row(*_rich_cells(table, row), end_section=number == len(table.rows) - 1 and bool(table.footer))
    for row in table.footer:
        shown.add_row(*_rich_cells(table, row), style="bold")
    return shown


def _rich_cells(table: Table, row: Sequence[Value]) -> list[Text]:
    # Text and not str, because a str may hold rich's own markup.
    found = []
    for value, column in zip(row, table.columns, strict=True):
        text = show(value, column.digits)
        if isinstance(value, Score) and value.low is not None and value.high is not None:
            # Half the width: a terminal has no room for both ends.
            text += f"\n±{show((value.high - value.low) / 2, column.digits)}"
        found.append(Text(text))
    return found


def to_markdown(table: Table) -> str:
    """A GitHub table with its notes and its origin."""
    lines = [f"**{_escape(table.title)}**", ""]
    lines.append("| " + " | ".join(_escape(column.name) for column in table.columns) + " |")
    lines.append("|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|")
    for row in (*table.rows, *table.footer):
        cells = []
        for value, column in zip(row, table.columns, strict=True):
            interval = show_interval(value, column.digits)
            cells.append(_escape(show(value, column.digits) + (f" {interval}" if interval else "")))
        lines.append("| " + " | ".join(cells) + " |")
    for note in table.notes:
        lines += ["", _escape(note)]
    if table.trace:
        lines += ["", f"*{_escape(table.trace.line())}*"]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*\[\]<>|&#~])|(?<!\w)(_)|(_)(?!\w)", r"\\\g<0>", " ".join(text.split()))


def to_csv(table: Table) -> str:
    """All digits; a column with intervals becomes three. The origin stands in comment lines (`#`) on top."""
    everything = [*table.rows, *table.footer]
    wide = [any(show_interval(row[place]) for row in everything) for place in range(len(table.columns))]
    out = io.StringIO()
    if table.trace:
        out.writelines(f"# {name}: {' '.join(value.split())}\n" for name, value in table.trace.facts())
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        heading
        for column, three in zip(table.columns, wide, strict=True)
        for heading in ([column.name, f"{column.name} low", f"{column.name} high"] if three else [column.name])
    )
    for row in everything:
        writer.writerow(cell for value, three in zip(row, wide, strict=True) for cell in _csv_cells(value, three))
    return out.getvalue()


def _csv_cells(value: Value, three: bool) -> list[str | int | float]:
    score = value if isinstance(value, Score) else None
    plain = value.value if isinstance(value, Score) else value
    ends = (score.low, score.high) if score else (None, None)
    cells: list[str | int | float] = ["" if item is None else item for item in (plain, *ends)]
    return cells if three else cells[:1]
