"""Figures as inline SVG: colours of the page's light or dark theme, a shape for each series, text for screen readers."""

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from isogloss.errors import IsoglossError
from isogloss.report.tables import Score

# Okabe and Ito's palette lives in the page's style sheet, once for light and once for dark; the figure is drawn in
# these stand-ins and refers to the style sheet afterwards. Shapes tell the series apart without colour.
_INK, _GRID = "#010203", "#010204"
_STAND_INS = tuple(f"#0102{number:02x}" for number in range(16, 24))
_SHAPES = "osD^vPX*"


@dataclass(frozen=True)
class Figure:
    """A figure of a page.

    Attributes:
        title: What it shows.
        svg: The `<svg>` element, with nothing in it that points outside.
        alt: The same in words, for those who do not see it.
        notes: Sentences below it.
    """

    title: str
    svg: str
    alt: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Series:
    """One kind of dot.

    Attributes:
        name: In the legend.
        values: By row; a row without a value gets no dot. A `Score` with an interval gets a line through it.
    """

    name: str
    values: Mapping[str, float | Score]


def dot_plot(
    name: str,
    title: str,
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    axis: str,
    alt: str,
    references: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """One row a language, one dot a series.

    Args:
        name: Unique on the page, letters and digits; keeps the ids of figures apart.
        title: Of the figure.
        rows: From top to bottom.
        series: At most eight.
        axis: What the horizontal axis measures, with its unit.
        alt: The message in words.
        references: Dashed vertical lines by name, such as the majority class.
        notes: Sentences below the figure.

    Raises:
        IsoglossError: More than eight series, or no rows.
    """
    if len(series) > len(_SHAPES) or not rows:
        raise IsoglossError(
            f"A dot plot takes 1 row or more and at most {len(_SHAPES)} series, not {len(rows)} rows and {len(series)}."
        )
    step = 0.72 / max(1, len(series) - 1)
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
        "font.size": 10,
        "text.parse_math": False,
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _GRID,
    }
    with matplotlib.rc_context(style):
        canvas = Canvas(figsize=(7.2, 1.3 + len(rows) * (0.3 + 0.05 * len(series))), layout="constrained")
        axes = canvas.add_subplot()
        # The page's own background shows through, light or dark.
        canvas.patch.set_visible(False)
        axes.patch.set_visible(False)
        for number, one in enumerate(series):
            shift = 0.0 if len(series) == 1 else number * step - 0.36
            points = [(one.values[row], place + shift) for place, row in enumerate(rows) if row in one.values]
            colour = _STAND_INS[number]
            for value, place in points:
                if isinstance(value, Score) and value.low is not None and value.high is not None:
                    axes.plot([value.low, value.high], [place, place], color=colour, linewidth=1.2, zorder=2)
            axes.plot(
                [value.value if isinstance(value, Score) else value for value, _ in points],
                [place for _, place in points],
                linestyle="none",
                marker=_SHAPES[number],
                markersize=5,
                color=colour,
                markeredgewidth=0,
                label=one.name,
                zorder=3,
            )
        for label, value in (references or {}).items():
            axes.axvline(value, color=_INK, linestyle=(0, (4, 3)), linewidth=1, label=label, zorder=1)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(axis)
        axes.grid(axis="x", linewidth=0.6)
        for place in range(1, len(rows)):
            axes.axhline(place - 0.5, color=_GRID, linewidth=0.6, zorder=0)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        longest = max(len(label) for label in (*(one.name for one in series), *(references or {})))
        canvas.legend(loc="outside upper center", ncols=max(1, min(4, 60 // (longest + 5))), frameon=False)
        drawn = io.StringIO()
        FigureCanvasSVG(canvas).print_svg(drawn, metadata={"Date": None, "Creator": None})
    return Figure(title, _inline(drawn.getvalue(), name, title, alt), alt, notes)


def _inline(svg: str, name: str, title: str, alt: str) -> str:
    """Turns a stand-alone SVG file into an element of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    # Several figures stand on one page, and matplotlib names parts of each of them alike.
    svg = re.sub(r'(\sid=")', rf"\g<1>{name}-", svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for number, stand_in in enumerate(_STAND_INS):
        svg = svg.replace(stand_in, f"var(--series-{number})")
    svg = svg.replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    head, _, body = svg.partition(">")
    size = re.search(r'viewBox="[^"]*"', head)
    # As one image with a name and a description: screen readers skip the hundreds of paths in it.
    return (
        f'<svg role="img" aria-labelledby="{name}-title" aria-describedby="{name}-alt" {size[0] if size else ""}>'
        f'<title id="{name}-title">{html.escape(title)}</title><desc id="{name}-alt">{html.escape(alt)}</desc>{body}'
    )
