"""What a pre-training step reads: an objective drawn by weight, a language mixture drawn by temperature; resumable."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isogloss.corpora import (
    BlockView,
    CausalLM,
    ContrastBatch,
    MaskedLM,
    MixtureSampler,
    ObjectiveBatch,
    ParallelCorpus,
    PrefixLM,
    SpanCorruption,
    TokenStore,
    TranslationContrast,
    TranslationLM,
    stream_generator,
    take_blocks,
)
from isogloss.errors import IsoglossError
from isogloss.training.recipe import ObjectiveRecipe, Recipe, StageRecipe


@dataclass(frozen=True)
class PretrainStep:
    """One batch, the recipe line of its objective, and the languages of its rows.

    `languages` has one code a row, for a contrast one pair a row, and is None where rows mix pairs.
    """

    objective: ObjectiveRecipe
    batch: ObjectiveBatch | ContrastBatch
    languages: Sequence[str] | Sequence[tuple[str, str]] | None = None

    def __len__(self) -> int:
        return len(self.batch.input_ids if isinstance(self.batch, ObjectiveBatch) else self.batch.first.input_ids)

    def __getitem__(self, rows: slice) -> "PretrainStep":
        """Some rows of it; a contrast needs all of its rows together."""
        if not isinstance(self.batch, ObjectiveBatch):
            raise TypeError("a contrast cannot be shared out row by row")
        return PretrainStep(self.objective, self.batch[rows], self.languages and self.languages[rows])


def make_objective(name: str, tokenizer: Any, length: int, backbone: Any, rate: float = 0.15) -> Any:
    """Builds the objective called `name` for rows of `length` tokens."""
    if name == "masked":
        return MaskedLM(tokenizer, length, rate=rate)
    if name == "translation":
        return TranslationLM(tokenizer, length, rate=rate)
    if name == "contrast":
        return TranslationContrast(tokenizer, length)
    if name == "causal":
        return CausalLM(tokenizer, length)
    if name == "prefix":
        return PrefixLM(
            tokenizer,
            length,
            decoder_start_id=backbone.decoder_start_id if backbone.kind == "encoder-decoder" else None,
        )
    return SpanCorruption(tokenizer, length, decoder_start_id=backbone.decoder_start_id, density=rate)


class PretrainStream:
    """A `BatchSource` over the stages of a recipe.

    Args:
        recipe: Says what is drawn how often.
        stores: Training text by language code.
        parallel: Aligned text, needed by the objectives that read pairs.
        backbone: The model in training (its kind and tokenizer).
    """

    def __init__(
        self, recipe: Recipe, stores: Mapping[str, TokenStore], parallel: ParallelCorpus | None, backbone: Any
    ) -> None:
        pairs_wanted = any(
            item.name in ("translation", "contrast") or item.text == "parallel" for item in recipe.objectives
        )
        if pairs_wanted and parallel is None:
            raise IsoglossError("The recipe has objectives on parallel text but names no folder under 'parallel'.")
        self._recipe, self._stores, self._parallel, self._backbone = recipe, dict(stores), parallel, backbone
        # Batches, which seed what is drawn, and optimiser steps, which end the stages.
        self._step = self._windows = 0
        self._weights = torch.tensor([item.weight for item in recipe.objectives], dtype=torch.float64)
        self._samplers: dict[str, MixtureSampler] = {}
        self._saved: dict[str, Any] = {}
        self._built: dict[str, tuple[Any, dict[str, BlockView] | None]] = {}

    @property
    def epoch(self) -> int:
        """Always 0: the stream has no end."""
        return 0

    def window(self, size: int, rank: int = 0, world: int = 1) -> Iterator[PretrainStep]:
        """Moves on by one optimiser step of `size` batches and yields number rank, rank + world ...

        All of them have one objective: a step divides by the number of its losses, so objectives that score more tokens
        would drown the others, whatever their weights.
        """
        number, stage = self._stage()
        self._windows += 1
        choice = int(torch.multinomial(self._weights, 1, generator=self._generator()))
        for place in range(size):
            step = self._draw(number, stage, choice, make=place % world == rank)
            if step is not None:
                yield step

    def steps_in(self, epochs: float, size: int) -> int:
        """All stages."""
        return self._recipe.steps

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream."""
        samplers = {**self._saved, **{key: sampler.state_dict() for key, sampler in self._samplers.items()}}
        aligned = {"parallel": self._parallel.identity} if self._parallel else {}
        return {"step": self._step, "windows": self._windows, "samplers": samplers, **aligned}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a place that `state_dict` returned.

        Raises:
            IsoglossError: It was taken with other aligned text.
        """
        # Older checkpoints do not say it.
        if self._parallel is not None and state.get("parallel", self._parallel.identity) != self._parallel.identity:
            raise IsoglossError(
                "The saved run read other aligned text (the files under 'parallel' in the recipe have changed); put back what it was "
                "started with, or choose a new output folder."
            )
        self._step, self._saved = int(state["step"]), dict(state["samplers"])
        # Older checkpoints have batches only; of one process without accumulation these are as many.
        self._windows = int(state.get("windows", self._step))
        self._samplers.clear()

    def _stage(self) -> tuple[int, StageRecipe]:
        passed = 0
        for number, stage in enumerate(self._recipe.stages):
            passed += stage.steps
            if self._windows < passed:
                return number, stage
        return len(self._recipe.stages) - 1, self._recipe.stages[-1]

    def _generator(self) -> torch.Generator:
        """Of the next batch."""
        return stream_generator("pretrain", self._recipe.seed, self._step)

    def _draw(self, number: int, stage: StageRecipe, choice: int, *, make: bool) -> PretrainStep | None:
        generator = self._generator()
        torch.multinomial(self._weights, 1, generator=generator)  # the window's choice took this from its first batch
        item = self._recipe.objectives[choice]
        key = f"{number}:{choice}"
        objective, views = self._objective(key, item, stage)
        sampler = self._sampler(key, item, stage, views)
        draw = next(sampler)
        self._step += 1
        if not make:
            return None
        if item.name in ("translation", "contrast"):
            assert self._parallel is not None
            pairs = self._parallel.take(draw)
            # A translation row is packed with pairs of any languages.
            return PretrainStep(
                item, objective.collate(pairs, generator), pairs.languages if item.name == "contrast" else None
            )
        if views is None:
            return PretrainStep(
                item, objective.collate(self._packed_pairs(draw, objective.raw_length, generator), generator)
            )
        codes = [draw.names[source] for source in draw.sources.tolist()]
        return PretrainStep(item, objective.collate(take_blocks(views, draw), generator), codes)

    def _objective(
        self, key: str, item: ObjectiveRecipe, stage: StageRecipe
    ) -> tuple[Any, dict[str, BlockView] | None]:
        if key not in self._built:
            objective = make_objective(item.name, self._backbone.tokenizer, stage.length, self._backbone, item.rate)
            views = None
            if item.name not in ("translation", "contrast") and item.text == "raw":
                views = {code: store.blocks(objective.raw_length) for code, store in self._stores.items()}
            self._built[key] = (objective, views)
        return self._built[key]

    def _sampler(
        self, key: str, item: ObjectiveRecipe, stage: StageRecipe, views: dict[str, BlockView] | None
    ) -> MixtureSampler:
        if key not in self._samplers:
            if views is not None:
                sizes = {code: len(view) for code, view in views.items()}
            else:
                assert self._parallel is not None
                sizes = self._parallel.sizes
            sampler = MixtureSampler(sizes, item.batch or stage.batch, alpha=self._recipe.alpha, seed=self._recipe.seed)
            if key in self._saved:
                sampler.load_state_dict(self._saved.pop(key))
            self._samplers[key] = sampler
        return self._samplers[key]

    def _packed_pairs(self, draw: Any, length: int, generator: torch.Generator) -> Tensor:
        """Lays pairs behind one another (text, separator, translation, separator) and cuts rows of `length`."""
        assert self._parallel is not None
        pairs = self._parallel.take(draw)
        separator = torch.tensor([self._backbone.eos_ids[0]])
        swaps = (torch.rand(len(pairs), generator=generator) < 0.5).tolist()
        parts: list[Tensor] = []
        for first, second, swap in zip(pairs.first, pairs.second, swaps, strict=True):
            parts += [second, separator, first, separator] if swap else [first, separator, second, separator]
        stream = torch.cat(parts)
        missing = -len(stream) % length
        stream = torch.cat(
            (
                stream,
                stream[:missing].repeat(missing // max(1, len(stream)) + 1)[:missing] if missing else stream[:0],
            )
        )
        return stream.view(-1, length)
