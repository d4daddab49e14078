"""What a measurement is asked for and what it gives back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        quick: Tiny models: shows in seconds that everything runs; the ratios mean nothing.
        rounds: Counted rounds.
        threads: Threads of torch.
        seed: Of weights and batches.
        precisions: `fp32`, `bf16` or both, where a measurement has them.
        adapters_python: Python of an environment with the `adapters` library; None leaves its side out.
        say: Takes lines that tell how far it is.
    """

    quick: bool = False
    rounds: int = 3
    threads: int = 1
    seed: int = 0
    precisions: tuple[str, ...] = ("fp32", "bf16")
    adapters_python: Path | None = None
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Table:
    """A table for people; the first column is text, the others are numbers."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass
class Result:
    """One measurement.

    Attributes:
        tables: For people.
        numbers: Everything, as JSON data.
        notes: What was left out and why, and what was checked.
    """

    tables: list[Table] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
