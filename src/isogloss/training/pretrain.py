"""Pre-training a backbone from a recipe: tokenizer, first embeddings, objectives, checkpoints, model card."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from isogloss.backbones import Backbone, fingerprint, load_backbone
from isogloss.backbones.attention import use_own_attention
from isogloss.backbones.families import family_of
from isogloss.backbones.pool_part import save_pool, without_pool
from isogloss.backbones.processor import has_bf16
from isogloss.backbones.sites import resolve_sites
from isogloss.corpora import (
    ContrastBatch,
    ParallelCorpus,
    TokenStore,
    default_cache,
    keep_hub_text,
    stream_generator,
    symmetric_info_nce,
    tokenise,
    train_tokenizer,
)
from isogloss.errors import IsoglossError
from isogloss.languages import fill_pattern, resolve
from isogloss.stack import Stack
from isogloss.storage import content_key, file_digest, new_folder, write_json, write_text
from isogloss.training._processes import launched_device, writes
from isogloss.training.architectures import fresh_model
from isogloss.training.checkpoint import OtherRunError, has_checkpoint
from isogloss.training.config import FitConfig, FitResult, LossResult, TrainedPart
from isogloss.training.first_embeddings import set_first_embeddings
from isogloss.training.fit import fit
from isogloss.training.language_losses import LanguageLosses
from isogloss.training.lm_batches import objective_batch, segment_vectors
from isogloss.training.outputs import claim_output
from isogloss.training.pool_setup import add_pool
from isogloss.training.pretrain_card import model_card
from isogloss.training.pretrain_estimate import estimate
from isogloss.training.pretrain_stream import PretrainStep, PretrainStream, make_objective
from isogloss.training.progress import Progress
from isogloss.training.recipe import HUB, Recipe


def pretrain(
    recipe: Recipe,
    out: str | Path,
    *,
    overwrite: bool = False,
    checkpoint_seconds: float = 300.0,
    progress: Progress | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Trains a backbone from scratch, or continues one, and saves it with its tokenizer and card.

    Args:
        recipe: From `read_recipe`.
        out: Output folder; the same one continues an interrupted run.
        overwrite: Replace what is there.
        checkpoint_seconds: Time between checkpoints.
        progress: Where to show progress.
        cache_dir: Token cache; the default cache when None.

    Returns:
        JSON facts: folder, steps, seconds, tokens, parameters, validation loss by language.

    Raises:
        IsoglossError: A text is missing, a language unknown, or the output folder holds something else.
    """
    target = claim_output(out, overwrite=overwrite)
    device = launched_device()
    if not writes():
        progress = None
    automatic = recipe.precision == "auto"
    if automatic:
        recipe = recipe.model_copy(update={"precision": "bf16" if has_bf16(device) else "fp32"})
    _check_folders(recipe)
    files = {code: _text_files(recipe, code, cache_dir) for code in recipe.codes}
    tell: Callable[[str], None] = progress.note if progress else (lambda text: None)
    identity = {
        "recipe": recipe.record(),
        "texts": {code: [file_digest(path) for path in paths] for code, paths in files.items()},
    }
    backbone, stores = _start(recipe, files, cache_dir, tell)
    parallel = None
    if recipe.parallel:
        tell("aligned text")
        # A language without aligned text is trained on its own text alone.
        aligned = [
            code
            for code in recipe.codes
            if any(list(Path(source.folder).glob(f"{code}.jsonl*")) for source in recipe.parallel)
        ]
        parallel = ParallelCorpus.open(
            [source.folder for source in recipe.parallel],
            backbone.tokenizer,
            languages=aligned,
            pivot=_pivot(recipe, aligned),
            times=[source.times for source in recipe.parallel],
            cache_dir=cache_dir,
        )
    splits = {code: _split(store, recipe.validation_documents, code) for code, store in stores.items()}
    set_first_embeddings(backbone, [train for train, _ in splits.values()], parallel, recipe, cache_dir, tell)
    if recipe.pool:
        add_pool(backbone, recipe.pool, recipe.codes, recipe.seed)
    backbone.unfreeze()
    stack = Stack(backbone, [])
    _check_room(recipe, stack)
    if progress and not has_checkpoint(target):
        progress.note(
            estimate(recipe, stack, {code: train for code, (train, _) in splits.items()}, parallel, step_loss)
        )
    by_language = LanguageLosses(recipe.codes)
    if progress:
        progress.details = by_language.line
    with _other_machine_told(recipe.precision if automatic else None):
        result = fit(
            FitConfig(
                steps=recipe.steps,
                accumulation=recipe.accumulation,
                learning_rate=recipe.learning_rate,
                weight_decay=recipe.weight_decay,
                warmup=recipe.warmup,
                schedule="linear",
                precision="bf16" if recipe.precision == "bf16" else "fp32",
                seed=recipe.seed,
                keep_best=False,
                checkpoint_seconds=checkpoint_seconds,
            ),
            parts=_parts(backbone, recipe),
            batches=PretrainStream(recipe, {code: train for code, (train, _) in splits.items()}, parallel, backbone),
            loss=lambda step: step_loss(stack, step, by_language),
            modules={"backbone": backbone.model},
            computing=[stack],
            folder=target,
            progress=progress,
            identity=identity,
        )
    validation = validation_losses(stack, {code: held for code, (_, held) in splits.items()}, recipe)
    facts = _facts(recipe, backbone, result, validation, {code: store.token_count for code, store in stores.items()})
    if writes():
        with new_folder(target, overwrite=True) as folder:
            save_pool(folder, backbone.model)
            with without_pool(backbone.model):
                backbone.model.to(torch.bfloat16).save_pretrained(folder)
            backbone.tokenizer.save_pretrained(folder)
            write_json(folder / "isogloss.json", facts)
            write_text(folder / "README.md", model_card(recipe, facts))
    return {"backbone": str(target), **facts}


