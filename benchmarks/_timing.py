"""Options and printing for a script that measures what `isogloss bench` does not; the measuring itself is that of the command."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from isogloss.bench import Options, Table, timing
from isogloss.bench.timing import Claim, Series, Side, claims, machine, timed
from isogloss.cli._console import print_table

__all__ = [
    "arguments",
    "claims",
    "claims_as_list",
    "interleaved",
    "machine",
    "show_claims",
    "show_times",
    "timed",
    "write_json",
]


def arguments(description: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a tiny model: shows that the script runs, not how fast")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers to FILE")
    return parser


def interleaved(sides: Mapping[str, Side], *, rounds: int, warmup: int = 1) -> dict[str, Series]:
    """Runs all sides in turn."""
    options = Options(rounds=rounds, say=lambda line: print(line, file=sys.stderr, flush=True))
    return timing.interleaved(sides, options, warmup=warmup)


def show_times(title: str, series: Mapping[str, Series]) -> None:
    """Prints a table of seconds per step."""
    _show(timing.result_of(title, series, []).tables[0])


def show_claims(title: str, found: Sequence[tuple[Claim, Claim]]) -> None:
    """Prints a table of ratios: each claim by wall time and by processor time."""
    _show(replace(timing.result_of("", {}, found).tables[1], title=title))


def claims_as_list(found: Sequence[tuple[Claim, Claim]]) -> list[dict[str, Any]]:
    """Claims for JSON."""
    return list(timing.result_of("", {}, found).numbers["claims"])


def write_json(path: Path | None, values: Mapping[str, Any]) -> None:
    """Writes all numbers, if a file is wanted."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), **values}, indent=1) + "\n")


def _show(table: Table) -> None:
    print_table(table.columns, table.rows, title=table.title, right=range(1, len(table.columns)), keep=(0,))
