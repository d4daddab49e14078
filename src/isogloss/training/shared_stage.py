"""A module that serves every language, learned from raw text of several languages over the frozen backbone.

Made for the prompt pool (XLM-P, https://arxiv.org/abs/2306.07610) on a backbone that was trained without one: the texts
of all languages train one pool, and each text finds its own prompt in it. Any other method works too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isogloss.backbones import Backbone
from isogloss.corpora import tokenise
from isogloss.errors import IsoglossError
from isogloss.formats import save_module
from isogloss.modules import ModuleConfig, format_module
from isogloss.stack import Stack
from isogloss.training.config import TrainedPart
from isogloss.training.defaults import optimisation
from isogloss.training.fit import fit
from isogloss.training.language_stage import OBJECTIVES, LanguageStage, fit_config, held_out, row_length
from isogloss.training.new_module import new_module
from isogloss.training.outputs import claim_output
from isogloss.training.pool_setup import told_languages
from isogloss.training.pretrain import step_loss
from isogloss.training.pretrain_stream import PretrainStream
from isogloss.training.progress import Progress
from isogloss.training.recipe import ObjectiveRecipe, Recipe, StageRecipe


def train_shared(
    backbone: Backbone,
    texts: Mapping[str, Sequence[str | Path]],
    config: ModuleConfig,
    stage: LanguageStage,
    out: str | Path,
    *,
    alpha: float = 0.3,
    overwrite: bool = False,
    progress: Progress | None = None,
    cache_dir: str | Path | None = None,
) -> dict[str, Any]:
    """Trains a module on the raw text of several languages and saves it with the role `shared`.

    Args:
        backbone: Stays frozen.
        texts: Language code -> files of raw text.
        config: From `parse_module`; an oracle pool without languages gets those of `texts`.
        stage: How to train.
        out: Output folder; the same one continues an interrupted run.
        alpha: Smoothing exponent of the mixture of languages.
        overwrite: Replace what is there.
        progress: Where to show progress.
        cache_dir: Token cache.

    Returns:
        As `train_language`, with held-out `metrics` by language.

    Raises:
        IsoglossError: No language, no tokenizer, nothing to train, unreadable text, an occupied output folder.
    """
    if not texts:
        raise IsoglossError("There is no text to train on; name at least one language with a text.")
    if config.method == "none":
        raise IsoglossError("A module for every language must be something: use pool:64x4, adapter:16 or prompt:50.")
    if backbone.tokenizer is None:
        raise IsoglossError(
            f"{backbone.name} has no tokenizer, so text cannot be read for it; add its tokenizer files."
        )
    target = claim_output(out, overwrite=overwrite)
    codes = list(texts)
    stores = {
        code: tokenise(list(files), backbone.tokenizer, cache_dir=cache_dir, field=stage.field, limit=stage.limit)
        for code, files in texts.items()
    }
    splits = {
        code: store.split(min(stage.validation_documents, max(1, store.document_count // 10)))
        for code, store in stores.items()
    }
    config = told_languages(config, codes)
    module = new_module(config, backbone, seed=stage.seed)
    module.info.role = "shared"
    stack = Stack(backbone, [module])
    how = optimisation(
        backbone,
        config.method,
        optimiser=stage.optimiser,
        learning_rate=stage.learning_rate,
        weight_decay=stage.weight_decay,
        schedule=stage.schedule,
        warmup=stage.warmup,
    )
    objective = stage.objective or OBJECTIVES[backbone.kind]
    length = row_length(stage.length, stack)
    recipe = Recipe(
        name=backbone.name,
        kind=backbone.kind,
        languages=codes,
        text=["."],  # type: ignore[list-item]
        objectives=[ObjectiveRecipe(name=objective, weight=1.0, rate=stage.rate)],  # type: ignore[arg-type]
        stages=[StageRecipe(steps=stage.steps, length=length, batch=stage.batch_size)],
        alpha=alpha,
        seed=stage.seed,
    )
    result = fit(
        fit_config(stage, how),
        parts=[TrainedPart("module", [p for p in module.parameters() if p.requires_grad])],
        batches=PretrainStream(recipe, {code: train for code, (train, _) in splits.items()}, None, backbone),
        loss=lambda step: step_loss(stack, step),
        modules={"module": module},
        computing=[stack],
        folder=target,
        progress=progress,
        identity={
            "module": format_module(config),
            "backbone": backbone.fingerprint,
            "stores": {code: store.folder.name for code, store in stores.items()},
            "alpha": alpha,
        },
    )
    bare = Stack(backbone)
    metrics: dict[str, dict[str, float]] = {}
    for code, (_, held) in splits.items():
        metrics[code] = held_out(stack, held, objective, length, stage.rate, code)
        metrics[code]["loss_without"] = held_out(bare, held, objective, length, stage.rate, code)["loss"]
    module.info.training = {
        "stage": "shared",
        "languages": codes,
        "data": [
            {"name": Path(str(item)).name, "licence": stage.licence} for files in texts.values() for item in files
        ],
        "objective": objective,
        "steps": result.steps,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 1),
        "length": length,
        "batch_size": stage.batch_size,
        "alpha": alpha,
        "seed": stage.seed,
        **vars(how),
    }
    module.info.scores = {"held_out": metrics}
    save_module(module, target, overwrite=True)
    return {
        "module": str(target),
        "languages": codes,
        "notation": f"{config.method}:{module.info.label}",
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
        "parameters": sum(tensor.numel() for tensor in module.folded().weight_tensors().values()),
        "metrics": metrics,
    }
