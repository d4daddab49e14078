"""Learning an update rule: simulated zero-shot transfer, episode after episode, in the one fit loop.

Xu et al. 2021, https://arxiv.org/abs/2107.09840 (papers.md 4.2; reconstruction). A trajectory fine-tunes from the start
for `horizon` gated steps on the source language and then begins again; every window of it ends with a query in an
auxiliary language, whose gradient goes to the rule.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.meta.beginning import begin, check_smooth
from isogloss.meta.episodes import Episode, Episodes, by_language, share_out
from isogloss.meta.inner import Clock, Inner
from isogloss.meta.objective import twice_differentiable
from isogloss.meta.outer import Window, first_order, unrolled
from isogloss.meta.rules import LEARNED, Rule, make_rule
from isogloss.meta.saved import RuleRecord, parameters_of, save_rule
from isogloss.meta.stage import MetaStage, Parts, build_parts, check_memory
from isogloss.meta.trajectory import Trajectory, part_of
from isogloss.modules import ModuleConfig, TransferModule, format_module
from isogloss.storage import content_key
from isogloss.tasks import Example, Task
from isogloss.tasks.heads import Encoded, make_head
from isogloss.training.checkpoint import discard_checkpoints
from isogloss.training.config import FitConfig, LossResult, TrainedPart
from isogloss.training.fit import fit
from isogloss.training.new_module import new_module
from isogloss.training.progress import Progress

# Adam moves a logit by about its rate a step: a hundred outer steps must be able to shut a gate.
_OUTER_RATES = {"gates": 0.1, "step-gates": 0.1, "meta-sgd": 0.05, "lstm-gates": 0.01, "recurrent": 0.01}


def learn_rule(
    backbone: Backbone,
    task: Task,
    source: Sequence[Example],
    auxiliary: Sequence[Example],
    config: ModuleConfig,
    stage: MetaStage,
    out: str | Path,
    *,
    targets: Sequence[str] = (),
    language_modules: Sequence[TransferModule] = (),
    data_name: str = "",
    split: str = "train",
    auxiliary_split: str = "train",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Learns how far each group of weights should move, and saves the rule.

    Args:
        backbone: Given back as it was.
        task: With or without its label set.
        source: Labelled examples that support.
        auxiliary: Labelled examples of other languages, that query.
        config: The module among the fast weights; `none` with `stage.train` `all` moves the backbone alone.
        stage: How.
        out: Output folder; the same one continues an interrupted run.
        targets: Codes that will be scored as zero-shot, refused among the auxiliaries and recorded.
        language_modules: Frozen modules of every language of the episodes, or none.
        data_name: For the record.
        split: Split of `source`, for the record.
        auxiliary_split: Split of `auxiliary`, for the record; evaluation refuses it.
        overwrite: Replace what is there.
        progress: Where to show progress.

    Returns:
        `{"rule", "method", "steps", "seconds", "parameters", "gates", ...}`.

    Raises:
        IsoglossError: Languages that do not fit, no data, too little memory, an occupied output folder.
    """
    if stage.method not in LEARNED:
        raise IsoglossError(f"The method '{stage.method}' learns no update rule; use one of {', '.join(LEARNED)}.")
    given = begin(task, source, auxiliary, targets, language_modules, out, overwrite=overwrite)
    task, target = given.task, given.target
    support, query = share_out(source, auxiliary, roles=stage.roles, disjoint=stage.disjoint)
    module = new_module(config, backbone, seed=stage.seed, labels=task.labels or ())
    head = make_head(stage.head, task, backbone, default_seed=stage.seed, **dict(stage.head_options))
    with ExitStack() as ends:
        ends.callback(backbone.freeze)
        parts = build_parts(backbone, module, head, stage, language_modules)
        rule = make_rule(stage.method, parts.weights.groups, parts.weights.layers, **dict(stage.options))
        rule.to(parts.weights.device)
        encode = partial(head.encode, budget=parts.stack.text_budget)
        rows = [by_language(found, encode) for found in (support, query)]
        second = stage.order == "second" and stage.inner_steps > 1
        everything = [row for found in rows for part in found.values() for row in part]
        memory = check_memory(parts, stage, everything, second_order=second, copies=1)
        if second:
            check_smooth(head, "--order second", "--order first")
        if progress:
            progress.note(str(memory))
        learner = _Learner(parts, rule, stage)
        ends.callback(learner.trajectory.restart)
        result = fit(
            FitConfig(
                steps=stage.outer_steps,
                learning_rate=stage.outer_learning_rate or _OUTER_RATES[stage.method],
                schedule="linear",
                keep_best=False,
                seed=stage.seed,
                checkpoint_seconds=stage.checkpoint_seconds,
                tracker=stage.tracker,
            ),
            parts=[TrainedPart("rule", list(rule.parameters()))],
            batches=episodes(rows[0], rows[1], stage),
            loss=learner.loss,
            modules={"rule": rule, "trajectory": learner.trajectory},
            folder=target,
            progress=progress,
            identity=identity(parts, rows, stage, data_name),
        )
    record = RuleRecord(
        method=stage.method,
        options=rule.options(),
        groups=list(rule.groups),
        layers=list(rule.layers),
        by=stage.by,
        base=parts.base.to_json(),
        learning_rate=parts.how.learning_rate,
        head_learning_rate=parts.head_rate,
        clip=stage.clip or None,
        backbone=backbone.name,
        fingerprint=backbone.fingerprint,
        task=task.name,
        labels=list(task.labels or ()),
        module=format_module(config),
        train=stage.train,
        source=given.sources,
        auxiliary=given.auxiliaries,
        gates=learner.gates(),
        training={
            "data": data_name,
            "split": split,
            "auxiliary_split": auxiliary_split,
            "targets": list(targets),
            "support_examples": len(support),
            "query_examples": len(query),
            "inner_steps": stage.inner_steps,
            "horizon": stage.horizon,
            "order": stage.order,
            "roles": stage.roles,
            "outer_steps": result.steps,
            "batch_size": stage.batch_size,
            "seed": stage.seed,
            "seconds": round(result.seconds, 1),
            "parameters": parameters_of(rule),
            "history": list(result.history),
        },
    )
    save_rule(rule, record, target, overwrite=True)
    discard_checkpoints(target)
    return {
        "rule": str(target),
        "method": stage.method,
        **given.outcome(result, memory.total),
        "parameters": parameters_of(rule),
        "gates": gates_by_group(record),
    }


