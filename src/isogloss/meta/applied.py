"""A learned rule, a control or a learned start at work in an ordinary task training (`train task --update`)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module, read_info
from isogloss.meta.features import group_features, statistics
from isogloss.meta.groups import By, FastWeights, fast_weights
from isogloss.meta.rules import Rule, State, control_options, control_rule, is_control
from isogloss.meta.saved import RuleRecord, is_rule, load_rule, read_rule, rule_digest
from isogloss.modules import ModuleConfig, TransferModule, format_module
from isogloss.tasks import Task
from isogloss.training.defaults import optimisation
from isogloss.training.task_stage import TaskStage
from isogloss.training.update import Update


class GatedStep(nn.Module):
    """An optimiser's step, scaled group by group: theta <- theta - g_l u_l, where u is what the optimiser subtracts.

    A gate of 1 leaves the optimiser's result as it is and a gate of 0 the weight, both to the bit.

    Args:
        rule: Frozen.
        weights: The trained weights with the rule's groups.
    """

    def __init__(self, rule: Rule, weights: FastWeights) -> None:
        super().__init__()
        self.rule, self._weights = rule, weights
        for name, tensor in rule.begin().items():
            self.register_buffer(f"state_{name}", tensor.detach().clone())

    @torch.no_grad()
    def step(self, optimiser: Optimizer, loss: Tensor, progress: float) -> None:
        """One step; see `UpdateStep`."""
        parameters = self._weights.parameters
        if self.rule.sees_features:
            before = [parameter.detach().clone() for parameter in parameters]
            optimiser.step()
            steps = [None if p.grad is None else old - p for p, old in zip(parameters, before, strict=True)]
            gradients = [parameter.grad for parameter in parameters]
            value = loss.to(torch.float32)
            features = group_features(self._weights, before, statistics(gradients), steps, value, progress)
            del steps
            gates = self._gates(features, progress)
            kept: list[Tensor | None] = list(before)
        else:
            gates = self._gates(None, progress)
            kept = [
                None if gates[group] == 1.0 else parameter.detach().clone()
                for parameter, group in zip(parameters, self._weights.group_of, strict=True)
            ]
            optimiser.step()
        for parameter, old, group in zip(parameters, kept, self._weights.group_of, strict=True):
            if old is None or gates[group] == 1.0:
                continue
            if gates[group] == 0.0:
                parameter.copy_(old)
            else:
                parameter.copy_(torch.lerp(old, parameter, gates[group]))

    def _gates(self, features: Any, progress: float) -> list[float]:
        state: State = {name: self.get_buffer(f"state_{name}") for name in self.rule.begin()}
        gates, after = self.rule.gates(features, progress, state)
        for name, tensor in after.items():
            self.get_buffer(f"state_{name}").copy_(tensor)
        return gates.tolist()


class RuleUpdate:
    """A saved rule. See `Update`.

    Args:
        folder: Written by `save_rule`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.rule, self.record = load_rule(folder)
        self.seen: Sequence[str] = self.record.seen
        self.facts: Mapping[str, Any] = {
            "method": self.record.method,
            "rule": rule_digest(folder),
            "auxiliary": self.record.auxiliary,
            "data": self.record.training.get("data", ""),
            "split": self.record.training.get("auxiliary_split", "train"),
        }

    def prepare(self, backbone: Backbone, task: Task, config: ModuleConfig, stage: TaskStage) -> TaskStage:
        """Refuses other backbones, tasks and modules; takes base step, rates and clipping from the rule where none are given."""
        check_record(self.record, backbone, task, config, stage)
        base = self.record.base
        name = {"adam": "adamw"}.get(base["name"], "sgd")
        return replace(
            stage,
            optimiser=stage.optimiser or name,
            learning_rate=stage.learning_rate if stage.learning_rate is not None else self.record.learning_rate,
            head_learning_rate=(
                stage.head_learning_rate if stage.head_learning_rate is not None else self.record.head_learning_rate
            ),
            momentum=base["momentum"] if base["name"] == "momentum" else stage.momentum,
            # The rule was learned on steps clipped so; it may not have clipped at all.
            clip=stage.clip if stage.clip is not None else self.record.clip or 0.0,
        )

    def begin(self, backbone: Backbone, module: TransferModule, head: nn.Module, stage: TaskStage) -> None:
        """A rule brings no weights."""

    def attach(self, parts: Mapping[str, nn.Module], backbone: Backbone) -> GatedStep:
        """The gated step.

        Raises:
            IsoglossError: The trained weights fall into other groups than the rule has.
        """
        weights = fast_weights(parts, backbone, self.record.by)  # type: ignore[arg-type]
        if list(weights.groups) != self.record.groups:
            raise IsoglossError(
                "--update: the weights to train fall into other groups than those of the rule; use the head and module "
                "that it was learned with."
            )
        return GatedStep(self.rule.to(weights.device), weights)


def check_record(record: RuleRecord, backbone: Backbone, task: Task, config: ModuleConfig, stage: TaskStage) -> None:
    """Raises when a rule was learned for something else."""
    record.refuse_other(
        fingerprint=backbone.fingerprint,
        backbone=backbone.name,
        task=task.name,
        module=format_module(config),
        train=stage.train,
    )


