"""How modules are trained unless told otherwise: the papers' settings, or what a backbone's card advises.

Prompts follow S1 on T5-like models (Adafactor 0.5) and S2 elsewhere (AdamW 5e-3); adapters and LoRA follow S1 and
MAD-X (AdamW 1e-4); papers.md 1.3, 2.3, 5.2. A bundled backbone is thousands of times smaller than what those papers
used, so its card carries rates of its own under `training`.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.training.config import FitConfig


@dataclass(frozen=True)
class Optimisation:
    """Optimiser, peak learning rate, schedule and regularisation of one training."""

    optimiser: str = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 0.0
    schedule: str = "linear"
    warmup: float = 0.0
    clip: float | None = 1.0


_FULL = Optimisation(learning_rate=2e-5, warmup=0.1)
_ADAPTER = Optimisation(learning_rate=1e-4)
_PROMPT_T5 = Optimisation(optimiser="adafactor", learning_rate=0.5, weight_decay=1e-5)
_PROMPT = Optimisation(learning_rate=5e-3, warmup=0.1)
_HEAD_ONLY = Optimisation(learning_rate=1e-3)


def published(backbone: Backbone, method: str, *, full: bool) -> Optimisation:
    """The usual setting for a method on a kind of backbone."""
    if full:
        return _FULL
    if method in ("prompt", "pool"):
        return _PROMPT_T5 if backbone.kind == "encoder-decoder" else _PROMPT
    return _HEAD_ONLY if method == "none" else _ADAPTER


def optimisation(backbone: Backbone, method: str, *, full: bool = False, **given: Any) -> Optimisation:
    """The setting to train with: what is given, else what the backbone's card advises, else what was published.

    Args:
        backbone: Its card may hold `training: {adapter|prompt|pool|lora|none|full: {...}}`; a pool goes by a prompt's rates
            where it has none of its own.
        method: Of the module.
        full: The backbone itself is trained.
        **given: Fields of `Optimisation`; None means not given, and a `clip` of 0 does not clip.
    """
    advice = backbone.card.get("training", {})
    advised = advice.get("full" if full else method, advice.get("prompt", {}) if method == "pool" else {})
    usual = published(backbone, method, full=full)
    chosen = {key: value for key, value in given.items() if value is not None}
    try:
        found = Optimisation(**{**vars(usual), **advised, **chosen})
    except TypeError as problem:
        raise IsoglossError(f"The training option is unknown: {problem}.") from problem
    return replace(found, clip=found.clip or None)


_GIVEN = ("optimiser", "learning_rate", "momentum", "weight_decay", "schedule", "warmup", "clip", "precision", "seed")


def check_given(stage: Any) -> None:
    """Refuses options of a stage that no training takes; those left to their defaults (None) are fine.

    Raises:
        IsoglossError: Names the option and what it may be.
    """
    given = {name: getattr(stage, name, None) for name in _GIVEN}
    given["clip"] = given["clip"] or None
    FitConfig(steps=1, **{name: value for name, value in given.items() if value is not None})
    for name in ("head_learning_rate", "backbone_learning_rate"):
        rate = getattr(stage, name, None)
        if rate is not None and not 0 <= rate < math.inf:
            raise IsoglossError(f"Training option {name}={rate} must be 0 or more, and finite.")