def _pivot(recipe: Recipe, aligned: Sequence[str]) -> str | None:
    """Code of the language that all pairs must have."""
    if recipe.pivot is None:
        return None
    code = resolve(recipe.pivot).code
    if code not in aligned:
        lack = "there is no aligned text in it" if code in recipe.codes else "it is not among 'languages'"
        raise IsoglossError(
            f"The recipe of {recipe.name} has 'pivot: {recipe.pivot}', but {lack}; name one of {', '.join(aligned) or 'none'}, or "
            "leave 'pivot' out."
        )
    return code


@contextmanager
def _other_machine_told(precision: str | None) -> Iterator[None]:
    """Says with a refused checkpoint that `precision: auto`, here `precision`, may be why."""
    try:
        yield
    except OtherRunError as problem:
        if precision is None:
            raise
        other = "fp32" if precision == "bf16" else "bf16"
        raise IsoglossError(
            f"{str(problem).rstrip('.')}; 'precision: auto' is {precision} on this machine: to continue a run that began "
            f"on a machine where it is {other}, write 'precision: {other}' in the recipe."
        ) from problem


def _parts(backbone: Backbone, recipe: Recipe) -> list[TrainedPart]:
    """Input embeddings (with a tied output) and the pool, each at a rate of its own, and all the rest."""
    model, rate = backbone.model, recipe.learning_rate
    table = model.get_input_embeddings().weight
    if recipe.embedding_rate == 0:
        table.requires_grad_(False)
    pool = list((backbone.pool_tensors or {}).values()) if recipe.pool_rate != 1 else []
    apart = {id(weight) for weight in (table, *pool)}
    parts = [TrainedPart("body", [weight for weight in dict.fromkeys(model.parameters()) if id(weight) not in apart])]
    if recipe.embedding_rate > 0:
        parts.append(TrainedPart("embeddings", [table], learning_rate=rate * recipe.embedding_rate))
    if pool:
        parts.append(TrainedPart("pool", pool, learning_rate=rate * recipe.pool_rate))
    return parts


