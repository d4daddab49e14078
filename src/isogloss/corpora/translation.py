"""Translation language modelling (XLM, arXiv 1901.07291, section 3.3; used by InfoXLM, arXiv 2007.07834)."""

from typing import Any

import torch
from torch import Tensor

from isogloss.corpora._special import encoder_frame
from isogloss.corpora.batch import ObjectiveBatch, pad_rows
from isogloss.corpora.masked import Masker
from isogloss.corpora.parallel import PairBatch
from isogloss.errors import IsoglossError


class TranslationLM:
    """Masked LM over a segment and its translation in one row, masked on both sides.

    A row is `<s> a </s> b </s>` (the frame is the tokenizer's). With `pack`, further pairs follow in
    the same row while they fit, so that hardly anything is padded; XLM's language embeddings and
    restarted positions are not used, as in InfoXLM.

    Attributes:
        length: The most tokens in a row.
    """

    def __init__(self, tokenizer: Any, length: int, *, rate: float = 0.15, pack: bool = True) -> None:
        """Prepares the frame.

        Args:
            tokenizer: A transformers tokenizer with a mask token.
            length: The most tokens in a row, frame included.
            rate: Masking rate, see `Masker`.
            pack: Put several pairs in a row.

        Raises:
            IsoglossError: No mask token, or `length` below 8.
        """
        if length < 8:
            raise IsoglossError(f"The row length {length} leaves no room for a pair; use at least 8.")
        self._masker = Masker(tokenizer, rate=rate)
        prefix, suffix = encoder_frame(tokenizer)
        self._prefix, self._suffix = (
            torch.tensor(prefix, dtype=torch.int64),
            torch.tensor(suffix, dtype=torch.int64),
        )
        self._pad_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._pack = pack
        self.length = length

    def collate(self, pairs: PairBatch, generator: torch.Generator) -> ObjectiveBatch:
        """Turns pairs into rows [R, T], T <= length, R <= pairs; which side comes first is drawn."""
        room = self.length - len(self._prefix) - 2 * len(self._suffix)
        swaps = torch.rand(len(pairs), generator=generator) < 0.5
        bodies = []
        for a, b, swap in zip(pairs.first, pairs.second, swaps.tolist(), strict=True):
            a, b = cut_pair(a, b, room)
            bodies.append(torch.cat([b, self._suffix, a, self._suffix] if swap else [a, self._suffix, b, self._suffix]))
        rows = self._rows(bodies)
        ids, mask = pad_rows(rows, self._pad_id)
        corrupted, positions = self._masker(ids, mask.bool(), generator)
        return ObjectiveBatch(corrupted, mask, None, positions, ids.flatten()[positions])

    def _rows(self, bodies: list[Tensor]) -> list[Tensor]:
        room = self.length - len(self._prefix)
        if not self._pack:
            return [torch.cat([self._prefix, body]) for body in bodies]
        # Longest first into the first row with room: a few dozen pairs, so the quadratic search is nothing.
        bins: list[tuple[int, list[Tensor]]] = []
        for body in sorted(bodies, key=len, reverse=True):
            for place, (used, content) in enumerate(bins):
                if used + len(body) <= room:
                    bins[place] = (used + len(body), [*content, body])
                    break
            else:
                bins.append((len(body), [body]))
        return [torch.cat([self._prefix, *content]) for _, content in bins]


def cut_pair(a: Tensor, b: Tensor, room: int) -> tuple[Tensor, Tensor]:
    """Shortens two segments to `room` tokens together, at their ends, keeping their proportion."""
    if len(a) + len(b) <= room:
        return a, b
    keep_a = min(len(a), max(1, room * len(a) // (len(a) + len(b)), room - len(b)))
    return a[:keep_a], b[: room - keep_a]
