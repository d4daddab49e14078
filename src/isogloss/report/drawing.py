"""What all figures share: colours of the page's light or dark theme, fonts, and SVG that can stand inside a page."""

import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

# Okabe and Ito's palette lives in the page's style sheet, once for light and once for dark; the figure is drawn in
# these stand-ins and refers to the style sheet afterwards. Shapes and dashes tell the series apart without colour.
INK, GRID = "#010203", "#010204"
COLOURS = tuple(f"#0102{number:02x}" for number in range(16, 24))
SHAPES = "osD^vPX*"
DASHES = (
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (3, 1)),
    (0, (8, 3)),
    (0, (1, 3)),
    (0, (4, 1, 1, 1, 1, 1)),
)
# The light theme, for files of their own.
_LIGHT = ("#595959", "#0072b2", "#c04f00", "#00805e", "#b0568a", "#9a6a00", "#1f86c4", "#1a1a1a")


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        title: What it shows.
        svg: The `<svg>` element, with nothing in it that points outside.
        alt: The same in words, for those who do not see it.
        notes: Sentences below it.
        name: Unique on the page, letters, digits and dashes.
    """

    title: str
    svg: str
    alt: str
    notes: Sequence[str] = ()
    name: str = ""


def short(value: float, _place: object = None) -> str:
    """A number for an axis: 20k, 1.5M, 0.001."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"


@contextmanager
def canvas(name: str, width: float, height: float) -> Iterator[Canvas]:
    """An empty drawing whose background is the page's.

    Args:
        name: Unique on the page; makes the ids in the SVG the same in each run.
        width: Inches.
        height: Inches.
    """
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 10,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
    }
    with matplotlib.rc_context(style):
        drawing = Canvas(figsize=(width, height), layout="constrained")
        drawing.patch.set_visible(False)
        yield drawing


def finish(drawing: Canvas, name: str, title: str, alt: str, notes: Sequence[str] = ()) -> Figure:
    """Makes the figure of a drawing; to be called inside its `canvas`."""
    drawn = io.StringIO()
    FigureCanvasSVG(drawing).print_svg(drawn, metadata={"Date": None, "Creator": None})
    return Figure(title, _inline(drawn.getvalue(), name, title, alt), alt, notes, name)


def standalone(figure: Figure) -> str:
    """The figure as an SVG file of its own, in the light theme."""
    svg = figure.svg.replace(
        "<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff;color:#1a1a1a" ', 1
    )
    for number, colour in enumerate(_LIGHT):
        svg = svg.replace(f"var(--series-{number})", colour)
    return svg.replace("var(--line)", "#d4d4d4")


def _inline(svg: str, name: str, title: str, alt: str) -> str:
    """Turns a stand-alone SVG file into an element of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    # Several figures stand on one page, and matplotlib names parts of each of them alike.
    svg = re.sub(r'(\sid=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for number, stand_in in enumerate(COLOURS):
        svg = svg.replace(stand_in, f"var(--series-{number})")
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--line)")
    head, _, body = svg.partition(">")
    size = re.search(r'viewBox="[^"]*"', head)
    # As one image with a name and a description: screen readers skip the hundreds of paths in it.
    return (
        f'<svg role="img" aria-labelledby="{name}-title" aria-describedby="{name}-alt" {size[0] if size else ""}>'
        f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-alt">{html.escape(alt)}</desc>{body}'
    )
