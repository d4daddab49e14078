"""Several task stages that differ only in their seed, in one pass over the frozen backbone (design 5.2).

Each seed keeps its own module, head, sample, order of batches, gradient clipping and choice of the best weights; only the
forward and backward pass through the backbone is shared, with the modules in a routed bank. So each comes out as
`train_task` would train it, to float tolerance.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import ModuleConfig, PoolConfig, TransferModule, format_module
from isogloss.stack import Bank, Stack, StackOutput, TextBatch
from isogloss.storage import content_key
from isogloss.tasks import Example, Task, evaluate_predictions
from isogloss.tasks.heads import TaskBatch
from isogloss.training._seeds import BestOfEach, Generators, Seed, SeedBatches, StepEach
from isogloss.training.config import LossResult, TrainedPart
from isogloss.training.fit import fit
from isogloss.training.language_stage import EVERY, language_of
from isogloss.training.progress import Progress
from isogloss.training.task_stage import TaskStage, answers_key, keep_task


def can_share(backbone_kind: str | None, config: ModuleConfig, stage: TaskStage) -> bool:
    """Whether seeds of a stage can be trained in one pass.

    Not with an unfrozen backbone, several batches a step, batches by tokens (their number differs from seed to seed),
    early stopping, targets that are written by a decoder of its own, dropout inside the module, or a pool, whose own loss
    and routes belong to one stack.
    """
    return not (getattr(config, "dropout", 0.0) or isinstance(config, PoolConfig)) and (
        stage.train == "modules"
        and stage.accumulation == 1
        and stage.tokens_per_batch is None
        and stage.patience is None
        and backbone_kind in ("encoder", "decoder")
    )


def train_task_seeds(
    backbone: Backbone,
    task: Task,
    train: Sequence[Example],
    dev: Sequence[Example],
    config: ModuleConfig,
    stages: Sequence[TaskStage],
    outs: Sequence[Path],
    folder: Path,
    *,
    language_modules: Sequence[TransferModule] = (),
    data_name: str = "",
    split: str = "train",
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Trains one task module a stage and saves each; see `train_task`.

    Args:
        backbone: Frozen.
        task: With or without its label set.
        train: Labelled examples of the source languages.
        dev: Examples that choose the best weights; may be empty.
        config: From `parse_module`.
        stages: Equal but for their seeds; `can_share` allows them.
        outs: One output folder a stage, absent or empty.
        folder: Where the checkpoints of the common run are kept; the caller deletes it.
        language_modules: Frozen modules of the source languages, all or none of them.
        data_name: For the record.
        split: For the record.
        progress: Where to show progress.

    Returns:
        What `train_task` returns, one a stage; losses are means over the seeds.

    Raises:
        IsoglossError: What `train_task` refuses, or stages that differ in more than their seeds.
    """
    if len({str(replace(stage, seed=0)) for stage in stages}) != 1 or not can_share(backbone.kind, config, stages[0]):
        raise IsoglossError("These task stages cannot be trained in one pass; train each by itself.")
    if not train:
        raise IsoglossError("There are no training examples; check --data, --source and the split.")
    if task.has_labels and task.labels is None:
        task = task.with_labels_from(train)
    by_language = {language_of(module): module for module in language_modules}
    if EVERY in by_language or backbone.pool:
        raise IsoglossError(
            "Over a module that serves every language, or on a backbone with a prompt pool of its own, seeds are trained one at a time."
        )
    runs = [Seed(backbone, task, train, dev, config, stage, by_language) for stage in stages]
    random = Generators(stages, backbone.device)
    together = _Together(backbone, runs, random)
    first = runs[0].trainer
    best = BestOfEach(runs, higher=first.stage.select != "loss")
    result = fit(
        replace(first._config(), clip=None, keep_best=False),
        parts=_parts(runs),
        batches=SeedBatches(runs),
        loss=together.loss,
        validate=best.validate if runs[0].dev and first.stage.select != "last" else None,
        computing=[together.stack],
        modules={
            **{f"module{n}": run.module for n, run in enumerate(runs)},
            **{f"head{n}": run.head for n, run in enumerate(runs)},
            "best": best,
            "random": random,
        },
        update=StepEach(runs, first.how.clip, best),
        folder=folder,
        progress=progress,
        identity={
            "module": format_module(config),
            "backbone": backbone.fingerprint,
            "head": runs[0].head.to_json(),
            "data": data_name,
            "seeds": [run.stage.seed for run in runs],
            "rows": content_key([[row.input_ids for row in run.rows] for run in runs]),
            "languages": sorted(by_language),
        },
        settings={
            "stage": replace(stages[0], seed=0).learned,
            "answers": [answers_key(run.rows) for run in runs],
            "language_modules": first.digests,
        },
    )
    best.put_back()
    count = len(runs)
    history = [
        {key: value / count if key == "loss" else value for key, value in entry.items()} for entry in result.history
    ]
    made = []
    for number, (run, out) in enumerate(zip(runs, outs, strict=True)):
        metrics = evaluate_predictions(task, run.dev, run.predictor.predict(run.dev)[0]) if run.dev else {}
        facts = {
            "parameters": sum(p.numel() for part in run.trainer.parts() for p in part.parameters),
            **vars(run.trainer.how),
            "steps": result.steps,
            "seconds": round(result.seconds / count, 1),
            "tokens": result.tokens // count,
            "best_step": best.step_of(number),
            "seeds_together": count,
        }
        found = keep_task(
            run.module, run.head, run.stage, by_language, run.sources, facts, metrics, out,
            examples=len(run.train), data_name=data_name, split=split, history=history,
        )  # fmt: skip
        made.append(found)
    return made


