"""`isogloss train language`: a language module from raw text."""

from typing import Annotated

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, number, plain, print_facts, print_json, say
from isogloss.cli._inputs import (
    bundled_text,
    check_backbone_name,
    check_device,
    free_output,
    open_backbone,
    training_device,
)
from isogloss.cli._inputs import language as resolve


def train_language(
    backbone: o.Backbone,
    language: Annotated[
        str, typer.Option("--language", "-l", help="Code or name: sk, slk_Latn, Slovak ...", rich_help_panel=o.WHAT)
    ],
    text: Annotated[
        list[str],
        typer.Option(
            "--text",
            "-t",
            metavar="FILE|hub:ID",
            help="Raw text: FILE.txt[.gz], FILE.jsonl[.gz], a folder, hub:ID or bundled:text.",
            rich_help_panel=o.WHAT,
        ),
    ],
    out: o.Out,
    module: Annotated[
        str,
        typer.Option(
            "--module", "-m", help="adapter:16, prompt:50, lora:8, invertible:2, with options.", rich_help_panel=o.WHAT
        ),
    ] = "adapter:16",
    more_text: Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="More raw text.")] = None,
    steps: o.Steps = 1000,
    length: Annotated[
        int, typer.Option("--length", "--max-length", min=8, help="Tokens of a row.", rich_help_panel=o.HOW)
    ] = 128,
    batch_size: o.BatchSize = 16,
    accumulation: o.Accumulation = 1,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="masked, spans, causal or prefix [what the kind of backbone uses].",
            rich_help_panel=o.HOW,
        ),
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=0.01, max=0.9, help="Share of tokens hidden.", rich_help_panel=o.HOW)
    ] = 0.15,
    optimiser: o.Optimiser = None,
    lr: o.LearningRate = None,
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = None,
    warmup: o.Warmup = None,
    validation_documents: Annotated[
        int,
        typer.Option(
            "--validation-documents", min=1, help="Last documents kept to measure on.", rich_help_panel=o.WHAT
        ),
    ] = 50,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Read at most this many documents.", rich_help_panel=o.WHAT)
    ] = None,
    field: Annotated[
        str, typer.Option("--field", help="Column of the text in JSONL or Hub data.", rich_help_panel=o.WHAT)
    ] = "text",
    precision: o.Precision = "fp32",
    seed: o.Seed = 42,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    tracker: o.Tracker = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Train a language module on raw text; the backbone stays frozen.

    Example: isogloss train language --backbone bundled:encoder --language sk --text slk.txt --module adapter:16 --out
    modules/sk
    """
    from isogloss.corpora.reading import source_files
    from isogloss.modules import parse_module

    found = resolve(language, "--language")
    config = parse_module(module)
    target = free_output(out, overwrite)
    texts = [bundled_text(item, found) for item in (*text, *(more_text or ()))]
    source_files(texts)
    check_backbone_name(backbone)
    check_device(device, threads)

    from isogloss.training._processes import writes
    from isogloss.training.language_stage import LanguageStage
    from isogloss.training.language_stage import train_language as call
    from isogloss.training.new_module import new_module
    from isogloss.training.progress import Progress

    stage = LanguageStage(
        steps=steps,
        length=length,
        batch_size=batch_size,
        accumulation=accumulation,
        objective=objective,
        rate=rate,
        optimiser=optimiser,
        learning_rate=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        validation_documents=validation_documents,
        limit=limit,
        field=field,
        precision=precision,
        seed=seed,
        tracker=tracker,
    )
    loaded = open_backbone(backbone, dtype, training_device(device))
    frozen = sum(parameter.numel() for parameter in loaded.model.parameters())
    trained = sum(p.numel() for p in new_module(config, loaded, seed=seed).parameters() if p.requires_grad)
    say(
        f"{module} for {found.name} ({found.code}) on {loaded.name} ({loaded.kind}): "
        f"{trained:,} parameters trained, {frozen:,} frozen, {counted(steps, 'step')} on {loaded.device}"
    )
    result = call(
        loaded,
        found,
        texts,
        config,
        stage,
        target,
        overwrite=overwrite,
        progress=Progress(f"language {found.code}"),
    )
    if not writes():
        return
    if json:
        print_json(result)
        return
    metrics = plain(result["metrics"])
    print_facts(
        [
            ("module", result["module"]),
            ("stands for", f"{found.name} ({result['notation']})"),
            ("parameters", result["parameters"]),
            ("steps", f"{result['steps']:,} in {result['seconds']} s"),
            (
                "held-out text",
                f"loss {number(metrics['loss'], 3)} with the module, {number(metrics['loss_without'], 3)} without; "
                f"{number(None if metrics['token_accuracy'] is None else 100 * metrics['token_accuracy'])} % of tokens right",
            ),
        ]
    )
