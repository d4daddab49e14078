"""Prefix language modelling (T5, arXiv 1910.10683, section 3.2.3): from the start of a text to its rest."""

from typing import Any

import torch
from torch import Tensor

from isogloss.corpora._special import frame_of
from isogloss.corpora.batch import ObjectiveBatch, pad_rows
from isogloss.errors import IsoglossError


class PrefixLM:
    """Splits each block at a random place, uniform over the places that leave both sides non-empty.

    Decoders read the whole block and are scored after the split only. Encoder-decoders read the prefix
    (in the tokenizer's own frame, so with EOS for T5) on the encoder side and write the rest on the
    decoder side; no EOS is asked for at the end of a block, because the text goes on there.

    Attributes:
        length: Tokens of a block with the frame; the most that either side sees.
        raw_length: Text tokens per row, the block length to cut.
    """

    def __init__(self, tokenizer: Any, length: int, *, decoder_start_id: int | None = None) -> None:
        """Chooses the layout.

        Args:
            tokenizer: A transformers tokenizer.
            length: Tokens per row.
            decoder_start_id: Given for an encoder-decoder, None for a decoder.

        Raises:
            IsoglossError: `length` is too short to split.
        """
        prefix, suffix = frame_of(tokenizer)
        self._start_id = decoder_start_id
        self._pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._prefix = torch.tensor(prefix, dtype=torch.int64)
        self._suffix = torch.tensor(suffix if decoder_start_id is not None else [], dtype=torch.int64)
        self.length, self.raw_length = length, length - len(self._prefix) - len(self._suffix)
        if self.raw_length < 2:
            raise IsoglossError(f"The block length {length} is too short to split; use at least 8.")

    def collate(self, blocks: Tensor, generator: torch.Generator) -> ObjectiveBatch:
        """Turns raw blocks [B, raw_length] into a batch; labels are the tokens after each row's split."""
        rows, width = blocks.shape
        splits = torch.randint(1, width, (rows,), generator=generator)
        if self._start_id is None:
            return self._decoder_batch(blocks, splits)
        return self._encoder_decoder_batch(blocks, splits, self._start_id)

    def _decoder_batch(self, blocks: Tensor, splits: Tensor) -> ObjectiveBatch:
        ids = torch.cat([self._prefix.expand(len(blocks), -1), blocks], dim=1)
        column = torch.arange(ids.shape[1])
        scored = column[None, :-1] + 1 >= (splits + len(self._prefix))[:, None]
        positions = torch.arange(ids.numel()).view_as(ids)[:, :-1][scored]
        return ObjectiveBatch(ids, torch.ones_like(ids), None, positions, ids[:, 1:][scored])

    def _encoder_decoder_batch(self, blocks: Tensor, splits: Tensor, start_id: int) -> ObjectiveBatch:
        heads = [torch.cat([self._prefix, row[:at], self._suffix]) for row, at in zip(blocks, splits, strict=True)]
        tails = [row[at:] for row, at in zip(blocks, splits, strict=True)]
        input_ids, mask = pad_rows(heads, self._pad_id)
        labels, real = pad_rows(tails, self._pad_id)
        decoder = torch.cat([torch.full((len(blocks), 1), start_id), labels[:, :-1]], dim=1)
        positions = torch.nonzero(real.flatten()).flatten()
        return ObjectiveBatch(input_ids, mask, decoder, positions, labels.flatten()[positions])
