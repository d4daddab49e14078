"""`isogloss pretrain`: a backbone from a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, number, print_facts, print_json, print_table, say
from isogloss.cli._inputs import check_device, free_output, language_name


def pretrain(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file; see recipes/pretrain/.")],
    out: o.Out,
    checkpoint_minutes: Annotated[
        float, typer.Option("--checkpoint-minutes", min=0, help="Time between checkpoints; 0 saves after every step.")
    ] = 5.0,
    threads: o.Threads = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Train a backbone from scratch, or continue one, as a recipe says; the same command continues a stopped run."""
    from isogloss.training.recipe import read_recipe

    read = read_recipe(recipe)
    target = free_output(out, overwrite)
    check_device(None, threads)

    from transformers.utils import logging

    from isogloss.training._processes import writes
    from isogloss.training.pretrain import pretrain as call
    from isogloss.training.progress import Progress

    logging.disable_progress_bar()
    objectives = ", ".join(item.name for item in read.objectives)
    start = f"continuing {read.start_from}" if read.start_from else "from scratch"
    say(
        f"{read.name} ({read.kind}) {start}: {counted(len(read.codes), 'language')}, {objectives}, {counted(read.steps, 'step')}"
    )
    result = call(
        read,
        target,
        overwrite=overwrite,
        checkpoint_seconds=60 * checkpoint_minutes,
        progress=Progress(read.name),
    )
    if not writes():
        return
    if json:
        print_json(result)
        return
    print_facts(
        [
            ("backbone", result["backbone"]),
            ("kind", read.kind),
            ("parameters", result["parameters"]),
            ("vocabulary", result["vocabulary"]),
            ("steps", f"{result['steps']:,} in {result['seconds']} s, {result['tokens_seen']:,} tokens"),
        ]
    )
    losses, perplexities = result["validation_loss"], result["validation_perplexity"]
    if losses:
        print_table(
            ("language", "code", "held-out loss", "perplexity"),
            [(language_name(code), code, number(losses[code], 3), number(perplexities[code])) for code in losses],
            right=(2, 3),
            keep=(1,),
        )
