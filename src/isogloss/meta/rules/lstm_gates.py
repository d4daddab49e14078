"""LSTM gates: Ravi and Larochelle's meta-learner with one cell a group instead of one a weight.

Ravi and Larochelle 2017, https://openreview.net/forum?id=rJY0-Kcll (papers.md 4.2 A): a first LSTM reads the scaled
gradient and loss; the input gate i = sigmoid(W [h, weight, previous i] + b) decides how far a group moves. Their forget
gate on the weights stays at 1 here (they start it there): g_l scales the step and nothing shrinks the weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.meta.features import Features, scaled
from isogloss.meta.rules._base import Rule, State, logit

# Scaled mean and RMS of the gradient, RMS of the step, loss (2 numbers each), depth, progress.
_INPUTS = 10


class LSTMGates(Rule):
    """The weights of the cells are shared by all groups; each group has a state of its own.

    Args:
        groups: Labels.
        layers: Layer numbers.
        hidden: Size of the state; theirs was 20.
        start: Gate at the first step, about.
        seed: Of the initial values.
    """

    method = "lstm-gates"
    sees_features = True

    def __init__(
        self, groups: Sequence[str], layers: Sequence[int], *, hidden: int = 20, start: float = 0.9, seed: int = 0
    ) -> None:
        super().__init__(groups, layers)
        self.hidden, self.start, self.seed = int(hidden), start, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cell = nn.LSTMCell(_INPUTS, self.hidden)
            self.readout = nn.Linear(self.hidden + 2, 1)
        with torch.no_grad():
            # Theirs: small weights, and biases that start from plain descent.
            for parameter in self.parameters():
                parameter.mul_(0.1)
            self.readout.bias.fill_(logit(start, "start"))

    def options(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return {"hidden": self.hidden, "start": self.start, "seed": self.seed}

    def begin(self) -> State:
        """Zeros, and the previous gate at its start."""
        like = self.readout.weight
        shape = (len(self.groups), self.hidden)
        return {
            "h": like.new_zeros(shape),
            "c": like.new_zeros(shape),
            "gate": like.new_full((len(self.groups),), self.start),
        }

    def gates(self, features: Features | None, progress: float, state: State) -> tuple[Tensor, State]:
        """Input gates, [G]."""
        assert features is not None
        like = self.readout.weight
        count = len(self.groups)
        read = torch.cat(
            (
                scaled(features.mean),
                scaled(features.rms),
                scaled(features.step_rms),
                scaled(features.loss).expand(count, 2),
                features.depth.unsqueeze(1),
                features.depth.new_full((count, 1), progress),
            ),
            dim=1,
        ).to(like.dtype)
        h, c = self.cell(read, (state["h"], state["c"]))
        weight = features.weight_rms.to(like.dtype).unsqueeze(1)
        gate = torch.sigmoid(self.readout(torch.cat((h, weight, state["gate"].unsqueeze(1)), dim=1)).squeeze(1))
        return gate, {"h": h, "c": c, "gate": gate}