class ControlUpdate:
    """A rule that nobody learned. See `Update`.

    Args:
        text: `all-open`, `all-shut`, `bottom:N` or `random:MEAN[:SEED]`.
        by: Grouping.
    """

    def __init__(self, text: str, by: By = "layer") -> None:
        self._text, self._by = text, by
        control_options(text)
        self.seen: Sequence[str] = ()
        self.facts: Mapping[str, Any] = {"method": text, "by": by}

    def prepare(self, backbone: Backbone, task: Task, config: ModuleConfig, stage: TaskStage) -> TaskStage:
        """Fits everything."""
        return stage

    def begin(self, backbone: Backbone, module: TransferModule, head: nn.Module, stage: TaskStage) -> None:
        """A control brings no weights."""

    def attach(self, parts: Mapping[str, nn.Module], backbone: Backbone) -> GatedStep:
        """The gated step."""
        weights = fast_weights(parts, backbone, self._by)
        return GatedStep(control_rule(self._text, weights.groups, weights.layers).to(weights.device), weights)


class StartUpdate:
    """A meta-learned initialisation, a task module of `isogloss meta learn`. See `Update`.

    Args:
        folder: Of the task module.
    """

    def __init__(self, folder: str | Path) -> None:
        saved = read_info(folder)
        self._folder, self._info = folder, saved.info
        meta = saved.info.training["meta"]
        self._spec, self._train = format_module(saved.config), str(saved.info.training.get("train"))
        self.seen: Sequence[str] = list(saved.info.training["seen"])
        self.facts: Mapping[str, Any] = {
            "method": meta["method"],
            "start": saved.digest,
            "auxiliary": meta["auxiliary"],
            "data": meta.get("data", saved.info.training["data"]),
            "split": meta["split"],
        }

    def prepare(self, backbone: Backbone, task: Task, config: ModuleConfig, stage: TaskStage) -> TaskStage:
        """Refuses other backbones, tasks and modules; the head learns as fast as the rest, as it is not fresh."""
        info = self._info
        if info.fingerprint != backbone.fingerprint:
            raise IsoglossError(
                f"--update: the start was learned on {info.backbone} (fingerprint {info.fingerprint}), but the backbone is "
                f"{backbone.name} (fingerprint {backbone.fingerprint}); load the backbone that it names."
            )
        if info.task != task.name:
            raise IsoglossError(
                f"--update: the start was learned for the task {info.task}, not {task.name}; learn one for it."
            )
        if format_module(config) != self._spec:
            raise IsoglossError(
                f"--update: the start was learned with --module {self._spec}, not {format_module(config)}; give that one."
            )
        if stage.head_learning_rate is not None:
            return stage
        usual = optimisation(
            backbone,
            config.method,
            full=stage.train == "all",
            optimiser=stage.optimiser,
            learning_rate=stage.learning_rate,
        )
        return replace(stage, head_learning_rate=usual.learning_rate)

    def begin(self, backbone: Backbone, module: TransferModule, head: nn.Module, stage: TaskStage) -> None:
        """Puts the learned weights in place of the fresh ones.

        Raises:
            IsoglossError: The head is another one.
        """
        saved = load_module(self._folder, backbone)
        set_weights(saved, backbone, module, head, full=stage.train == "all")

    def attach(self, parts: Mapping[str, nn.Module], backbone: Backbone) -> None:
        """The optimiser steps as it always does."""


@torch.no_grad()
def set_weights(
    saved: TransferModule, backbone: Backbone, module: TransferModule, head: nn.Module, *, full: bool
) -> None:
    """Copies a saved task module into live parts.

    Args:
        saved: From `load_module`.
        backbone: Gets the changed weights, if `full`.
        module: Of the same config.
        head: Of the same kind and label set.
        full: Whether the backbone is trained; otherwise changed weights are carried by the module.

    Raises:
        IsoglossError: The head has other weights or labels.
    """
    found = saved.weight_tensors()
    for name, tensor in module.weight_tensors().items():
        tensor.copy_(found[name])
    wanted, given = head.state_dict(), saved.head_state
    task: Any = saved.info.head.get("task", {})
    labels = list(getattr(head, "labels", ()))
    if {name: tensor.shape for name, tensor in wanted.items()} != {
        name: tensor.shape for name, tensor in given.items()
    } or list(task.get("labels") or ()) != labels:
        raise IsoglossError(
            f"--update: the learned start has another head or label set ({', '.join(task.get('labels') or ()) or 'none'}) than "
            f"this training ({', '.join(labels) or 'none'}); use the same --head and --labels."
        )
    head.load_state_dict(given)
    if not saved.backbone_state:
        return
    if not full:
        module.backbone_state = dict(saved.backbone_state)
        return
    live = dict(backbone.model.named_parameters(remove_duplicate=False))
    for name, tensor in saved.backbone_state.items():
        live[name].copy_(tensor)


def open_update(text: str, by: By = "layer") -> Update:
    """What the value of `--update` means.

    Args:
        text: Folder of a rule or of a learned start, or a control.
        by: Grouping, for controls.

    Raises:
        IsoglossError: It is none of these.
    """
    if is_rule(text):
        return RuleUpdate(text)
    if is_start(text):
        return StartUpdate(text)
    if is_control(text):
        return ControlUpdate(text, by)
    if Path(text).is_dir():
        raise IsoglossError(
            f"--update {text}: this folder holds neither an update rule nor a learned start; make one by `isogloss meta learn`."
        )
    control_options(text)
    raise AssertionError


def is_start(folder: str | Path) -> bool:
    """Whether a folder holds a task module with a meta-learned start."""
    place = Path(folder)
    return (place / "module.json").is_file() and "meta" in read_info(place).info.training


def refuse_early(text: str, *, task: str, module: str, train: str) -> str | None:
    """Checks what needs no model.

    Returns:
        Fingerprint that the backbone must have, if there is one.

    Raises:
        IsoglossError: Another task or module.
    """
    if not is_rule(text):
        open_update(text)
        return None
    record = read_rule(text)
    record.refuse_other(fingerprint=record.fingerprint, backbone=record.backbone, task=task, module=module, train=train)
    return record.fingerprint
