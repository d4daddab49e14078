"""Keys and values that are kept: running on behind them, and handing them to other rows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from isogloss.stack.stack import Stack


def run_behind(stack: "Stack", embeddings: Tensor, mask: Tensor, cache: Any) -> Tensor:
    """Runs a decoder's body behind what the cache holds, and adds to it; inside `stack.attached`.

    Args:
        stack: On a decoder whose family has a plain cache.
        embeddings: [B, N, d].
        mask: [B, C + N], over the C positions in the cache too.
        cache: A `DynamicCache` of C positions, or an empty one.

    Returns:
        Last hidden states [B, N, d].
    """
    begin = mask.shape[1] - embeddings.shape[1]
    return stack.backbone.body(  # type: ignore[no-any-return]
        inputs_embeds=embeddings,
        attention_mask=mask,
        past_key_values=cache,
        use_cache=True,
        **{name: places[:, begin:] for name, places in stack.position_ids(mask).items()},
    ).last_hidden_state


def handed_on(cache: Any, rows: Callable[[Tensor], Tensor]) -> Any:
    """A cache of other rows: `rows` maps [B, ...] to them; gradients go through."""
    from transformers import DynamicCache

    found = DynamicCache()
    for number, layer in enumerate(cache.layers):
        found.update(rows(layer.keys), rows(layer.values), number)
    return found
