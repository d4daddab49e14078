"""Bottleneck adapters: down-projection, nonlinearity, up-projection, in three places.

`seq_bn` (Pfeiffer et al. 2021, https://arxiv.org/abs/2005.00247), `double_seq_bn` (Houlsby et al. 2019,
https://arxiv.org/abs/1902.00751), `par_bn` (He et al. 2022, https://arxiv.org/abs/2110.04366); defaults of papers.md 5.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules.actions import Action, BlockAction, Point, Weights
from isogloss.modules.base import ModuleConfig, TransferModule, block_counts
from isogloss.modules.invertible import coupling_action, new_coupling
from isogloss.modules.rowwise import NONLINEARITIES, linear, scale

Variant = Literal["seq_bn", "double_seq_bn", "par_bn"]
_DEFAULT_NONLINEARITY = {"seq_bn": "relu", "double_seq_bn": "swish", "par_bn": "relu"}
_DEFAULT_SCALING = {"seq_bn": 1.0, "double_seq_bn": 1.0, "par_bn": 4.0}
_POINTS: dict[str, tuple[Point, ...]] = {
    "seq_bn": ("stream",),
    "double_seq_bn": ("attention", "ffn"),
    "par_bn": ("parallel",),
}


@dataclass(frozen=True)
class BottleneckConfig(ModuleConfig):
    """How a bottleneck adapter is built.

    Attributes:
        reduction: d / bottleneck width.
        variant: Where it acts.
        nonlinearity: relu, swish, gelu, tanh, leakyrelu; "" takes the variant's usual one.
        scaling: Factor on the adapter's output; 0 takes the variant's usual one (1, for `par_bn` 4).
        learned_scaling: Train that factor, one a block.
        dropout: On the input of the down-projection, in training.
        leave_out: Blocks without an adapter; a decoder's blocks are counted after the encoder's (MAD-X 2.0: the last).
        sides: encoder, decoder or both; empty means all that the backbone has.
        invertible: Add a NICE coupling at the embeddings, inverted before the LM head (MAD-X).
        invertible_reduction: d/2 over the width of its two networks.
        invertible_nonlinearity: Of its two networks.
        invertible_inverse: Map the states back before the LM head. False is what the `adapters` library does with
            the heads of `transformers` (golden cases `xlmr-madx`).
    """

    method: ClassVar[str] = "adapter"
    reduction: float = 16
    variant: Variant = "seq_bn"
    nonlinearity: str = ""
    scaling: float = 0.0
    learned_scaling: bool = False
    dropout: float = 0.0
    leave_out: tuple[int, ...] = field(default=())
    sides: tuple[str, ...] = field(default=())
    invertible: bool = False
    invertible_reduction: int = 2
    invertible_nonlinearity: str = "relu"
    invertible_inverse: bool = True

    def __post_init__(self) -> None:
        """Fills in the variant's usual values and checks the rest."""
        if self.variant not in _POINTS:
            raise IsoglossError(f"The adapter variant '{self.variant}' is unknown; use one of {', '.join(_POINTS)}.")
        if not self.nonlinearity:
            object.__setattr__(self, "nonlinearity", _DEFAULT_NONLINEARITY[self.variant])
        if not self.scaling:
            object.__setattr__(self, "scaling", _DEFAULT_SCALING[self.variant])
        for name in (self.nonlinearity, self.invertible_nonlinearity):
            if name not in NONLINEARITIES:
                raise IsoglossError(
                    f"The adapter nonlinearity '{name}' is unknown; use one of {', '.join(NONLINEARITIES)}."
                )
        if not self.reduction > 0:  # also refuses NaN
            raise IsoglossError(f"The adapter reduction must be above 0, but it is {self.reduction}.")
        if self.invertible_reduction < 1:
            raise IsoglossError(f"The invertible reduction must be at least 1, but it is {self.invertible_reduction}.")
        if not 0 <= self.dropout < 1:
            raise IsoglossError(f"The adapter dropout must be in [0, 1), but it is {self.dropout}.")


class BottleneckAdapter(TransferModule):
    """Bottleneck adapters in every block that is not left out.

    Group names are `<side>_<block>_<point>`; tensors `down_weight [b, d]`, `down_bias [b]`, `up_weight [d, b]`,
    `up_bias [d]`, and `scale [1]` when it is learned.
    """

    method = "adapter"
    config: BottleneckConfig

    def __init__(self, config: BottleneckConfig, backbone: Backbone, generator: torch.Generator) -> None:
        super().__init__(config)
        width = backbone.hidden_size
        bottleneck = max(1, int(width / config.reduction))
        unknown = set(config.sides) - set(backbone.sites.sides)
        if unknown:
            raise IsoglossError(
                f"The adapter names the side '{sorted(unknown)[0]}', but {backbone.name} has only {' and '.join(backbone.sites.sides)}."
            )
        counted = block_counts(backbone, config.sides or None)
        outside = set(config.leave_out) - {number for _, _, number in counted}
        if outside:
            raise IsoglossError(
                f"The adapter leaves out block {min(outside)}, but {backbone.name} has blocks {counted[0][2]} to {counted[-1][2]}."
            )
        self._places: list[tuple[str, int, Point]] = []
        for side, block, number in counted:
            if number in config.leave_out:
                continue
            for point in _POINTS[config.variant]:
                self._places.append((side, block, point))
                self.groups[f"{side}_{block}_{point}"] = self._new_group(width, bottleneck, generator)
        if config.invertible:
            self.groups["invertible"] = new_coupling(width, config.invertible_reduction, generator)

    def _new_group(self, width: int, bottleneck: int, generator: torch.Generator) -> nn.ParameterDict:
        down, up = torch.empty(bottleneck, width), torch.empty(width, bottleneck)
        if self.config.variant == "par_bn":
            # He et al. start from the untouched model: the up-projection is zero.
            bound = width**-0.5
            down.uniform_(-bound, bound, generator=generator)
            up.zero_()
        else:
            down.normal_(0, 0.02, generator=generator)
            up.normal_(0, 0.02, generator=generator)
        tensors = {
            "down_weight": nn.Parameter(down),
            "down_bias": nn.Parameter(torch.zeros(bottleneck)),
            "up_weight": nn.Parameter(up),
            "up_bias": nn.Parameter(torch.zeros(width)),
        }
        if self.config.learned_scaling:
            tensors["scale"] = nn.Parameter(torch.full((1,), float(self.config.scaling)))
        return nn.ParameterDict(tensors)

    def bottleneck(self, x: Tensor, weights: Weights) -> Tensor:
        """`s * U f(D x)`: [B, T, d] -> [B, T, d], without any residual."""
        if self.config.dropout and self.training:
            x = nn.functional.dropout(x, self.config.dropout)
        inner = NONLINEARITIES[self.config.nonlinearity](linear(x, weights["down_weight"], weights["down_bias"]))
        out = linear(inner, weights["up_weight"], weights["up_bias"])
        if "scale" in weights:
            return scale(out, weights["scale"])
        return out if self.config.scaling == 1.0 else out * self.config.scaling

    def actions(self) -> Sequence[Action]:
        """One action a place, and the coupling when there is one."""
        found: list[Action] = [
            BlockAction(f"{side}_{block}_{point}", side, block, point, self.bottleneck)
            for side, block, point in self._places
        ]
        if self.config.invertible:
            found.append(
                coupling_action(
                    nonlinearity=self.config.invertible_nonlinearity, inverse=self.config.invertible_inverse
                )
            )
        return found
