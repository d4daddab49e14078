"""Figures of what training left behind: learning curves, gates; and how widely pools are used."""

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from isogloss.report.drawing import COLOURS, Figure
from isogloss.report.heat_map import heat_map
from isogloss.report.line_plot import Line, line_plot
from isogloss.report.study_data import GateTable, LearningCurve, PoolAttention
from isogloss.report.study_figures import plain, slug


def curve_figures(curves: Sequence[LearningCurve]) -> list[Figure]:
    """Learning curves by kind, eight names a figure."""
    found = []
    kinds: dict[str, list[LearningCurve]] = defaultdict(list)
    for curve in curves:
        if len(curve.steps) == len(curve.values) and any(math.isfinite(value) for value in curve.values):
            kinds[curve.kind].append(curve)
    for kind, ours in kinds.items():
        names = list(dict.fromkeys(curve.label for curve in ours))
        for start in range(0, len(names), len(COLOURS)):
            part = names[start : start + len(COLOURS)]
            lines = [
                Line(
                    curve.label,
                    [(x, y) for x, y in zip(curve.steps, curve.values, strict=True) if math.isfinite(y)],
                )
                for curve in ours
                if curve.label in part
            ]
            last = [(line.points[-1][1], line.name) for line in lines if line.points]
            found.append(
                line_plot(
                    f"curve-{slug(kind)}-{start}",
                    f"{kind} by step"
                    + (f" ({start + 1} to {start + len(part)} of {len(names)})" if len(names) > len(part) else ""),
                    lines,
                    x_axis="step",
                    y_axis=kind,
                    markers=False,
                    alt=f"{len(lines)} trainings; last values from {min(plain(y) for y, _ in last):.3g} to {max(plain(y) for y, _ in last):.3g}.",
                )
            )
    return found


def gate_figure(gates: GateTable, place: int) -> Figure:
    """Learned gates: layers from the lowest at the bottom, inner steps from left to right."""
    means = [float(np.mean(row)) for row in gates.values]
    steps = len(gates.values[0])
    rows = list(reversed(range(len(gates.groups))))
    highest, lowest = gates.groups[int(np.argmax(means))], gates.groups[int(np.argmin(means))]
    return heat_map(
        f"gates-{place}",
        f"Gates by layer: {gates.label}",
        [gates.groups[row] for row in rows],
        [str(step + 1) for step in range(steps)],
        [list(gates.values[row]) for row in rows],
        scale="gate",
        column_axis="inner step",
        digits=2,
        alt=f"Most open on average: {highest} ({max(means):.2f}); most closed: {lowest} ({min(means):.2f}).",
        notes=["1 updates as plain training does, 0 leaves the weights alone.", f"Step {gates.step}."],
    )


def pool_entropy(pool: PoolAttention) -> list[float]:
    """Bits by language: the logarithm of how many keys it uses."""
    table = np.asarray(pool.attention, dtype=np.float64)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12)
    logs = np.log2(np.where(share > 0, share, 1.0))
    return [float(value) for value in -(share * logs).sum(axis=1)]
