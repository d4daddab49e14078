"""Reading a stack's states at a block in the middle: what retrieval pools (XTREME: block 8 of 12)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError


def layer_count(backbone: Backbone) -> int:
    """Blocks of the side where the text goes in."""
    return len(backbone.sites.blocks[backbone.sites.sides[0]])


@contextmanager
def reading_layer(backbone: Backbone, layer: int | None) -> Iterator[None]:
    """Within it, `StackOutput.text_hidden` holds the states after block `layer`, counted from 1, and not the last ones.

    States are read where the next block takes them in, so that adapters at the end of the block have acted. The last block's
    are the model's own last states, final norm included.

    Raises:
        IsoglossError: There is no such block.
    """
    count = layer_count(backbone)
    if layer is None or layer == count:
        yield
        return
    if not 1 <= layer < count:
        raise IsoglossError(f"The layer {layer} is not one of the {count} blocks of {backbone.name}; use 1 to {count}.")
    read: list[Tensor] = []

    def take(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        read.append(inputs[0] if inputs else named["hidden_states"])

    def give(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = read.pop()
        return output

    side = backbone.sites.sides[0]
    body = backbone.encoder if backbone.kind == "encoder-decoder" else backbone.body
    handles = [
        backbone.sites.blocks[side][layer].block.register_forward_pre_hook(take, with_kwargs=True),
        body.register_forward_hook(give),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
