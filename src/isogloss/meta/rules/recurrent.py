"""The hierarchical recurrent optimiser, restricted to its tensor and global levels, as a gate.

Wichrowska et al. 2017, https://arxiv.org/abs/1703.04813 (papers.md 4.2 B): a GRU a tensor and one over all of them; the
global state shifts the tensors' input by an affine map, the mean of the tensors' states feeds the global one. The
per-parameter level is left out, which makes the cost one of groups and not of weights; what it tracked a weight
(gradient averages at four time scales) is tracked a group, and the output gates the base step instead of replacing it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.meta.features import Features, scaled
from isogloss.meta.rules._base import Rule, State, logit

_SCALES = 4
_TINY = 1e-24
# Log mean squares about their mean (4), differences of neighbouring scales (3), gradient mean and step RMS, scaled
# (2 each), log learning rate against the mean over groups, depth, progress.
_INPUTS = _SCALES + (_SCALES - 1) + 4 + 3


class RecurrentGates(Rule):
    """Two GRUs whose weights are shared by all groups.

    Args:
        groups: Labels.
        layers: Layer numbers.
        hidden: State of a group; theirs was 20.
        shared: State of the global level; theirs was 20.
        start: Gate at the first step, about.
        seed: Of the initial values.
    """

    method = "recurrent"
    sees_features = True

    def __init__(
        self,
        groups: Sequence[str],
        layers: Sequence[int],
        *,
        hidden: int = 20,
        shared: int = 20,
        start: float = 0.9,
        seed: int = 0,
    ) -> None:
        super().__init__(groups, layers)
        self.hidden, self.shared, self.start, self.seed = int(hidden), int(shared), start, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.group_cell = nn.GRUCell(_INPUTS + self.hidden, self.hidden)
            self.global_cell = nn.GRUCell(self.hidden, self.shared)
            self.shift = nn.Linear(self.shared, self.hidden)
            self.readout = nn.Linear(self.hidden, 1)
        with torch.no_grad():
            # Their initial values: recurrent weights of scale 0.5, update gates that keep (bias 2.2), small readout.
            for cell in (self.group_cell, self.global_cell):
                cell.weight_hh.mul_(0.5)
                cell.bias_ih[cell.hidden_size : 2 * cell.hidden_size] += 2.2
            self.readout.weight.normal_(0.0, 0.5 / self.hidden**0.5, generator=torch.Generator().manual_seed(seed))
            self.readout.bias.fill_(logit(start, "start"))
        # Decay of each time scale is the root of the one before; the first one is learned, starting at sigmoid(3.2).
        self.decay = nn.Parameter(torch.tensor(3.2))

    def options(self) -> dict[str, Any]:
        """Its keyword arguments."""
        return {"hidden": self.hidden, "shared": self.shared, "start": self.start, "seed": self.seed}

    def begin(self) -> State:
        """Zeros; `weight` corrects the averages for their start at 0."""
        like, count = self.readout.weight, len(self.groups)
        return {
            "group": like.new_zeros((count, self.hidden)),
            "global": like.new_zeros((1, self.shared)),
            "square": like.new_zeros((count, _SCALES)),
            "weight": like.new_zeros((_SCALES,)),
        }

    def gates(self, features: Features | None, progress: float, state: State) -> tuple[Tensor, State]:
        """Gates, [G]."""
        assert features is not None
        like, count = self.readout.weight, len(self.groups)
        powers = 0.5 ** torch.arange(_SCALES, dtype=like.dtype, device=like.device)
        # Descending: the first scale is the shortest memory, each further one the root of it.
        decays = torch.sigmoid(self.decay) ** powers
        square = decays * state["square"] + (1 - decays) * features.rms.to(like.dtype).square().unsqueeze(1)
        weight = decays * state["weight"] + (1 - decays)
        logs = (square / weight + _TINY).log()
        rates = (features.step_rms.to(like.dtype) + _TINY).log()
        read = torch.cat(
            (
                logs - logs.mean(1, keepdim=True),
                logs[:, :-1] - logs[:, 1:],
                scaled(features.mean.to(like.dtype)),
                scaled(features.step_rms.to(like.dtype)),
                (rates - rates.mean()).unsqueeze(1) / 10.0,
                features.depth.to(like.dtype).unsqueeze(1),
                like.new_full((count, 1), progress),
                self.shift(state["global"]).expand(count, self.hidden),
            ),
            dim=1,
        )
        group = self.group_cell(read, state["group"])
        whole = self.global_cell(group.mean(0, keepdim=True), state["global"])
        gate = torch.sigmoid(self.readout(group).squeeze(1))
        return gate, {"group": group, "global": whole, "square": square, "weight": weight}
