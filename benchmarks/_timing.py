"""Timing two or more ways of doing one thing side by side, in one run, on a machine that others use too.

A round runs every side once, on the same batch, and every second round runs them in the opposite order, so a
slow moment of the machine hits all sides. What is reported is the ratio within each round: its median, smallest and
largest. Seconds are given as wall time and as processor time; with one thread the second does not count the time in which
another program held the core.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


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
        return statistics.median(getattr(self, clock))

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


def interleaved(sides: Mapping[str, Side], *, rounds: int, warmup: int = 1) -> dict[str, Series]:
    """Runs all sides in turn.

    Args:
        sides: Name -> function of the round's number.
        rounds: Counted rounds.
        warmup: Rounds not counted, first.
    """
    series = {name: Series() for name in sides}
    for number in range(-warmup, rounds):
        names = list(sides)
        for name in names if number % 2 == 0 else reversed(names):
            spent = sides[name](max(number, 0))
            label = "warm-up" if number < 0 else f"round {number + 1}/{rounds}"
            print(f"{label}: {name} {spent.wall:.2f} s, CPU {spent.cpu:.2f} s", file=sys.stderr, flush=True)
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
        "python": platform.python_version(),
    }


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model: shows that the script runs, not how fast")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to FILE")
    return parser


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


def show_times(title: str, series: Mapping[str, Series]) -> None:
    """Prints a table of seconds per step."""
    table = Table(title=title, title_justify="left")
    for column in ("side", "s/step", "min-max", "CPU s/step", "steps/s"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for name, item in series.items():
        table.add_row(
            name,
            f"{item.median():.3f}",
            f"{min(item.wall):.3f}-{max(item.wall):.3f}",
            f"{item.median('cpu'):.3f}",
            f"{1 / item.median():.3f}",
        )
    Console(width=120).print(table)


def show_claims(title: str, claims: Sequence[tuple[Claim, Claim]]) -> None:
    """Prints a table of ratios: each claim by wall time and by processor time."""
    table = Table(title=title, title_justify="left")
    for column in ("claim", "wall: median [min-max]", "CPU: median [min-max]", "bar", "met (wall)"):
        table.add_column(column, justify="left" if column == "claim" else "right")
    for wall, cpu in claims:
        table.add_row(
            wall.what, str(wall.ratio), str(cpu.ratio), "" if wall.bar is None else f">= {wall.bar:g}x", wall.met
        )
    Console(width=120).print(table)


def claims(
    series: Mapping[str, Series], wanted: Sequence[tuple[str, str, str, float | None]]
) -> list[tuple[Claim, Claim]]:
    """Builds claims from (text, slow side, fast side, bar)."""
    return [
        (
            Claim(what, ratio(series[slow], series[fast]), bar),
            Claim(what, ratio(series[slow], series[fast], "cpu"), bar),
        )
        for what, slow, fast, bar in wanted
    ]


def claims_as_list(found: Sequence[tuple[Claim, Claim]]) -> list[dict[str, Any]]:
    """Claims for JSON."""
    return [
        {"claim": wall.what, "wall": vars(wall.ratio), "cpu": vars(cpu.ratio), "bar": wall.bar, "met": wall.met}
        for wall, cpu in found
    ]


def write_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Writes all numbers, if a file is wanted."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **values}, indent=1) + "\n")
