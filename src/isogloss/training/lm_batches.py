"""From an objective's batch to what a stack runs: languages for modules that are told them, and no look ahead."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from isogloss.corpora import ContrastHalf, ObjectiveBatch
from isogloss.stack import Stack, TextBatch

# Of a causal model's row, the share that a prompt chosen by the text may look at where the objective names no prefix.
_SEEN = 0.25
# Rows of a contrast that run together. Segments are verses and single words alike: in one batch of 96 two thirds would be padding.
_ROWS_TOGETHER = 32


def text_batch(
    stack: Stack, input_ids: Tensor, attention_mask: Tensor, languages: Sequence[str | Sequence[str]] | None
) -> TextBatch:
    """Rows with the routes of modules that are told their language.

    Args:
        stack: What will run them.
        input_ids: [B, T].
        attention_mask: [B, T].
        languages: [B] codes, tuples of codes, or None when they are not known.
    """
    routes = stack.language_routes(languages) if languages is not None else {}
    placed = {name: route.to(input_ids.device) for name, route in routes.items()}
    return TextBatch(input_ids, attention_mask, routes=placed or None)


def segment_vectors(stack: Stack, half: ContrastHalf, languages: Sequence[str | Sequence[str]] | None = None) -> Tensor:
    """Mean states [B, d] of the segments, run in groups of similar length; the same as in one batch, without most of its padding."""
    lengths = half.attention_mask.sum(1)
    order = lengths.argsort(stable=True)
    parts = []
    for rows in torch.split(order, _ROWS_TOGETHER):
        longest = int(lengths[rows[-1]])
        ids, mask = half.input_ids[rows, :longest], half.attention_mask[rows, :longest]
        told = None if languages is None else [languages[row] for row in rows.tolist()]
        parts.append(stack.run(text_batch(stack, ids, mask, told)).pooled_mean())
    return torch.cat(parts)[order.argsort()]


def objective_batch(
    stack: Stack, batch: ObjectiveBatch, languages: Sequence[str | Sequence[str]] | None = None
) -> tuple[TextBatch, Tensor, Tensor]:
    """The texts, the positions to score [N] and their labels [N].

    A prompt that the text chooses must not see what a causal model is to predict: it sees the row up to the first scored
    token, and at least its first quarter, whose tokens are then not scored.
    """
    text = text_batch(stack, batch.input_ids, batch.attention_mask, languages)
    text = replace(text, decoder_input_ids=batch.decoder_input_ids)
    positions, labels = batch.label_positions, batch.labels
    if stack.backbone.kind != "decoder" or not stack.retrieves:
        return text, positions, labels
    rows, width = batch.input_ids.shape
    row, column = positions // width, positions % width
    first = torch.full((rows,), width, device=positions.device).scatter_reduce(0, row, column, "amin")
    last_seen = first.clamp(min=int(width * _SEEN))
    seen = torch.arange(width, device=positions.device) <= last_seen.unsqueeze(1)
    kept = column >= last_seen[row]
    return replace(text, query_mask=seen.long()), positions[kept], labels[kept]
