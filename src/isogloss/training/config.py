"""What a fit is told and what it returns: plain frozen data, checked when it is made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from isogloss.errors import IsoglossError

OPTIMISERS = ("adamw", "adafactor", "sgd")
SCHEDULES = ("linear", "constant", "cosine", "inverse-sqrt")
PRECISIONS = ("fp32", "bf16")

# Fields that change what is shown or kept, not what is learned: a resumed run may differ in them.
_COSMETIC = ("checkpoint_every", "checkpoint_seconds", "log_every", "tracker", "split_batches")


@dataclass(frozen=True)
class LossResult:
    """What the loss of one batch returns.

    Attributes:
        total: Sum of the losses (not their mean), a scalar with gradient.
        count: How many losses were summed (labels, rows ...). The loop divides by the sum of the counts over
            all batches and processes of one step, so that accumulation equals one big batch.
        tokens: Tokens in the batch without padding; only for the throughput.
    """

    total: Tensor
    count: int
    tokens: int


@dataclass(frozen=True)
class TrainedPart:
    """Parameters with a learning rate and weight decay of their own.

    Attributes:
        name: Name in messages and logs.
        parameters: What is trained; may be empty.
        learning_rate: Peak learning rate; None takes the one of `FitConfig`.
        weight_decay: None takes the one of `FitConfig`.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How to train.

    Attributes:
        steps: Optimiser steps; give either this or `epochs`.
        epochs: Passes over the data, fractions allowed.
        accumulation: Batches (per process) in one optimiser step.
        learning_rate: Peak learning rate of every part that names none.
        optimiser: "adamw", "adafactor" (as the Hugging Face Trainer runs it: no relative step, no parameter
            scale) or "sgd".
        betas: AdamW only.
        eps: AdamW only; Adafactor keeps its published 1e-30.
        decay_rate: Adafactor only: the second moment decays by 1 - t^-decay_rate.
        momentum: SGD only.
        weight_decay: Decoupled weight decay, applied as learning rate x decay x weight.
        decay_vectors: Decay biases, norm gains and other one-dimensional parameters too (the Trainer does
            not).
        schedule: "linear" or "cosine" to zero, "constant", "inverse-sqrt"; all after the warm-up.
        warmup: A ratio of all steps when below 1, a number of steps otherwise.
        clip: Largest norm of the gradient over all parts; None does not clip.
        eval_every: Steps between calls of `validate`; None means after every epoch when `epochs` is given,
            else at the end.
        patience: Stop after this many calls of `validate` without a better value; None never stops early.
        higher_is_better: How values of `validate` compare.
        keep_best: Put the best weights back at the end (needs `validate`).
        precision: "fp32", or "bf16" for autocast of `loss` and `validate`; trained parameters stay fp32.
        seed: Seed of everything random in the loop.
        checkpoint_every: Steps between checkpoints; None goes by `checkpoint_seconds` only.
        checkpoint_seconds: Seconds between checkpoints; None goes by `checkpoint_every` only.
        log_every: Steps between entries in the history and the tracker.
        tracker: Name of an `accelerate` tracker ("tensorboard", "wandb" ...); None for none.
        split_batches: Of several processes each takes some rows of every batch (which must offer `batch[slice]` and
            `len`) instead of batches of its own, so that their number does not change what a step learns from.
    """

    steps: int | None = None
    epochs: float | None = None
    accumulation: int = 1
    learning_rate: float = 5e-5
    optimiser: Literal["adamw", "adafactor", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay_rate: float = 0.8
    momentum: float = 0.0
    weight_decay: float = 0.0
    decay_vectors: bool = False
    schedule: Literal["linear", "constant", "cosine", "inverse-sqrt"] = "linear"
    warmup: float = 0.0
    clip: float | None = 1.0
    eval_every: int | None = None
    patience: int | None = None
    higher_is_better: bool = True
    keep_best: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 42
    checkpoint_every: int | None = None
    checkpoint_seconds: float | None = 300.0
    log_every: int = 20
    tracker: str | None = None
    split_batches: bool = False

    def __post_init__(self) -> None:
        """Raises IsoglossError for a value that cannot work."""
        if (self.steps is None) == (self.epochs is None):
            raise IsoglossError("Training needs either steps or epochs, one of the two; give exactly one.")
        self._require_choice("optimiser", self.optimiser, OPTIMISERS)
        self._require_choice("schedule", self.schedule, SCHEDULES)
        if str(self.precision) == "fp16":
            raise IsoglossError(
                "Training precision 'fp16' is not offered because several backbones (mT5 among them) "
                "give NaN with it; use bf16 or fp32."
            )
        self._require_choice("precision", self.precision, PRECISIONS)
        for name in (
            "steps",
            "epochs",
            "accumulation",
            "eval_every",
            "patience",
            "checkpoint_every",
            "log_every",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise IsoglossError(f"Training option {name}={value} must be above 0.")
        for name in ("learning_rate", "warmup", "weight_decay", "momentum"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise IsoglossError(f"Training option {name}={getattr(self, name)} must be 0 or more, and finite.")
        if self.clip is not None and not self.clip > 0:
            raise IsoglossError(f"Training option clip={self.clip} must be above 0, or None for no clipping.")
        if not 0 <= self.seed < 2**63:
            raise IsoglossError(f"Training option seed={self.seed} must be a whole number from 0 to 2^63-1.")

    @staticmethod
    def _require_choice(name: str, value: str, choices: Sequence[str]) -> None:
        if value not in choices:
            raise IsoglossError(f"Training option {name}='{value}' is unknown; choose one of {', '.join(choices)}.")

    def learned(self) -> dict[str, Any]:
        """Returns the fields that change what is learned, as plain data for a content key."""
        return {name: value for name, value in asdict(self).items() if name not in _COSMETIC}


@dataclass(frozen=True)
class FitResult:
    """What a fit did.

    Attributes:
        steps: Optimiser steps done, all starts together.
        seconds: Wall-clock seconds, all starts together.
        best_step: Step of the best value of `validate`; None without one.
        best_value: That value.
        history: Entries {"step", "loss", "learning_rate"} and {"step", "value"}, in order.
        tokens: Tokens seen, without padding.
        stopped_early: True when `patience` ran out.
        resumed_from: Step of the checkpoint this start continued from; None for a fresh start.
    """

    steps: int
    seconds: float
    best_step: int | None
    best_value: float | None
    history: Sequence[Mapping[str, float]] = field(repr=False)
    tokens: int = 0
    stopped_early: bool = False
    resumed_from: int | None = None
