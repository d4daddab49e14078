"""Sentence-level contrast on parallel text (InfoNCE in both directions, InfoXLM, arXiv 2007.07834)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isogloss.corpora._special import encoder_frame
from isogloss.corpora.batch import pad_rows
from isogloss.corpora.parallel import PairBatch
from isogloss.errors import IsoglossError


@dataclass(frozen=True)
class ContrastHalf:
    """One side of the pairs: `input_ids` [B, T] int64 and `attention_mask` [B, T] (padding right)."""

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class ContrastBatch:
    """Pairs of sentences, row i of `first` translating row i of `second`; `groups` [B] as in `PairBatch`."""

    first: ContrastHalf
    second: ContrastHalf
    groups: Tensor

    def to(self, device: torch.device | str) -> "ContrastBatch":
        """Returns the batch with all tensors on `device`."""
        first, second = (
            ContrastHalf(half.input_ids.to(device), half.attention_mask.to(device))
            for half in (self.first, self.second)
        )
        return ContrastBatch(first, second, self.groups.to(device))


class TranslationContrast:
    """Frames each side of a pair as a text of its own, nothing masked."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        """Prepares the frame.

        Args:
            tokenizer: A transformers tokenizer.
            length: The most tokens of one side, frame included.

        Raises:
            IsoglossError: `length` leaves no room for text.
        """
        prefix, suffix = encoder_frame(tokenizer)
        self._prefix, self._suffix = (
            torch.tensor(prefix, dtype=torch.int64),
            torch.tensor(suffix, dtype=torch.int64),
        )
        self._pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.length = length
        self._room = length - len(prefix) - len(suffix)
        if self._room < 1:
            raise IsoglossError(f"The sentence length {length} leaves no room for text; use at least 8.")

    def collate(self, pairs: PairBatch, generator: torch.Generator | None = None) -> ContrastBatch:
        """Turns pairs into two padded halves, longer segments cut at the end (no chance in it)."""
        return ContrastBatch(self._half(pairs.first), self._half(pairs.second), pairs.groups)

    def _half(self, segments: list[Tensor]) -> ContrastHalf:
        rows = [torch.cat([self._prefix, segment[: self._room], self._suffix]) for segment in segments]
        return ContrastHalf(*pad_rows(rows, self._pad_id))


def symmetric_info_nce(
    first: Tensor, second: Tensor, *, temperature: float = 0.05, groups: Tensor | None = None
) -> Tensor:
    """Returns the mean cross-entropy of finding the translation among the batch, over both directions.

    Args:
        first: [B, d] sentence vectors (any scale; compared by cosine).
        second: [B, d], row i translating row i of `first`.
        temperature: Divides the cosines.
        groups: [B]; other rows of a row's own group are translations too and are left out of its negatives.

    Returns:
        A scalar.
    """
    a = torch.nn.functional.normalize(first.float(), dim=-1)
    b = torch.nn.functional.normalize(second.float(), dim=-1)
    scores = a @ b.T / temperature
    if groups is not None:
        same = groups[:, None] == groups[None, :]
        same.fill_diagonal_(False)
        scores = scores.masked_fill(same, float("-inf"))
    target = torch.arange(len(a), device=scores.device)
    loss = torch.nn.functional.cross_entropy
    return (loss(scores, target) + loss(scores.T, target)) / 2
