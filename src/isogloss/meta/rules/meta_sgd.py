"""Meta-SGD: a learned learning rate a group, of any size and sign.

Li et al. 2017, https://arxiv.org/abs/1707.09835, with one rate a group instead of one a weight (papers.md 4.3).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.meta.features import Features
from isogloss.meta.rules._base import Rule, State


class MetaSGD(Rule):
    """g_l = alpha_l, a factor on the base learning rate that is not bounded.

    Args:
        groups: Labels.
        layers: Layer numbers.
        start: Factor before learning; 1 is plain fine-tuning.
    """

    method = "meta-sgd"
    steady = True

    def __init__(self, groups: Sequence[str], layers: Sequence[int], *, start: float = 1.0) -> None:
        super().__init__(groups, layers)
        self.start = float(start)
        self.rates = nn.Parameter(torch.full((len(self.groups),), self.start))

    def options(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return {"start": self.start}

    def gates(self, features: Features | None, progress: float, state: State) -> tuple[Tensor, State]:
        """alpha, [G]."""
        return self.rates, state
