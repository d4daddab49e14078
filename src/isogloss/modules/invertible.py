"""NICE invertible adapters at the embeddings, inverted before the LM head.

MAD-X (Pfeiffer et al. 2020, https://arxiv.org/abs/2005.00052, section 4.2.3): with halves x1, x2 of the embedding,
y1 = x1 + F(x2), y2 = x2 + G(y1); F and G are two-layer ReLU networks. papers.md 5.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules.actions import Action, EmbeddingAction, Weights
from isogloss.modules.base import ModuleConfig, TransferModule
from isogloss.modules.rowwise import NONLINEARITIES, linear


@dataclass(frozen=True)
class InvertibleConfig(ModuleConfig):
    """How an invertible adapter is built.

    Attributes:
        reduction: d/2 over the width of the two networks.
    """

    method: ClassVar[str] = "invertible"
    reduction: int = 2

    def __post_init__(self) -> None:
        """Checks the reduction."""
        if self.reduction < 1:
            raise IsoglossError(f"The invertible reduction must be at least 1, but it is {self.reduction}.")


def new_coupling(width: int, reduction: int, generator: torch.Generator) -> nn.ParameterDict:
    """Makes the tensors of one coupling: `f_down_weight [d/2/r, d/2]`, `f_up_weight [d/2, d/2/r]`, biases, same for `g`."""
    if width % 2:
        raise IsoglossError(
            f"An invertible adapter halves the embedding, so its width must be even, but it is {width}."
        )
    half = width // 2
    inner = max(1, half // reduction)
    tensors = {}
    for network in ("f", "g"):
        tensors[f"{network}_down_weight"] = nn.Parameter(torch.empty(inner, half).normal_(0, 0.02, generator=generator))
        tensors[f"{network}_down_bias"] = nn.Parameter(torch.zeros(inner))
        tensors[f"{network}_up_weight"] = nn.Parameter(torch.empty(half, inner).normal_(0, 0.02, generator=generator))
        tensors[f"{network}_up_bias"] = nn.Parameter(torch.zeros(half))
    return nn.ParameterDict(tensors)


def _network(name: str, x: Tensor, weights: Weights, nonlinearity: str) -> Tensor:
    inner = NONLINEARITIES[nonlinearity](linear(x, weights[f"{name}_down_weight"], weights[f"{name}_down_bias"]))
    return linear(inner, weights[f"{name}_up_weight"], weights[f"{name}_up_bias"])


def couple(x: Tensor, weights: Weights, nonlinearity: str = "relu") -> Tensor:
    """The forward map on [B, T, d]."""
    first, second = x.chunk(2, dim=-1)
    first = first + _network("f", second, weights, nonlinearity)
    second = second + _network("g", first, weights, nonlinearity)
    return torch.cat((first, second), dim=-1)


def uncouple(y: Tensor, weights: Weights, nonlinearity: str = "relu") -> Tensor:
    """The exact inverse of `couple`."""
    first, second = y.chunk(2, dim=-1)
    second = second - _network("g", first, weights, nonlinearity)
    first = first - _network("f", second, weights, nonlinearity)
    return torch.cat((first, second), dim=-1)


def coupling_action(group: str = "invertible", *, nonlinearity: str = "relu", inverse: bool = True) -> EmbeddingAction:
    """The action of the coupling whose tensors are in `group`."""
    back = partial(uncouple, nonlinearity=nonlinearity) if inverse else None
    return EmbeddingAction(group, partial(couple, nonlinearity=nonlinearity), back)


class InvertibleAdapter(TransferModule):
    """An invertible adapter on its own."""

    method = "invertible"
    config: InvertibleConfig

    def __init__(self, config: InvertibleConfig, backbone: Backbone, generator: torch.Generator) -> None:
        super().__init__(config)
        self.groups["invertible"] = new_coupling(backbone.hidden_size, config.reduction, generator)

    def actions(self) -> Sequence[Action]:
        """The coupling at the embeddings."""
        return [coupling_action()]
