"""`isogloss bench`: speed and memory beside what is installed."""

from pathlib import Path
from typing import Annotated

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import print_facts, print_json, print_table, print_text, say
from isogloss.errors import IsoglossError

_NAMES = "prompt, memory, adapter, routing, padding"


def bench(
    what: Annotated[list[str] | None, typer.Argument(metavar="[WHAT...]", help=f"{_NAMES} [all of them].")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny models: shows in seconds that all runs; the ratios mean nothing.")
    ] = False,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Counted rounds.")] = 3,
    threads: Annotated[int, typer.Option("--threads", min=1, help="CPU threads.")] = 1,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="fp32 or bf16, for prompt and memory; repeat for both [both]."),
    ] = None,
    adapters_python: Annotated[
        Path | None,
        typer.Option("--adapters-python", metavar="FILE", help="Python of an environment with adapters==1.3.0."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights and batches.")] = 0,
    json: o.Json = False,
) -> None:
    """Measure speed and memory of training and prediction, side by side with the libraries that are installed."""
    from isogloss.bench import MEASUREMENTS, Options, run

    names = list(dict.fromkeys(what or MEASUREMENTS))
    for name in names:
        if name not in MEASUREMENTS:
            raise IsoglossError(f"There is no measurement '{name}'; use one of {', '.join(MEASUREMENTS)}.")
    precisions = tuple(dict.fromkeys(precision or ("fp32", "bf16")))
    for name in precisions:
        if name not in ("fp32", "bf16"):
            raise IsoglossError(f"--precision is fp32 or bf16, but it is '{name}'.")
    if adapters_python is not None and not adapters_python.is_file():
        raise IsoglossError(
            f"--adapters-python: there is no file {adapters_python}; give the `python` of an environment."
        )
    options = Options(
        quick=quick,
        rounds=rounds,
        threads=threads,
        seed=seed,
        precisions=precisions,
        adapters_python=adapters_python,
        say=say,
    )
    machine, results = run(names, options)
    if json:
        numbers = {name: {**result.numbers, "notes": result.notes} for name, result in results.items()}
        print_json({"machine": machine, "quick": quick, "rounds": rounds, **numbers})
        return
    for result in results.values():
        for table in result.tables:
            print_table(table.columns, table.rows, title=table.title, right=range(1, len(table.columns)), keep=(0,))
            print_text()
        for note in result.notes:
            print_text(note)
        print_text()
    print_facts((name, str(value)) for name, value in machine.items())
    if quick:
        print_text("These are tiny models: the ratios say nothing about real ones.")
