"""Timing two or more ways of doing one thing side by side, in one run, on a machine that others use too.

A round runs every side once, on the same batch, and every second round runs them in the opposite order, so a
slow moment of the machine hits all sides. What is reported is the ratio within each round: its median, smallest and
largest. Seconds are given as wall time and as processor time; with one thread the second does not count the time in which
another program held the core.
"""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from isogloss.backbones import products
from isogloss.bench.result import Options, Result, Table


@dataclass(frozen=True)
class Spent:
    """What one repeat of one side took, per step, in seconds."""

    wall: float
    cpu: float


Side = Callable[[int], Spent]


@dataclass
class Series:
    """All repeats of one side."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def median(self, clock: str = "wall") -> float:
        """Median seconds of a step."""
        return float(statistics.median(getattr(self, clock)))

    def as_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {
            "seconds_per_step": self.median(),
            "cpu_seconds_per_step": self.median("cpu"),
            "steps_per_second": 1 / self.median(),
            "wall": self.wall,
            "cpu": self.cpu,
        }


@dataclass(frozen=True)
class Ratio:
    """Seconds of the slower side over seconds of ours, round by round."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x [{self.low:.2f}-{self.high:.2f}]"


def timed(step: Callable[[int], object]) -> Side:
    """Makes a side of a function that does one step on batch number n."""

    def side(number: int) -> Spent:
        # A collection that another side's garbage causes must not fall into this side's time.
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        step(number)
        return Spent(time.perf_counter() - wall, time.process_time() - cpu)

    return side


def interleaved(sides: Mapping[str, Side], options: Options, *, warmup: int = 1) -> dict[str, Series]:
    """Runs all sides in turn.

    Args:
        sides: Name -> function of the round's number.
        options: How many rounds, and where progress goes.
        warmup: Rounds not counted, first.
    """
    series = {name: Series() for name in sides}
    for number in range(-warmup, options.rounds):
        names = list(sides)
        for name in names if number % 2 == 0 else reversed(names):
            spent = sides[name](max(number, 0))
            label = "warm-up" if number < 0 else f"round {number + 1}/{options.rounds}"
            options.say(f"{label}: {name} {spent.wall:.2f} s, CPU {spent.cpu:.2f} s")
            if number >= 0:
                series[name].wall.append(spent.wall)
                series[name].cpu.append(spent.cpu)
    return series


def ratio(slow: Series, fast: Series, clock: str = "wall") -> Ratio:
    """How many times as fast the second side is."""
    pairs = [a / b for a, b in zip(getattr(slow, clock), getattr(fast, clock), strict=True)]
    return Ratio(statistics.median(pairs), min(pairs), max(pairs))


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    import transformers

    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
        if Path("/proc/cpuinfo").exists()
        else iter(()),
        platform.processor(),
    )
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": [round(value, 1) for value in os.getloadavg()],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "onednn": products.pays(),
        "python": platform.python_version(),
    }


@dataclass
class Claim:
    """One ratio that is compared with a bar."""

    what: str
    ratio: Ratio
    bar: float | None = None

    @property
    def met(self) -> str:
        """yes, no, or nothing where there is no bar."""
        return "" if self.bar is None else "yes" if self.ratio.median >= self.bar else "no"


def claims(
    series: Mapping[str, Series], wanted: Sequence[tuple[str, str, str, float | None]]
) -> list[tuple[Claim, Claim]]:
    """Claims by wall time and by processor time, from (text, slow side, fast side, bar); those of absent sides are left out."""
    return [
        (
            Claim(what, ratio(series[slow], series[fast]), bar),
            Claim(what, ratio(series[slow], series[fast], "cpu"), bar),
        )
        for what, slow, fast, bar in wanted
        if slow in series and fast in series
    ]


def result_of(title: str, series: Mapping[str, Series], found: Sequence[tuple[Claim, Claim]], **numbers: Any) -> Result:
    """Tables of seconds and of ratios, and all numbers."""
    times = Table(
        title,
        ("side", "s/step", "min-max", "CPU s/step", "steps/s"),
        [
            (
                name,
                f"{item.median():.3g}",
                f"{min(item.wall):.3g}-{max(item.wall):.3g}",
                f"{item.median('cpu'):.3g}",
                f"{1 / item.median():.3g}",
            )
            for name, item in series.items()
        ],
    )
    ratios = Table(
        "Ratio of seconds, same batch, same round: median [min-max]",
        ("slower / faster", "wall", "CPU", "wanted", "met"),
        [
            (
                wall.what,
                str(wall.ratio),
                str(cpu.ratio),
                "" if wall.bar is None else f">= {wall.bar:g}x",
                wall.met,
            )
            for wall, cpu in found
        ],
    )
    claimed = [
        {"claim": wall.what, "wall": vars(wall.ratio), "cpu": vars(cpu.ratio), "bar": wall.bar, "met": wall.met}
        for wall, cpu in found
    ]
    times_of = {name: item.as_dict() for name, item in series.items()}
    return Result([times, ratios] if found else [times], {"times": times_of, "claims": claimed, **numbers})
