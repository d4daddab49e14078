"""A leading prompt on a causal model, run once and shared by the batch, with gradient (design 5.4).

Nothing in front of it depends on the text, so its keys and values are computed for the distinct prompts only and then
laid before every row's own.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from isogloss.stack.bank import Rows
from isogloss.stack.batch import StackOutput, TextBatch
from isogloss.stack.cache import handed_on, run_behind

if TYPE_CHECKING:
    from isogloss.stack.stack import Stack


def run_with_prefix(stack: "Stack", batch: TextBatch, rows: Rows) -> StackOutput:
    """`Stack.run` for a decoder whose prompts all stand before the text."""
    batch_size = batch.input_ids.shape[0]
    past, length, prompt_end = prefix_cache(stack, rows, batch_size)
    with stack.attached(rows):
        assembled = stack.assemble(batch, rows, with_prompts=False)
        mask = assembled.attention_mask
        full_mask = torch.cat((mask.new_ones(batch_size, length), mask), dim=1)
        states = run_behind(stack, assembled.embeddings, full_mask, past)
    output = stack.output(assembled, states, batch, rows)
    # A text of nothing, or of EOS alone, is predicted from by the prompt's last vector.
    last = torch.where(assembled.has_text.unsqueeze(1), output.last_hidden, prompt_end)
    return replace(output, last_hidden=last)


def prefix_cache(stack: "Stack", rows: Rows, batch_size: int) -> tuple[object, int, Tensor]:
    """Keys and values of the prompts, expanded to the batch, the prompts' length, and their last state [B, d]."""
    from transformers import DynamicCache

    distinct, which = rows.combinations()
    count = 1 if which is None else int(which.max()) + 1
    prompts = stack.placed_prompts("decoder", distinct, count)
    dtype = stack.backbone.dtype
    vectors = torch.cat(
        [prompt.vectors.to(dtype).expand(count, *prompt.vectors.shape[-2:]) for prompt in prompts], dim=1
    )
    length = vectors.shape[1]
    ones = torch.ones(count, length, dtype=torch.long, device=vectors.device)
    cache = DynamicCache()
    # The prompt's own pass runs under its own routes: adapters of the stack act on prompt positions too.
    with stack.attached(distinct):
        states = run_behind(stack, vectors, ones, cache)

    def spread(states: Tensor) -> Tensor:
        if which is not None:
            return states.index_select(0, which)
        return states.expand(batch_size, *states.shape[1:])

    return handed_on(cache, spread), length, spread(states[:, -1])
