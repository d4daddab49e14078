"""Step-dependent gates: static gates that change over the fine-tuning.

A table of logits at `knots` points of the fine-tuning, with straight lines between them, so that a rule learned over few
steps serves a fine-tuning of many. Xu et al. 2021, https://arxiv.org/abs/2107.09840 (papers.md 4.2, g_t^l).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.errors import IsoglossError
from isogloss.meta.features import Features
from isogloss.meta.rules._base import Rule, State, logit


class StepGates(Rule):
    """g_l(t) = sigmoid(a_l(t)).

    Args:
        groups: Labels.
        layers: Layer numbers.
        start: Value of all gates before learning.
        knots: Points of the fine-tuning that have logits of their own, first and last step included.
    """

    method = "step-gates"

    def __init__(self, groups: Sequence[str], layers: Sequence[int], *, start: float = 0.9, knots: int = 4) -> None:
        super().__init__(groups, layers)
        if knots < 2:
            raise IsoglossError(f"The option knots={knots} of the update rule 'step-gates' must be 2 or more.")
        self.start, self.knots = start, int(knots)
        self.logits = nn.Parameter(torch.full((self.knots, len(self.groups)), logit(start, "start")))

    def options(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return {"start": self.start, "knots": self.knots}

    def gates(self, features: Features | None, progress: float, state: State) -> tuple[Tensor, State]:
        """Sigmoid of the logits between the two nearest knots, [G]."""
        place = min(max(progress, 0.0), 1.0) * (self.knots - 1)
        low = min(int(place), self.knots - 2)
        share = place - low
        return torch.sigmoid((1.0 - share) * self.logits[low] + share * self.logits[low + 1]), state
