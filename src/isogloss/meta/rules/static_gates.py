"""Static gates: one sigmoid a group, the same at every step; the plainest form of soft layer selection.

Xu et al. 2021, https://arxiv.org/abs/2107.09840 (papers.md 4.2; the parametrisation is a reconstruction).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.meta.features import Features
from isogloss.meta.rules._base import Rule, State, logit


class StaticGates(Rule):
    """g_l = sigmoid(a_l).

    Args:
        groups: Labels.
        layers: Layer numbers.
        start: Value of all gates before learning; open, so that learning starts from plain fine-tuning.
    """

    method = "gates"
    steady = True

    def __init__(self, groups: Sequence[str], layers: Sequence[int], *, start: float = 0.9) -> None:
        super().__init__(groups, layers)
        self.start = start
        self.logits = nn.Parameter(torch.full((len(self.groups),), logit(start, "start")))

    def options(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return {"start": self.start}

    def gates(self, features: Features | None, progress: float, state: State) -> tuple[Tensor, State]:
        """sigmoid(a), [G]."""
        return torch.sigmoid(self.logits), state
