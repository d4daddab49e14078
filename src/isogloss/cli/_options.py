"""Options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
Backbone = Annotated[
    str,
    typer.Option("--backbone", "-b", help="bundled:encoder|decoder|encoder-decoder, a folder, or a Hub id."),
]
BackboneOfModule = Annotated[
    str | None,
    typer.Option("--backbone", "-b", help="Only when it has moved: by default the modules say which one."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to make; the same one continues a run that stopped.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out already holds.")]
Dtype = Annotated[
    str | None,
    typer.Option("--dtype", help="Precision of the backbone: fp32, bf16 or fp16 [fp32 on a CPU, else bf16]."),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ... [a GPU if there is one].")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads [all cores].")]
ModuleFolders = Annotated[
    list[str],
    typer.Option(
        "--modules", "-m", metavar="DIR", help="Module folders: repeat the option, or separate them by commas."
    ),
]
Missing = Annotated[
    str,
    typer.Option("--missing", help="For a language without a module: error, or none (go without one)."),
]
Data = Annotated[
    str, typer.Option("--data", "-d", help="Folder DIR/<language>/<split>.jsonl, bundled:parallel, or a Hub id.")
]
BadRows = Annotated[str, typer.Option("--bad-rows", help="Malformed rows: error, or skip and count them.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field", metavar="FIELD=COLUMN", help="text=COLUMN, label=COLUMN ...: which column holds what. Repeatable."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use at most this many items.")]

Steps = Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Rows of a batch.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of initial values, sampling and order.")]
LearningRate = Annotated[
    float | None, typer.Option("--lr", help="Peak learning rate [what suits the method and backbone].")
]
Optimiser = Annotated[str | None, typer.Option("--optimiser", help="adamw, adafactor or sgd [as --lr].")]
Schedule = Annotated[str | None, typer.Option("--schedule", help="linear, constant, cosine or inverse-sqrt [as --lr].")]
Warmup = Annotated[
    float | None, typer.Option("--warmup", min=0, help="Steps, or a share of them when below 1 [as --lr].")
]
WeightDecay = Annotated[float | None, typer.Option("--weight-decay", min=0, help="[as --lr]")]
Precision = Annotated[str, typer.Option("--precision", help="Of the computation: fp32 or bf16 (autocast).")]
Tracker = Annotated[
    str | None, typer.Option("--tracker", help="tensorboard, wandb ...: any tracker that accelerate knows.")
]
