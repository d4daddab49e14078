"""The training loss of each language, of late: what shows that one of them is not learned."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Share of what is remembered that each step leaves: about the last hundred steps count.
_KEPT = 0.99


class LanguageLosses:
    """Running means by language, kept on the device and read when they are shown only.

    Args:
        codes: The languages.
    """

    def __init__(self, codes: Sequence[str]) -> None:
        self._places = {code: place for place, code in enumerate(codes)}
        self._sums: Tensor | None = None

    def add(self, losses: Tensor, rows: Tensor, languages: Sequence[str]) -> None:
        """Counts one batch.

        Args:
            losses: [N].
            rows: [N], the row that each belongs to.
            languages: [B], the language of each row.
        """
        if self._sums is None:
            self._sums = torch.zeros(2, len(self._places), dtype=torch.float64, device=losses.device)
        places = torch.tensor([self._places[code] for code in languages], device=losses.device)[rows]
        self._sums.mul_(_KEPT)
        self._sums[0].index_add_(0, places, losses.double())
        self._sums[1].index_add_(0, places, torch.ones_like(losses, dtype=torch.float64))

    def means(self) -> dict[str, float]:
        """Mean loss of the languages that were seen."""
        if self._sums is None:
            return {}
        sums, counts = self._sums.tolist()
        return {code: sums[place] / counts[place] for code, place in self._places.items() if counts[place]}

    def line(self) -> str:
        """`eng_Latn 3.91  deu_Latn 4.10`, or nothing before the first batch."""
        return "  ".join(f"{code} {loss:.2f}" for code, loss in self.means().items())
