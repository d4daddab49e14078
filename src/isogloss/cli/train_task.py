"""`isogloss train task`: a task module from labelled text of one or several source languages."""

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, number, print_facts, print_json, say
from isogloss.cli._inputs import (
    check_backbone_name,
    check_device,
    free_output,
    language_name,
    one_of,
    open_backbone,
    pairs,
    split_list,
    training_device,
)
from isogloss.cli._labelled import check_language_modules, check_prompts, head_options, read_dev, read_sources
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.tasks import Task


def train_task(
    backbone: o.Backbone,
    task: Annotated[
        str,
        typer.Option(
            "--task",
            "-t",
            help="topic nli paraphrase ner pos qa claims sentiment choice, or classification "
            "pair-classification tagging for data of your own.",
            rich_help_panel=o.WHAT,
        ),
    ],
    data: o.Data,
    source: Annotated[
        list[str],
        typer.Option(
            "--source",
            "-s",
            metavar="L[,L...]",
            help="Language to learn from; several by commas.",
            rich_help_panel=o.WHAT,
        ),
    ],
    out: o.Out,
    module: Annotated[
        str,
        typer.Option(
            "--module", "-m", help="adapter:16, prompt:50, lora:8 ..., or none (head only).", rich_help_panel=o.WHAT
        ),
    ] = "adapter:16",
    language_module: Annotated[
        list[str] | None,
        typer.Option(
            "--language-module",
            metavar="DIR",
            help="Trained language module of a source language. Repeatable.",
            rich_help_panel=o.WHAT,
        ),
    ] = None,
    train: Annotated[
        str, typer.Option("--train", help="modules, or all (the backbone learns too).", rich_help_panel=o.HOW)
    ] = "modules",
    update: Annotated[
        str | None,
        typer.Option(
            "--update",
            metavar="DIR",
            help="Update rule or start of `isogloss meta learn`; or all-open, all-shut, bottom:N, random:MEAN[:SEED].",
            rich_help_panel=o.HOW,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Optimiser steps (or --epochs).", rich_help_panel=o.HOW)
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", min=0.01, help="Passes over the data [20].", rich_help_panel=o.HOW)
    ] = None,
    batch_size: o.BatchSize = 16,
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(
            "--tokens-per-batch", min=1, help="Most tokens of a batch, padding included.", rich_help_panel=o.HOW
        ),
    ] = None,
    accumulation: o.Accumulation = 1,
    optimiser: o.Optimiser = None,
    lr: o.LearningRate = None,
    head_lr: Annotated[
        float | None,
        typer.Option(
            "--head-lr", help="Of the head [--lr, at least 1e-3; --lr after a learned start].", rich_help_panel=o.HOW
        ),
    ] = None,
    backbone_lr: Annotated[
        float | None,
        typer.Option(
            "--backbone-lr", help="Learning rate of the backbone with --train all [--lr].", rich_help_panel=o.HOW
        ),
    ] = None,
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = None,
    warmup: o.Warmup = None,
    clip: Annotated[
        float | None,
        typer.Option(
            "--clip",
            min=0,
            help="Largest norm of gradients; 0 does not clip [1, or as --update].",
            rich_help_panel=o.HOW,
        ),
    ] = None,
    head: o.Head = None,
    head_option: o.HeadOptions = None,
    max_length: o.MaxLength = None,
    shots: Annotated[
        int | None, typer.Option("--shots", min=1, help="Few-shot: examples of each class.", rich_help_panel=o.WHAT)
    ] = None,
    shots_seed: Annotated[
        str | None,
        typer.Option(
            "--shots-seed",
            metavar="N|random",
            help="Of the few-shot draw [--seed]; random draws anew, as S2's code did, and says what it drew.",
            rich_help_panel=o.WHAT,
        ),
    ] = None,
    select: Annotated[
        str,
        typer.Option(
            "--select",
            help="Best weights on source dev data: metric, loss, or last (no choice).",
            rich_help_panel=o.HOW,
        ),
    ] = "metric",
    patience: Annotated[
        int | None,
        typer.Option("--patience", min=1, help="Stop after so many evaluations without a gain.", rich_help_panel=o.HOW),
    ] = None,
    split_train: Annotated[
        str, typer.Option("--split-train", help="Split to learn from.", rich_help_panel=o.WHAT)
    ] = "train",
    split_dev: Annotated[
        str,
        typer.Option(
            "--split-dev", help="Split to choose the best weights on; none for no choice.", rich_help_panel=o.WHAT
        ),
    ] = "dev",
    labels: o.Labels = None,
    field: o.Fields = None,
    bad_rows: o.BadRows = "error",
    limit: o.RowLimit = None,
    prompt_fusion: Annotated[
        str,
        typer.Option(
            "--prompt-fusion", help="Language and task prompts: concatenate or average.", rich_help_panel=o.HOW
        ),
    ] = "concatenate",
    double_language_prompt: Annotated[
        bool,
        typer.Option(
            "--double-language-prompt",
            help="As S1's published LP+TP: the language prompt twice in training, once in generation.",
            rich_help_panel=o.HOW,
        ),
    ] = False,
    precision: o.Precision = "fp32",
    seed: o.Seed = 42,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    tracker: o.Tracker = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Train a task module on labelled text of the source language, over its frozen language module if given.

    Example: isogloss train task --backbone bundled:encoder --task topic --data bundled:parallel --source en
    --language-module modules/en --module adapter:16 --out modules/topic
    """
    from isogloss.modules import format_module, parse_module
    from isogloss.tasks import get_task

    config = parse_module(module)
    asked = get_task(task, pairs(field, "--field"), split_list(labels) or None)
    one_of(train, "--train", ("modules", "all"))
    one_of(select, "--select", ("metric", "loss", "last"))
    one_of(prompt_fusion, "--prompt-fusion", ("concatenate", "average"))
    one_of(bad_rows, "--bad-rows", ("error", "skip"))
    if asked.kind == "retrieval":
        raise IsoglossError(f"--task {task}: it compares sentence vectors and trains nothing, so there is no module.")
    if backbone_lr is not None and train != "all":
        raise IsoglossError("--backbone-lr is for a backbone that learns too; give --train all with it.")
    if steps and epochs:
        raise IsoglossError("--steps and --epochs are both given; give one of them.")
    if update is not None:
        from isogloss.meta.applied import refuse_early

        refuse_early(update, task=asked.name, module=format_module(config), train=train)
    draw = _draw_seed(shots_seed, shots)
    target = free_output(out, overwrite)
    check_backbone_name(backbone)
    check_device(device, threads)
    folders = split_list(language_module)
    if double_language_prompt:
        check_prompts(folders)
    examples = read_sources(data, split_list(source), split_train, asked, bad_rows, limit)
    sources = list(dict.fromkeys(example.language for example in examples))
    check_language_modules(folders, sources)
    dev = read_dev(data, split_list(source), split_dev, asked.with_labels_from(examples), bad_rows, limit)

    from isogloss.tasks.heads import make_head
    from isogloss.training._processes import writes
    from isogloss.training.evaluation import load_parts
    from isogloss.training.new_module import new_module
    from isogloss.training.progress import Progress
    from isogloss.training.task_stage import TaskStage
    from isogloss.training.task_stage import train_task as call

    options = head_options(head_option, max_length)
    stage = TaskStage(
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        tokens_per_batch=tokens_per_batch,
        accumulation=accumulation,
        optimiser=optimiser,
        learning_rate=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        clip=clip,
        head_learning_rate=head_lr,
        backbone_learning_rate=backbone_lr,
        head=head,
        head_options=options,
        train=train,  # type: ignore[arg-type]
        shots=shots,
        shots_seed=draw,
        select=select,  # type: ignore[arg-type]
        patience=patience,
        precision=precision,
        seed=seed,
        prompt_fusion=prompt_fusion,  # type: ignore[arg-type]
        double_language_prompt=double_language_prompt,
        tracker=tracker,
    )
    # What is trained must be in fp32, whatever a GPU's backbone is usually kept in.
    loaded = open_backbone(backbone, dtype or ("fp32" if train == "all" else None), training_device(device))
    other, by_language = load_parts(folders, loaded)
    if other is not None:
        raise IsoglossError(f"--language-module: '{other.info.label}' is a task module; give language modules.")
    asked = asked.with_labels_from(examples)
    trial = new_module(config, loaded, seed=seed, labels=asked.labels or ())
    weights = sum(p.numel() for p in trial.parameters() if p.requires_grad)
    in_head = sum(p.numel() for p in make_head(head, asked, loaded, **options).parameters() if p.requires_grad)
    whole = sum(parameter.numel() for parameter in loaded.model.parameters())
    trained = weights + in_head + (whole if train == "all" else 0)
    frozen = 0 if train == "all" else whole
    say(
        f"{module} for {asked.name} on {loaded.name} ({loaded.kind}), from {', '.join(map(language_name, sources))}"
        f"{' over language modules' if folders else ''}: {trained:,} parameters trained"
        f"{f' ({in_head:,} in the head)' if in_head else ''}, {frozen:,} frozen, "
        f"{_few(asked, shots, draw)}{counted(len(examples), 'example')}, "
        f"{counted(steps, 'step') if steps else counted(epochs or 20, 'epoch')} on {loaded.device}"
    )
    learned = None
    if update is not None:
        from isogloss.meta import open_update

        learned = open_update(update)
    result = call(
        loaded,
        asked,
        examples,
        dev,
        config,
        stage,
        target,
        language_modules=list(by_language.values()),
        data_name=data,
        split=split_train,
        update=learned,
        overwrite=overwrite,
        progress=Progress(f"task {asked.name}"),
    )
    if not writes():
        return
    if json:
        print_json(result)
        return
    _show(result, asked, sources, bool(dev))


def _draw_seed(text: str | None, shots: int | None) -> int | None:
    """The seed of the few-shot draw; a random one is a number too, so that the run can be repeated."""
    if text is None:
        return None
    if shots is None:
        raise IsoglossError(
            f"--shots-seed {text}: nothing is drawn without --shots; give --shots too, or leave it out."
        )
    if text == "random":
        return secrets.randbelow(2**31)
    if not text.isdecimal():
        raise IsoglossError(f"--shots-seed {text}: expected a number from 0, or random.")
    return int(text)


def _few(task: "Task", shots: int | None, draw: int | None) -> str:
    if shots is None:
        return ""
    each = " of each class" if task.kind in ("classification", "pair-classification") else ""
    return f"{shots}{each}{f' (drawn by --shots-seed {draw})' if draw is not None else ''} out of "


def _show(result: dict[str, Any], task: "Task", sources: Sequence[str], has_dev: bool) -> None:
    metrics = result["metrics"]
    scored = ", ".join(f"{name} {number(value)}" for name, value in metrics.items() if name != "n")
    print_facts(
        [
            ("module", result["module"]),
            ("does", f"{task.name} ({result['notation']}), learned from {', '.join(map(language_name, sources))}"),
            ("parameters", result["parameters"]),
            ("steps", f"{result['steps']:,} in {result['seconds']} s"),
            ("source dev data", f"{scored} (n={int(metrics['n']):,})" if has_dev else "none read"),
        ]
    )
