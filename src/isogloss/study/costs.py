"""What one training costs: its parameters counted exactly, its time measured by a step or two on real rows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from isogloss.backbones import Backbone, load_backbone
from isogloss.modules import TransferModule, create_module, parse_module
from isogloss.stack import Stack, TextBatch
from isogloss.study import sources
from isogloss.study.desk import Desk, training_rows
from isogloss.study.steps import Step
from isogloss.study.trainings import meta_stage, task_stage, update_learner, update_rows
from isogloss.tasks import Example, Task
from isogloss.tasks.heads import Head, make_head
from isogloss.training.inference import Predictor
from isogloss.training.language_stage import LanguageStage
from isogloss.training.new_module import new_module

_SAMPLE = 48
_REPEATS = 2


@dataclass(frozen=True)
class Cost:
    """One shape of training.

    Attributes:
        steps: Optimiser steps.
        trained: Parameters that are trained.
        stored: Parameters that are saved.
        dev_rows: Rows that are scored to choose the best step, all times together.
        batch: Rows of one step.
        first_steps: Steps of the plain fine-tuning in front of a learned start.
        step_seconds: Of one optimiser step.
        row_seconds: Of scoring one row (task parts).
        first_seconds: Of one step of the fine-tuning in front.
        measured: Whether the seconds are this shape's own, and not another one's.
    """

    steps: int
    trained: int
    stored: int
    dev_rows: int = 0
    batch: int = 1
    first_steps: int = 0
    step_seconds: float = 0.0
    row_seconds: float = 0.0
    first_seconds: float = 0.0
    measured: bool = False

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        learning = self.steps * self.step_seconds + self.first_steps * self.first_seconds
        return learning + self.dev_rows * self.row_seconds

    def timed_as(self, other: "Cost") -> "Cost":
        """With the seconds of another shape, a step's by the rows in it."""
        ratio = self.batch / other.batch
        return replace(
            self,
            step_seconds=other.step_seconds * ratio,
            first_seconds=other.first_seconds * ratio,
            row_seconds=other.row_seconds,
        )


