"""How long a study will take and how much it will store: measured on this machine in some seconds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.modules import TransferModule, create_module, parse_module
from isogloss.stack import Stack, TextBatch
from isogloss.study import sources
from isogloss.study.desk import Desk, training_rows
from isogloss.study.steps import Plan, Step
from isogloss.tasks import Example, Task
from isogloss.tasks.heads import make_head
from isogloss.training.inference import Predictor
from isogloss.training.language_stage import LanguageStage
from isogloss.training.task_stage import TaskStage

_SAMPLE = 48
_REPEATS = 2
_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """One shape of training.

    Attributes:
        step_seconds: Of one optimiser step.
        row_seconds: Of scoring one row (task parts).
        steps: Optimiser steps.
        trained: Parameters that are trained.
        stored: Parameters that are saved.
        dev_rows: Rows that are scored to choose the best step, all times together.
    """

    step_seconds: float
    row_seconds: float
    steps: int
    trained: int
    stored: int
    dev_rows: int = 0

    @property
    def seconds(self) -> float:
        """Of the whole training."""
        return self.steps * self.step_seconds + self.dev_rows * self.row_seconds


@dataclass
class Estimate:
    """What a plan will cost.

    Attributes:
        seconds: By step key, on one worker.
        stored: Bytes by step key.
        shapes: Label of a shape -> its cost.
        problems: What could not be measured, and why.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, Cost] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def estimate(plan: Plan, *, limit_seconds: float = 30.0, tell: Callable[[str], None] = lambda text: None) -> Estimate:
    """Measures a step or two of each shape of training on real rows, and reckons up.

    Args:
        plan: Of the study.
        limit_seconds: After this time no further shape is measured; the slowest one of its kind stands for the rest.
        tell: Gets a line for each shape.
    """
    out = Estimate()
    began = time.monotonic()
    desk = _Desk()
    measured: dict[Any, Cost] = {}
    for step in plan.steps.values():
        if step.kind not in ("language", "task"):
            continue
        shape = _shape(step)
        if (away := _away(step)) is not None:
            # A plan fetches nothing.
            problem = f"{away} is not on this machine"
            out.problems += [] if problem in out.problems else [problem]
        elif shape not in measured and step.inputs["backbone"] not in desk.broken:
            if time.monotonic() - began > limit_seconds and _slowest(measured, shape) is not None:
                measured[shape] = _slowest(measured, shape)  # type: ignore[assignment]
            else:
                tell(f"measuring {step.label}")
                try:
                    measured[shape] = desk.language(step) if step.kind == "language" else desk.task(step)
                except (IsoglossError, RuntimeError, OSError) as problem:
                    out.problems.append(f"{step.label}: {problem}")
                    if desk.loaded is None:
                        desk.broken.add(step.inputs["backbone"])
        cost = measured.get(shape)
        if cost is not None:
            out.seconds[step.key] = cost.seconds
            out.stored[step.key] = cost.stored * _BYTES
            out.shapes.setdefault(_label(step), cost)
    for step in plan.steps.values():
        if step.kind == "evaluation" and (cost := measured.get(_shape(plan.steps[step.spec["task"]]))) is not None:
            rows = desk.count(step)
            out.seconds[step.key] = rows * cost.row_seconds
            out.stored[step.key] = 200 + 24 * rows
    return out


def _away(step: Step) -> str | None:
    """The backbone or data set of a training that would have to be fetched or made first."""
    if not sources.backbone_is_here(step.inputs["backbone"]):
        return str(step.inputs["backbone"])
    data = step.inputs["data"].values() if step.kind == "task" else ()
    return next((name for name in data if not sources.data_is_here(name)), None)


def _shape(step: Step) -> Any:
    spec = step.spec
    name = (
        step.kind,
        step.inputs["backbone"],
        spec["module"].split(",text=")[0],
        str(sorted(spec["stage"].items(), key=str)),
    )
    if step.kind == "language":
        return name
    sizes = tuple(sorted(spec["train"].values()))
    return (*name, spec["freeze"], spec["shots"], str(spec["task"]), sizes)


def _label(step: Step) -> str:
    words = step.label.split(" seed ")[0].rsplit(" ", 1)
    return words[0] if step.kind == "language" else step.label.split(" seed ")[0]


def _slowest(measured: Mapping[Any, Cost], shape: Any) -> Cost | None:
    alike = [cost for other, cost in measured.items() if other[:2] == shape[:2]]
    return max(alike, key=lambda cost: cost.seconds, default=None)