class _Learner:
    """The loss of an episode for `fit`: it moves the trajectory on and leaves the outer gradient in the rule."""

    def __init__(self, parts: Parts, rule: Rule, stage: MetaStage) -> None:
        self.parts, self.stage = parts, stage
        self.inner = Inner(parts.weights, rule, parts.base, parts.rates, stage.clip or None)
        self.trajectory = Trajectory(self.inner, stage.horizon)
        self._names = parts.objective.names_of(parts.weights)

    @torch.no_grad()
    def gates(self) -> list[list[float]]:
        """Mean gates by part of a fine-tuning and group.

        Those that the rule sets now; where they depend on gradients, those it has set of late, as it was learned.
        """
        if self.inner.rule.sees_features:
            return self.trajectory.mean_gates()
        parts: dict[int, list[Tensor]] = {}
        for step in range(self.stage.horizon):
            clock = Clock(step, self.stage.horizon)
            parts.setdefault(part_of(clock), []).append(self.inner.rule.gates(None, clock.progress, {})[0])
        return [[round(value, 6) for value in torch.stack(found).mean(0).tolist()] for found in parts.values()]

    def loss(self, episode: Episode) -> LossResult:
        """The query loss; without a graph, as the gradients are in place already."""
        objective = self.parts.objective
        objective.tokens = 0
        # Dropout as in plain fine-tuning; a query is scored as an evaluation would be.
        window = self._window(episode)
        self.trajectory.advance(window)
        return LossResult(window.query_loss, 1, objective.tokens)

    def _window(self, episode: Episode) -> Window:
        place = (self.trajectory.moments, self.trajectory.state, self.trajectory.clock)
        support = [(rows, True) for rows in episode.support]
        query = (episode.query, False)
        if self.stage.order == "first" or self.stage.inner_steps == 1:
            return first_order(self.inner, self._at_live, support, query, *place)
        with twice_differentiable(self.parts.backbone.model):
            return unrolled(self.inner, self._at, support, query, *place, checkpoint=self.stage.checkpoint)

    def _at_live(self, batch: tuple[list[Encoded], bool]) -> Tensor:
        self.parts.objective.train(batch[1])
        found: Tensor = self.parts.objective(batch[0])
        return found

    def _at(self, values: Sequence[Tensor], batch: tuple[list[Encoded], bool]) -> Tensor:
        self.parts.objective.train(batch[1])
        return self.parts.objective.at(dict(zip(self._names, values, strict=True)), batch[0])


def episodes(
    support: Mapping[str, Sequence[Encoded]], query: Mapping[str, Sequence[Encoded]], stage: MetaStage
) -> Episodes:
    """The episodes of a stage."""
    return Episodes(
        support,
        query,
        steps=stage.inner_steps,
        support_size=stage.batch_size,
        query_size=stage.query_size or stage.batch_size,
        seed=stage.seed,
    )


def identity(
    parts: Parts, rows: Sequence[Mapping[str, Sequence[Encoded]]], stage: MetaStage, data_name: str
) -> dict[str, Any]:
    """What tells one meta-training from another, for its checkpoints."""
    return {
        "stage": {
            key: value for key, value in vars(stage).items() if key not in ("tracker", "memory", "checkpoint_seconds")
        }
        | {"options": dict(stage.options), "head_options": dict(stage.head_options)},
        "module": format_module(parts.module.config),
        "backbone": parts.backbone.fingerprint,
        "head": parts.head.to_json(),
        "data": data_name,
        "rows": content_key(
            [{code: [row.input_ids for row in part] for code, part in found.items()} for found in rows]
        ),
    }


def gates_by_group(record: RuleRecord) -> dict[str, float]:
    """Mean gate of each group over the fine-tuning."""
    if not record.gates:
        return {}
    columns = torch.tensor(record.gates).mean(0).tolist()
    return {group: round(value, 4) for group, value in zip(record.groups, columns, strict=True)}
