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
from isogloss.modules import ModuleConfig, format_module
from isogloss.training.language_stage import LanguageStage, check_backbone, train_on_text
from isogloss.training.new_module import new_module
from isogloss.training.outputs import claim_output, save_output
from isogloss.training.pool_setup import told_languages
from isogloss.training.progress import Progress


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
    check_backbone(backbone, stage)
    target = claim_output(out, overwrite=overwrite)
    codes = list(texts)
    stores = {
        code: tokenise(list(files), backbone.tokenizer, cache_dir=cache_dir, field=stage.field, limit=stage.limit)
        for code, files in texts.items()
    }
    config = told_languages(config, codes)
    module = new_module(config, backbone, seed=stage.seed)
    module.info.role = "shared"
    done = train_on_text(
        backbone,
        module,
        stores,
        stage,
        target,
        identity={
            "module": format_module(config),
            "stores": {code: store.folder.name for code, store in stores.items()},
            "alpha": alpha,
        },
        alpha=alpha,
        progress=progress,
    )
    module.info.training = {
        "stage": "shared",
        "languages": codes,
        "data": [
            {"name": Path(str(item)).name, "licence": stage.licence} for files in texts.values() for item in files
        ],
        "alpha": alpha,
        **done.facts,
    }
    module.info.scores = {"held_out": done.metrics}
    save_output(module, target)
    return {
        "module": str(target),
        "languages": codes,
        "notation": f"{config.method}:{module.info.label}",
        **done.summary(module),
        "metrics": done.metrics,
    }