def _parts(runs: Sequence[Seed]) -> list[TrainedPart]:
    found: dict[str, TrainedPart] = {}
    for run in runs:
        for part in run.trainer.parts():
            before = found[part.name].parameters if part.name in found else []
            found[part.name] = TrainedPart(part.name, [*before, *part.parameters], learning_rate=part.learning_rate)
    return list(found.values())


class _Together:
    """The common pass: all seeds' rows in one batch, their modules in one bank."""

    def __init__(self, backbone: Backbone, runs: Sequence[Seed], random: "Generators") -> None:
        self.backbone, self.runs, self.random = backbone, runs, random
        # The seeds' own stacks have the language bank in front, the same in all of them; the task part becomes a bank
        # over the seeds.
        language = [slot.bank or slot.single for slot in runs[0].trainer.stack.slots[:-1]]
        self.routed = bool(runs[0].trainer.parts()) and runs[0].module.method != "none"
        task = Bank([run.module for run in runs]) if self.routed else runs[0].module
        self.stack = Stack(backbone, [*language, task], **runs[0].stage.stack_options)
        self.slot = self.stack.slots[-1].name

    def loss(self, picked: Sequence[Sequence[Any]]) -> LossResult:
        """The sum over seeds of their mean losses, so that each gets the gradient it would have alone."""
        batches = [self._batch(run, rows) for run, rows in zip(self.runs, picked, strict=True)]
        shared = _Shared(self, batches)
        losses, tokens = [], 0
        for number, (run, batch) in enumerate(zip(self.runs, batches, strict=True)):
            with self.random.of(number):
                total, count = run.head.loss(_View(run.trainer.stack, shared, number), batch)  # type: ignore[arg-type]
            losses.append(total / max(float(count), 1.0))
            tokens += batch.tokens
        return LossResult(torch.stack(losses).sum(), 1, tokens)

    def _batch(self, run: Seed, rows: Sequence[Any]) -> TaskBatch:
        index = run.trainer.index
        routes = None
        if index is not None:
            routes = {"language": [index[run.train[row.example].language] for row in rows]}
        return run.head.collate(rows, routes).to(self.backbone.device)

    def run(self, texts: Sequence[TextBatch]) -> StackOutput:
        """One forward pass over the rows of all seeds."""
        width = max(int(text.input_ids.shape[1]) for text in texts)

        def wide(tensor: Tensor, value: int) -> Tensor:
            return F.pad(tensor, (0, width - tensor.shape[1]), value=value)

        counts = torch.tensor([len(text.input_ids) for text in texts])
        routes = {name: torch.cat([(text.routes or {})[name] for text in texts]) for name in texts[0].routes or {}}
        if self.routed:
            routes[self.slot] = torch.arange(len(texts)).repeat_interleave(counts).to(self.backbone.device)
        types = None
        if texts[0].token_type_ids is not None:
            types = torch.cat([wide(text.token_type_ids, 0) for text in texts])  # type: ignore[arg-type]
        return self.stack.run(
            TextBatch(
                torch.cat([wide(text.input_ids, self.backbone.pad_id) for text in texts]),
                torch.cat([wide(text.attention_mask, 0) for text in texts]),
                token_type_ids=types,
                routes=routes or None,
            )
        )


class _Shared:
    """The common pass of one step, run when the first head asks."""

    def __init__(self, together: _Together, batches: Sequence[TaskBatch]) -> None:
        self._together, self.texts = together, [batch.text for batch in batches]
        self._output: StackOutput | None = None

    def of(self, number: int) -> StackOutput:
        """What a seed's own stack would have returned for its text."""
        if self._output is None:
            self._output = self._together.run(self.texts)
        full, text = self._output, self.texts[number]
        first = sum(len(other.input_ids) for other in self.texts[:number])
        rows = slice(first, first + len(text.input_ids))
        to_head = full.to_head
        return StackOutput(
            full.text_hidden[rows, : text.input_ids.shape[1]],
            full.last_hidden[rows],
            text.attention_mask,
            to_head=None if to_head is None else lambda states, at: to_head(states, at + first),
        )


class _View:
    """A seed's stack as its head sees it: its batch of this step comes from the common pass, all else from itself."""

    def __init__(self, own: Stack, shared: _Shared, number: int) -> None:
        self._own, self._shared, self._number = own, shared, number

    def run(self, text: TextBatch) -> StackOutput:
        expected = self._shared.texts[self._number]
        if text.input_ids is expected.input_ids and text.decoder_input_ids is None:
            return self._shared.of(self._number)
        return self._own.run(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._own, name)