class Bench:
    """Where trainings are counted and timed: one backbone at a time, and rows that were read.

    Modules of other steps are left out of the time: they need not be there yet.
    """

    def __init__(self) -> None:
        self.loaded: Backbone | None = None
        self._rows: dict[Any, tuple[Task, list[Example], list[Example]]] = {}
        self._counts: dict[Any, int] = {}
        self._reader = Desk(store=None)  # type: ignore[arg-type]  # only its reading is used

    def count(self, step: Step) -> Cost:
        """Steps and parameters of a training, without training.

        Raises:
            IsoglossError: The backbone, the data or the settings cannot be used.
        """
        return {"language": self._count_language, "update": self._count_update, "task": self._count_task}[step.kind](
            step
        )

    def time(self, step: Step, cost: Cost) -> Cost:
        """The same with its seconds, measured on real rows.

        Raises:
            IsoglossError: The training would be refused.
            RuntimeError: It would fail.
        """
        timed = {"language": self._time_language, "update": self._time_update, "task": self._time_task}[step.kind]
        return replace(timed(step, cost), measured=True)

    def scored_rows(self, step: Step) -> int:
        """Rows that an evaluation scores, by the lines of its file."""
        key = (step.inputs["data"], step.spec["language"], step.spec["split"])
        if key not in self._counts:
            self._counts[key] = sources.row_count(*key) if sources.data_is_here(key[0]) else 0
        return min(self._counts[key], step.spec.get("limit") or self._counts[key])

    # -- language modules ----------------------------------------------------------------------------------------------

    def _count_language(self, step: Step) -> Cost:
        stage = LanguageStage(**step.spec["stage"], seed=0)
        module = self._language_module(step)
        return Cost(stage.steps, _trained(module), _stored(module), batch=stage.batch_size)

    def _time_language(self, step: Step, cost: Cost) -> Cost:
        backbone = self._backbone(step)
        stage = LanguageStage(**step.spec["stage"], seed=0)
        module = self._language_module(step)
        stack = Stack(backbone, [module])
        length = min(stage.length, stack.text_budget or stage.length)
        ids = torch.randint(5, backbone.vocabulary_size, (stage.batch_size, length), device=backbone.device)
        written = ids[:, : max(2, length // 5)] if backbone.kind == "encoder-decoder" else None
        batch = TextBatch(ids, torch.ones_like(ids), written)
        width = written.shape[1] if written is not None else length
        asked = torch.arange(0, stage.batch_size * width, 7, device=backbone.device)

        def one() -> None:
            loss = stack.lm_loss(stack.run(batch).at(asked), ids.flatten()[: len(asked)])
            torch.autograd.backward(loss)
            module.zero_grad()

        return replace(cost, step_seconds=_timed(one))

    def _language_module(self, step: Step) -> TransferModule:
        module = create_module(parse_module(step.spec["module"]), self._backbone(step), seed=0)
        module.info.role, module.info.language = "language", "eng_Latn"
        return module

    # -- task parts ----------------------------------------------------------------------------------------------------

    def _count_task(self, step: Step) -> Cost:
        spec, stage = step.spec, task_stage(step.spec)
        task, train, dev = self._task_rows(step)
        module, head = self._task_parts(step, task, stage.head, stage.head_options)
        whole = 0 if spec["freeze"] else _size(self._backbone(step).model.parameters())
        trained = _trained(module) + _trained(head) + whole
        count = len(train)
        if spec["shots"]:
            classes = len(task.labels or ()) if task.kind != "tagging" else 1
            count = min(count, spec["shots"] * classes or spec["shots"])
        batch = stage.batch_size * stage.accumulation
        epochs = stage.epochs if stage.epochs or stage.steps else 20.0
        steps = stage.steps or round((epochs or 0) * -(-count // batch))
        scored = (20 if stage.steps else int(epochs or 0)) * len(dev) if stage.select != "last" else 0
        stored = _stored(module) + _size(head.state_dict().values()) + whole
        return Cost(steps if trained else 0, trained, stored, scored if trained else 0, batch=stage.batch_size)

    def _time_task(self, step: Step, cost: Cost) -> Cost:
        spec, stage = step.spec, task_stage(step.spec)
        task, train, _ = self._task_rows(step)
        module, head = self._task_parts(step, task, stage.head, stage.head_options)
        sample = train[:_SAMPLE]
        seconds = 0.0
        if cost.trained:
            seconds = self._step_seconds(step, module, head, sample, stage.batch_size, full=not spec["freeze"])
        predictor = Predictor(self._backbone(step), module, head, {}, [sample[0].language])
        same = [example for example in sample if example.language == sample[0].language]
        began = time.monotonic()
        predictor.predict(same)
        return replace(cost, step_seconds=seconds, row_seconds=(time.monotonic() - began) / max(1, len(same)))

    def _step_seconds(
        self, step: Step, module: TransferModule, head: Head, sample: Sequence[Example], size: int, *, full: bool
    ) -> float:
        """Of one step of plain fine-tuning."""
        backbone = self._backbone(step)
        stack = Stack(backbone, [module])
        rows = head.encode(sample, budget=stack.text_budget)
        batch = head.collate(rows[:size]).to(backbone.device)
        if full:
            backbone.unfreeze()
        try:
            return _timed(lambda: torch.autograd.backward(head.loss(stack, batch)[0]))
        finally:
            backbone.freeze()
            backbone.model.zero_grad(set_to_none=True)

    # -- update rules and starts ---------------------------------------------------------------------------------------

    def _count_update(self, step: Step) -> Cost:
        from isogloss.meta import STARTS, make_rule
        from isogloss.meta.stage import build_parts

        backbone, stage = self._backbone(step), meta_stage(step)
        task, source, _ = update_rows(step, self._reader)
        module, head = self._task_parts(step, task, stage.head, stage.head_options)
        try:
            weights = build_parts(backbone, module, head, stage).weights
        finally:
            backbone.freeze()
        if stage.method not in STARTS:
            rule = make_rule(stage.method, weights.groups, weights.layers, **dict(stage.options))
            return Cost(stage.outer_steps, _trained(rule), _size(rule.state_dict().values()), batch=stage.batch_size)
        whole = 0 if step.spec["freeze"] else _size(backbone.model.parameters())
        return Cost(
            stage.outer_steps,
            weights.size,
            _stored(module) + _size(head.state_dict().values()) + whole,
            batch=stage.batch_size,
            first_steps=round(stage.start_epochs * -(-len(source) // stage.batch_size)),
        )

    def _time_update(self, step: Step, cost: Cost) -> Cost:
        """Learns for two or three steps from few rows, in a folder that is thrown away."""
        stage = meta_stage(step)
        task, source, auxiliary = update_rows(step, self._reader)
        rows = [_first_of_each(found) for found in (source, auxiliary)]
        config = parse_module(step.spec["module"])
        few = replace(stage, outer_steps=_REPEATS + 1, start_epochs=1.0)
        with TemporaryDirectory(prefix="isogloss-") as folder:
            facts = update_learner(stage)(self._backbone(step), task, *rows, config, few, Path(folder) / "made")
        first = 0.0
        if cost.first_steps:
            module, head = self._task_parts(step, task, stage.head, stage.head_options)
            full = stage.train == "all"
            first = self._step_seconds(step, module, head, rows[0], stage.batch_size, full=full)
        return replace(cost, step_seconds=facts["seconds_a_step"], first_seconds=first)

    # -- what they share -----------------------------------------------------------------------------------------------

    def _backbone(self, step: Step) -> Backbone:
        name = step.inputs["backbone"]
        if self.loaded is None or self.loaded.name != name:
            self.loaded = None
            self.loaded = load_backbone(name)
        return self.loaded

    def _task_rows(self, step: Step) -> tuple[Task, list[Example], list[Example]]:
        key = (str(step.spec["train"]), str(step.spec["dev"]), str(step.spec["task"]), step.spec["limit"])
        if key not in self._rows:
            task, train, dev = training_rows(step, self._reader)
            if task.has_labels and task.labels is None:
                task = task.with_labels_from(train)
            self._rows[key] = task, train, dev
        return self._rows[key]

    def _task_parts(self, step: Step, task: Task, head: str | None, options: Any) -> tuple[TransferModule, Head]:
        backbone = self._backbone(step)
        module = new_module(parse_module(step.spec["module"]), backbone, seed=0, labels=task.labels or ())
        module.info.role = "task"
        return module, make_head(head, task, backbone, default_seed=0, **dict(options))


def _first_of_each(rows: Sequence[Example]) -> list[Example]:
    by_language = groupby(sorted(rows, key=lambda row: row.language), key=lambda row: row.language)
    return [row for _, found in by_language for row in list(found)[:_SAMPLE]]


def _size(tensors: Any) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _trained(part: torch.nn.Module) -> int:
    return _size(parameter for parameter in part.parameters() if parameter.requires_grad)


def _stored(module: TransferModule) -> int:
    return _size(module.folded().weight_tensors().values())


def _timed(work: Callable[[], None]) -> float:
    work()
    began = time.monotonic()
    for _ in range(_REPEATS):
        work()
    return (time.monotonic() - began) / _REPEATS