def step_loss(stack: Stack, step: PretrainStep, by_language: LanguageLosses | None = None) -> LossResult:
    """The loss of one pre-training batch; batches whose rows have one language each are counted by language too."""
    device = stack.backbone.device
    batch = step.batch.to(device)
    if isinstance(batch, ContrastBatch):
        first, second = (
            segment_vectors(stack, half, step.languages and [pair[side] for pair in step.languages])
            for side, half in enumerate((batch.first, batch.second))
        )
        loss = symmetric_info_nce(first, second, temperature=step.objective.temperature, groups=batch.groups)
        tokens = int(batch.first.attention_mask.sum() + batch.second.attention_mask.sum())
        return with_module_loss(stack, LossResult(loss * len(first), len(first), tokens))
    text, positions, labels = objective_batch(stack, batch, step.languages)
    each = labels.new_zeros(len(labels), dtype=torch.float32) if by_language and step.languages else None
    loss = stack.lm_loss(stack.run(text).at(positions), labels, each)
    if by_language and step.languages and each is not None:
        width = (batch.input_ids if batch.decoder_input_ids is None else batch.decoder_input_ids).shape[1]
        by_language.add(each, positions // width, [str(code) for code in step.languages])
    return with_module_loss(stack, LossResult(loss, len(labels), batch.token_count))


def with_module_loss(stack: Stack, result: LossResult) -> LossResult:
    """Adds the modules' own loss (a pull loss, say), a mean over rows, to each of the summed losses."""
    own = stack.take_module_loss()
    return result if own is None else replace(result, total=result.total + own * result.count)


def validation_losses(stack: Stack, held: Mapping[str, TokenStore], recipe: Recipe, rows: int = 32) -> dict[str, float]:
    """Mean loss per scored token of the recipe's first raw objective, by language, on up to `rows` held-out rows."""
    item = next(
        (entry for entry in recipe.objectives if entry.text == "raw" and entry.name not in ("translation", "contrast")),
        None,
    )
    if item is None:
        return {}
    stage = recipe.stages[-1]
    objective = make_objective(item.name, stack.backbone.tokenizer, stage.length, stack.backbone, item.rate)
    stack.eval()
    losses = {}
    for code, store in held.items():
        view = store.blocks(objective.raw_length)
        if not len(view):
            continue
        batch = objective.collate(view.take(range(min(rows, len(view)))), stream_generator("validation", code))
        with torch.no_grad():
            result = step_loss(stack, PretrainStep(item, batch, [code] * len(batch.input_ids)))
        # Of text whose script the vocabulary lacks every token is unknown, and nothing is asked of those.
        if result.count:
            losses[code] = float(result.total) / result.count
    return losses


def _split(store: TokenStore, validation: int, code: str) -> tuple[TokenStore, TokenStore]:
    try:
        return store.hold_out(validation)
    except IsoglossError as problem:
        raise IsoglossError(f"The text in {code}: {problem}") from problem


def _check_room(recipe: Recipe, stack: Stack) -> None:
    longest = max(stage.length for stage in recipe.stages)
    if stack.text_budget is not None and longest > stack.text_budget:
        raise IsoglossError(
            f"The recipe's stages have rows of {longest} tokens, but {recipe.name} takes {stack.text_budget} beside its "
            f"{stack.prompt_length()} prompt vectors; use shorter rows."
        )


def _check_folders(recipe: Recipe) -> None:
    """Refuses folders that are not there: other folders may have text in each language, and nobody would miss these."""
    for key, sources in (("text", recipe.text), ("parallel", recipe.parallel)):
        for source in sources:
            if not source.folder.startswith(HUB) and not Path(source.folder).is_dir():
                raise IsoglossError(
                    f"The folder '{source.folder}' under '{key}' in the recipe of {recipe.name} does not exist; "
                    "mend its path, or leave it out."
                )


def _text_files(recipe: Recipe, code: str, cache_dir: str | Path | None = None) -> list[Path]:
    found = []
    # The last documents are held out: of a folder that counts several times the other copies would be trained on.
    for source in sorted(recipe.text, key=lambda one: -one.times):
        if source.folder.startswith(HUB):
            name = fill_pattern(source.folder, resolve(code))
            paths = [keep_hub_text(name, documents=source.documents, cache_dir=cache_dir)]
        else:
            ends = (".jsonl.gz", ".jsonl", ".txt.gz", ".txt")
            paths = [path for end in ends if (path := Path(source.folder) / f"{code}{end}").is_file()]
        found += [path for path in paths for _ in range(source.times)]
    if not found:
        raise IsoglossError(
            f"No text for {code} in {', '.join(source.folder for source in recipe.text)}; expected a file {code}.jsonl.gz or .txt there."
        )
    return found


def _start(
    recipe: Recipe, files: Mapping[str, list[Path]], cache_dir: str | Path | None, tell: Any
) -> tuple[Backbone, dict[str, TokenStore]]:
    """The model before its first step and the tokenised text; the tokenizer is kept in the cache."""
    from transformers import AutoTokenizer

    if recipe.start_from:
        backbone = load_backbone(recipe.start_from, dtype="fp32", device=launched_device())
        if backbone.kind != recipe.kind:
            raise IsoglossError(
                f"The recipe of {recipe.name} says 'kind: {recipe.kind}', but the model under 'start_from', "
                f"{recipe.start_from}, is of kind {backbone.kind}; write that."
            )
    else:
        digests = {code: [file_digest(path) for path in paths] for code, paths in files.items()}
        wanted = {**recipe.tokenizer.model_dump(), "kind": recipe.kind, "texts": digests, "seed": recipe.seed_of_text}
        kept = Path(cache_dir or default_cache()) / "tokenizers" / content_key(wanted)[:32]
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(kept.parent / f".{kept.name}.lock")):  # of several processes one trains it
            if not kept.is_dir():
                tell(f"tokenizer of {recipe.tokenizer.vocabulary} tokens")
                tokenizer = train_tokenizer(
                    files,
                    vocab_size=recipe.tokenizer.vocabulary,
                    kind=recipe.kind,
                    alpha=recipe.tokenizer.alpha,
                    sentinels=recipe.tokenizer.sentinels,
                    max_characters=recipe.tokenizer.max_characters,
                    max_length=recipe.model.max_length,
                    seed=recipe.seed_of_text,
                )
                with new_folder(kept) as folder:
                    tokenizer.save_pretrained(folder)
        # Vocabularies are kept by what they are learned from; the length is the model's.
        tokenizer = AutoTokenizer.from_pretrained(kept, model_max_length=recipe.model.max_length)
        backbone = wrap_model(recipe.name, fresh_model(recipe, tokenizer), tokenizer)
    tell("tokenising")
    return backbone, {code: tokenise(paths, backbone.tokenizer, cache_dir=cache_dir) for code, paths in files.items()}