class _Desk:
    """One backbone at a time, and rows that were read."""

    def __init__(self) -> None:
        self.loaded: Backbone | None = None
        self.broken: set[str] = set()
        self._rows: dict[Any, tuple[Task, list[Example], list[Example]]] = {}
        self._counts: dict[Any, int] = {}
        self._reader = Desk(store=None)  # type: ignore[arg-type]  # only its reading is used

    def backbone(self, name: str) -> Backbone:
        if self.loaded is None or self.loaded.name != name:
            self.loaded = None
            self.loaded = load_backbone(name)
        return self.loaded

    def language(self, step: Step) -> Cost:
        backbone = self.backbone(step.inputs["backbone"])
        stage = LanguageStage(**step.spec["stage"], seed=0)
        module = _fresh(step.spec["module"], backbone)
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

        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        stored = sum(t.numel() for t in module.folded().weight_tensors().values())
        return Cost(_timed(one), 0.0, stage.steps, trained, stored)

    def task(self, step: Step) -> Cost:
        spec = step.spec
        backbone = self.backbone(step.inputs["backbone"])
        task, train, dev = self.rows(step)
        if task.has_labels and task.labels is None:
            task = task.with_labels_from(train)
        stage = TaskStage(**spec["stage"], train="modules" if spec["freeze"] else "all", seed=0)
        module = _fresh(spec["module"], backbone)
        module.info.role = "task"
        head = make_head(stage.head, task, backbone, default_seed=0, **dict(stage.head_options))
        stack = Stack(backbone, [module])
        sample = train[:_SAMPLE]
        rows = head.encode(sample, budget=stack.text_budget)
        batch = head.collate(rows[: stage.batch_size]).to(backbone.device)
        parts = [p for p in (*module.parameters(), *head.parameters()) if p.requires_grad]
        full = sum(p.numel() for p in backbone.model.parameters()) if not spec["freeze"] else 0
        step_seconds = 0.0
        if parts or full:
            if full:
                backbone.unfreeze()
            try:
                step_seconds = _timed(lambda: torch.autograd.backward(head.loss(stack, batch)[0]))
            finally:
                backbone.freeze()
                backbone.model.zero_grad(set_to_none=True)
        predictor = Predictor(backbone, module, head, {}, [sample[0].language])
        same = [example for example in sample if example.language == sample[0].language]
        began = time.monotonic()
        predictor.predict(same)
        row_seconds = (time.monotonic() - began) / max(1, len(same))
        count = len(train)
        if spec["shots"]:
            count = min(
                count, spec["shots"] * (len(task.labels or ()) if task.kind != "tagging" else 1) or spec["shots"]
            )
        per_epoch = -(-count // (stage.batch_size * stage.accumulation))
        epochs = stage.epochs if stage.epochs or stage.steps else 20.0
        steps = stage.steps or round((epochs or 0) * per_epoch)
        scored = (20 if stage.steps else int(epochs or 0)) * len(dev) if stage.select != "last" else 0
        head_size = sum(t.numel() for t in head.state_dict().values())
        stored = sum(t.numel() for t in module.folded().weight_tensors().values()) + head_size + full
        if not (parts or full):
            steps = scored = 0
        return Cost(step_seconds, row_seconds, steps, sum(p.numel() for p in parts) + full, stored, scored)

    def rows(self, step: Step) -> tuple[Task, list[Example], list[Example]]:
        key = (str(step.spec["train"]), str(step.spec["dev"]), str(step.spec["task"]), step.spec["limit"])
        if key not in self._rows:
            self._rows[key] = training_rows(step, self._reader)
        return self._rows[key]

    def count(self, step: Step) -> int:
        """Rows that an evaluation scores, by the lines of its file."""
        key = (step.inputs["data"], step.spec["language"], step.spec["split"])
        if key not in self._counts:
            self._counts[key] = sources.row_count(*key) if sources.data_is_here(key[0]) else 0
        return min(self._counts[key], step.spec.get("limit") or self._counts[key])


def _fresh(spec: str, backbone: Backbone) -> TransferModule:
    module = create_module(parse_module(spec), backbone, seed=0)
    module.info.role, module.info.language = "language", "eng_Latn"
    return module


def _timed(work: Callable[[], None]) -> float:
    work()
    began = time.monotonic()
    for _ in range(_REPEATS):
        work()
    return (time.monotonic() - began) / _REPEATS
