"""Span corruption (T5, arXiv 1910.10683, section 3.1.4; segmentation as in its `random_spans_noise_mask`)."""

from typing import Any

import torch
from torch import Tensor

from isogloss.corpora._special import sentinel_ids
from isogloss.corpora.batch import ObjectiveBatch
from isogloss.errors import IsoglossError


def span_lengths(raw_length: int, density: float = 0.15, mean_span: float = 3.0) -> tuple[int, int]:
    """Returns `(noise tokens, spans)` that T5 takes from a raw chunk.

    Args:
        raw_length: Tokens of the chunk, at least 2.
        density: Share of tokens that are noise.
        mean_span: Mean length of a span in tokens.
    """
    noise = min(max(round(raw_length * density), 1), raw_length - 1)
    # Every span follows a kept segment, so there cannot be more spans than kept tokens.
    spans = min(max(round(noise / mean_span), 1), raw_length - noise)
    return noise, spans


def raw_length_for(length: int, density: float = 0.15, mean_span: float = 3.0) -> tuple[int, int]:
    """Returns `(raw length, target length)`: the longest chunk whose input, with EOS, fits `length`.

    256 gives (284, 58) with the defaults.

    Raises:
        IsoglossError: `length` is too short for one span.
    """

    def sizes(raw: int) -> tuple[int, int]:
        noise, spans = span_lengths(raw, density, mean_span)
        return raw - noise + spans + 1, noise + spans + 1

    if sizes(2)[0] > length:
        raise IsoglossError(f"The input length {length} is too short for span corruption; use at least 8.")
    raw = 2
    while sizes(raw + 1)[0] <= length:
        raw += 1
    return raw, sizes(raw)[1]


def _segment(total: int, parts: int, rows: int, generator: torch.Generator) -> Tensor:
    """Splits `total` into `parts` positive lengths, uniformly over all ways; returns [rows, parts]."""
    cuts = torch.rand(rows, total - 1, generator=generator).argsort(dim=1)[:, : parts - 1].sort(dim=1).values + 1
    edges = torch.cat([torch.zeros(rows, 1, dtype=torch.int64), cuts, torch.full((rows, 1), total)], dim=1)
    return edges.diff(dim=1)


class SpanCorruption:
    """Spans of the input become sentinels; the decoder writes each sentinel followed by its span.

    Input: kept text, with sentinel i in place of span i, then EOS. Target: sentinel 0, span 0,
    sentinel 1, span 1 ..., then EOS. Every row has the same lengths, so nothing is padded.

    Attributes:
        length: Encoder tokens a row, EOS included (at most what was asked; see `raw_length_for`).
        raw_length: Text tokens a row, the block length to cut.
        target_length: Decoder tokens a row, EOS included.
    """

    def __init__(
        self,
        tokenizer: Any,
        length: int,
        *,
        decoder_start_id: int,
        density: float = 0.15,
        mean_span: float = 3.0,
    ) -> None:
        """Looks up the sentinels and fixes the lengths.

        Args:
            tokenizer: A transformers tokenizer with an EOS token and sentinels `<extra_id_N>`.
            length: Encoder tokens a row, EOS included.
            decoder_start_id: The token that the decoder input starts with (`backbone.decoder_start_id`).
            density: Share of tokens that are noise.
            mean_span: Mean span length in tokens.

        Raises:
            IsoglossError: Too few sentinels, no EOS token, or impossible lengths.
        """
        if not 0 < density < 1 or mean_span < 1:
            raise IsoglossError(
                f"Span corruption needs a density in (0, 1) and a mean span >= 1, not {density} and {mean_span}."
            )
        if tokenizer.eos_token_id is None:
            raise IsoglossError("The tokenizer has no EOS token; span corruption needs an encoder-decoder's tokenizer.")
        self.raw_length, self.target_length = raw_length_for(length, density, mean_span)
        self.noise, self.spans = span_lengths(self.raw_length, density, mean_span)
        self.length = self.raw_length - self.noise + self.spans + 1
        self._sentinels = sentinel_ids(tokenizer, self.spans)
        self._eos = torch.tensor([tokenizer.eos_token_id])
        self._start = torch.tensor([decoder_start_id])

    def collate(self, blocks: Tensor, generator: torch.Generator) -> ObjectiveBatch:
        """Turns raw blocks [B, raw_length] into inputs [B, length] and targets [B, target_length].

        Raises:
            IsoglossError: The blocks have another length.
        """
        rows, width = blocks.shape
        if width != self.raw_length:
            raise IsoglossError(
                f"Span corruption to {self.length} tokens needs blocks of {self.raw_length}, not {width}."
            )
        kept = _segment(width - self.noise, self.spans, rows, generator)
        noise = _segment(self.noise, self.spans, rows, generator)
        lengths = torch.stack([kept, noise], dim=2).flatten(1)
        # Segment number of each position: even segments are kept, odd ones are noise.
        starts = torch.zeros(rows, width, dtype=torch.int64)
        starts.scatter_(1, lengths.cumsum(dim=1)[:, :-1], 1)
        segment = starts.cumsum(dim=1)
        is_noise, number = segment % 2 == 1, segment // 2
        opens = is_noise & (starts == 1)
        eos = self._eos.expand(rows, 1)

        inputs = torch.where(opens, self._sentinels[number], blocks)[~is_noise | opens].view(rows, -1)
        # Each span grows by its sentinel: the target is laid out span by span at shifted places.
        place = is_noise.cumsum(dim=1) + number
        targets = torch.empty(rows, self.noise + self.spans, dtype=torch.int64)
        row = torch.arange(rows)[:, None].expand_as(blocks)
        targets[row[is_noise], place[is_noise]] = blocks[is_noise]
        targets[row[opens], place[opens] - 1] = self._sentinels[number[opens]]

        input_ids = torch.cat([inputs, eos], dim=1)
        labels = torch.cat([targets, eos], dim=1)
        decoder = torch.cat([self._start.expand(rows, 1), labels[:, :-1]], dim=1)
        return ObjectiveBatch(
            input_ids, torch.ones_like(input_ids), decoder, torch.arange(labels.numel()), labels.flatten()
        )
