"""Heat maps: a number a cell, coloured by a palette that colour-blind readers can order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from isogloss.report.drawing import GRID, INK, Figure, canvas, finish

# Below this width numbers inside cells run into one another.
_WRITTEN = 20


def heat_map(
    name: str,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    *,
    scale: str,
    alt: str,
    row_axis: str = "",
    column_axis: str = "",
    digits: int = 0,
    middle: float | None = None,
    bounds: tuple[float, float] | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """A table in colours.

    Args:
        name: Unique on the page, letters, digits and dashes.
        title: Of the figure.
        rows: Names from top to bottom.
        columns: Names from left to right.
        values: [rows][columns]; None is drawn empty.
        scale: What the colours measure, with its unit.
        alt: The message in words.
        row_axis: What the rows are.
        column_axis: What the columns are.
        digits: Decimals of the numbers in the cells, which are written where there is room.
        middle: The value of the palette's neutral middle, for what has two directions.
        bounds: Values at the ends of the palette; by default the lowest and highest.
        notes: Sentences below the figure.
    """
    table = np.array([[np.nan if value is None else value for value in row] for row in values], dtype=np.float64)
    known = table[~np.isnan(table)]
    low, high = bounds or ((float(known.min()), float(known.max())) if len(known) else (0.0, 1.0))
    if middle is not None:
        reach = max(abs(low - middle), abs(high - middle), 1e-9)
        low, high = middle - reach, middle + reach
    if high <= low:
        low, high = low - 0.5, high + 0.5
    palette = colormaps["PuOr_r" if middle is not None else "cividis"].resampled(48)
    shade = Normalize(low, high)
    longest = max(len(column) for column in columns)
    upright = len(columns) * max(longest, 5) <= 75
    height = 1.1 + 0.26 * len(rows) + (0.25 if upright else 0.075 * min(longest, 32))
    with canvas(name, 7.2, height) as drawing:
        axes = drawing.add_subplot()
        axes.patch.set_visible(False)
        mesh = axes.pcolormesh(np.ma.masked_invalid(table), cmap=palette, norm=shade, edgecolor="none")
        if len(columns) <= _WRITTEN:
            size = 9 if len(columns) <= 14 else 7.5
            for row, column in np.ndindex(*table.shape):
                value = table[row, column]
                if np.isnan(value):
                    axes.text(
                        column + 0.5,
                        row + 0.5,
                        "–",
                        ha="center",
                        va="center",
                        fontsize=size,
                        color=INK,
                        in_layout=False,
                    )
                    continue
                red, green, blue, _ = palette(shade(value))
                bright = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 > 0.18
                axes.text(
                    column + 0.5, row + 0.5, f"{value:.{digits}f}", ha="center", va="center", fontsize=size,
                    color="#000000" if bright else "#ffffff", in_layout=False,
                )  # fmt: skip
        for row, column in np.argwhere(np.isnan(table)):
            axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=GRID, linewidth=0.6))
        axes.set_ylim(len(rows), 0)
        axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
        if len(columns) <= 3 * _WRITTEN:
            turned: dict[str, Any] = {} if upright else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
            axes.set_xticks(np.arange(len(columns)) + 0.5, columns, **turned)
        else:
            axes.set_xticks([])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_ylabel(row_axis)
        axes.set_xlabel(column_axis)
        bar = drawing.colorbar(mesh, ax=axes, pad=0.02, fraction=0.04, aspect=max(8, 2.2 * len(rows)))
        bar.set_label(scale)
        bar.outline.set_visible(False)
        # Without edges of their own colour the steps of the bar show hair lines between them.
        if bar.solids is not None:
            bar.solids.set_edgecolor("face")
        return finish(drawing, name, title, alt, notes)
