"""Options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated

import typer

# Headings that `--help` of the training commands groups options under.
PANELS = WHAT, HOW, OUTPUT = "What", "How it is trained", "Output"

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.", rich_help_panel=OUTPUT)
]
Backbone = Annotated[
    str,
    typer.Option(
        "--backbone", "-b", help="bundled:encoder|decoder|encoder-decoder, a folder, or a Hub id.", rich_help_panel=WHAT
    ),
]
BackboneOfModule = Annotated[
    str | None,
    typer.Option("--backbone", "-b", help="Only when it has moved: by default the modules say which one."),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", help="Folder to make; the same one continues a run that stopped.", rich_help_panel=OUTPUT
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace what --out already holds; an unfinished run is started anew.",
        rich_help_panel=OUTPUT,
    ),
]
ReadingTokens = Annotated[
    int | None,
    typer.Option("--tokens-per-batch", min=1, help="Most tokens of a batch, with padding [what suits the device]."),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", help="Precision of the backbone: fp32, bf16 or fp16 [fp32 on a CPU, else bf16].", rich_help_panel=HOW
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ... [a GPU if there is one].", rich_help_panel=HOW)
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads [all cores].", rich_help_panel=HOW)]
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
    str,
    typer.Option(
        "--data", "-d", help="Folder DIR/<language>/<split>.jsonl, bundled:parallel, or a Hub id.", rich_help_panel=WHAT
    ),
]
BadRows = Annotated[
    str, typer.Option("--bad-rows", help="Malformed rows: error, or skip and count them.", rich_help_panel=WHAT)
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="FIELD=COLUMN",
        help="text=COLUMN, label=COLUMN ...: which column holds what. Repeatable.",
        rich_help_panel=WHAT,
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Use at most this many items.")]

Steps = Annotated[int, typer.Option("--steps", min=1, help="Optimiser steps.", rich_help_panel=HOW)]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Rows of a batch.", rich_help_panel=HOW)]
Accumulation = Annotated[int, typer.Option("--accumulation", min=1, help="Batches of one step.", rich_help_panel=HOW)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of initial values, sampling and order.", rich_help_panel=HOW)]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", help="Peak learning rate [what suits the method and backbone].", rich_help_panel=HOW),
]
Optimiser = Annotated[
    str | None, typer.Option("--optimiser", help="adamw, adafactor or sgd [as --lr].", rich_help_panel=HOW)
]
Schedule = Annotated[
    str | None,
    typer.Option("--schedule", help="linear, constant, cosine or inverse-sqrt [as --lr].", rich_help_panel=HOW),
]
Warmup = Annotated[
    float | None,
    typer.Option("--warmup", min=0, help="Steps, or a share of them when below 1 [as --lr].", rich_help_panel=HOW),
]
WeightDecay = Annotated[float | None, typer.Option("--weight-decay", min=0, help="[as --lr]", rich_help_panel=HOW)]
Precision = Annotated[
    str, typer.Option("--precision", help="Of the computation: fp32 or bf16 (autocast).", rich_help_panel=HOW)
]
Tracker = Annotated[
    str | None,
    typer.Option(
        "--tracker", help="tensorboard, wandb ...: any tracker that accelerate knows.", rich_help_panel=OUTPUT
    ),
]

Head = Annotated[
    str | None,
    typer.Option("--head", help="linear, span, verbaliser or text [what suits the backbone].", rich_help_panel=WHAT),
]
HeadOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--head-option",
        metavar="NAME=VALUE",
        help="Of the head, such as pooling=mean. Repeatable.",
        rich_help_panel=WHAT,
    ),
]
MaxLength = Annotated[
    int | None, typer.Option("--max-length", min=1, help="Most tokens of a text.", rich_help_panel=WHAT)
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--labels",
        metavar="A,B,...",
        help="Label set in class order, by commas [from the data].",
        rich_help_panel=WHAT,
    ),
]
RowLimit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Use at most this many rows of a split.", rich_help_panel=WHAT),
]
