"""Scatter plots in panels, with a fitted line for each series."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import NullLocator

from isogloss.errors import IsoglossError
from isogloss.report.drawing import COLOURS, DASHES, SHAPES, Figure, canvas, finish, short


@dataclass(frozen=True)
class Cloud:
    """Points of one series in one panel.

    Attributes:
        name: In the legend; the same in all panels.
        x: [n].
        y: [n].
        fit: Whether the least-squares line is drawn.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    fit: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        axis: What its horizontal axis measures.
        clouds: Its series.
        log: Logarithmic horizontal axis; the line is fitted to the logarithm.
    """

    axis: str
    clouds: Sequence[Cloud]
    log: bool = False


def scatter_plot(
    name: str, title: str, panels: Sequence[Panel], *, y_axis: str, alt: str, across: int = 2, notes: Sequence[str] = ()
) -> Figure:
    """Draws panels that share their vertical axis.

    Args:
        name: Unique on the page, letters, digits and dashes.
        title: Of the figure.
        panels: In reading order.
        y_axis: What the vertical axes measure.
        alt: The message in words.
        across: Panels side by side.
        notes: Sentences below the figure.

    Raises:
        IsoglossError: More than eight series, or no panel.
    """
    names = list(dict.fromkeys(cloud.name for panel in panels for cloud in panel.clouds))
    if not panels or not names or len(names) > len(COLOURS):
        raise IsoglossError(f"A scatter plot takes 1 to {len(COLOURS)} series, not {len(names)}.")
    across = min(across, len(panels))
    down = -(-len(panels) // across)
    with canvas(name, 7.2, (2.4 if across > 1 else 3.6) * down + 0.5) as drawing:
        grid = drawing.subplots(down, across, sharey=True, squeeze=False)
        for place, panel in enumerate(panels):
            axes = grid[place // across][place % across]
            axes.patch.set_visible(False)
            for cloud in panel.clouds:
                number = names.index(cloud.name)
                x, y = np.asarray(cloud.x, dtype=np.float64), np.asarray(cloud.y, dtype=np.float64)
                axes.plot(
                    x, y, linestyle="none", marker=SHAPES[number], markersize=4.5, markeredgewidth=0,
                    color=COLOURS[number], alpha=0.75, label=cloud.name if place == 0 else None,
                )  # fmt: skip
                at = np.log10(x) if panel.log else x
                if cloud.fit and len(x) > 2 and np.ptp(at) > 0:
                    slope, start = np.polyfit(at, y, 1)
                    ends = np.array([at.min(), at.max()])
                    shown = 10**ends if panel.log else ends
                    axes.plot(
                        shown, slope * ends + start, color=COLOURS[number], linestyle=DASHES[number], linewidth=1.6
                    )
            if panel.log:
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter(short)
                axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel(panel.axis)
            if place % across == 0:
                axes.set_ylabel(y_axis)
            axes.grid(linewidth=0.6)
            axes.set_axisbelow(True)
            axes.tick_params(length=0, which="both")
            axes.spines[["top", "right"]].set_visible(False)
        for place in range(len(panels), down * across):
            grid[place // across][place % across].set_axis_off()
        if len(names) > 1:
            longest = max(len(label) for label in names)
            drawing.legend(
                loc="outside upper center", ncols=max(1, min(4, 70 // (longest + 5))), frameon=False, markerscale=1.2
            )
        return finish(drawing, name, title, alt, notes)
