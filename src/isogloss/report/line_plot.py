"""Lines: a series a line, with intervals; told apart by colour, marker and dash."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import NullLocator

from isogloss.errors import IsoglossError
from isogloss.report.drawing import COLOURS, DASHES, INK, SHAPES, Figure, canvas, finish, short
from isogloss.report.tables import Score


@dataclass(frozen=True)
class Line:
    """One line.

    Attributes:
        name: In the legend; lines of one name share their colour and stand there once.
        points: (x, y) from left to right; a `Score` with an interval gets a bar.
    """

    name: str
    points: Sequence[tuple[float, float | Score]]


def line_plot(
    name: str,
    title: str,
    lines: Sequence[Line],
    *,
    x_axis: str,
    y_axis: str,
    alt: str,
    markers: bool = True,
    log: bool = False,
    ticks: Sequence[float] | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """Draws lines.

    Args:
        name: Unique on the page, letters, digits and dashes.
        title: Of the figure.
        lines: At most eight names.
        x_axis: What the horizontal axis measures.
        y_axis: What the vertical axis measures.
        alt: The message in words.
        markers: A marker at each point; off for lines of many points.
        log: Logarithmic horizontal axis.
        ticks: Where the horizontal axis has its marks.
        notes: Sentences below the figure.

    Raises:
        IsoglossError: More than eight names, or no lines.
    """
    names = list(dict.fromkeys(line.name for line in lines))
    if not names or len(names) > len(COLOURS):
        raise IsoglossError(f"A line plot takes 1 to {len(COLOURS)} names, not {len(names)}.")
    with canvas(name, 7.2, 4.2 + 0.12 * len(names)) as drawing:
        axes = drawing.add_subplot()
        axes.patch.set_visible(False)
        named: set[str] = set()
        for line in lines:
            number = names.index(line.name)
            style: dict[str, Any] = {"color": COLOURS[number], "linewidth": 1.4, "zorder": 2}
            # Lines of several names on one set of points would hide one another's bars.
            shift = 1 + 0.012 * (number - (len(names) - 1) / 2) if log else 1.0
            x = [point * shift for point, _ in line.points]
            y = [value.value if isinstance(value, Score) else value for _, value in line.points]
            for place, (_, value) in zip(x, line.points, strict=True):
                if isinstance(value, Score) and value.low is not None and value.high is not None:
                    axes.plot([place, place], [value.low, value.high], **{**style, "linewidth": 1.0})
            axes.plot(
                x, y, linestyle=DASHES[number], marker=SHAPES[number] if markers else None, markersize=5,
                markeredgewidth=0, label=None if line.name in named else line.name, **style,
            )  # fmt: skip
            named.add(line.name)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(short)
            axes.xaxis.set_minor_locator(NullLocator())
        if ticks is not None:
            axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)
        axes.grid(linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        if len(names) > 1 or names[0]:
            longest = max(len(label) for label in names)
            columns = max(1, min(4, 70 // (longest + 6)))
            drawing.legend(loc="outside upper center", ncols=columns, frameon=False, labelcolor=INK, handlelength=3)
        return finish(drawing, name, title, alt, notes)
