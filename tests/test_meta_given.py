"""What meta-training is given and must not trip over: a backbone that something else trained, starts of others, bad numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from isogloss.backbones import Backbone
from isogloss.meta import load_rule
from isogloss.modules import parse_module
from isogloss.tasks import Example
from isogloss.training.task_stage import TaskStage, train_task
from tests.test_meta_training import STAGE, TASK, backbone, examples, rule, same

__all__ = ["backbone"]


def first_tuning(backbone: Backbone, out: Path, rows: list[Example] | None = None, **changes: Any) -> Path:
    """A short plain fine-tuning."""
    stage = TaskStage(steps=2, batch_size=4, select="last", **{"train": "all", **changes})
    train_task(backbone, TASK, rows or examples("eng_Latn"), [], parse_module("none"), stage, out)
    return out


def test_what_a_training_before_it_left_does_not_reach_a_rule(backbone: Backbone, tmp_path: Path) -> None:
    """Gradients of the last step of a fine-tuning stood in the backbone, and the first inner step added them to its own."""
    stage = replace(STAGE, train="all", outer_steps=3, learning_rate=None)
    rule(backbone, tmp_path / "fresh", stage, "none")
    first_tuning(backbone, tmp_path / "tuned")
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    for parameter in backbone.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    rule(backbone, tmp_path / "after", stage, "none")
    first, second = (load_rule(tmp_path / name)[0].state_dict() for name in ("fresh", "after"))
    assert same(first, second)
