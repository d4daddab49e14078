"""Causal language modelling on packed blocks."""

from typing import Any

import torch
from torch import Tensor

from isogloss.corpora._special import frame_of
from isogloss.corpora.batch import ObjectiveBatch
from isogloss.errors import IsoglossError


class CausalLM:
    """Every token is predicted from those before it; position i carries the label of token i + 1.

    Attributes:
        length: Tokens the model sees per row.
        raw_length: Text tokens per row: `length`, less what the tokenizer puts in front of a text.
    """

    def __init__(self, tokenizer: Any, length: int) -> None:
        """Asks the tokenizer what it puts in front of a text (BOS for many, nothing for BLOOM).

        Raises:
            IsoglossError: `length` leaves nothing to predict.
        """
        prefix, _ = frame_of(tokenizer)
        self._prefix = torch.tensor(prefix, dtype=torch.int64)
        self.length, self.raw_length = length, length - len(prefix)
        if length < 2 or self.raw_length < 1:
            raise IsoglossError(f"The block length {length} leaves nothing to predict; use at least 8.")

    def collate(self, blocks: Tensor, generator: torch.Generator | None = None) -> ObjectiveBatch:
        """Turns raw blocks [B, raw_length] into rows [B, length], length - 1 labels each."""
        ids = torch.cat([self._prefix.expand(len(blocks), -1), blocks], dim=1)
        positions = torch.arange(ids.numel()).view_as(ids)[:, :-1].flatten()
        return ObjectiveBatch(ids, torch.ones_like(ids), None, positions, ids[:, 1:].flatten())
