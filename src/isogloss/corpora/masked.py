"""Masked language modelling (BERT, arXiv 1810.04805, section 3.1)."""

from typing import Any

import torch
from torch import Tensor

from isogloss.corpora._special import encoder_frame, special_mask
from isogloss.corpora.batch import ObjectiveBatch
from isogloss.errors import IsoglossError


class Masker:
    """Chooses tokens and replaces them: 80% by the mask, 10% by a random ordinary token, 10% not at all."""

    def __init__(
        self, tokenizer: Any, *, rate: float = 0.15, mask_share: float = 0.8, random_share: float = 0.1
    ) -> None:
        """Prepares the tables of special and ordinary ids.

        Args:
            tokenizer: A transformers tokenizer with a mask token.
            rate: Probability that an ordinary token is chosen.
            mask_share: Share of the chosen tokens that become the mask token.
            random_share: Share of the chosen tokens that become a random ordinary token.

        Raises:
            IsoglossError: No mask token, or rates outside their range.
        """
        if tokenizer.mask_token_id is None:
            raise IsoglossError(
                "The tokenizer has no mask token; masked language modelling needs an encoder's tokenizer."
            )
        if not 0 < rate < 1:
            raise IsoglossError(f"The masking rate must be between 0 and 1, not {rate}.")
        if mask_share < 0 or random_share < 0 or mask_share + random_share > 1:
            raise IsoglossError(
                f"The shares of masked ({mask_share}) and random ({random_share}) tokens must sum to 1 at most."
            )
        self.rate, self.mask_share, self.random_share = rate, mask_share, random_share
        self.mask_id: int = tokenizer.mask_token_id
        self._special = special_mask(tokenizer)
        self._ordinary = torch.nonzero(~self._special).flatten()

    def __call__(self, ids: Tensor, real: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Corrupts a batch.

        Args:
            ids: [B, T] int64.
            real: [B, T] bool, false at padding.
            generator: The only source of chance.

        Returns:
            `(corrupted ids [B, T], flat positions [N] of the chosen tokens)`, N >= 1 whenever there is
            an ordinary token.
        """
        candidates = real & ~self._special[ids]
        chosen = candidates & (torch.rand(ids.shape, generator=generator) < self.rate)
        if not bool(chosen.any()) and bool(candidates.any()):
            flat = torch.nonzero(candidates.flatten()).flatten()
            chosen.view(-1)[flat[torch.randint(len(flat), (1,), generator=generator)]] = True
        fate = torch.rand(ids.shape, generator=generator)
        noise = self._ordinary[torch.randint(len(self._ordinary), ids.shape, generator=generator)]
        corrupted = torch.where(chosen & (fate < self.mask_share), self.mask_id, ids)
        randomised = chosen & (fate >= self.mask_share) & (fate < self.mask_share + self.random_share)
        corrupted = torch.where(randomised, noise, corrupted)
        return corrupted, torch.nonzero(chosen.flatten()).flatten()


class MaskedLM:
    """Masked LM on packed blocks; `length` counts the frame (CLS/BOS ... SEP/EOS) too.

    Attributes:
        length: Tokens the model sees per row.
        raw_length: Text tokens per row, the block length to cut.
    """

    def __init__(
        self,
        tokenizer: Any,
        length: int,
        *,
        rate: float = 0.15,
        mask_share: float = 0.8,
        random_share: float = 0.1,
    ) -> None:
        """See `Masker` for the rates.

        Raises:
            IsoglossError: No mask token, or `length` leaves no room for text.
        """
        self._masker = Masker(tokenizer, rate=rate, mask_share=mask_share, random_share=random_share)
        prefix, suffix = encoder_frame(tokenizer)
        self._prefix, self._suffix = (
            torch.tensor(prefix, dtype=torch.int64),
            torch.tensor(suffix, dtype=torch.int64),
        )
        self.length = length
        self.raw_length = length - len(prefix) - len(suffix)
        if self.raw_length < 1:
            raise IsoglossError(f"The block length {length} leaves no room for text; use at least 8.")

    def collate(self, blocks: Tensor, generator: torch.Generator) -> ObjectiveBatch:
        """Turns raw blocks [B, raw_length] into a batch [B, length]; labels are the original tokens."""
        rows = len(blocks)
        ids = torch.cat([self._prefix.expand(rows, -1), blocks, self._suffix.expand(rows, -1)], dim=1)
        corrupted, positions = self._masker(ids, torch.ones_like(ids, dtype=torch.bool), generator)
        return ObjectiveBatch(corrupted, torch.ones_like(ids), None, positions, ids.flatten()[positions])
