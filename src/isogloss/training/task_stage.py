"""The task stage: a task module learned from labelled text of one or several source languages (S1 phase II, S2)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import ModuleConfig, TransferModule, format_module
from isogloss.stack import Bank, Stack
from isogloss.storage import content_key
from isogloss.tasks import Example, Task, evaluate_predictions, few_shot
from isogloss.tasks.heads import Encoded, Head, make_head, truncation
from isogloss.training.buckets import Batches, TokenBudgetBatches
from isogloss.training.config import FitConfig, LossResult, TrainedPart
from isogloss.training.defaults import check_given, optimisation
from isogloss.training.fit import fit
from isogloss.training.inference import Predictor
from isogloss.training.language_stage import EVERY, language_of
from isogloss.training.new_module import new_module
from isogloss.training.outputs import claim_output, save_output
from isogloss.training.pretrain import with_module_loss
from isogloss.training.progress import Progress
from isogloss.training.update import Update


@dataclass(frozen=True, kw_only=True)
class TaskStage:
    """What a task stage is told.

    Attributes:
        steps, epochs: One of the two; epochs=20 when neither is given.
        batch_size: Rows of a batch (before accumulation).
        tokens_per_batch: Most tokens of a batch, padding included.
        accumulation: Batches of one optimiser step.
        optimiser, learning_rate, weight_decay, schedule, warmup: None takes the default (defaults.py).
        momentum: Of SGD.
        clip: Largest norm of the gradient, 0 does not clip; None takes the default, or that of a learned rule.
        head_learning_rate: Rate of the head's own weights; None takes the module's (1e-3 at least, as a head is
            fresh; a learned start's is not).
        backbone_learning_rate: Rate of a backbone that is trained; None takes the module's.
        head: linear, span, verbaliser or text; None takes the kind's usual one.
        head_options: Options of the head.
        train: `modules` keeps the backbone frozen; `all` trains it too (S2's other arm, plain fine-tuning).
        shots: Examples a class (few-shot), or None for all.
        shots_seed: Of the few-shot draw; None takes `seed`.
        select: What chooses the best weights on source dev data: `metric`, `loss`, or `last` (no choice).
        patience: Evaluations without a gain before stopping, or None.
        precision: fp32, or bf16 for autocast.
        seed: Of initial values, sampling and order.
        prompt_fusion: See `Stack`.
        double_language_prompt: See `Stack`.
        tracker: An `accelerate` tracker's name.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 16
    tokens_per_batch: int | None = None
    accumulation: int = 1
    optimiser: str | None = None
    learning_rate: float | None = None
    momentum: float = 0.0
    clip: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    warmup: float | None = None
    head_learning_rate: float | None = None
    backbone_learning_rate: float | None = None
    head: str | None = None
    head_options: Mapping[str, Any] = field(default_factory=dict)
    train: Literal["modules", "all"] = "modules"
    shots: int | None = None
    shots_seed: int | None = None
    select: Literal["metric", "loss", "last"] = "metric"
    patience: int | None = None
    precision: str = "fp32"
    seed: int = 42
    prompt_fusion: Literal["concatenate", "average"] = "concatenate"
    double_language_prompt: bool = False
    tracker: str | None = None

    def __post_init__(self) -> None:
        """Refuses what cannot work on any backbone, before one is loaded."""
        check_given(self)

    @property
    def stack_options(self) -> dict[str, Any]:
        """Keyword arguments for `Stack`."""
        return {"prompt_fusion": self.prompt_fusion, "double_language_prompt": self.double_language_prompt}

    @property
    def learned(self) -> dict[str, Any]:
        """The fields that change what is learned, as plain data for a content key."""
        return {**vars(self), "head_options": dict(self.head_options), "tracker": None}


def train_task(
    backbone: Backbone,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    config: ModuleConfig,
    stage: TaskStage,
    out: str | Path,
    *,
    language_modules: Sequence[TransferModule] = (),
    data_name: str = "",
    split: str = "train",
    update: Update | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains a task module (and its head) and saves it.

    Args:
        backbone: Frozen unless `stage.train` is `all`.
        task: With or without its label set; a missing one is taken from `train`.
        train: Labelled examples of the source languages.
        dev: Examples of the same languages that choose the best weights; may be empty.
        config: From `parse_module`; `none` trains only the head, or the backbone.
        stage: How to train.
        out: Output folder; the same one continues an interrupted run.
        language_modules: Frozen: those of the source languages or none, and at most one that serves every language (a pool).
        data_name: For the record.
        split: Split that `train` is, for the record; evaluation refuses it.
        update: A learned update rule or start (`isogloss.meta.open_update`).
        overwrite: Replace what is there.
        progress: Where to show progress.

    Returns:
        `{"module", "steps", "seconds", "metrics": dev metrics, "history": losses and dev values by step, ...}`.

    Raises:
        IsoglossError: No training data, a source language without its module, an occupied output folder.
    """
    target = claim_output(out, overwrite=overwrite)
    if not train:
        raise IsoglossError("There are no training examples; check --data, --source and the split.")
    if task.has_labels and task.labels is None:
        task = task.with_labels_from(train)
    if stage.shots is not None:
        drawn = stage.seed if stage.shots_seed is None else stage.shots_seed
        sampled = few_shot(task, train, dev, stage.shots, seed=drawn)
        train, dev = list(sampled.train), list(sampled.dev)
    if update is not None:
        stage = update.prepare(backbone, task, config, stage)
    sources = list(dict.fromkeys(example.language for example in train))
    by_language = {language_of(module): module for module in language_modules}
    module = new_module(config, backbone, seed=stage.seed, labels=task.labels or ())
    module.info.role, module.info.task, module.info.language = "task", task.name, ",".join(sources)
    head = make_head(stage.head, task, backbone, default_seed=stage.seed, **dict(stage.head_options))
    with lent(backbone) if stage.train == "all" else nullcontext():
        if update is not None:
            update.begin(backbone, module, head, stage)
        predictor = Predictor(backbone, module, head, by_language, sources, stack_options=stage.stack_options)
        trainer = _Trainer(backbone, module, head, predictor, by_language, sources, stage, update)
        result = trainer.run(list(train), list(dev), target, progress, data_name)
        history = result.pop("history", [])
        metrics = evaluate_predictions(task, dev, predictor.predict(dev)[0]) if dev else {}
        if stage.train == "all":
            module.backbone_state = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    return keep_task(
        module,
        head,
        stage,
        by_language,
        sources,
        result,
        metrics,
        target,
        examples=len(train),
        data_name=data_name,
        split=split,
        update=update,
        history=history,
    )


def keep_task(
    module: TransferModule,
    head: Head,
    stage: TaskStage,
    by_language: Mapping[str, TransferModule],
    sources: Sequence[str],
    result: Mapping[str, Any],
    metrics: Mapping[str, float],
    target: Path,
    *,
    examples: int,
    data_name: str,
    split: str,
    update: Update | None = None,
    history: Sequence[Mapping[str, float]] = (),
) -> dict[str, Any]:
    """Writes what a task stage has trained, and returns what `train_task` does."""
    module.head = head if list(head.state_dict()) else None
    module.info.head = head.to_json()
    module.info.training = {
        "stage": "task",
        "data": data_name,
        "split": split,
        "source": sources,
        "language_modules": {code: by_language[code].digest or by_language[code].method for code in by_language},
        "language_method": next((found.method for code, found in by_language.items() if code != EVERY), "none"),
        "train": stage.train,
        "examples": examples,
        "shots": stage.shots,
        **({} if stage.shots_seed is None else {"shots_seed": stage.shots_seed}),
        "seed": stage.seed,
        "select": stage.select,
        "stack": stage.stack_options,
        "batch_size": stage.batch_size,
        **({} if update is None else {"update": dict(update.facts), "seen": sorted({*sources, *update.seen})}),
        **result,
    }
    module.info.scores = {"dev": dict(metrics)}
    save_output(module, target)
    return {
        "module": str(target),
        "task": module.info.task,
        "notation": predictor_notation(by_language, module),
        "steps": result["steps"],
        "seconds": result["seconds"],
        "parameters": result["parameters"],
        "metrics": dict(metrics),
        "history": list(history),
    }


def answers_key(rows: Sequence[Encoded]) -> str:
    """Content key of what rows teach."""
    return content_key([[row.labels, row.target] for row in rows])


def predictor_notation(by_language: Mapping[str, TransferModule], module: TransferModule) -> str:
    """The stack as people write it, the language part by its first source."""
    parts = [f"{found.method}:{found.info.label}" for code, found in by_language.items() if code == EVERY]
    parts += [f"{found.method}:{code}" for code, found in by_language.items() if code != EVERY][:1]
    return " > ".join([*parts, f"{module.method}:{module.info.label}"])


@contextmanager
def lent(backbone: Backbone) -> Iterator[None]:
    """Whatever becomes of an unfrozen training, also an interrupted one, the caller's backbone is as it was afterwards."""
    kept = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, parameter in backbone.model.named_parameters():
                parameter.copy_(kept[name])
        backbone.freeze()


class _Trainer:
    """Holds what one task stage trains; its parts are the module, the head and, unfrozen, the backbone."""

    def __init__(
        self,
        backbone: Backbone,
        module: TransferModule,
        head: Head,
        predictor: Predictor,
        by_language: Mapping[str, TransferModule],
        sources: Sequence[str],
        stage: TaskStage,
        update: Update | None = None,
    ) -> None:
        self.update = update
        self.backbone, self.module, self.head, self.predictor, self.stage = backbone, module, head, predictor, stage
        shared = [found for code, found in by_language.items() if code == EVERY]
        self.shared = [found.digest for found in shared]
        self.digests = {code: by_language[code].digest for code in sorted(by_language)}
        self.index = {code: number for number, code in enumerate(sources)} if len(by_language) > len(shared) else None
        parts: list[TransferModule | Bank] = [module]
        if self.index is not None:
            parts.insert(0, Bank([by_language[code] for code in sources]))
        self.stack = Stack(backbone, [*shared, *parts], **stage.stack_options)
        self.how = optimisation(
            backbone,
            module.method,
            full=stage.train == "all",
            optimiser=stage.optimiser,
            learning_rate=stage.learning_rate,
            weight_decay=stage.weight_decay,
            schedule=stage.schedule,
            warmup=stage.warmup,
            clip=stage.clip,
        )

    def parts(self) -> list[TrainedPart]:
        """Everything with gradients on, by part."""
        if self.stage.train == "all":
            self.backbone.unfreeze()
        else:
            self.backbone.freeze()
        head = [p for p in self.head.parameters() if p.requires_grad]
        rate = self.stage.head_learning_rate
        if rate is None and self.how.optimiser == "adamw":
            rate = max(self.how.learning_rate, 1e-3)
        found = [
            TrainedPart("module", [p for p in self.module.parameters() if p.requires_grad]),
            TrainedPart("head", head, learning_rate=rate),
        ]
        if self.stage.train == "all":
            weights = list(dict.fromkeys(self.backbone.model.parameters()))
            found.append(TrainedPart("backbone", weights, learning_rate=self.stage.backbone_learning_rate))
        return [part for part in found if part.parameters]

    def run(
        self, train: list[Example], dev: list[Example], folder: Path, progress: Progress | None, data_name: str
    ) -> dict[str, Any]:
        """Fits and returns facts for the record."""
        parts = self.parts()
        trained = sum(p.numel() for part in parts for p in part.parameters)
        facts: dict[str, Any] = {"parameters": trained, **vars(self.how), "steps": 0, "seconds": 0.0}
        if not parts:
            # The base cell: nothing is trained, the frozen model answers through its own LM head.
            return facts
        rows = self.head.encode(train, budget=self.stack.text_budget)
        facts["cut"] = truncation(rows).cut
        if progress and facts["cut"]:
            progress.note(f"{facts['cut']} of {len(rows)} rows are too long and are read to their limit only")
        sampler = TokenBudgetBatches(
            [row.length for row in rows],
            batch_size=self.stage.batch_size,
            tokens_per_batch=self.stage.tokens_per_batch,
            seed=self.stage.seed,
        )
        scorers = {"loss": self._dev_loss, "metric": self._dev_metric}
        scorer = scorers.get(self.stage.select) if dev else None
        modules: dict[str, nn.Module] = {"module": self.module, "head": self.head}
        if self.stage.train == "all":
            modules["backbone"] = self.backbone.model
        step = None if self.update is None else self.update.attach(modules, self.backbone)
        facts_of_update = {} if self.update is None else {"update": dict(self.update.facts)}
        result = fit(
            self._config(),
            parts=parts,
            batches=Batches(sampler, lambda items, generator: [rows[item] for item in items]),
            loss=lambda picked: self._loss(train, picked),
            validate=None if scorer is None else partial(scorer, dev),
            computing=[self.stack],
            modules=modules if step is None else {**modules, "update": step},  # type: ignore[dict-item]
            update=step,
            folder=folder,
            progress=progress,
            identity={
                **facts_of_update,
                "module": format_module(self.module.config),
                "backbone": self.backbone.fingerprint,
                "head": self.head.to_json(),
                "data": data_name,
                "rows": content_key([row.input_ids for row in rows]),
                "languages": sorted(self.index or ()),
                **({"shared": self.shared} if self.shared else {}),
            },
            settings={
                "stage": self.stage.learned,
                "answers": answers_key(rows),
                "dev": content_key([[item.content(), item.label, item.tags] for item in dev]),
                "language_modules": self.digests,
            },
        )
        return {
            **facts,
            "steps": result.steps,
            "seconds": round(result.seconds, 1),
            "tokens": result.tokens,
            "best_step": result.best_step,
            "history": [dict(entry) for entry in result.history],
        }

    def _config(self) -> FitConfig:
        epochs = self.stage.epochs if self.stage.epochs or self.stage.steps else 20.0
        return FitConfig(
            steps=self.stage.steps,
            epochs=None if self.stage.steps else epochs,
            accumulation=self.stage.accumulation,
            learning_rate=self.how.learning_rate,
            optimiser=self.how.optimiser,  # type: ignore[arg-type]
            momentum=self.stage.momentum,
            weight_decay=self.how.weight_decay,
            schedule=self.how.schedule,  # type: ignore[arg-type]
            warmup=self.how.warmup,
            clip=self.how.clip,
            higher_is_better=self.stage.select != "loss",
            keep_best=self.stage.select != "last",
            eval_every=max(1, self.stage.steps // 20) if self.stage.steps else None,
            patience=self.stage.patience,
            precision=self.stage.precision,  # type: ignore[arg-type]
            seed=self.stage.seed,
            checkpoint_seconds=120.0,
            split_batches=True,
            tracker=self.stage.tracker,
        )

    def _loss(self, examples: Sequence[Example], picked: Sequence[Any]) -> LossResult:
        spoken = [examples[row.example].language for row in picked]
        routes: dict[str, Any] = dict(self.stack.language_routes(spoken))
        if self.index is not None:
            routes["language"] = [self.index[code] for code in spoken]
        batch = self.head.collate(picked, routes or None).to(self.backbone.device)
        total, count = self.head.loss(self.stack, batch)
        return with_module_loss(self.stack, LossResult(total, count, batch.tokens))

    def _dev_metric(self, dev: Sequence[Example]) -> float:
        decoded, _, _ = self.predictor.predict(dev)
        task = self.head.task
        return float(evaluate_predictions(task, dev, decoded)[task.primary])

    def _dev_loss(self, dev: Sequence[Example]) -> float:
        rows = self.head.encode(dev, budget=self.stack.text_budget)
        total = count = 0.0
        for items in TokenBudgetBatches(
            [row.length for row in rows], batch_size=self.stage.batch_size, shuffle=False
        ).epoch_batches():
            result = self._loss(dev, [rows[item] for item in items])
            total, count = total + float(result.total), count + result.count
        return total / max(count, 1)
