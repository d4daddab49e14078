"""States that predict tokens written after a text, and exact log-probabilities of those tokens.

For decoders the tokens stand behind the text and any prompt after it, exactly where `Stack.generate` writes
them; for encoder-decoders the encoder runs once a text, whatever number of targets is scored. No [B, T, V]
tensor is built.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from isogloss.modules import PromptAction
from isogloss.stack import Stack, StackOutput, TextBatch
from isogloss.stack.bank import Rows
from isogloss.stack.cache import handed_on, run_behind


def continuation_states(stack: Stack, text: TextBatch, tokens: Tensor) -> StackOutput:
    """States [B, C + 1, d] of a decoder: behind the text at k = 0, behind the k-th token at k > 0.

    Args:
        stack: On a decoder.
        text: Right-padded, without an end token.
        tokens: [B, C], padded with -1 on the right.
    """
    if _has_prompt_after(stack):
        return _assembled_continuation(stack, text, tokens)
    lengths = text.attention_mask.sum(1)
    batch, count = tokens.shape
    real = tokens >= 0
    columns = lengths.unsqueeze(1) + torch.arange(count, device=tokens.device)
    width = text.input_ids.shape[1] + count
    pad = stack.backbone.pad_id
    ids = torch.full((batch, width), pad, device=tokens.device)
    ids[:, : text.input_ids.shape[1]] = text.input_ids
    ids.scatter_(1, columns, tokens.where(real, torch.full_like(tokens, pad)))
    mask = (torch.arange(width, device=tokens.device) < (lengths + real.sum(1)).unsqueeze(1)).long()
    used = int(mask.sum(1).max())
    # A prompt that the text chooses must not see what is to be written behind it.
    seen = torch.zeros_like(mask)
    seen[:, : text.input_ids.shape[1]] = text.attention_mask
    output = stack.run(TextBatch(ids[:, :used], mask[:, :used], routes=text.routes, query_mask=seen[:, :used]))
    places = lengths.unsqueeze(1) - 1 + torch.arange(count + 1, device=tokens.device)
    return _states(_pick(output.text_hidden, places), output.to_head)


def branched_states(stack: Stack, text: TextBatch, tokens: Tensor, owners: Tensor) -> StackOutput:
    """States [N, C + 1, d] of a decoder for N continuations of B texts; every text is run once.

    Args:
        stack: On a decoder.
        text: B texts, right-padded, without an end token.
        tokens: [N, C], padded with -1 on the right.
        owners: [N], the text that each line continues.
    """
    lines, texts = len(tokens), len(text.input_ids)
    if lines > texts and stack.backbone.family.prefix_cache and not torch.is_grad_enabled():
        found = _cached_continuations(stack, text, tokens, owners)
        if found is not None:
            return found
    routes = None if text.routes is None else {name: route[owners] for name, route in text.routes.items()}
    again = TextBatch(text.input_ids[owners], text.attention_mask[owners], routes=routes)
    return continuation_states(stack, again, tokens)


def _cached_continuations(stack: Stack, text: TextBatch, tokens: Tensor, owners: Tensor) -> StackOutput | None:
    """The texts' keys and values are kept; None where prompts number positions in their own way."""
    from transformers import DynamicCache

    rows = stack.rows(text)
    cache = DynamicCache()
    with stack.attached(rows):
        # Padding in front, so that every continuation follows its text with nothing in between.
        assembled = stack.assemble(text, rows, pad_left=True)
        if assembled.positions is not None:
            return None
        texts = run_behind(stack, assembled.embeddings, assembled.attention_mask, cache)
    real = tokens >= 0
    routes = {name: route[owners] for name, route in (text.routes or {}).items()}
    pieces = []
    # As many continuations at a time as there are texts: each takes a copy of its text's keys and values.
    for begin in range(0, len(tokens), len(text.input_ids)):
        part = slice(begin, begin + len(text.input_ids))
        owner = owners[part]
        own = Rows(stack.slots, {name: route[part] for name, route in routes.items()}, len(owner))
        copied = handed_on(cache, partial(torch.index_select, dim=0, index=owner))
        with stack.attached(own):
            ids = tokens[part].where(real[part], torch.full_like(tokens[part], stack.backbone.pad_id))
            written = stack.assemble(TextBatch(ids, torch.ones_like(ids)), own, with_prompts=False)
            mask = torch.cat((assembled.attention_mask[owner], real[part].long()), dim=1)
            states = run_behind(stack, written.embeddings, mask, copied)
        pieces.append(torch.cat((texts[owner, -1:], states), dim=1))
    everything = Rows(stack.slots, routes, len(tokens))
    return _states(torch.cat(pieces), stack.head_map(everything))


