"""Prompts that their text chooses (a prompt pool): what they may see of it, and the losses that come with choosing."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import PoolConfig, PromptPool, PromptText, RetrievalAction, Retrieved, parse_module
from isogloss.stack.assembly import PlacedPrompt
from isogloss.stack.bank import Rows, Slot
from isogloss.stack.batch import TextBatch

if TYPE_CHECKING:
    from isogloss.stack.stack import Stack


def backbone_pool(backbone: Backbone) -> PromptPool | None:
    """The pool that a backbone was pre-trained with; its tensors are the model's own. None when it has none.

    Raises:
        IsoglossError: The backbone's card names something else than a pool.
    """
    if not backbone.pool:
        return None
    config = parse_module(backbone.pool)
    if not isinstance(config, PoolConfig):
        raise IsoglossError(f"The backbone {backbone.name} names '{backbone.pool}' as its pool; expected pool:MxL.")
    pool = PromptPool(config, backbone, torch.Generator(), tensors=backbone.pool_tensors)
    pool.info.role, pool.info.backbone, pool.info.fingerprint = "backbone", backbone.name, backbone.fingerprint
    return pool


def retrievals(slots: Sequence[Slot]) -> list[tuple[Slot, RetrievalAction]]:
    """The prompts of a stack that their text chooses."""
    return [(slot, action) for slot in slots for action in slot.actions if isinstance(action, RetrievalAction)]


def read_text(stack: "Stack", batch: TextBatch) -> PromptText:
    """What the texts of a batch offer to retrieved prompts; call it outside `attached`, as the pass it may need is bare."""
    wanted = retrievals(stack.slots)
    mask = batch.attention_mask.bool()
    if batch.query_mask is not None:
        mask = mask & batch.query_mask.bool()
    states = None
    with stack.patched():
        embeddings = stack.backbone.embed(batch.input_ids)
        readers = [action for _, action in wanted if action.reads == "states"]
        if readers:
            silent = all(action.detached for action in readers)
            with torch.no_grad() if silent else nullcontext():
                states = _bare_states(stack, embeddings, mask.long(), batch)
    return PromptText(batch.input_ids, mask, embeddings, states, stack.training)


def _bare_states(stack: "Stack", embeddings: Tensor, mask: Tensor, batch: TextBatch) -> Tensor:
    backbone = stack.backbone
    if backbone.kind == "encoder-decoder":
        return backbone.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]
    extra = dict(stack.position_ids(mask))
    if batch.token_type_ids is not None:
        extra["token_type_ids"] = batch.token_type_ids
    if backbone.kind == "decoder":
        extra["use_cache"] = False  # type: ignore[assignment]
    return backbone.body(inputs_embeds=embeddings, attention_mask=mask, **extra).last_hidden_state  # type: ignore[no-any-return]


def retrieve(slot: Slot, action: RetrievalAction, rows: Rows) -> Retrieved:
    """What one prompt of the stack retrieves for a batch."""
    assert rows.text is not None  # `Stack.rows` has read it
    batch = len(rows.text.input_ids)
    return action.retrieve(rows.text, rows.weights(slot, action.group, batch), rows.told.get(slot.name))


def placed(backbone: Backbone, action: RetrievalAction, found: Retrieved) -> PlacedPrompt:
    """The retrieved vectors with their place; without the position embedding that the model will add, if so wanted."""
    vectors = found.vectors
    if action.positions == "none":
        table = getattr(getattr(backbone.body, "embeddings", None), "position_embeddings", None)
        if table is not None:
            vectors = vectors - table.weight[backbone.family.position_offset].to(vectors.dtype)
    return PlacedPrompt(vectors, action.placement, action.positions)


def language_routes(slots: Sequence[Slot], languages: Sequence[str | Sequence[str]]) -> dict[str, Tensor]:
    """Routes for modules that are told the language of each row; a row of two languages names both.

    Args:
        slots: Of a stack.
        languages: [B] codes, or tuples of codes (a translation pair in one row).

    Returns:
        [B, R] places by slot, -1 where there is none.
    """
    found: dict[str, Tensor] = {}
    for slot in slots:
        if slot.bank is not None or slot.single.route_of("und") is None:
            continue
        places = [
            [slot.single.route_of(code) or 0 for code in ([row] if isinstance(row, str) else row)] for row in languages
        ]
        width = max((len(row) for row in places), default=1)
        found[slot.name] = torch.tensor([row + [-1] * (width - len(row)) for row in places], dtype=torch.long)
    return found


@torch.no_grad()
def attention(stack: "Stack", batch: TextBatch) -> Mapping[str, Tensor]:
    """How much each text attends to each key, [B, M] by slot, without running the model further than the query needs."""
    rows = stack.rows(batch)
    return {slot.name: retrieve(slot, action, rows).attention for slot, action in retrievals(stack.slots)}
