"""Base steps u: what plain fine-tuning would subtract from a weight (design 5.5), as functions without side effects.

They are those of `torch.optim` (SGD, SGD with momentum, Adam), written so that a derivative can pass through them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from isogloss.errors import IsoglossError

BASES = ("sgd", "momentum", "adam")
# Below it a second moment is 0 for every purpose; the square root has no finite derivative at 0.
_SMALLEST = 1e-36


@dataclass(frozen=True)
class BaseStep:
    """A base step.

    Attributes:
        name: `sgd`, `momentum` or `adam`.
        momentum: Of `momentum`.
        betas: Of `adam`.
        eps: Of `adam`.
    """

    name: Literal["sgd", "momentum", "adam"] = "adam"
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        """Refuses unknown names."""
        if self.name not in BASES:
            raise IsoglossError(f"The base step '{self.name}' is unknown; use one of {', '.join(BASES)}.")

    @property
    def moments(self) -> int:
        """Tensors of state a parameter."""
        return {"sgd": 0, "momentum": 1, "adam": 2}[self.name]

    @property
    def optimiser(self) -> str:
        """The optimiser of the fit loop that takes the same steps."""
        return "adamw" if self.name == "adam" else "sgd"

    def initial(self, parameter: Tensor) -> tuple[Tensor, ...]:
        """State before the first step."""
        return tuple(torch.zeros_like(parameter, requires_grad=False) for _ in range(self.moments))

    def direction(self, gradient: Tensor, state: tuple[Tensor, ...], done: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The step at learning rate 1, and the state after it.

        Args:
            gradient: Of one parameter.
            state: From `initial` or the step before.
            done: Steps already taken with this state.
        """
        if self.name == "sgd":
            return gradient, ()
        if self.name == "momentum":
            # As torch: the buffer starts as the first gradient, which is what zeros give.
            buffer = self.momentum * state[0] + gradient
            return buffer, (buffer,)
        first, second = self.betas
        mean = first * state[0] + (1 - first) * gradient
        square = second * state[1] + (1 - second) * gradient * gradient
        steps = done + 1
        root = (square / (1 - second**steps)).clamp_min(_SMALLEST).sqrt()
        return (mean / (1 - first**steps)) / (root + self.eps), (mean, square)

    @torch.no_grad()
    def in_place(self, gradient: Tensor, state: tuple[Tensor, ...], done: int, rate: float) -> Tensor:
        """The same step times a learning rate, in the gradient's memory; the state is changed where it is.

        Args:
            gradient: Of one parameter; becomes the step.
            state: From `initial`.
            done: Steps already taken with this state.
            rate: Learning rate.

        Returns:
            The step, which is `gradient`.
        """
        if self.name == "sgd":
            return gradient.mul_(rate)
        if self.name == "momentum":
            state[0].mul_(self.momentum).add_(gradient)
        else:
            (first, second), (mean, square) = self.betas, state
            mean.mul_(first).add_(gradient, alpha=1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        return self.again(state, done, rate, out=gradient)

    @torch.no_grad()
    def again(self, state: Sequence[Tensor], done: int, rate: float, out: Tensor | None = None) -> Tensor:
        """The step that led to a state, to the bit; not for `sgd`, which keeps none.

        Args:
            state: After the step; or the same piece of each of its tensors.
            done: Steps taken before it.
            rate: Learning rate.
            out: Memory for it; None takes new.
        """
        if self.name == "momentum":
            return torch.mul(state[0], rate, out=out)
        (first, second), (mean, square), steps = self.betas, state, done + 1
        root = torch.div(square, 1 - second**steps, out=out).clamp_min_(_SMALLEST).sqrt_().add_(self.eps)
        return torch.div(mean, root, out=root).mul_(rate / (1 - first**steps))

    def to_json(self) -> dict[str, Any]:
        """JSON data that `base_from_json` reads."""
        return {**asdict(self), "betas": list(self.betas)}


def base_from_json(values: Mapping[str, Any]) -> BaseStep:
    """The base step that `to_json` described."""
    return BaseStep(**{**values, "betas": tuple(values["betas"])})
