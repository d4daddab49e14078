"""A trained prompt behind the text of a causal model: the text runs without gradient, once (design 5.4).

Nothing in front of such a prompt depends on it, so no gradient flows through the text's states. They are computed without
a graph, and only the prompt and what follows it are run with one. Same numbers, same gradients; less time, and memory for
the activations of the prompt alone. S2 (https://arxiv.org/abs/2402.03782) trains such prompts.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isogloss.modules import PromptAction, RetrievalAction
from isogloss.stack.bank import Rows
from isogloss.stack.batch import StackOutput, TextBatch
from isogloss.stack.cache import run_behind

if TYPE_CHECKING:
    from isogloss.stack.stack import Stack


def suffix_pays(stack: "Stack", batch: TextBatch) -> bool:
    """Whether every trained part is a prompt that stands after the text of a decoder."""
    backbone = stack.backbone
    if not torch.is_grad_enabled() or backbone.kind != "decoder" or not backbone.family.prefix_cache:
        return False
    trained = False
    for slot in stack.slots:
        actions = slot.actions
        # What is chosen by the text needs the text.
        if any(isinstance(action, RetrievalAction) for action in actions):
            return False
        placed = [action.placement for action in actions if isinstance(action, PromptAction)]
        if any(placement != "after" for placement in placed):
            return False
        if any(parameter.requires_grad for module in slot.modules for parameter in module.parameters()):
            if len(placed) < len(actions) or not placed:
                return False
            trained = True
    if not trained or any(parameter.requires_grad for parameter in stack.model.parameters()):
        return False
    # A row without text has no states to run first.
    return bool(_split_end(batch, backbone.eos_ids)[0].any(1).all())


def run_with_suffix(stack: "Stack", batch: TextBatch, rows: Rows) -> StackOutput:
    """`Stack.run` where `suffix_pays`."""
    from transformers import DynamicCache

    text_mask, end_mask, end_ids = _split_end(batch, stack.backbone.eos_ids)
    cache = DynamicCache()
    with stack.attached(rows):
        with torch.no_grad():
            # Padding goes in front, so that the prompt follows its text with nothing in between.
            bare = replace(batch, attention_mask=text_mask.long())
            text = stack.assemble(bare, rows, with_prompts=False, pad_left=True)
            text_states = run_behind(stack, text.embeddings, text.attention_mask, cache)
        rest = stack.assemble(TextBatch(end_ids, end_mask.any(1, keepdim=True).long()), rows)
        mask = torch.cat((text.attention_mask, rest.attention_mask), dim=1)
        states = run_behind(stack, rest.embeddings, mask, cache)
    output = stack.output(text, text_states, batch, rows)
    index = torch.arange(states.shape[0], device=states.device)
    end_states = states[index, rest.text_positions[:, 0]].unsqueeze(1)
    return replace(
        output,
        text_hidden=torch.where(end_mask.unsqueeze(-1), end_states, output.text_hidden),
        last_hidden=states[index, rest.last_positions],
    )


def _split_end(batch: TextBatch, eos_ids: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Where the text stands without a closing EOS [B, T], where that EOS stands [B, T], and the last token [B, 1]."""
    mask = batch.attention_mask.bool()
    last = mask.shape[1] - 1 - mask.flip(1).long().argmax(1, keepdim=True)
    end_ids = batch.input_ids.gather(1, last)
    ends = torch.isin(end_ids, torch.tensor(eos_ids, dtype=end_ids.dtype, device=end_ids.device))
    end_mask = torch.zeros_like(mask).scatter(1, last, ends) & mask
    return mask & ~end_mask, end_mask, end_ids
