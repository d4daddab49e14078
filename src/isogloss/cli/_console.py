"""What a command prints: a table on stdout, or one JSON object as its last line; all else goes to stderr."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def say(text: str) -> None:
    """Prints a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def plain(value: Any) -> Any:
    """The same value as JSON can hold it: paths as text, numbers that are not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:
    """Prints one JSON value as one line on stdout."""
    print(json.dumps(plain(value), ensure_ascii=False), flush=True)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str | None = None,
    right: Sequence[int] = (),
    keep: Sequence[int] = (),
    footer: Sequence[Any] | None = None,
    header: bool = True,
) -> None:
    """Prints a table on stdout.

    Args:
        columns: Headings.
        rows: Cells, as text or numbers.
        title: A line above.
        right: Numbers of the columns that are flush right.
        keep: Numbers of the columns that are never wrapped.
        footer: A last row, apart from the others.
        header: Whether the headings are shown.
    """
    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=header, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(
            name,
            justify="right" if number in right else "left",
            no_wrap=number in keep or number in right,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    if footer is not None:
        table.add_section()
        table.add_row(*(Text(_cell(value), style="bold") for value in footer))
    if title:
        console.print(Text(title, style="bold"))
    console.print(table)


def print_text(text: str = "") -> None:
    """Prints text on stdout, wrapped at the width of the terminal."""
    Console(file=sys.stdout, highlight=False).print(Text(text))


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Prints names and values, one a line, on stdout; values that say nothing are left out."""
    rows = [(name, value) for name, value in facts if value not in (None, "", ())]
    print_table(("", ""), rows, keep=(0,), header=False)


def number(value: float | None, digits: int = 1) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def counted(count: float, one: str, many: str | None = None) -> str:
    """A count with its noun: `1 language`, `2 languages`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return "-" if value is None else str(value)