def _has_prompt_after(stack: Stack) -> bool:
    return any(
        isinstance(action, PromptAction) and action.side == "decoder" and action.placement == "after"
        for slot in stack.slots
        for action in slot.actions
    )


def _assembled_continuation(stack: Stack, text: TextBatch, tokens: Tensor) -> StackOutput:
    count = tokens.shape[1]
    rows = stack.rows(text)
    real = tokens >= 0
    with stack.attached(rows):
        assembled = stack.assemble(text, rows)
        lengths = assembled.attention_mask.sum(1)
        embeddings, mask = assembled.embeddings, assembled.attention_mask
        if count:
            pad = torch.full_like(tokens, stack.backbone.pad_id)
            written = stack.assemble(
                TextBatch(tokens.where(real, pad), torch.ones_like(tokens)), rows, with_prompts=False
            )
            width = embeddings.shape[1]
            columns = lengths.unsqueeze(1) + torch.arange(count, device=tokens.device)
            embeddings = torch.cat((embeddings, torch.zeros_like(written.embeddings)), dim=1)
            embeddings = embeddings.scatter(1, columns.unsqueeze(-1).expand_as(written.embeddings), written.embeddings)
            mask = (torch.arange(width + count, device=tokens.device) < (lengths + real.sum(1)).unsqueeze(1)).long()
        states = stack.backbone.body(
            inputs_embeds=embeddings, attention_mask=mask, use_cache=False, **stack.position_ids(mask)
        ).last_hidden_state
        places = lengths.unsqueeze(1) - 1 + torch.arange(count + 1, device=tokens.device)
        return _states(_pick(states, places), stack.head_map(rows))


def _states(states: Tensor, to_head: Callable[[Tensor, Tensor], Tensor] | None) -> StackOutput:
    """States [B, S, d] whose head inputs are computed only where `at` asks for them."""
    return StackOutput(states, states[:, 0], torch.ones(states.shape[:2], device=states.device), to_head=to_head)


def last_states(output: StackOutput) -> StackOutput:
    """The state behind each text, [B, 1, d]."""
    return _states(output.last_hidden.unsqueeze(1), output.to_head)


def _pick(states: Tensor, places: Tensor) -> Tensor:
    places = places.clamp(max=states.shape[1] - 1)
    return states.gather(1, places.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def target_states(stack: Stack, text: TextBatch, targets: Tensor) -> StackOutput:
    """States of an encoder-decoder that predict each token of the targets, [B * K, S, d].

    Args:
        stack: On an encoder-decoder.
        text: B texts; the encoder runs once for each.
        targets: [B * K, S], the K targets of a text behind one another, padded with -1.
    """
    backbone = stack.backbone
    start = torch.full((len(targets), 1), backbone.decoder_start_id, device=targets.device)
    inputs = torch.cat((start, targets[:, :-1]), dim=1)
    inputs = inputs.where(inputs >= 0, torch.full_like(inputs, backbone.pad_id))
    batch = len(text.input_ids)
    if len(targets) == batch:
        return stack.run(TextBatch(text.input_ids, text.attention_mask, inputs, routes=text.routes))
    count = len(targets) // batch
    rows = stack.rows(text)
    with stack.attached(rows):
        states, assembled = stack.encode(text, rows)
        embeddings = backbone.embed(inputs)
        prompts = [
            prompt.vectors.to(embeddings.dtype).expand(len(targets), *prompt.vectors.shape[-2:])
            for prompt in stack.placed_prompts("decoder", rows, len(targets))
        ]
        length = sum(vectors.shape[1] for vectors in prompts)
        decoded = backbone.decoder(
            inputs_embeds=torch.cat((*prompts, embeddings), dim=1),
            encoder_hidden_states=states.repeat_interleave(count, 0),
            encoder_attention_mask=assembled.attention_mask.repeat_interleave(count, 0),
            use_cache=False,
        ).last_hidden_state[:, length:]
        to_head = stack.head_map(rows)
        return _states(decoded, lambda found, row_of: to_head(found, row_of // count))


def token_log_probabilities(stack: Stack, states: StackOutput, places: Tensor, tokens: Tensor) -> Tensor:
    """Exact log-probabilities [N] of tokens at places; each place is normalised once.

    Args:
        stack: Gives the LM head.
        states: States [B, S, d].
        places: [N] flat positions in them.
        tokens: [N] token ids.
    """
    used, place_of = torch.unique(places, return_inverse=True)
    needed, token_of = torch.unique(tokens, return_inverse=True)
    hidden = states.at(used)
    logits = stack.label_logits(hidden, needed) - stack.vocabulary_logsumexp(hidden).unsqueeze(1)
    return logits[place_of, token_of]
