"""The language stage: a language module learned from raw text over the frozen backbone (S1 phase I, MAD-X)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from isogloss.backbones import Backbone
from isogloss.corpora import TokenStore, stream_generator, tokenise
from isogloss.errors import IsoglossError
from isogloss.languages import Language
from isogloss.modules import ModuleConfig, TransferModule, format_module
from isogloss.stack import Stack
from isogloss.training.config import FitConfig, FitResult, TrainedPart
from isogloss.training.defaults import Optimisation, check_given, optimisation
from isogloss.training.fit import fit
from isogloss.training.lm_batches import objective_batch
from isogloss.training.new_module import new_module
from isogloss.training.outputs import claim_output, save_output
from isogloss.training.pretrain import step_loss
from isogloss.training.pretrain_stream import PretrainStream, make_objective
from isogloss.training.progress import Progress
from isogloss.training.recipe import OBJECTIVES, ObjectiveRecipe, Recipe, StageRecipe

_OF_RAW_TEXT = ("masked", "spans", "causal", "prefix")


@dataclass(frozen=True, kw_only=True)
class LanguageStage:
    """What a language stage is told.

    Attributes:
        steps: Optimiser steps.
        length: Tokens of a row, special tokens included (for span corruption after it).
        batch_size: Rows of a batch.
        accumulation: Batches of one optimiser step.
        objective: masked, spans, causal or prefix; None takes the backbone kind's usual one.
        rate: Share of tokens masked or cut out.
        optimiser, learning_rate, weight_decay, schedule, warmup: None takes the default (defaults.py).
        validation_documents: Last documents of the text kept for validation.
        limit: Read at most this many documents.
        licence: Of the text, for the model card.
        field: Column of the text in JSONL or Hub data.
        precision: fp32, or bf16 for autocast.
        seed: Of initial values and of the order of text.
        tracker: An `accelerate` tracker's name.
    """

    steps: int = 1000
    length: int = 128
    batch_size: int = 16
    accumulation: int = 1
    objective: str | None = None
    rate: float = 0.15
    optimiser: str | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    warmup: float | None = None
    validation_documents: int = 50
    limit: int | None = None
    field: str = "text"
    licence: str = ""
    precision: str = "fp32"
    seed: int = 42
    tracker: str | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot work on any backbone, before one is loaded."""
        if self.objective not in (None, *_OF_RAW_TEXT):
            raise IsoglossError(
                f"The objective '{self.objective}' is unknown for raw text; use one of {', '.join(_OF_RAW_TEXT)}."
            )
        check_given(self)


