"""`isogloss meta`: update rules and starts learned by simulating zero-shot transfer, and what they have learned."""

from pathlib import Path
from typing import Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, number, print_facts, print_json, print_table, say
from isogloss.cli._grouped import Grouped
from isogloss.cli._inputs import (
    check_backbone_name,
    check_device,
    free_output,
    json_pairs,
    language,
    language_name,
    one_of,
    open_backbone,
    pairs,
    split_list,
)
from isogloss.cli._labelled import head_options, read_sources
from isogloss.cli._meta_inputs import auxiliary_split, codes_of, read_recipe
from isogloss.cli.meta_show import show
from isogloss.errors import IsoglossError

app = typer.Typer(
    help="Learn how far each layer should move, or where to start, by simulating transfer; show what was learned.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.command("learn", cls=Grouped, short_help="An update rule or a start from simulated transfer.")
def learn(
    backbone: o.Backbone,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="gates, step-gates, lstm-gates, recurrent or meta-sgd (update rules); xmaml, fomaml, reptile or "
            "auxiliary (starts).",
            rich_help_panel=o.WHAT,
        ),
    ],
    task: Annotated[str, typer.Option("--task", "-t", help="As in `train task`.", rich_help_panel=o.WHAT)],
    data: o.Data,
    source: Annotated[
        list[str],
        typer.Option(
            "--source",
            "-s",
            metavar="L[,L...]",
            help="Language to fine-tune on in the episodes.",
            rich_help_panel=o.WHAT,
        ),
    ],
    auxiliary: Annotated[
        list[str],
        typer.Option(
            "--auxiliary",
            "-a",
            metavar="L[,L...]",
            help="Labelled languages that transfer is scored on; no longer zero-shot afterwards.",
            rich_help_panel=o.WHAT,
        ),
    ],
    out: o.Out,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE.yaml",
            help="Options from a file (recipes/meta); the command line overrides them.",
            is_eager=True,
            callback=read_recipe,
            rich_help_panel=o.WHAT,
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--targets", metavar="L[,L...]", help="Languages to evaluate later; refused here.", rich_help_panel=o.WHAT
        ),
    ] = None,
    module: Annotated[
        str,
        typer.Option(
            "--module", "-m", help="Module among the fast weights: adapter:16 ..., or none.", rich_help_panel=o.WHAT
        ),
    ] = "none",
    train: Annotated[
        str, typer.Option("--train", help="What moves: all (the backbone too), or modules.", rich_help_panel=o.WHAT)
    ] = "all",
    language_module: Annotated[
        list[str] | None,
        typer.Option(
            "--language-module",
            metavar="DIR",
            help="Language module of each source and auxiliary language, or none at all. Repeatable.",
            rich_help_panel=o.WHAT,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            metavar="DIR",
            help="For starts: a task module fine-tuned on the source [one is made first].",
            rich_help_panel=o.WHAT,
        ),
    ] = None,
    start_epochs: Annotated[
        float, typer.Option("--start-epochs", min=0.01, help="Epochs of that fine-tuning.", rich_help_panel=o.HOW)
    ] = 5.0,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", metavar="NAME=VALUE", help="Of the rule: start=0.9, knots=4, hidden=20.", rich_help_panel=o.HOW
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="One gate a layer, tensor or module.", rich_help_panel=o.HOW)
    ] = "layer",
    base: Annotated[
        str | None,
        typer.Option("--base", help="Inner step: sgd, momentum or adam [as fine-tuning].", rich_help_panel=o.HOW),
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Rate of the inner steps [as fine-tuning].", rich_help_panel=o.HOW)
    ] = None,
    head_lr: Annotated[
        float | None, typer.Option("--head-lr", help="The same for the head's weights.", rich_help_panel=o.HOW)
    ] = None,
    clip: Annotated[
        float,
        typer.Option("--clip", min=0, help="Largest norm of inner gradients; 0 does not clip.", rich_help_panel=o.HOW),
    ] = 1.0,
    inner_steps: Annotated[
        int, typer.Option("--inner-steps", min=1, help="Steps between two queries.", rich_help_panel=o.HOW)
    ] = 1,
    horizon: Annotated[
        int, typer.Option("--horizon", min=1, help="Steps of a simulated fine-tuning.", rich_help_panel=o.HOW)
    ] = 50,
    order: Annotated[
        str, typer.Option("--order", help="first, or second (through inner gradients).", rich_help_panel=o.HOW)
    ] = "first",
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Second order with less memory, more time.", rich_help_panel=o.HOW)
    ] = False,
    outer_steps: Annotated[
        int, typer.Option("--outer-steps", min=1, help="Steps of the meta-training.", rich_help_panel=o.HOW)
    ] = 100,
    outer_lr: Annotated[
        float | None, typer.Option("--outer-lr", help="Its rate [what suits the method].", rich_help_panel=o.HOW)
    ] = None,
    batch_size: o.BatchSize = 16,
    query_size: Annotated[
        int | None, typer.Option("--query-size", min=1, help="Rows of a query [--batch-size].", rich_help_panel=o.HOW)
    ] = None,
    roles: Annotated[
        str,
        typer.Option(
            "--roles", help="fixed, or mixed (any of the languages supports, another queries).", rich_help_panel=o.HOW
        ),
    ] = "fixed",
    shared_items: Annotated[
        bool,
        typer.Option(
            "--shared-items", help="Let queries be translations of support rows (parallel data).", rich_help_panel=o.HOW
        ),
    ] = False,
    memory: Annotated[
        float | None, typer.Option("--memory", min=0, help="GiB to be had [what is free].", rich_help_panel=o.HOW)
    ] = None,
    head: o.Head = None,
    head_option: o.HeadOptions = None,
    max_length: o.MaxLength = None,
    split_train: Annotated[
        str, typer.Option("--split-train", help="Split of the source.", rich_help_panel=o.WHAT)
    ] = "train",
    split_auxiliary: Annotated[
        str | None,
        typer.Option(
            "--split-auxiliary", help="Split of the auxiliaries [--split-train, else dev].", rich_help_panel=o.WHAT
        ),
    ] = None,
    labels: o.Labels = None,
    field: o.Fields = None,
    bad_rows: o.BadRows = "error",
    limit: o.RowLimit = None,
    seed: o.Seed = 42,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    tracker: o.Tracker = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Learn an update rule or a start by simulating zero-shot transfer from the source to the auxiliary languages.

    Example: isogloss meta learn --method gates --backbone bundled:encoder --task topic --data bundled:parallel --source en
    --auxiliary de,hi --out rules/topic, then isogloss train task ... --module none --train all --update rules/topic
    """
    from isogloss.modules import parse_module
    from isogloss.tasks import get_task

    config = parse_module(module)
    asked = get_task(task, pairs(field, "--field"), split_list(labels) or None)
    one_of(train, "--train", ("modules", "all"))
    one_of(bad_rows, "--bad-rows", ("error", "skip"))
    one_of(roles, "--roles", ("fixed", "mixed"))
    if asked.kind == "retrieval":
        raise IsoglossError(f"--task {task}: it trains nothing, so there is nothing to learn an update for.")
    target = free_output(out, overwrite)
    check_backbone_name(backbone)
    check_device(device, threads)

    from isogloss.meta.episodes import check_languages
    from isogloss.meta.rules import LEARNED
    from isogloss.meta.stage import STARTS, MetaStage

    one_of(method, "--method", (*LEARNED, *STARTS))
    if start is not None and method not in STARTS:
        raise IsoglossError(
            f"--start: the method {method} learns a rule from the untrained head on; leave --start out."
        )
    sources, others = split_list(source), split_list(auxiliary)
    wanted = [language(name, "--targets").code for name in split_list(targets)]
    check_languages(codes_of(data, sources, "--source"), codes_of(data, others, "--auxiliary"), wanted)
    own_split = auxiliary_split(data, others, [split_auxiliary] if split_auxiliary else [split_train, "dev"])
    examples = read_sources(data, sources, split_train, asked, bad_rows, limit)
    asked = asked.with_labels_from(examples) if asked.has_labels else asked
    helpers = read_sources(data, others, own_split, asked, bad_rows, limit)
    stage = MetaStage(
        method=method,
        options=json_pairs(option, "--option"),
        by=by,  # type: ignore[arg-type]
        base=base,  # type: ignore[arg-type]
        learning_rate=lr,
        head_learning_rate=head_lr,
        inner_steps=inner_steps,
        horizon=max(horizon, inner_steps),
        order=order,  # type: ignore[arg-type]
        checkpoint=checkpoint,
        outer_steps=outer_steps,
        outer_learning_rate=outer_lr,
        batch_size=batch_size,
        query_size=query_size,
        clip=clip or None,
        train=train,  # type: ignore[arg-type]
        head=head,
        head_options=head_options(head_option, max_length),
        roles=roles,  # type: ignore[arg-type]
        disjoint=not shared_items,
        memory=None if memory is None else int(memory * 2**30),
        start_epochs=start_epochs,
        seed=seed,
        tracker=tracker,
    )

    from isogloss.training.evaluation import load_parts
    from isogloss.training.progress import Progress

    loaded = open_backbone(backbone, dtype or ("fp32" if train == "all" else None), device)
    _, by_language = load_parts(split_list(language_module), loaded)
    common: dict[str, Any] = dict(
        targets=wanted,
        language_modules=list(by_language.values()),
        data_name=data,
        split=split_train,
        auxiliary_split=own_split,
        overwrite=overwrite,
        progress=Progress(f"{method} {asked.name}"),
    )
    say(
        f"{method} for {asked.name} on {loaded.name}: transfer from {', '.join(map(language_name, sources))} to "
        f"{', '.join(map(language_name, others))}, {counted(outer_steps, 'outer step')}, "
        f"{counted(inner_steps, 'inner step')} each, on {loaded.device}"
    )
    if method in STARTS:
        from isogloss.meta import learn_start

        result = learn_start(loaded, asked, examples, helpers, config, stage, target, start=start, **common)
    else:
        from isogloss.meta import learn_rule

        result = learn_rule(loaded, asked, examples, helpers, config, stage, target, **common)
    if json:
        print_json(result)
        return
    print_facts(
        [
            ("rule" if "rule" in result else "module", result.get("rule") or result.get("module")),
            ("does", f"{method} for {asked.name}, learned on {', '.join(map(language_name, result['auxiliary']))}"),
            ("parameters", result["parameters"]),
            ("outer steps", f"{result['steps']:,} in {result['seconds']} s ({result['seconds_a_step']} s each)"),
            ("outer loss", number(result["outer_loss"], 4)),
        ]
    )
    if result.get("gates"):
        print_table(
            ("group", "mean gate"), [(name, number(value, 3)) for name, value in result["gates"].items()], right=(1,)
        )


app.command("show", short_help="What a rule or a start has learned, as table and figure.")(show)
