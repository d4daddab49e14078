"""Fast weights and their groups: what an update rule moves, by layer, by tensor, or by module of a stack (design 5.5)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError

By = Literal["layer", "tensor", "module"]
BY = ("layer", "tensor", "module")

# Ranks of what is no block: word embeddings lie below all blocks, final norms and heads above them.
_BOTTOM, _BLOCK, _TOP, _HEAD = 0, 1, 2, 3


@dataclass(frozen=True)
class FastWeights:
    """The parameters that an inner loop moves, with the group of each.

    Attributes:
        names: One a parameter: `backbone/...`, `module/...`, `head/...`.
        parameters: The live parameters, in the order of `names`.
        group_of: Index into `groups`, one a parameter.
        groups: Labels, from the lowest layer up.
        layers: One a group: 0 for embeddings and prompts, i + 1 for block i (a decoder counts on from its encoder), the
            highest number for final norms and heads.
        blocks: Blocks in all.
        by: How they were grouped.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    group_of: tuple[int, ...]
    groups: tuple[str, ...]
    layers: tuple[int, ...]
    blocks: int
    by: By

    @property
    def count(self) -> int:
        """Groups."""
        return len(self.groups)

    @property
    def size(self) -> int:
        """Numbers in all parameters."""
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.parameters[0].device

    def index(self) -> Tensor:
        """`group_of` as a tensor, one a parameter."""
        return torch.tensor(self.group_of, device=self.device)


@dataclass(frozen=True)
class _Place:
    rank: int
    block: int
    label: str


def fast_weights(parts: Mapping[str, nn.Module], backbone: Backbone, by: By = "layer") -> FastWeights:
    """Sorts every trainable parameter of the parts into groups.

    Args:
        parts: Any of `backbone` (its model), `module` and `head`, by these names.
        backbone: Says where its blocks are.
        by: `layer`, `tensor` or `module`.

    Raises:
        IsoglossError: Nothing is trainable, or an unknown way of grouping.
    """
    if by not in BY:
        raise IsoglossError(f"The grouping '{by}' is unknown; use one of {', '.join(BY)}.")
    found: list[tuple[str, nn.Parameter, _Place]] = []
    taken: set[int] = set()
    embeddings = _embeddings(backbone)
    for part, root in parts.items():
        for name, parameter in root.named_parameters():
            if parameter.requires_grad and id(parameter) not in taken:
                taken.add(id(parameter))
                found.append((f"{part}/{name}", parameter, _place(part, name, backbone, id(parameter) in embeddings)))
    if not found:
        raise IsoglossError("There are no fast weights: nothing of the module, the head or the backbone is trained.")
    # Sorting is stable, so that inside a layer everything stays in the order of the model.
    found.sort(key=lambda item: (item[2].rank, item[2].block))
    labels: dict[str, _Place] = {}
    group_of = []
    for name, _, place in found:
        label = {"layer": place.label, "tensor": name, "module": name.partition("/")[0]}[by]
        labels.setdefault(label, place)
        group_of.append(list(labels).index(label))
    blocks = sum(len(backbone.sites.blocks[side]) for side in backbone.sites.sides)
    return FastWeights(
        names=tuple(name for name, _, _ in found),
        parameters=tuple(parameter for _, parameter, _ in found),
        group_of=tuple(group_of),
        groups=tuple(labels),
        layers=tuple(_layer(place, blocks) for place in labels.values()),
        blocks=blocks,
        by=by,
    )


def _layer(place: _Place, blocks: int) -> int:
    return {_BOTTOM: 0, _BLOCK: place.block + 1}.get(place.rank, blocks + 1)


def _place(part: str, name: str, backbone: Backbone, feeds: bool) -> _Place:
    if part == "head":
        return _Place(_HEAD, 0, "head")
    sides = backbone.sites.sides
    offsets = {side: sum(len(backbone.sites.blocks[other]) for other in sides[: sides.index(side)]) for side in sides}
    if part == "module":
        found = re.match(r"groups\.(encoder|decoder)_(\d+)_", name)
        if found:
            side, block = found[1], int(found[2])
            return _Place(_BLOCK, offsets[side] + block, f"{side} {block}")
        return _Place(_BOTTOM, 0, "embedding")
    for side in sides:
        found = re.match(rf"{re.escape(backbone.family.blocks[side])}\.(\d+)\.", name)
        if found:
            return _Place(_BLOCK, offsets[side] + int(found[1]), f"{side} {found[1]}")
    return _Place(_BOTTOM, 0, "embedding") if feeds else _Place(_TOP, 0, "top")


def _embeddings(backbone: Backbone) -> set[int]:
    """Ids of the parameters that feed the blocks: words, positions, norms in front of the first block."""
    model = backbone.model
    found = {id(model.get_input_embeddings().weight)}
    # The body alone, as some models define their LM head before it.
    blocks = model.get_submodule(backbone.family.blocks[backbone.sites.sides[0]])
    inside = {id(parameter) for parameter in blocks.parameters()}
    for parameter in model.base_model.parameters():
        if id(parameter) in inside:
            break
        found.add(id(parameter))
    return found
