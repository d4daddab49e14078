"""Batches from length buckets: random, cheap in padding, seeded, resumable, shared out over processes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from isogloss.errors import IsoglossError

Indices = NDArray[np.int64]
# Without a gradient a batch need not be large: on a processor it is best when each thread's states stay in its cache
# (docs/benchmarks.md). More rows at a time gain nothing from four threads on; an accelerator wants as many.
_READ_BY_A_THREAD, _READ_AT_MOST = 1024, 4096


def reading_tokens(device: torch.device, asked: int | None = None) -> int:
    """Most tokens of a batch that is read without a gradient: what was asked for, else what suits the device."""
    if asked is not None:
        return asked
    return min(_READ_BY_A_THREAD * torch.get_num_threads(), _READ_AT_MOST) if device.type == "cpu" else _READ_AT_MOST


def reading_batches(
    lengths: Sequence[int] | Indices, device: torch.device, tokens_per_batch: int | None = None
) -> list[Indices]:
    """Item numbers batch by batch, the shortest items first, for a pass without a gradient; see `reading_tokens`."""
    most = reading_tokens(device, tokens_per_batch)
    return TokenBudgetBatches(lengths, tokens_per_batch=most, shuffle=False).epoch_batches()


class BatchSource(Protocol):
    """What `fit` draws batches from.

    `epoch` counts the passes that are finished. A window is what one optimiser step takes; it never crosses
    the end of an epoch, so the last one of an epoch may be short.
    """

    @property
    def epoch(self) -> int:
        """Passes that are finished."""

    def window(self, size: int, rank: int = 0, world: int = 1) -> Iterator[Any]:
        """Moves on by up to `size` batches and yields number rank, rank + world ... (perhaps none)."""

    def steps_in(self, epochs: float, size: int) -> int:
        """Returns the number of windows of `size` batches in so many epochs."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the stream as JSON data."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that `state_dict` returned."""


class TokenBudgetBatches:
    """Cuts items into batches of similar length, anew in every epoch.

    Items are sorted by length with a little random noise, cut, and the batches are shuffled. So padding stays
    small, yet neither the composition nor the order of the batches repeats. The same seed and epoch give the
    same batches.

    Args:
        lengths: Cost of every item, usually its tokens. [n]
        tokens_per_batch: Most tokens in a batch with its padding (longest item x items). An item that is
            longer makes a batch of its own.
        batch_size: Most items in a batch. One of the two limits is needed, both are allowed.
        seed: Seed of all epochs.
        shuffle: False gives the shortest items first, the same in every epoch.
        noise: Lengths are multiplied by 1 + u, u uniform in [-noise, noise], before sorting; more noise mixes
            more and pads more.
        weights: With them an epoch draws n items in proportion to these weights, each item the rounded-down
            or rounded-up number of times that it should come, instead of every item once. [n]

    Raises:
        IsoglossError: No items, no limit, or a limit below 1.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Indices,
        *,
        tokens_per_batch: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        noise: float = 0.1,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.lengths: Indices = np.asarray(lengths, dtype=np.int64)
        if self.lengths.size == 0:
            raise IsoglossError("There is nothing to make batches from: the data set holds no items.")
        if tokens_per_batch is None and batch_size is None:
            raise IsoglossError("Batches need a limit: give batch_size, tokens_per_batch or both.")
        for name, limit in (("batch_size", batch_size), ("tokens_per_batch", tokens_per_batch)):
            if limit is not None and limit < 1:
                raise IsoglossError(f"Training option {name}={limit} must be 1 or more.")
        self.tokens_per_batch, self.batch_size = tokens_per_batch, batch_size
        self.seed, self.shuffle, self.noise = seed, shuffle, noise
        self.weights = None if weights is None else np.asarray(weights, dtype=np.float64)
        if self.weights is not None and (
            self.weights.shape != self.lengths.shape
            or not (self.weights >= 0).all()
            or not 0 < self.weights.sum() < np.inf
        ):
            raise IsoglossError("Sampling weights must be one number per item, 0 or more, not all 0.")

    def epoch_batches(self, epoch: int = 0) -> list[Indices]:
        """Returns the batches of one epoch, each an array of item numbers."""
        if not self.shuffle:
            order = np.argsort(self.lengths, kind="stable")
            return self._cut(order)
        random = np.random.default_rng([self.seed, epoch])
        items = self._drawn(random)
        lengths = self.lengths[items]
        noisy = lengths * (1.0 + random.uniform(-self.noise, self.noise, size=items.size))
        # Noise alone would leave items of length 0, and all items when noise=0, in file order.
        order = items[np.lexsort((random.permutation(items.size), noisy))]
        batches = self._cut(order)
        return [batches[i] for i in random.permutation(len(batches))]

    def padding_share(self, epoch: int = 0) -> float:
        """Returns the share of positions of one epoch that hold padding, 0 to 1."""
        held = [self.lengths[batch] for batch in self.epoch_batches(epoch)]
        positions = sum(int(lengths.max()) * lengths.size for lengths in held)
        return 1.0 - sum(int(lengths.sum()) for lengths in held) / max(1, positions)

    def batch_count(self, epoch: int) -> int:
        """Returns the number of batches of one epoch (it may differ by a few between epochs)."""
        if self.tokens_per_batch is None and self.batch_size is not None:
            return -(-self.lengths.size // self.batch_size)
        return len(self.epoch_batches(epoch))

    def _drawn(self, random: np.random.Generator) -> Indices:
        if self.weights is None:
            return np.arange(self.lengths.size, dtype=np.int64)
        # Systematic resampling: one uniform number places a comb over the cumulated weights.
        edges = np.cumsum(self.weights) / self.weights.sum() * self.lengths.size
        edges[-1] = self.lengths.size
        counts = np.diff(np.floor(edges + random.uniform()), prepend=0.0).astype(np.int64)
        return np.repeat(np.arange(self.lengths.size, dtype=np.int64), counts)

    def _cut(self, order: Indices) -> list[Indices]:
        most = self.batch_size or order.size
        if self.tokens_per_batch is None:
            return [order[start : start + most] for start in range(0, order.size, most)]
        budget, starts, longest = self.tokens_per_batch, [0], 0
        for place, length in enumerate(self.lengths[order].tolist()):
            size = place - starts[-1]
            longest = max(longest, length)
            if size and (size >= most or longest * (size + 1) > budget):
                starts.append(place)
                longest = length
        return np.split(order, starts[1:])


class Batches:
    """A `BatchSource`: the batches of a sampler, put together by a function.

    Args:
        sampler: Says which items make which batch.
        collate: Makes a batch from item numbers. It gets a generator whose seed follows from (seed, epoch,
            batch), so that masking and the like do not depend on restarts or on the number of processes.
        prefetch: Batches to make ahead in a thread while a GPU works; `collate` must then be thread-safe.
    """

    def __init__(
        self,
        sampler: TokenBudgetBatches,
        collate: Callable[[list[int], torch.Generator], Any],
        *,
        prefetch: int = 0,
    ) -> None:
        self._sampler, self._collate = sampler, collate
        self._epoch, self._position = 0, 0
        self._batches: list[Indices] | None = None
        self._prefetch = prefetch
        self._thread = ThreadPoolExecutor(1, "isogloss-batches") if prefetch else None
        self._ahead: dict[int, Future[Any]] = {}

    @property
    def epoch(self) -> int:
        """Passes that are finished."""
        return self._epoch

    def window(self, size: int, rank: int = 0, world: int = 1) -> Iterator[Any]:
        """Moves on by up to `size` batches of this epoch and yields those of this process."""
        if self._batches is None:
            self._batches = self._sampler.epoch_batches(self._epoch)
        batches, epoch, first = self._batches, self._epoch, self._position
        end = min(first + size, len(batches))
        chosen = range(first + rank, end, world)
        self._position = end
        if end == len(batches):
            self._epoch, self._position, self._batches = epoch + 1, 0, None
        if self._thread is None:
            return (self._made(batches, epoch, number) for number in chosen)
        for number in (*chosen, *range(end + rank, len(batches), world)[: self._prefetch]):
            if number not in self._ahead:
                self._ahead[number] = self._thread.submit(self._made, batches, epoch, number)
        ready = [self._ahead.pop(number) for number in chosen]
        return (future.result() for future in ready)

    def _made(self, batches: list[Indices], epoch: int, number: int) -> Any:
        words = np.random.SeedSequence([self._sampler.seed, epoch, number]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(words[0]) >> 1)
        return self._collate(batches[number].tolist(), generator)

    def steps_in(self, epochs: float, size: int) -> int:
        """Returns the number of windows of `size` batches in so many epochs."""
        whole = int(epochs)
        steps = sum(-(-self._sampler.batch_count(epoch) // size) for epoch in range(whole))
        if epochs > whole:
            last = -(-self._sampler.batch_count(whole) // size)
            steps += int(np.ceil((epochs - whole) * last - 1e-9))
        return max(1, steps)

    def state_dict(self) -> dict[str, Any]:
        """Returns the place in the stream."""
        return {"epoch": self._epoch, "position": self._position, "seed": self._sampler.seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a place in the stream.

        Raises:
            IsoglossError: The state belongs to another seed.
        """
        if state["seed"] != self._sampler.seed:
            raise IsoglossError(
                f"The checkpoint's batches were drawn with seed {state['seed']}, not {self._sampler.seed}; "
                "use the same seed or another output folder."
            )
        self._epoch, self._position, self._batches = int(state["epoch"]), int(state["position"]), None
        self._ahead = {}