def train_language(
    backbone: Backbone,
    language: Language,
    text: Sequence[str | Path],
    config: ModuleConfig,
    stage: LanguageStage,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Trains a language module and saves it.

    Args:
        backbone: Stays frozen.
        language: What the module will stand for.
        text: Files of raw text (plain, JSONL, gz), or one `hub:ID`.
        config: From `parse_module`.
        stage: How to train.
        out: Output folder; the same one continues an interrupted run.
        overwrite: Replace what is there.
        progress: Where to show progress.
        cache_dir: Token cache.

    Returns:
        `{"module", "steps", "seconds", "metrics": {"loss", "token_accuracy", "loss_without"}, ...}` on held-out text.

    Raises:
        IsoglossError: No tokenizer, an objective of another kind of backbone, no trainable module, unreadable text, an
            occupied output folder.
    """
    if config.method == "none":
        raise IsoglossError("A language module must be something: use adapter:16, prompt:50, lora:8 or invertible:2.")
    check_backbone(backbone, stage)
    target = claim_output(out, overwrite=overwrite)
    store = tokenise(
        list(text) if len(text) > 1 else text[0],
        backbone.tokenizer,
        cache_dir=cache_dir,
        field=stage.field,
        limit=stage.limit,
    )
    module = new_module(config, backbone, seed=stage.seed)
    module.info.role, module.info.language = "language", language.code
    done = train_on_text(
        backbone,
        module,
        {language.code: store},
        stage,
        target,
        identity={"module": format_module(config), "language": language.code, "store": store.folder.name},
        progress=progress,
    )
    metrics = done.metrics[language.code]
    module.info.training = {
        "data": [{"name": Path(str(item)).name, "licence": stage.licence} for item in text],
        "text_store": store.folder.name,
        "stage": "language",
        **done.facts,
    }
    module.info.scores = {"held_out": metrics}
    save_output(module, target)
    return {
        "module": str(target),
        "language": language.code,
        "notation": f"{config.method}:{language.code}",
        **done.summary(module),
        "metrics": metrics,
        "history": [dict(entry) for entry in done.result.history],
    }


def check_backbone(backbone: Backbone, stage: LanguageStage) -> None:
    """Refuses a backbone that cannot read text, or cannot learn by the stage's objective."""
    if backbone.tokenizer is None:
        raise IsoglossError(
            f"{backbone.name} has no tokenizer, so text cannot be read for it; add its tokenizer files."
        )
    fitting = [name for name in OBJECTIVES[backbone.kind] if name in _OF_RAW_TEXT]
    if stage.objective not in (None, *fitting):
        raise IsoglossError(
            f"The objective '{stage.objective}' teaches no model of kind {backbone.kind}, which {backbone.name} is; "
            f"use {' or '.join(fitting)}."
        )


@dataclass(frozen=True)
class TextResult:
    """What `train_on_text` found: the fit, what a module's card says of it, and held-out metrics by language."""

    result: FitResult
    facts: dict[str, Any]
    metrics: dict[str, dict[str, float]]

    def summary(self, module: TransferModule) -> dict[str, Any]:
        """What every command that trains on raw text returns."""
        return {
            "steps": self.result.steps,
            "seconds": round(self.result.seconds, 1),
            "parameters": sum(tensor.numel() for tensor in module.folded().weight_tensors().values()),
        }


def train_on_text(
    backbone: Backbone,
    module: TransferModule,
    stores: Mapping[str, TokenStore],
    stage: LanguageStage,
    target: Path,
    *,
    identity: Mapping[str, Any],
    alpha: float = 0.3,
    progress: Progress | None = None,
) -> TextResult:
    """Fits a module to raw text of one language or several; the text is read just as pre-training reads it.

    Args:
        backbone: Stays frozen.
        module: What learns.
        stores: Language code -> its text; the last documents are held out.
        stage: How to train.
        target: Where checkpoints are kept.
        identity: What else must be the same for a run to be continued.
        alpha: Smoothing exponent of the mixture of languages.
        progress: Where to show progress.
    """
    splits = {code: store.hold_out(stage.validation_documents) for code, store in stores.items()}
    stack = Stack(backbone, [module])
    how = optimisation(
        backbone,
        module.method,
        optimiser=stage.optimiser,
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        schedule=stage.schedule,
        warmup=stage.warmup,
    )
    objective = stage.objective or OBJECTIVES[backbone.kind][0]
    length = row_length(stage.length, stack)
    recipe = Recipe(
        name=backbone.name,
        kind=backbone.kind,
        languages=list(stores),
        text=["."],  # type: ignore[list-item]
        objectives=[ObjectiveRecipe(name=objective, weight=1.0, rate=stage.rate)],  # type: ignore[arg-type]
        stages=[StageRecipe(steps=stage.steps, length=length, batch=stage.batch_size)],
        alpha=alpha,
        seed=stage.seed,
    )
    result = fit(
        _fit_config(stage, how),
        parts=[TrainedPart("module", [p for p in module.parameters() if p.requires_grad])],
        batches=PretrainStream(recipe, {code: train for code, (train, _) in splits.items()}, None, backbone),
        loss=lambda step: step_loss(stack, step),
        modules={"module": module},
        computing=[stack],
        folder=target,
        progress=progress,
        identity={"backbone": backbone.fingerprint, **identity},
        settings={**vars(stage), "tracker": None, "licence": None},
    )
    bare = Stack(backbone)
    metrics: dict[str, dict[str, float]] = {}
    for code, (_, held) in splits.items():
        metrics[code] = held_out(stack, held, objective, length, stage.rate, code)
        metrics[code]["loss_without"] = held_out(bare, held, objective, length, stage.rate, code)["loss"]
    facts = {
        "objective": objective,
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "length": length,
        "batch_size": stage.batch_size,
        "seed": stage.seed,
        **vars(how),
    }
    return TextResult(result, facts, metrics)


def held_out(
    stack: Stack, store: TokenStore, objective: str, length: int, rate: float, seed: str, rows: int = 64
) -> dict[str, float]:
    """Mean loss and accuracy of scored tokens on held-out text, the same corruption for every stack."""
    maker = make_objective(objective, stack.backbone.tokenizer, length, stack.backbone, rate)
    view = store.blocks(maker.raw_length)
    if not len(view):
        return {"loss": float("nan"), "token_accuracy": float("nan"), "tokens": 0}
    loss = correct = count = 0.0
    stack.eval()
    generator = stream_generator("held-out", seed)
    for start in range(0, min(rows, len(view)), 16):
        batch = maker.collate(view.take(range(start, min(start + 16, rows, len(view)))), generator).to(
            stack.backbone.device
        )
        with torch.no_grad():
            text, positions, labels = objective_batch(stack, batch, [seed] * len(batch.input_ids))
            states = stack.run(text).at(positions)
            loss += float(stack.lm_loss(states, labels))
            correct += int(stack.correct(states, labels).sum())
        count += len(labels)
    if not count:
        # Of text whose script the vocabulary lacks every token is unknown, and nothing is asked of those.
        return {"loss": float("nan"), "token_accuracy": float("nan"), "tokens": 0}
    return {"loss": round(loss / count, 4), "token_accuracy": round(correct / count, 4), "tokens": int(count)}


def row_length(length: int, stack: Stack) -> int:
    """Tokens of a row: what is wanted, less where the prompts leave no room for that."""
    budget = stack.text_budget
    return length if budget is None else min(length, budget)


def _fit_config(stage: LanguageStage, how: Optimisation) -> FitConfig:
    """What the loop is told."""
    return FitConfig(
        steps=stage.steps,
        accumulation=stage.accumulation,
        learning_rate=how.learning_rate,
        optimiser=how.optimiser,  # type: ignore[arg-type]
        weight_decay=how.weight_decay,
        schedule=how.schedule,  # type: ignore[arg-type]
        warmup=how.warmup,
        clip=how.clip,
        precision=stage.precision,  # type: ignore[arg-type]
        seed=stage.seed,
        keep_best=False,
        checkpoint_seconds=120.0,
        split_batches=True,
        tracker=stage.tracker,
    )


# Stands among language codes for a module that is used under every language (role `shared`).
EVERY = "*"


def language_of(module: TransferModule) -> str:
    """The code of the language that a module stands for; EVERY for one that serves all languages.

    Raises:
        IsoglossError: It is not a language module.
    """
    if module.info.role == "shared":
        return EVERY
    if module.info.role != "language" or not module.info.language:
        raise IsoglossError(f"The module '{module.method}:{module.info.label}' is not a language module.")
    return module.info.language
