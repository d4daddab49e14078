"""Rules that nobody learned, to compare with: all open, all shut, the bottom n layers frozen, random gates."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.meta.features import Features
from isogloss.meta.rules._base import Rule, State


class _Constant(Rule):
    """The same gates at every step."""

    learned = False
    values: Tensor

    def _hold(self, values: Sequence[float] | Tensor) -> None:
        self.register_buffer("values", torch.as_tensor(values, dtype=torch.float32).clone())

    def gates(self, features: Features | None, progress: float, state: State) -> tuple[Tensor, State]:
        """The constant gates, [G]."""
        return self.values, state


class AllOpen(_Constant):
    """Every gate is 1: plain fine-tuning, to the bit."""

    method = "all-open"

    def __init__(self, groups: Sequence[str], layers: Sequence[int]) -> None:
        super().__init__(groups, layers)
        self._hold([1.0] * len(self.groups))


class AllShut(_Constant):
    """Every gate is 0: nothing moves."""

    method = "all-shut"

    def __init__(self, groups: Sequence[str], layers: Sequence[int]) -> None:
        super().__init__(groups, layers)
        self._hold([0.0] * len(self.groups))


class BottomFrozen(_Constant):
    """Hard freezing of the embeddings and the bottom n blocks, as in Wu and Dredze 2019, https://arxiv.org/abs/1904.09077.

    Args:
        groups: Labels.
        layers: Layer numbers.
        blocks: n; 0 freezes the embeddings alone.
    """

    method = "bottom"

    def __init__(self, groups: Sequence[str], layers: Sequence[int], *, blocks: int) -> None:
        super().__init__(groups, layers)
        top = max(self.layers)
        if not 0 <= blocks < max(top, 1):
            raise IsoglossError(
                f"The rule bottom:{blocks} freezes blocks that are not there; give 0 (embeddings only) to {max(top, 1) - 1}."
            )
        self.blocks = int(blocks)
        self._hold([0.0 if layer <= self.blocks else 1.0 for layer in self.layers])

    def options(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return {"blocks": self.blocks}


class RandomGates(_Constant):
    """Uniformly random gates whose mean is exactly what is asked for.

    Args:
        groups: Labels.
        layers: Layer numbers.
        mean: 0 to 1, that of a learned rule for instance.
        seed: Of the draw.
    """

    method = "random"

    def __init__(self, groups: Sequence[str], layers: Sequence[int], *, mean: float = 0.5, seed: int = 0) -> None:
        super().__init__(groups, layers)
        if not 0.0 <= mean <= 1.0:
            raise IsoglossError(f"The rule random:{mean} needs a mean from 0 to 1.")
        self.mean, self.seed = float(mean), seed
        drawn = torch.rand(len(self.groups), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        own = float(drawn.mean())
        # Shrunk towards 0 or towards 1, whichever moves the mean the right way: all of them stay inside [0, 1].
        drawn = drawn * (mean / own) if own > mean else 1.0 - (1.0 - drawn) * ((1.0 - mean) / (1.0 - own))
        self._hold(drawn)

    def options(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return {"mean": self.mean, "seed": self.seed}
