"""`isogloss pool`: learn a prompt pool from text of several languages; show what a pool is used for."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, number, print_facts, print_json, print_table, print_text, say
from isogloss.cli._inputs import (
    check_backbone_name,
    check_device,
    free_output,
    language,
    language_name,
    open_backbone,
    split_list,
    training_device,
)
from isogloss.errors import IsoglossError

app = typer.Typer(
    help="Prompt pools: learn one from text of several languages, show how languages use one.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_SUFFIXES = (".jsonl.gz", ".jsonl", ".txt.gz", ".txt")
# A query needs no more of a document than this.
_CHARACTERS = 1500
_Text = Annotated[
    list[Path],
    typer.Option(
        "--text",
        "-t",
        metavar="DIR",
        help="Folder with <language>.txt[.gz] or .jsonl[.gz]. Repeatable.",
        rich_help_panel=o.WHAT,
    ),
]
_Languages = Annotated[
    str,
    typer.Option("--languages", "-l", metavar="L[,L...]", help="Codes or names, or all.", rich_help_panel=o.WHAT),
]


@app.command("train")
def train(
    backbone: o.Backbone,
    text: _Text,
    out: o.Out,
    languages: _Languages = "all",
    module: Annotated[
        str,
        typer.Option("--module", "-m", help="pool:64x4 with options, or any other module.", rich_help_panel=o.WHAT),
    ] = "pool:64x4",
    alpha: Annotated[
        float,
        typer.Option(
            "--alpha", min=0, max=1, help="Smoothing of the mixture: 1 as large, 0 all equal.", rich_help_panel=o.HOW
        ),
    ] = 0.3,
    steps: o.Steps = 1000,
    length: Annotated[int, typer.Option("--length", min=8, help="Tokens of a row.", rich_help_panel=o.HOW)] = 128,
    batch_size: o.BatchSize = 16,
    optimiser: o.Optimiser = None,
    lr: o.LearningRate = None,
    weight_decay: o.WeightDecay = None,
    schedule: o.Schedule = None,
    warmup: o.Warmup = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, help="Read at most this many documents of a language.", rich_help_panel=o.WHAT),
    ] = None,
    precision: o.Precision = "fp32",
    seed: o.Seed = 42,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Learn a module for every language from raw text of several; the backbone stays frozen.

    Example: isogloss pool train --backbone bundled:encoder --text texts --languages en,de,sk --module pool:64x4 --out
    modules/pool
    """
    from isogloss.modules import parse_module

    config = parse_module(module)
    target = free_output(out, overwrite)
    files = text_files(text, split_list(languages))
    check_backbone_name(backbone)
    check_device(device, threads)

    from isogloss.training._processes import writes
    from isogloss.training.language_stage import LanguageStage
    from isogloss.training.progress import Progress
    from isogloss.training.shared_stage import train_shared

    stage = LanguageStage(
        steps=steps,
        length=length,
        batch_size=batch_size,
        optimiser=optimiser,
        learning_rate=lr,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        limit=limit,
        precision=precision,
        seed=seed,
    )
    loaded = open_backbone(backbone, dtype, training_device(device))
    say(
        f"{module} over {counted(len(files), 'language')} on {loaded.name} ({loaded.kind}), {counted(steps, 'step')} on {loaded.device}"
    )
    result = train_shared(
        loaded, files, config, stage, target, alpha=alpha, overwrite=overwrite, progress=Progress(module)
    )
    if not writes():
        return
    if json:
        print_json(result)
        return
    print_facts(
        [
            ("module", result["module"]),
            ("serves", f"every language ({result['notation']})"),
            ("parameters", result["parameters"]),
            ("steps", f"{result['steps']:,} in {result['seconds']} s"),
        ]
    )
    print_table(
        ("language", "code", "held-out loss", "without"),
        [
            (language_name(code), code, number(found["loss"], 3), number(found["loss_without"], 3))
            for code, found in result["metrics"].items()
        ],
        right=(2, 3),
        keep=(1,),
    )


