"""Dot plots: one row a language, one dot a series, a shape for each series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isogloss.errors import IsoglossError
from isogloss.report.drawing import COLOURS, GRID, INK, SHAPES, Figure, canvas, finish
from isogloss.report.tables import Score


@dataclass(frozen=True)
class Series:
    """One kind of dot.

    Attributes:
        name: In the legend.
        values: By row; a row without a value gets no dot. A `Score` with an interval gets a line through it.
        look: Number of its colour and shape; by default its place among the series.
    """

    name: str
    values: Mapping[str, float | Score]
    look: int | None = None


def dot_plot(
    name: str,
    title: str,
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    axis: str,
    alt: str,
    references: Mapping[str, float] | None = None,
    level: bool = False,
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
        level: All dots in the middle of their rows, for series that share no row.
        notes: Sentences below the figure.

    Raises:
        IsoglossError: More than eight series, or no rows.
    """
    if len(series) > len(SHAPES) or not rows:
        raise IsoglossError(
            f"A dot plot takes 1 row or more and at most {len(SHAPES)} series, not {len(rows)} rows and {len(series)}."
        )
    step = 0.72 / max(1, len(series) - 1)
    height = 1.3 + len(rows) * (0.3 + 0.05 * (1 if level else len(series)))
    with canvas(name, 7.2, height) as drawing:
        axes = drawing.add_subplot()
        # The page's own background shows through, light or dark.
        axes.patch.set_visible(False)
        for number, one in enumerate(series):
            shift = 0.0 if level or len(series) == 1 else number * step - 0.36
            points = [(one.values[row], place + shift) for place, row in enumerate(rows) if row in one.values]
            look = number if one.look is None else one.look
            colour = COLOURS[look]
            for value, place in points:
                if isinstance(value, Score) and value.low is not None and value.high is not None:
                    axes.plot([value.low, value.high], [place, place], color=colour, linewidth=1.2, zorder=2)
            axes.plot(
                [value.value if isinstance(value, Score) else value for value, _ in points],
                [place for _, place in points],
                linestyle="none",
                marker=SHAPES[look],
                markersize=5,
                color=colour,
                markeredgewidth=0,
                label=one.name,
                zorder=3,
            )
        for label, value in (references or {}).items():
            axes.axvline(value, color=INK, linestyle=(0, (4, 3)), linewidth=1, label=label, zorder=1)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(axis)
        axes.grid(axis="x", linewidth=0.6)
        for place in range(1, len(rows)):
            axes.axhline(place - 0.5, color=GRID, linewidth=0.6, zorder=0)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        longest = max(len(label) for label in (*(one.name for one in series), *(references or {})))
        drawing.legend(loc="outside upper center", ncols=max(1, min(4, 60 // (longest + 5))), frameon=False)
        return finish(drawing, name, title, alt, notes)
