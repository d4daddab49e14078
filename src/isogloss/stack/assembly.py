"""Assembling input embeddings: text and prompts in one sequence, padding always outside.

One function serves training, scoring and generation, so what they feed cannot differ (papers.md 1.5a).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PlacedPrompt:
    """Vectors [L, d] or [B, L, d], where they stand (`before`, `after-bos` or `after`), and which positions they take.

    `shift`: those of the places where they stand. `own`: the last ones that the model has. `none`: number 0, all of them.
    """

    vectors: Tensor
    placement: str
    positions: str = "shift"


@dataclass(frozen=True)
class Assembled:
    """A padded sequence of embeddings.

    Attributes:
        embeddings: [B, N, d].
        attention_mask: [B, N].
        text_positions: [B, T], where each input token stands (0 on padding).
        last_positions: [B], the last position that is not a closing EOS.
        has_text: [B], whether there is a token that is not a closing EOS.
        positions: [B, N], numbers from 0 where they are not simply those of the places; else None.
    """

    embeddings: Tensor
    attention_mask: Tensor
    text_positions: Tensor
    last_positions: Tensor
    has_text: Tensor
    positions: Tensor | None = None


def assemble(
    token_embeddings: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    prompts: Sequence[PlacedPrompt],
    *,
    first_ids: Sequence[int],
    end_ids: Sequence[int],
    pad_left: bool = False,
    position_limit: int = 0,
) -> Assembled:
    """Lays text and prompts out in one sequence.

    Args:
        token_embeddings: [B, T, d].
        input_ids: [B, T].
        attention_mask: [B, T]; zeros may stand on either side.
        prompts: In order; those of one placement stand in that order.
        first_ids: BOS/CLS ids, for `after-bos`.
        end_ids: EOS/SEP ids, for `after` and for `last_positions`.
        pad_left: Put the padding in front (generation with decoders).
        position_limit: Positions that the model has, for prompts with positions of their own.
    """
    batch, _, width = token_embeddings.shape
    mask = attention_mask.bool()
    rank = mask.long().cumsum(1) - 1
    lengths = mask.long().sum(1)
    rows = torch.arange(batch, device=input_ids.device)
    first_token = input_ids[rows, mask.long().argmax(1)]
    last_column = mask.shape[1] - 1 - mask.flip(1).long().argmax(1)
    has_end = _is_any(input_ids[rows, last_column], end_ids) & (lengths > 0)
    # Where BOS and EOS are one token, a text of that token alone is an end.
    has_first = _is_any(first_token, first_ids) & (lengths > has_end.long())

    sizes = {"before": 0, "after-bos": 0, "after": 0}
    for prompt in prompts:
        sizes[prompt.placement] += prompt.vectors.shape[-2]
    # A prompt behind BOS stands in front of a text that has none.
    after_first = (rank >= 1) | ~has_first.unsqueeze(1)
    is_end = (rank == (lengths - 1).unsqueeze(1)) & has_end.unsqueeze(1)
    shift = sizes["before"] + after_first.long() * sizes["after-bos"] + is_end.long() * sizes["after"]
    positions = rank + shift
    prompt_total = sum(sizes.values())
    totals = lengths + prompt_total
    longest = int(totals.max())
    offset = (longest - totals).unsqueeze(1) if pad_left else torch.zeros_like(totals).unsqueeze(1)

    starts = {
        "before": torch.zeros_like(lengths),
        "after-bos": sizes["before"] + has_first.long(),
        "after": sizes["before"] + sizes["after-bos"] + lengths - has_end.long(),
    }
    text_positions = torch.where(mask, positions + offset, torch.zeros_like(positions))
    # Padding is sent to an extra last column, which is cut off again.
    target = torch.where(mask, positions + offset, torch.full_like(positions, longest))
    pieces, places = [token_embeddings], [target]
    for prompt in prompts:
        length = prompt.vectors.shape[-2]
        vectors = prompt.vectors.to(token_embeddings.dtype)
        pieces.append(vectors.expand(batch, length, width))
        stands = starts[prompt.placement].unsqueeze(1) + torch.arange(length, device=input_ids.device) + offset
        places.append(stands.expand(batch, length))
        starts[prompt.placement] = starts[prompt.placement] + length
    source, place = torch.cat(pieces, 1), torch.cat(places, 1)
    embeddings = source.new_zeros(batch, longest + 1, width).scatter(1, place.unsqueeze(-1).expand_as(source), source)[
        :, :longest
    ]
    columns = torch.arange(longest, device=input_ids.device).unsqueeze(0)
    assembled_mask = (columns >= offset) & (columns < totals.unsqueeze(1) + offset)
    last_positions = (totals - 1 - has_end.long()).clamp(min=0) + offset.squeeze(1)
    has_text = lengths > has_end.long()
    numbers = None
    if any(prompt.positions != "shift" for prompt in prompts):
        numbers = _numbers(prompts, places, longest, position_limit)
    return Assembled(embeddings, assembled_mask.long(), text_positions, last_positions, has_text, numbers)


def _numbers(prompts: Sequence[PlacedPrompt], places: Sequence[Tensor], longest: int, limit: int) -> Tensor:
    """Position numbers [B, N] where some prompts do not count: `places` says where text, then each prompt, stands."""
    batch = len(places[0])
    counts = torch.zeros(batch, longest + 1, dtype=torch.long, device=places[0].device)
    counts.scatter_(1, places[0], 1)
    counts[:, longest] = 0
    for prompt, place in zip(prompts, places[1:], strict=True):
        counts.scatter_(1, place, int(prompt.positions == "shift"))
    numbers = (counts.cumsum(1) - 1).clamp(min=0)
    own = sum(prompt.vectors.shape[-2] for prompt in prompts if prompt.positions == "own")
    for prompt, place in zip(prompts, places[1:], strict=True):
        if prompt.positions == "own":
            length = prompt.vectors.shape[-2]
            last = torch.arange(limit - own, limit - own + length, device=place.device)
            numbers.scatter_(1, place, last.expand(batch, length))
            own -= length
        elif prompt.positions == "none":
            numbers.scatter_(1, place, 0)
    return numbers[:, :longest]


def gather_positions(states: Tensor, positions: Tensor) -> Tensor:
    """Picks states [B, N, d] at positions [B, T] -> [B, T, d]."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def _is_any(ids: Tensor, wanted: Sequence[int]) -> Tensor:
    if not wanted:
        return torch.zeros_like(ids, dtype=torch.bool)
    return torch.isin(ids, torch.tensor(list(wanted), device=ids.device))