@app.command("show")
def show(
    text: _Text,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone",
            "-b",
            help="One that was trained with a pool, or that of --module when it has moved.",
            rich_help_panel=o.WHAT,
        ),
    ] = None,
    module: Annotated[
        Path | None,
        typer.Option(
            "--module", "-m", metavar="DIR", help="A saved pool; without it the backbone's own.", rich_help_panel=o.WHAT
        ),
    ] = None,
    languages: _Languages = "all",
    documents: Annotated[
        int,
        typer.Option(
            "--documents", min=1, help="Texts of each language, from the end of its file.", rich_help_panel=o.WHAT
        ),
    ] = 100,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page with tree and heat map.", rich_help_panel=o.OUTPUT),
    ] = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    json: o.Json = False,
) -> None:
    """Show how languages use a pool: keys, entropy, dead keys, and who clusters with whom.

    Example: isogloss pool show --backbone runs/pool --text texts --html pool.html
    """
    name = _pool_backbone(backbone, module)
    files = text_files(text, split_list(languages))
    check_backbone_name(name)
    check_device(device, threads)
    if html is not None and html.is_dir():
        raise IsoglossError(f"--html {html}: this is a folder; name a file, such as {html / 'pool.html'}.")

    from isogloss.formats import load_module
    from isogloss.formats.saved import isogloss_version
    from isogloss.modules import format_module
    from isogloss.report.pool_clusters import UNTRAINED, agreement_table, cluster_languages
    from isogloss.report.pool_page import pool_page, usage_table
    from isogloss.report.study_data import PoolAttention
    from isogloss.report.tables import to_rich
    from isogloss.report.trace import Trace
    from isogloss.stack import Stack, retrieval
    from isogloss.training.pool_usage import pool_usage

    texts = {code: _last_texts(found, documents) for code, found in files.items()}
    loaded = open_backbone(name, dtype, device)
    if module is None and not loaded.pool:
        raise IsoglossError(
            f"--backbone {name}: it was trained without a prompt pool; name one that has one (bundled:encoder-pool, say), or a "
            "saved pool with --module."
        )
    stack = Stack(loaded) if module is None else Stack(loaded, [load_module(module, loaded)], backbone_pool=False)
    usage = pool_usage(stack, texts).to_json()
    spec = format_module(retrieval.retrievals(stack.slots)[0][0].single.config)
    label = f"{spec} of {loaded.name}" if module is None else f"{spec} in {module}"
    pool = PoolAttention("", label, list(texts), [usage["languages"][code]["attention"] for code in texts])
    clusters = cluster_languages(pool)
    order = [clusters.languages[place] for place in clusters.order]
    if html is not None:
        command = f"isogloss pool show --backbone {name}" + (f" --module {module}" if module else "")
        command += (
            "".join(f" --text {folder}" for folder in text) + f" --languages {','.join(texts)} --documents {documents}"
        )
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        trace = Trace(command, (), loaded.name, loaded.fingerprint, when, isogloss_version(), ", ".join(map(str, text)))
        facts = [("pool", spec), ("backbone", loaded.name), ("texts of each language", f"at most {documents}")]
        from isogloss.report.page import write_page

        write_page(html, pool_page(usage, pool, facts, trace))
        say(f"page: {html}")
    if json:
        print_json(
            {"pool": spec, "backbone": loaded.name, **usage, "order": order, "linkage": clusters.linkage.tolist()}
        )
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(to_rich(usage_table(usage)))
    print_text(f"{len(usage['dead'])} of {usage['keys']} keys are dead.")
    if len(order) > 2:
        console.print(to_rich(agreement_table(clusters)))
        print_text(UNTRAINED)
        print_text("Languages as the tree puts them side by side: " + ", ".join(map(language_name, order)))


def text_files(folders: list[Path], names: list[str]) -> dict[str, list[str | Path]]:
    """The text files of languages in folders, by code.

    Raises:
        IsoglossError: A folder is missing or holds no text, or a language that was named has none.
    """
    from isogloss.languages import resolve

    found: dict[str, list[str | Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise IsoglossError(
                f"--text {folder}: there is no such folder; give one with files <language>.txt or .jsonl.gz."
            )
        for path in sorted(folder.iterdir()):
            suffix = next((item for item in _SUFFIXES if path.name.endswith(item)), None)
            if suffix is None:
                continue
            try:
                found.setdefault(resolve(path.name.removesuffix(suffix)).code, []).append(path)
            except IsoglossError:
                say(f"note: {path.name} is left out, as its name is no language")
    if not found:
        raise IsoglossError(f"--text {', '.join(map(str, folders))}: no file <language>.txt[.gz] or .jsonl[.gz] there.")
    if names == ["all"]:
        return found
    codes = list(dict.fromkeys(language(name, "--languages").code for name in names))
    lacking = [code for code in codes if code not in found]
    if lacking or not codes:
        raise IsoglossError(
            f"--languages: no text for {', '.join(lacking) or 'any language'} in {', '.join(map(str, folders))}; there is text for "
            f"{', '.join(sorted(found)[:12])}{' ...' if len(found) > 12 else ''}."
        )
    return {code: found[code] for code in codes}


def _last_texts(files: list[str | Path], count: int) -> list[str]:
    """The last documents of a language: training keeps those apart for validation."""
    from collections import deque

    from isogloss.corpora import read_texts

    return [text[:_CHARACTERS] for text in deque(read_texts(files), maxlen=count)]


def _pool_backbone(backbone: str | None, module: Path | None) -> str:
    from isogloss.formats import read_info

    if module is None:
        if backbone is None:
            raise IsoglossError(
                "Give --backbone with a backbone that was trained with a pool, or --module with a saved pool."
            )
        return backbone
    saved: Any = read_info(module)
    if saved.method != "pool":
        raise IsoglossError(
            f"--module {module}: this is a module of method '{saved.method}'; give a saved prompt pool."
        )
    return backbone or str(saved.info.backbone)
