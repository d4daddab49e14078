"""Low-rank adaptation of linear layers: W x + (alpha / r) B A x (LoRA, Hu et al. 2022, https://arxiv.org/abs/2106.09685)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules.actions import Action, LinearAction, Weights
from isogloss.modules.base import ModuleConfig, TransferModule
from isogloss.modules.rowwise import linear


@dataclass(frozen=True)
class LowRankConfig(ModuleConfig):
    """How a LoRA module is built.

    Attributes:
        rank: r.
        alpha: Scaling numerator; 0 means alpha = r, a factor of 1.
        targets: Roles of linear layers: q, k, v, qkv (fused), o, gate, up, down; crossq, crossk, crossv, crosso (of a decoder that
            reads an encoder) and up2 on mT5's kind. Empty means q and v, or qkv where fused. A role that only one side has
            is left out on the other.
        dropout: On the input of A, in training.
        sides: encoder, decoder or both; empty means all.
    """

    method: ClassVar[str] = "lora"
    rank: int = 8
    alpha: float = 0.0
    targets: tuple[str, ...] = ()
    dropout: float = 0.0
    sides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the rank and fills in alpha."""
        if self.rank < 1:
            raise IsoglossError(f"The LoRA rank must be at least 1, but it is {self.rank}.")
        if not 0 <= self.dropout < 1:
            raise IsoglossError(f"The LoRA dropout must be in [0, 1), but it is {self.dropout}.")
        if not self.alpha:
            object.__setattr__(self, "alpha", float(self.rank))


class LowRank(TransferModule):
    """LoRA on the target layers of every block; groups `<side>_<block>_<role>` with `a [r, in]`, `b [out, r]`."""

    method = "lora"
    config: LowRankConfig

    def __init__(self, config: LowRankConfig, backbone: Backbone, generator: torch.Generator) -> None:
        super().__init__(config)
        self._places: list[tuple[str, int, str]] = []
        sides = [side for side in backbone.sites.sides if not config.sides or side in config.sides]
        known = list(dict.fromkeys(role for side in sides for role in backbone.sites.blocks[side][0].linears))
        strange = next((role for role in config.targets if role not in known), None)
        if sides and strange is not None:
            raise IsoglossError(
                f"The LoRA target '{strange}' is not a linear layer of {backbone.name}; it has {', '.join(known) or 'none'}."
            )
        for side in sides:
            for block, site in enumerate(backbone.sites.blocks[side]):
                for role in config.targets or (("qkv",) if "qkv" in known else ("q", "v")):
                    if role not in site.linears:
                        continue
                    layer = site.linears[role]
                    self._places.append((side, block, role))
                    self.groups[f"{side}_{block}_{role}"] = nn.ParameterDict(
                        {
                            "a": nn.Parameter(
                                torch.empty(config.rank, layer.in_features).uniform_(
                                    -(layer.in_features**-0.5), layer.in_features**-0.5, generator=generator
                                )
                            ),
                            # B starts at zero, so training starts from the untouched model.
                            "b": nn.Parameter(torch.zeros(layer.out_features, config.rank)),
                        }
                    )
        if not self._places:
            raise IsoglossError(
                f"The LoRA sides {config.sides} are not among those of {backbone.name}: {backbone.sites.sides}."
            )

    def delta(self, x: Tensor, weights: Weights) -> Tensor:
        """(alpha / r) B A x: [B, T, in] -> [B, T, out]."""
        if self.config.dropout and self.training:
            x = nn.functional.dropout(x, self.config.dropout)
        return linear(linear(x, weights["a"]), weights["b"]) * (self.config.alpha / self.config.rank)

    def actions(self) -> Sequence[Action]:
        """One action a target layer."""
        return [
            LinearAction(f"{side}_{block}_{role}", side, block, role, self.delta) for side, block, role in self._places
        ]
