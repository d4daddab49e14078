"""One self-contained HTML file: style, script and figures inside, nothing fetched, everything from data escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from isogloss.report.drawing import Figure
from isogloss.report.tables import Table, show, show_interval, sort_key
from isogloss.report.trace import Trace
from isogloss.storage import write_text


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values in two columns."""

    pairs: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Commands:
    """Lines to type, each with what it does."""

    lines: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Details:
    """Blocks behind a line that opens them; open in print.

    Attributes:
        title: The line.
        blocks: What it opens.
    """

    title: str
    blocks: Sequence["Block"]


Block = Paragraph | Facts | Commands | Table | Figure | Details


@dataclass(frozen=True)
class Section:
    """A heading with blocks below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Heading and browser title.
        summary: What a reader who stops here should know.
        sections: The rest.
        trace: Where its numbers come from; also in the footer.
    """

    title: str
    summary: Sequence[str]
    sections: Sequence[Section]
    trace: Trace


def render_page(page: Page) -> str:
    """The HTML text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"show": show, "interval": show_interval, "sort_key": sort_key, "svg": _svg, "zip": zip}
    environment.tests |= {
        "paragraph": lambda block: isinstance(block, Paragraph),
        "facts": lambda block: isinstance(block, Facts),
        "commands": lambda block: isinstance(block, Commands),
        "table": lambda block: isinstance(block, Table),
        "details": lambda block: isinstance(block, Details),
    }
    return environment.get_template("page.html").render(page=page)


def _svg(figure: Figure) -> Markup:
    # Made by matplotlib, which escapes the text in it.
    return Markup(figure.svg)


def write_page(path: str | Path, page: Page) -> Path:
    """Writes the page, whole or not at all, and returns its path."""
    write_text(path, render_page(page))
    return Path(path)