def wrap_model(name: str, model: Any, tokenizer: Any) -> Backbone:
    """Makes a `Backbone` of a live model of a known family."""
    family = family_of(model.config.model_type)
    assert family is not None
    use_own_attention(model)
    return Backbone(
        name,
        model.to(launched_device()),
        tokenizer,
        family,
        resolve_sites(model, family),
        fingerprint(model, model.config),
    )


def _facts(
    recipe: Recipe,
    backbone: Backbone,
    result: FitResult,
    validation: Mapping[str, float],
    tokens: Mapping[str, int],
) -> dict[str, Any]:
    parameters = sum(parameter.numel() for parameter in set(backbone.model.parameters()))
    return {
        "name": recipe.name,
        "kind": recipe.kind,
        "languages": recipe.codes,
        "parameters": parameters,
        "vocabulary": backbone.vocabulary_size,
        "steps": result.steps,
        "tokens_seen": result.tokens,
        "seconds": round(result.seconds, 1),
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
        "final_loss": _last_loss(result),
        "validation_loss": {code: round(loss, 3) for code, loss in validation.items()},
        "validation_perplexity": {code: round(math.exp(min(loss, 20.0)), 1) for code, loss in validation.items()},
        "text_tokens": dict(tokens),
        "training": recipe.advice,
        "recipe": recipe.record(),
        **({"pool": backbone.pool} if backbone.pool else {}),
    }


def _last_loss(result: FitResult) -> float | None:
    losses = [entry["loss"] for entry in result.history if "loss" in entry]
    return round(losses[-1], 4) if losses else None
