"""`isogloss evaluate`: a task module's scores on many languages."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, number, print_json, print_table, print_text, say
from isogloss.cli._inputs import (
    check_backbone_name,
    check_device,
    language,
    language_name,
    metric_names,
    one_of,
    open_backbone,
    pairs,
    split_list,
)
from isogloss.cli._parts import Parts, read_parts
from isogloss.cli._retrieval import evaluate_retrieval
from isogloss.cli._suite import evaluate_suite
from isogloss.errors import IsoglossError


def evaluate(
    data: o.Data,
    targets: Annotated[
        list[str] | None,
        typer.Option("--targets", "-l", metavar="L[,L...]|all", help="Languages by commas, or all that the data have."),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option(
            "--modules", "-m", metavar="DIR", help="Module folders: repeat the option, or separate them by commas."
        ),
    ] = None,
    more_modules: Annotated[
        list[str] | None, typer.Argument(metavar="[MODULE]...", help="More module folders.")
    ] = None,
    backbone: o.BackboneOfModule = None,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="retrieval needs no task module; others are checked against the module's."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split to score.")] = "test",
    missing: o.Missing = "error",
    field: o.Fields = None,
    bad_rows: o.BadRows = "error",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most this many rows of a language.")] = None,
    tokens_per_batch: o.ReadingTokens = None,
    layer: Annotated[
        int | None,
        typer.Option("--layer", min=1, help="Retrieval: block whose states are pooled [last; suite: XTREME's]."),
    ] = None,
    scoring: Annotated[str, typer.Option("--scoring", help="Retrieval: cosine, or margin.")] = "cosine",
    suite: Annotated[
        str | None, typer.Option("--suite", help="xtreme: train on English and score all of the suite's tasks.")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--tasks", metavar="T[,T...]", help="Suite: some of its tasks [all with data].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Suite: folder for modules and scores; the same one goes on.")
    ] = None,
    module: Annotated[
        str, typer.Option("--module", help="Suite: what is trained; none is the whole backbone, XTREME's way.")
    ] = "none",
    epochs: Annotated[float | None, typer.Option("--epochs", min=0.01, help="Suite: instead of XTREME's.")] = None,
    limit_train: Annotated[
        int | None, typer.Option("--limit-train", min=2, help="Suite: at most this many training rows.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Suite: of the training.")] = 42,
    precision: Annotated[str, typer.Option("--precision", help="Suite: fp32 or bf16 (autocast).")] = "fp32",
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    json: o.Json = False,
) -> None:
    """Score a task module on target languages, swapping in the language module of each.

    Example: isogloss evaluate --data bundled:parallel --targets sk,cs --modules modules/topic,modules/sk,modules/cs

    Translations found by sentence vectors, where nothing is trained: isogloss evaluate --task retrieval --backbone
    bundled:encoder --data bundled:parallel --targets all

    XTREME's tasks over folders of their names: isogloss evaluate --suite xtreme --backbone runs/pool --data data --out
    runs/xtreme
    """
    one_of(scoring, "--scoring", ("cosine", "margin"))
    if suite is not None:
        evaluate_suite(
            suite,
            data,
            [*(modules or ()), *(more_modules or ())],
            backbone=backbone,
            tasks=split_list(tasks),
            out=out,
            options={
                "module": module,
                "train": "all" if module == "none" else "modules",
                "seed": seed,
                "epochs": epochs,
                "limit_train": limit_train,
                "limit_test": limit,
                "layer": layer,
                "scoring": scoring,
                "precision": precision,
            },
            dtype=dtype,
            device=device,
            threads=threads,
            json=json,
        )
        return
    if targets is None:
        raise IsoglossError("--targets is missing: name languages by commas, or all (only --suite needs none).")
    one_of(missing, "--missing", ("error", "none"))
    one_of(bad_rows, "--bad-rows", ("error", "skip"))
    folders = [*(modules or ()), *(more_modules or ())]
    if task == "retrieval":
        result = evaluate_retrieval(
            data,
            _targets(data, split_list(targets), split, without_english=True),
            folders,
            backbone=backbone,
            fields=pairs(field, "--field"),
            split=split,
            missing=missing,
            bad_rows=bad_rows,
            limit=limit,
            tokens_per_batch=tokens_per_batch,
            layer=layer,
            scoring=scoring,
            dtype=dtype,
            device=device,
            threads=threads,
        )
        print_json(result) if json else show(result, primary="accuracy")
        return
    if not folders:
        raise IsoglossError(
            "--modules is missing: give the folders of a task module and of language modules (only --task retrieval "
            "needs none)."
        )
    parts = read_parts(folders, task=task, fields=pairs(field, "--field"))
    codes = _targets(data, split_list(targets), split)
    _check_readable(data, codes, split, parts, bad_rows)
    parts.check_languages(codes, missing)
    name = backbone or parts.backbone
    check_backbone_name(name)
    check_device(device, threads)

    from isogloss.training.evaluation import evaluate as call

    loaded = open_backbone(name, dtype, device)
    task_module, languages = parts.load(loaded)
    say(f"{parts.task.name} on {counted(len(codes), 'language')} with {loaded.name} ({loaded.kind}) on {loaded.device}")
    result = call(
        loaded,
        task_module,
        languages,
        data,
        codes,
        split=split,
        missing=missing,  # type: ignore[arg-type]
        limit=limit,
        bad_rows=bad_rows,
        tokens_per_batch=tokens_per_batch,
    )
    result = {**result, "backbone": loaded.name, "data": data, "language_modules": sorted(languages)}
    result["language_modules"] = [code for code in result["language_modules"] if code != "*"]
    if json:
        print_json(result)
        return
    show(result, primary=parts.task.primary)


def show(result: Mapping[str, Any], *, primary: str) -> None:
    """Prints the table of an evaluation."""
    scores: Mapping[str, Mapping[str, float]] = result["scores"]
    names = sorted(metric_names(scores), key=lambda name: name != primary)
    own = set(result["language_modules"])
    source = set(result["source"])
    # Auxiliary languages of meta-learning: no source, and not zero-shot either.
    seen = set(result.get("seen", source))
    # A column that says the same everywhere is said once, below.
    mixed = 0 < len(own & set(scores)) < len(scores)
    rows = [
        (
            language_name(code),
            code,
            *(["source" if code in source else "seen" if code in seen else "target"] if source else []),
            *(["own module" if code in own else "no module"] if mixed else []),
            *(number(found.get(name)) for name in names),
            int(found["n"]),
        )
        for code, found in scores.items()
    ]
    heads = ["language", "code", *(["role"] if source else []), *(["language part"] if mixed else []), *names, "n"]
    mean = [number(result["mean"].get(name)) for name in names]
    # Without a target that is no source, the mean is over the sources.
    over = set(result["mean_over"])
    label = f"mean of {counted(len(over), 'language' if not source else 'target' if over - seen else 'language' if over - source else 'source')}"
    footer = [label, *[""] * (len(heads) - len(names) - 2), *mean, ""]
    print_table(
        heads,
        rows,
        title=f"{result['task']}, {result['split']} split of {result['data']}, in percent",
        right=range(len(heads) - len(names) - 1, len(heads)),
        keep=(1,),
        footer=footer,
    )
    if result.get("dropped"):
        for code, reasons in result["dropped"].items():
            print(f"note: {code}: left out {dict(reasons)}", file=sys.stderr)
    for code, count in result.get("in_training", {}).items():
        say(
            f"note: {language_name(code)}: {counted(count, 'row')} of {scores[code]['n']:,.0f} stand in the training data "
            "too, as they are or as translations, so this score is no test of them"
        )
    for code, count in result.get("cut", {}).items():
        say(
            f"note: {language_name(code)}: {counted(count, 'row')} of {scores[code]['n']:,.0f} longer than the model or "
            "--max-length allows, read to that limit only"
        )
    if seen - source and (seen - source) & set(scores):
        print_text("Languages marked as seen lent their labels to meta-learning; the mean leaves them out.")
    if seen and not seen & set(scores):
        learned = ", ".join(language_name(code) for code in result["source"])
        print_text(f"Learned from {learned}; no target language was seen with labels.")
    if own and not mixed and set(scores) <= own:
        print_text("Every language with its own language module.")


def _targets(data: str, names: list[str], split: str, *, without_english: bool = False) -> list[str]:
    from isogloss.tasks import available, canonical_split, splits
    from isogloss.tasks.reading import PIVOT

    if names != ["all"]:
        if not names:
            raise IsoglossError("--targets is empty; name languages, or all.")
        return list(dict.fromkeys(language(name, "--targets").code for name in names))
    found: list[str] = []
    lacking: list[str] = []
    for code, folder in available(data).items():
        if without_english and code == PIVOT:
            continue
        there = split in splits(data, folder) or canonical_split(split) in map(canonical_split, splits(data, folder))
        (found if there else lacking).append(code)
    if not found:
        raise IsoglossError(f"--split {split}: no language of {data} has such a split.")
    if lacking:
        say(f"note: without a {split} split, so left out: {', '.join(lacking)}")
    return found


def _check_readable(data: str, codes: list[str], split: str, parts: Parts, bad_rows: str) -> None:
    """Reads the first row of every target, so that a missing language or split shows before the model is loaded."""
    from isogloss.tasks import read

    for code in codes:
        read(data, code, split, parts.task, limit=1, bad_rows=bad_rows)  # type: ignore[arg-type]
