"""What each seed of a common run keeps to itself: data, module, head, generator, clipping and best weights."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import ModuleConfig, TransferModule
from isogloss.tasks import Example, Task, few_shot
from isogloss.tasks.heads import make_head
from isogloss.training.buckets import Batches, TokenBudgetBatches
from isogloss.training.inference import Predictor
from isogloss.training.new_module import new_module
from isogloss.training.task_stage import TaskStage, _Trainer


class Seed:
    """What one seed trains, and on what."""

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        train: Sequence[Example],
        dev: Sequence[Example],
        config: ModuleConfig,
        stage: TaskStage,
        by_language: Mapping[str, TransferModule],
    ) -> None:
        # Of all rows, and so the same for every seed: few-shot draws meet the languages in different orders, or not all.
        spoken = list(dict.fromkeys(example.language for example in train))
        if stage.shots is not None:
            drawn = stage.seed if stage.shots_seed is None else stage.shots_seed
            sampled = few_shot(task, train, dev, stage.shots, seed=drawn)
            train, dev = sampled.train, sampled.dev
        self.train, self.dev, self.stage = list(train), list(dev), stage
        self.sources = list(dict.fromkeys(example.language for example in train))
        self.module = new_module(config, backbone, seed=stage.seed, labels=task.labels or ())
        self.module.info.role, self.module.info.task = "task", task.name
        self.module.info.language = ",".join(self.sources)
        self.head = make_head(stage.head, task, backbone, default_seed=stage.seed, **dict(stage.head_options))
        self.predictor = Predictor(
            backbone, self.module, self.head, by_language, spoken, stack_options=stage.stack_options
        )
        self.trainer = _Trainer(backbone, self.module, self.head, self.predictor, by_language, spoken, stage)
        self.rows = self.head.encode(self.train, budget=self.trainer.stack.text_budget)
        sampler = TokenBudgetBatches([row.length for row in self.rows], batch_size=stage.batch_size, seed=stage.seed)
        self.batches = Batches(sampler, lambda items, generator: [self.rows[item] for item in items])

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that this seed trains."""
        return [p for part in self.trainer.parts() for p in part.parameters]

    def score(self) -> float:
        """The value that chooses the best weights."""
        scorer = self.trainer._dev_loss if self.stage.select == "loss" else self.trainer._dev_metric
        return float(scorer(self.dev))


class SeedBatches:
    """Windows of one batch of each seed; a `BatchSource`."""

    def __init__(self, runs: Sequence[Seed]) -> None:
        if len({len(run.rows) for run in runs}) != 1:
            raise IsoglossError("The seeds have training sets of different sizes; train each by itself.")
        self.sources = [run.batches for run in runs]

    @property
    def epoch(self) -> int:
        """Passes that are finished."""
        return self.sources[0].epoch

    def window(self, size: int, rank: int = 0, world: int = 1) -> Iterator[Any]:
        """One list of rows for each seed at a time."""
        return zip(*(source.window(size, rank, world) for source in self.sources), strict=True)

    def steps_in(self, epochs: float, size: int) -> int:
        """Windows in so many epochs, the same for every seed."""
        return self.sources[0].steps_in(epochs, size)

    def state_dict(self) -> dict[str, Any]:
        """The place of every seed."""
        return {"seeds": [source.state_dict() for source in self.sources]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to the place of every seed."""
        for source, own in zip(self.sources, state["seeds"], strict=True):
            source.load_state_dict(own)


class Generators(nn.Module):
    """Each seed's generator, which the dropout of its head draws from; as buffers, so that checkpoints hold them."""

    def __init__(self, stages: Sequence[TaskStage], device: torch.device) -> None:
        super().__init__()
        self._device = device
        before = self._state()
        for number, stage in enumerate(stages):
            torch.manual_seed(stage.seed)
            self.register_buffer(f"seed{number}", self._state())
        self._set(before)

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Within it random numbers are those of one seed."""
        before = self._state()
        kept: Tensor = getattr(self, f"seed{number}")
        self._set(kept)
        try:
            yield
        finally:
            kept.copy_(self._state())
            self._set(before)

    def _state(self) -> Tensor:
        return torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else torch.get_rng_state()

    def _set(self, state: Tensor) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state, self._device)
        else:
            torch.set_rng_state(state.clone())


class StepEach(nn.Module):
    """Clips each seed's gradients by themselves, then takes the optimiser's step; an `UpdateStep`."""

    def __init__(self, runs: Sequence[Seed], clip: float | None, best: "BestOfEach") -> None:
        super().__init__()
        self._groups, self._clip, self._best = [run.parameters for run in runs], clip, [best]

    def step(self, optimiser: Optimizer, loss: Tensor, progress: float) -> None:
        """Moves the weights of all seeds."""
        if self._clip is not None:
            for group in self._groups:
                nn.utils.clip_grad_norm_(group, self._clip)
        optimiser.step()
        self._best[0].count += 1


class BestOfEach(nn.Module):
    """Each seed's best weights so far, as buffers, so that checkpoints hold them."""

    count: Tensor
    values: Tensor
    steps: Tensor

    def __init__(self, runs: Sequence[Seed], *, higher: bool) -> None:
        super().__init__()
        self._runs, self._higher = list(runs), higher
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("values", torch.full((len(runs),), float("nan"), dtype=torch.float64))
        self.register_buffer("steps", torch.full((len(runs),), -1, dtype=torch.long))
        self._kept: list[list[tuple[nn.Parameter, str]]] = []
        for number, run in enumerate(runs):
            names = []
            for place, parameter in enumerate(run.parameters):
                name = f"seed{number}_{place}"
                self.register_buffer(name, parameter.detach().clone())
                names.append((parameter, name))
            self._kept.append(names)

    def validate(self) -> float:
        """Scores every seed, keeps what is better than before, and returns the mean."""
        values = [run.score() for run in self._runs]
        for number, value in enumerate(values):
            before = float(self.values[number])
            if value == value and (before != before or (value > before if self._higher else value < before)):
                self.values[number], self.steps[number] = value, self.count
                for parameter, name in self._kept[number]:
                    getattr(self, name).copy_(parameter.detach())
        return sum(values) / len(values)

    def put_back(self) -> None:
        """Gives each seed its best weights, if any were chosen."""
        with torch.no_grad():
            for number, names in enumerate(self._kept):
                if self.steps[number] >= 0:
                    for parameter, name in names:
                        parameter.copy_(getattr(self, name))

    def step_of(self, number: int) -> int | None:
        """Step of a seed's best weights."""
        found = int(self.steps[number])
        return found if found >= 0 else None
