"""Which language comes next: exponent-smoothed sampling (XLM-R, arXiv 1911.02116, section 3.1), resumable."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isogloss.corpora.token_store import BlockView
from isogloss.errors import IsoglossError
from isogloss.storage import content_key


def smoothed_shares(sizes: Mapping[str, float], alpha: float = 0.3) -> dict[str, float]:
    """Returns p_i = n_i^alpha / sum_j n_j^alpha; alpha 1 keeps the proportions, 0 makes all equal.

    Raises:
        IsoglossError: Nothing to mix, a size that is not positive, or a negative alpha.
    """
    if not sizes:
        raise IsoglossError("There is nothing to sample from; give at least one language with text.")
    if alpha < 0:
        raise IsoglossError(f"The smoothing exponent alpha must not be negative, got {alpha}.")
    empty = [name for name, size in sizes.items() if size <= 0]
    if empty:
        raise IsoglossError(
            f"Nothing can be sampled for {', '.join(empty)}: the text is shorter than one row of tokens; give "
            "more text, or shorter rows (--length)."
        )
    weights = {name: float(size) ** alpha for name, size in sizes.items()}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def stream_generator(*parts: Any) -> torch.Generator:
    """Returns a CPU generator seeded by `parts` (numbers and names), equal on every machine."""
    return torch.Generator().manual_seed(int(content_key(list(parts))[:15], 16))


@dataclass(frozen=True)
class Draw:
    """What one step reads.

    Attributes:
        names: The names drawn from, in the sampler's order.
        sources: [B] int64, index into `names`.
        indices: [B] int64, item within that source.
    """

    names: tuple[str, ...]
    sources: Tensor
    indices: Tensor

    def __len__(self) -> int:
        """Rows."""
        return len(self.sources)


class MixtureSampler:
    """Draws batches from several sources, without end; each source is a new shuffle every time it is used up.

    The stream is a function of the seed and of two kinds of counters, the step and the items drawn per
    source, so a resumed run draws exactly what the killed one would have drawn.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch_size: int,
        *,
        alpha: float = 0.3,
        weights: Mapping[str, float] | None = None,
        one_source: bool = False,
        seed: int = 0,
    ) -> None:
        """Fixes the shares.

        Args:
            sizes: Items per source, such as `len(block_view)` per language.
            batch_size: Rows a step.
            alpha: Smoothing exponent over the sizes.
            weights: Shares given outright (any scale) in place of `alpha`.
            one_source: All rows of a step come from one source.
            seed: Start of the stream.

        Raises:
            IsoglossError: Nothing to mix, an empty source, or names that do not match.
        """
        if batch_size < 1:
            raise IsoglossError(f"The batch size must be at least 1, not {batch_size}.")
        shares = smoothed_shares(sizes, alpha)
        if weights is not None:
            if set(weights) != set(sizes):
                raise IsoglossError(
                    f"The mixture weights name {sorted(weights)}, the texts are {sorted(sizes)}; name the same."
                )
            shares = smoothed_shares(weights, 1.0)
        self.names = tuple(sizes)
        self.shares = shares
        self._sizes = dict(sizes)
        self._probabilities = torch.tensor([shares[name] for name in self.names], dtype=torch.float64)
        self._batch_size, self._one_source, self._seed = batch_size, one_source, seed
        self._step = 0
        self._drawn = dict.fromkeys(self.names, 0)
        self._orders: dict[str, tuple[int, Tensor]] = {}

    def __iter__(self) -> Iterator[Draw]:
        """The endless stream, from where the sampler stands."""
        return self

    def __next__(self) -> Draw:
        """Returns the next step's rows."""
        generator = stream_generator("mixture", self._seed, self._step)
        count = 1 if self._one_source else self._batch_size
        sources = torch.multinomial(self._probabilities, count, replacement=True, generator=generator)
        sources = sources.expand(self._batch_size).clone() if self._one_source else sources
        indices = torch.empty(self._batch_size, dtype=torch.int64)
        for source in set(sources.tolist()):
            rows = torch.nonzero(sources == source).flatten()
            indices[rows] = self._advance(self.names[source], len(rows))
        self._step += 1
        return Draw(self.names, sources, indices)

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters (plain JSON)."""
        return {
            "step": self._step,
            "drawn": dict(self._drawn),
            "sizes": dict(self._sizes),
            "seed": self._seed,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts the stream where `state` was taken.

        Raises:
            IsoglossError: The state is of another mixture (other texts, block length or seed).
        """
        if dict(state["sizes"]) != self._sizes or state["seed"] != self._seed:
            raise IsoglossError(
                "The saved run read other texts, another block length or another seed; resume with the "
                "settings it was started with, or choose a new output folder."
            )
        self._step = int(state["step"])
        self._drawn = {name: int(state["drawn"][name]) for name in self.names}

    def _advance(self, name: str, count: int) -> Tensor:
        size = self._sizes[name]
        taken = []
        while count:
            epoch, place = divmod(self._drawn[name], size)
            part = self._order(name, epoch)[place : place + count]
            taken.append(part)
            self._drawn[name] += len(part)
            count -= len(part)
        return torch.cat(taken)

    def _order(self, name: str, epoch: int) -> Tensor:
        cached = self._orders.get(name)
        if cached is None or cached[0] != epoch:
            generator = stream_generator("order", self._seed, name, epoch)
            cached = (epoch, torch.randperm(self._sizes[name], generator=generator))
            self._orders[name] = cached
        return cached[1]


def take_blocks(views: Mapping[str, BlockView], draw: Draw) -> Tensor:
    """Reads the blocks of a draw, int64 [B, length]; all views have one block length."""
    length = next(iter(views.values())).length
    blocks = torch.empty(len(draw), length, dtype=torch.int64)
    for source in set(draw.sources.tolist()):
        rows = torch.nonzero(draw.sources == source).flatten()
        blocks[rows] = views[draw.names[source]].take(draw.indices[rows])
    return blocks
