"""Running the suite: train on English, select on English dev, score all languages; each finished task is kept."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module
from isogloss.modules import TransferModule, parse_module
from isogloss.stack.layers import layer_count, reading_layer
from isogloss.storage import content_key, read_json, write_json
from isogloss.tasks import Example, available, check_leaks, get_task, read
from isogloss.training.evaluation import evaluate
from isogloss.training.language_stage import EVERY
from isogloss.training.progress import Progress
from isogloss.training.retrieval import evaluate_retrieval
from isogloss.training.search import Search
from isogloss.training.task_stage import TaskStage, train_task
from isogloss.training.xtreme.aggregate import aggregate
from isogloss.training.xtreme.bucc import bucc_languages, evaluate_bucc
from isogloss.training.xtreme.data import (
    ENGLISH,
    NothingToScoreError,
    dev_folder,
    digests,
    find_data,
    has_split,
    tested_split,
    train_data,
)
from isogloss.training.xtreme.settings import SUITE, SuiteTask, middle_layer

_LARGE = 24


@dataclass(frozen=True, kw_only=True)
class SuiteOptions:
    """What the suite is told besides XTREME's settings.

    Attributes:
        module: What is trained: `none` with `train="all"` is XTREME's plain fine-tuning.
        train: `all`, or `modules` (frozen backbone).
        seed: Of initial values and order.
        learning_rate, epochs: None takes what the backbone's card advises (rate), else XTREME's.
        limit_train, limit_test: At most this many rows of a split.
        layer: Block pooled for retrieval; None takes XTREME's (8 of 12).
        scoring: Of Tatoeba: cosine, or margin.
        search: See `search.neighbours`.
        precision: fp32, or bf16 for autocast of the training.
    """

    module: str = "none"
    train: Literal["all", "modules"] = "all"
    seed: int = 42
    learning_rate: float | None = None
    epochs: float | None = None
    limit_train: int | None = None
    limit_test: int | None = None
    layer: int | None = None
    scoring: str = "cosine"
    search: Search = "auto"
    precision: str = "fp32"


def run_suite(
    backbone: Backbone,
    root: str | Path,
    out: str | Path,
    options: SuiteOptions,
    *,
    names: Sequence[str] = (),
    shared: TransferModule | None = None,
    tell: Callable[[str], None] = lambda text: None,
    progress: bool = False,
) -> dict[str, Any]:
    """Trains and scores every task, and averages.

    Args:
        backbone: Trained in place for the time of a task (`train="all"`), and as it was afterwards.
        root: Folder with one folder a task; see `find_data`.
        out: Folder for modules and scores; the same one goes on where a run stopped.
        options: See there.
        names: Tasks; empty takes those that have data.
        shared: A frozen module for every language (a prompt pool, say) under all tasks, or None.
        tell: Where to say what is being done.
        progress: Whether trainings show their progress.

    Returns:
        `{"average", "complete", "categories", "tasks": {name: {..., "scores": {code: metrics}, "departures": [text]}}, "left_out":
        {name: why}}`; a task of which no language can be scored is left out.

    Raises:
        IsoglossError: Data missing or unusable, nothing can be scored, or `out` holds scores of other settings.
    """
    root = Path(root).expanduser()
    data = find_data(root, names)
    with reading_layer(backbone, options.layer):
        pass  # retrieval comes last, and hours of training before it must not end in a wrong layer
    target = Path(out)
    results: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, folder in data.items():
        record = target / name / "scores.json"
        key = _key(backbone, shared, options, SUITE[name], root, folder)
        if record.is_file():
            kept = read_json(record)
            if kept.get("key") != key:
                raise IsoglossError(
                    f"The folder '{record.parent}' holds scores of another backbone, other data or settings; choose another --out."
                )
            tell(f"{name}: kept from before")
        else:
            tell(name)
            item = SUITE[name]
            try:
                if item.category == "retrieval":
                    kept = _retrieval(item, backbone, folder, options, shared)
                else:
                    kept = _trained(item, backbone, root, folder, target / name / "module", options, shared, progress)
            except NothingToScoreError as problem:
                left_out[name] = str(problem)
                if len(left_out) == len(data):
                    raise
                continue
            kept["key"] = key
            target.joinpath(name).mkdir(parents=True, exist_ok=True)
            write_json(record, kept)
        results[name] = kept
    averages = aggregate(
        {name: kept["scores"] for name, kept in results.items()},
        seen=backbone.languages,
        text=backbone.card.get("text_tokens"),
    )
    for name, kept in results.items():
        told = [*_chosen(SUITE[name], options), *kept["departures"]]
        averages["tasks"][name] |= {"scores": kept["scores"], "departures": told}
    averages["complete"] = averages["complete"] and options.limit_test is None
    averages["left_out"] = left_out
    return {**averages, "backbone": backbone.name, "fingerprint": backbone.fingerprint, "options": asdict(options)}


def _chosen(item: SuiteTask, options: SuiteOptions) -> list[str]:
    """Departures that the user asked for."""
    found = []
    if item.category == "retrieval":
        if item.name == "tatoeba" and options.scoring != "cosine":
            found.append(f"nearest by {options.scoring} instead of the cosine")
    else:
        if options.train == "modules" or options.module != "none":
            found.append(f"{options.module} trained{' over a frozen backbone' if options.train == 'modules' else ''}")
        if options.limit_train is not None:
            found.append(f"trained on at most {options.limit_train:,} rows")
        if options.learning_rate is not None:
            found.append(f"learning rate {options.learning_rate:g}")
        if options.epochs is not None:
            found.append(f"{options.epochs:g} epochs instead of {item.epochs:g}")
    if options.limit_test is not None:
        found.append(f"scored on at most {options.limit_test:,} rows of a language")
    return found


def _key(
    backbone: Backbone, shared: TransferModule | None, options: SuiteOptions, item: SuiteTask, root: Path, folder: Path
) -> str:
    how: list[Any]
    if item.category == "retrieval":
        how = [_layer(item, backbone, options)]
    else:
        how = [item.epochs, item.learning_rate, item.learning_rate_large, item.batch, item.max_length]
        how += [item.warmup, item.weight_decay, dict(item.head_options)]
    return content_key(
        [
            backbone.fingerprint,
            shared.digest if shared is not None else "",
            asdict(options),
            how,
            digests(item, root, folder),
        ]
    )


def _trained(
    item: SuiteTask,
    backbone: Backbone,
    root: Path,
    folder: Path,
    out: Path,
    options: SuiteOptions,
    shared: TransferModule | None,
    progress: bool,
) -> dict[str, Any]:
    source, place = train_data(item, root)
    task = get_task(item.task)
    departures = [place.note] if place.note else []
    rows = read(source, ENGLISH, place.split, task, limit=options.limit_train).examples
    train, dev, note = _with_dev(rows, dev_folder(root, place), source, task, options.limit_train)
    departures += [note] if note else []
    task = task.with_labels_from(train)
    split = tested_split(item, folder)
    if split != item.splits[0] and item.name == "mlqa":
        departures.append(f"scored on the {split} split, as {item.splits[0]} is not there")
    tested = [code for code in available(folder) if has_split(folder, code, split)]
    for code in list(tested):
        try:
            check_leaks(train, read(folder, code, split, task, limit=options.limit_test).examples)
        except IsoglossError as problem:
            tested.remove(code)
            departures.append(f"{code} left out: {problem}")
    if not tested:
        raise NothingToScoreError(f"Of the task {item.name} no language is left to score: {departures[-1]}")
    advised = "full" in backbone.card.get("training", {}) or options.train == "modules"
    large = layer_count(backbone) >= _LARGE
    rate = options.learning_rate
    if rate is None and not advised:
        rate = item.learning_rate_large if large else item.learning_rate
    elif rate is None:
        departures.append("learning rate as the backbone's card or the method's default says")
    stage = TaskStage(
        epochs=options.epochs or item.epochs,
        batch_size=item.batch // 4,
        accumulation=4,
        learning_rate=rate,
        warmup=item.warmup,
        weight_decay=item.weight_decay,
        head_options={**item.head_options, "max_length": _room(item, backbone)},
        train=options.train,
        seed=options.seed,
        precision=options.precision,
    )
    others = [shared] if shared is not None else []
    facts = train_task(
        backbone,
        task,
        train,
        dev,
        parse_module(options.module),
        stage,
        out,
        language_modules=others,
        data_name=source.name,
        split=place.split,
        overwrite=(out / "module.json").is_file(),
        progress=Progress(item.name) if progress else None,
    )
    found = evaluate(
        backbone,
        load_module(out, backbone),
        {EVERY: shared} if shared is not None else {},
        folder,
        tested,
        split=split,
        limit=options.limit_test,
    )
    return {"scores": found["scores"], "departures": departures, "dev": facts["metrics"], "split": split}


def _room(item: SuiteTask, backbone: Backbone) -> int:
    return min(item.max_length, (backbone.max_length or item.max_length))


def _with_dev(
    rows: list[Example], selecting: Path | None, source: Path, task: Any, limit: int | None
) -> tuple[list[Example], list[Example], str]:
    """Training and English development rows; the last tenth of the training rows where there is no split for it."""
    if selecting is not None:
        return rows, read(selecting, ENGLISH, "dev", task, limit=limit).examples, ""
    cut = max(1, len(rows) - max(1, len(rows) // 10))
    kept, held = rows[:cut], rows[cut:]
    if not held:
        raise IsoglossError(
            f"The English training rows in '{source}' are too few ({len(rows)}) to keep some for selection."
        )
    return kept, held, "weights selected on the last tenth of the training rows"


def _layer(item: SuiteTask, backbone: Backbone, options: SuiteOptions) -> int:
    return options.layer or middle_layer(item, layer_count(backbone))


def _retrieval(
    item: SuiteTask, backbone: Backbone, folder: Path, options: SuiteOptions, shared: TransferModule | None
) -> dict[str, Any]:
    layer = _layer(item, backbone, options)
    departures = [f"states of block {layer} of {layer_count(backbone)}, mean over tokens"]
    if item.name == "bucc":
        lacking: dict[str, str] = {}
        scores = evaluate_bucc(
            backbone, shared, folder, layer=layer, search=options.search, limit=options.limit_test, left_out=lacking
        )
        departures += [f"{code} left out: {why}" for code, why in lacking.items()]
        return {"scores": scores, "departures": departures, "languages": sorted(bucc_languages(folder))}
    codes = [code for code in available(folder) if code != ENGLISH and has_split(folder, code, "test")]
    if not codes:
        raise NothingToScoreError(
            f"Of the task {item.name} no language is left to score: '{folder}' has English alone."
        )
    found = evaluate_retrieval(
        backbone,
        {EVERY: shared} if shared is not None else {},
        folder,
        codes,
        split="test",
        limit=options.limit_test,
        layer=layer,
        scoring=options.scoring,
    )
    return {"scores": found["scores"], "departures": departures}
