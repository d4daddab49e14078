"""What a meta-training is told, and the parts that all methods build from it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.meta.base_steps import BASES, BaseStep
from isogloss.meta.groups import BY, By, FastWeights, fast_weights
from isogloss.meta.memory import Estimate, Shape, free_memory, model_shape, refuse_too_large
from isogloss.meta.objective import Objective
from isogloss.meta.rules import RULES
from isogloss.modules import TransferModule
from isogloss.stack import Bank, Stack
from isogloss.tasks.heads import Encoded, Head
from isogloss.training.defaults import Optimisation, check_given, optimisation

STARTS = ("xmaml", "fomaml", "reptile", "auxiliary")
# What starts have no use for, and its default.
_RULES_ALONE: Mapping[str, Any] = {
    "options": {},
    "by": "layer",
    "base": None,
    "head_learning_rate": None,
    "clip": 1.0,
    "checkpoint": False,
    "query_size": None,
    "roles": "fixed",
}


@dataclass(frozen=True, kw_only=True)
class MetaStage:
    """How to meta-train.

    Attributes:
        method: A learned rule (`rules.LEARNED`) or a meta-initialisation (`STARTS`).
        options: Of the rule.
        by: Grouping of the fast weights.
        base: Base step: `sgd`, `momentum` or `adam`; None takes what plain fine-tuning would use.
        learning_rate: Of the base step (of the inner step, for meta-initialisations); None takes the usual one.
        head_learning_rate: The same for the head's weights.
        inner_steps: T, inner steps of an episode.
        horizon: Inner steps of a simulated fine-tuning before it begins again.
        order: `first` or `second`: whether outer gradients pass through inner gradients. After one inner step both are
            exact for a rule.
        checkpoint: Compute inner steps again instead of keeping their graphs.
        outer_steps: Outer optimiser steps.
        outer_learning_rate: None takes the method's usual one.
        batch_size: Rows of a support batch.
        query_size: Rows of a query batch; None is the same.
        clip: Largest norm of the inner gradients; None and 0 do not clip.
        train: `modules` or `all`.
        head: As in `TaskStage`.
        head_options: As in `TaskStage`.
        roles: See `share_out`.
        disjoint: Keep translations of support rows out of the queries (parallel data), and with mixed roles those rows too.
        memory: Bytes to be had; None asks the machine.
        start_epochs: Epochs of plain fine-tuning in front of a meta-initialisation.
        seed: Of initial values, drawing and order.
        tracker: An `accelerate` tracker's name.
        checkpoint_seconds: Seconds between checkpoints of the run.
    """

    method: str = "gates"
    options: Mapping[str, Any] = field(default_factory=dict)
    by: By = "layer"
    base: Literal["sgd", "momentum", "adam"] | None = None
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    inner_steps: int = 1
    horizon: int = 50
    order: Literal["first", "second"] = "first"
    checkpoint: bool = False
    outer_steps: int = 100
    outer_learning_rate: float | None = None
    batch_size: int = 16
    query_size: int | None = None
    clip: float | None = 1.0
    train: Literal["modules", "all"] = "all"
    head: str | None = None
    head_options: Mapping[str, Any] = field(default_factory=dict)
    roles: Literal["fixed", "mixed"] = "fixed"
    disjoint: bool = True
    memory: int | None = None
    start_epochs: float = 5.0
    seed: int = 42
    tracker: str | None = None
    checkpoint_seconds: float = 120.0

    def __post_init__(self) -> None:
        """Raises IsoglossError for values that cannot work."""
        check_given(self)
        for name in ("inner_steps", "horizon", "outer_steps", "batch_size", "query_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise IsoglossError(f"Meta-training option {name}={value} must be 1 or more.")
        for name in ("outer_learning_rate", "start_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise IsoglossError(f"Meta-training option {name}={value} must be above 0, and finite.")
        for name, choices in (("order", ("first", "second")), ("train", ("modules", "all")), ("by", BY)):
            if getattr(self, name) not in choices:
                raise IsoglossError(
                    f"Meta-training option {name}={getattr(self, name)!r} must be {' or '.join(choices)}."
                )
        if self.order == "second" and self.method in STARTS and self.method != "xmaml":
            raise IsoglossError(
                f"Meta-training option order='second' is not for {self.method}, which is of first order; use the method xmaml."
            )
        for name, usual in _RULES_ALONE.items():
            if self.method in STARTS and getattr(self, name) != usual:
                raise IsoglossError(
                    f"Meta-training option {name}={getattr(self, name)!r} is for update rules; leave it out with the method {self.method}."
                )
        if self.base is not None and self.base not in BASES:
            raise IsoglossError(f"The base step '{self.base}' is unknown; use one of {', '.join(BASES)}.")
        if self.horizon < self.inner_steps:
            raise IsoglossError(
                f"The horizon of {self.horizon} inner steps is shorter than one episode of {self.inner_steps}; make it longer."
            )


@dataclass(frozen=True)
class Parts:
    """The live parts of a meta-training.

    Attributes:
        backbone: Frozen or lent.
        module: A task module.
        head: Its head.
        stack: What runs.
        objective: Loss of rows.
        weights: What moves.
        base: Base step.
        how: Optimiser and rates of plain fine-tuning here.
        rates: Learning rate of each fast weight.
        head_rate: That of the head's.
    """

    backbone: Backbone
    module: TransferModule
    head: Head
    stack: Stack
    objective: Objective
    weights: FastWeights
    base: BaseStep
    how: Optimisation
    rates: tuple[float, ...]
    head_rate: float


def build_parts(
    backbone: Backbone,
    module: TransferModule,
    head: Head,
    stage: MetaStage,
    language_modules: Sequence[TransferModule] = (),
    *,
    stack_options: Mapping[str, Any] | None = None,
) -> Parts:
    """Puts a meta-training together.

    Args:
        backbone: Its gradients are turned on when `stage.train` is `all`.
        module: What is trained beside it.
        head: Its head.
        stage: How.
        language_modules: Frozen modules of all languages of the episodes, or none.
        stack_options: `prompt_fusion` and the like, of a start.
    """
    full = stage.train == "all"
    backbone.unfreeze() if full else backbone.freeze()
    members: list[TransferModule | Bank] = [module]
    index = None
    if language_modules:
        members.insert(0, Bank(language_modules))
        index = {str(found.info.language): number for number, found in enumerate(language_modules)}
    stack = Stack(backbone, members, **dict(stack_options or {}))
    how = optimisation(backbone, module.method, full=full, learning_rate=stage.learning_rate)
    rule = stage.method not in STARTS
    if how.optimiser not in ("adamw", "sgd") and (stage.learning_rate is None or (rule and stage.base is None)):
        # Its rate (0.5) means nothing to other steps.
        raise IsoglossError(
            f"The usual optimiser of '{module.method}' on {backbone.name} is {how.optimiser}, by whose rate no inner step can "
            f"go; give {'--base adam and --lr' if rule else '--lr'}."
        )
    # As `train task` has it: a fresh head learns faster than what it stands on.
    head_rate = stage.head_learning_rate
    if head_rate is None:
        head_rate = max(how.learning_rate, 1e-3) if how.optimiser == "adamw" else how.learning_rate
    roots: dict[str, nn.Module] = {"module": module, "head": head}
    if full:
        roots["backbone"] = backbone.model
    weights = fast_weights(roots, backbone, stage.by)
    name = stage.base or ("adam" if how.optimiser == "adamw" else "sgd")
    return Parts(
        backbone=backbone,
        module=module,
        head=head,
        stack=stack,
        objective=Objective(stack, head, index),
        weights=weights,
        base=BaseStep(name),
        how=how,
        rates=tuple(head_rate if found.startswith("head/") else how.learning_rate for found in weights.names),
        head_rate=head_rate,
    )


def check_memory(
    parts: Parts, stage: MetaStage, rows: Sequence[Encoded], *, second_order: bool, copies: int
) -> Estimate:
    """Refuses a meta-training that will not fit.

    Args:
        parts: Its parts.
        stage: How.
        rows: All rows of the episodes.
        second_order: Whether the outer gradient passes through inner gradients.
        copies: Further copies of the fast weights.

    Raises:
        IsoglossError: Needed and free memory, and cheaper ways.
    """
    # A decoder runs its prompts once for all rows.
    inserted = 0 if parts.backbone.kind == "decoder" else parts.stack.prompt_length()
    longest = max(row.length for row in rows) + inserted
    size = max(stage.batch_size, stage.query_size or 0)
    whole = sum(parameter.numel() for parameter in parts.backbone.model.parameters())
    backbone_size = sum(
        parameter.numel()
        for name, parameter in zip(parts.weights.names, parts.weights.parameters, strict=True)
        if name.startswith("backbone/")
    )
    start = stage.method in STARTS
    shape = Shape(
        fast=parts.weights.size,
        frozen=whole - backbone_size,
        # Starts step by SGD inside, and keep nothing of these steps when of first order; `copies` has their outer Adam.
        moments=0 if start else parts.base.moments,
        inner_steps=1 if start and not second_order else stage.inner_steps,
        second_order=second_order,
        checkpoint=stage.checkpoint,
        steady=not start and RULES[stage.method].steady,
        copies=copies,
        tokens=size * longest,
        length=longest,
        blocks=parts.weights.blocks,
        **model_shape(parts.backbone.config),
    )
    # The model itself is there already.
    free = free_memory(parts.weights.device) if stage.memory is None else stage.memory
    own = (parts.weights.size + whole - backbone_size) * 4
    return refuse_too_large(shape, None if free is None else free + own if stage.memory is None else free, start=start)
