"""`isogloss quickstart`: the whole job once, on the bundled backbone and data."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import print_json
from isogloss.cli._inputs import check_backbone_name, check_device, split_list
from isogloss.errors import IsoglossError


def quickstart(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for modules, scores and report; an earlier one is replaced.")
    ] = Path("quickstart"),
    backbone: Annotated[
        str, typer.Option("--backbone", "-b", help="bundled:..., a folder, or a Hub id.")
    ] = "bundled:encoder",
    seeds: Annotated[
        list[str] | None, typer.Option("--seeds", metavar="N[,N...]", help="Train with each of these seeds [42].")
    ] = None,
    minutes: Annotated[
        float, typer.Option("--minutes", min=0.1, help="No further cell is begun that would end after this time.")
    ] = 4.0,
    threads: o.Threads = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Train language and task modules on the bundled backbone, transfer, print the table and write the report."""
    numbers = split_list(seeds) or ["42"]
    wrong = [text for text in numbers if not text.isdecimal()]
    if wrong:
        raise IsoglossError(f"--seeds {wrong[0]}: expected whole numbers separated by commas, such as 42,43.")
    check_backbone_name(backbone)
    check_device(None, threads)

    from rich.console import Console

    from isogloss.quickstart import run_quickstart

    result = run_quickstart(
        out,
        seeds=[int(text) for text in numbers],
        backbone=backbone,
        minutes=minutes,
        overwrite=overwrite,
        console=Console(file=sys.stderr if json else sys.stdout, highlight=False),
    )
    if json:
        print_json(result)
