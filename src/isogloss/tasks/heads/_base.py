"""What all heads share: task, backbone, tokens, length limit, padding, JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.stack import TextBatch
from isogloss.tasks.examples import Example
from isogloss.tasks.heads._coder import Coder
from isogloss.tasks.heads.protocol import Encoded, Prediction, Routes, TaskHead
from isogloss.tasks.task import Task


class Head(nn.Module, TaskHead):
    """Base of the heads.

    Args:
        task: With its label set, if its kind has one.
        backbone: What it will run on.
        max_length: Most tokens of a row; None is as many as the model takes.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]

    def __init__(self, task: Task, backbone: Backbone, *, max_length: int | None = None) -> None:
        super().__init__()
        if task.kind not in self.kinds:
            raise IsoglossError(
                f"The head '{self.name}' cannot serve task {task.name!r} ({task.kind}); "
                f"it is for {', '.join(self.kinds)}."
            )
        if task.has_labels and task.labels is None:
            raise IsoglossError(
                f"The head '{self.name}' needs the label set of task {task.name!r}: give the labels, or take "
                "them from training data (Task.with_labels_from)."
            )
        self.task, self.backbone, self.max_length = task, backbone, max_length
        self.coder = Coder(backbone)

    @property
    def labels(self) -> tuple[str, ...]:
        """The label set, in class order."""
        return self.task.labels or ()

    def options(self) -> dict[str, Any]:
        """Keyword arguments that build the same head; JSON values."""
        return {"max_length": self.max_length}

    def to_json(self) -> dict[str, Any]:
        """Everything but weights that is needed to build it again."""
        return {"head": self.name, "task": self.task.to_dict(), "options": self.options()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], backbone: Backbone) -> Self:
        """The head that `to_json` described; weights come from `load_state_dict`."""
        return cls(Task.from_dict(values["task"]), backbone, **values["options"])

    def limit(self, budget: int | None) -> int | None:
        """The smaller one of the caller's budget and `max_length`."""
        given = [value for value in (budget, self.max_length) if value is not None]
        return min(given) if given else None

    def class_index(self, example: Example) -> tuple[int, ...]:
        """The label's index, or nothing when the example has no label.

        Raises:
            IsoglossError: The task has no such label.
        """
        if example.label is None:
            return ()
        if isinstance(example.label, int):
            return (example.label,)
        return (self.task.label_index(example.label),)

    def text_batch(
        self, rows: Sequence[Encoded], routes: Routes | None, counts: Sequence[int] | None = None
    ) -> TextBatch:
        """Rows padded on the right to the longest.

        Args:
            rows: Rows to run.
            routes: One index a row, or with `counts` one for each group of rows.
            counts: Rows that each route stands for.
        """
        ids = pad([row.input_ids for row in rows], self.backbone.pad_id)
        lengths = torch.tensor([len(row.input_ids) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
        types = None
        if rows[0].token_type_ids is not None:
            types = pad([row.token_type_ids or [] for row in rows], 0)
        chosen: dict[str, Tensor] | None = None
        if routes is not None:
            chosen = {name: torch.as_tensor(route).long() for name, route in routes.items()}
            if counts is not None:
                chosen = {name: route.repeat_interleave(torch.tensor(counts), 0) for name, route in chosen.items()}
        return TextBatch(ids, mask, token_type_ids=types, routes=chosen)

    def class_labels(self, rows: Sequence[Encoded]) -> Tensor | None:
        """[B] class indices, or None when a row has none."""
        return torch.tensor([row.labels[0] for row in rows]) if all(row.labels for row in rows) else None

    def best_labels(
        self, examples: Sequence[Example], rows: Sequence[Encoded], predictions: Sequence[Prediction]
    ) -> list[Any]:
        """The label (or index of the choice) with the highest score, an example."""
        found: list[Any] = [None] * len(examples)
        for row, prediction in zip(rows, predictions, strict=True):
            best = max(range(len(prediction.scores)), key=prediction.scores.__getitem__)
            found[row.example] = best if self.task.kind == "choice" else self.labels[best]
        return found


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """[B, T] of rows padded on the right."""
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.long).view(
        len(rows), width
    )


def need_labels(labels: Tensor | None, task: Task) -> Tensor:
    """The labels.

    Raises:
        IsoglossError: There are none.
    """
    if labels is None:
        raise IsoglossError(f"A loss of task {task.name!r} needs labelled examples, but one has no label.")
    return labels


def linear(width: int, outputs: int, backbone: Backbone, seed: int) -> nn.Linear:
    """A layer in fp32 on the backbone's device, N(0, 0.02) and zero bias, from a seed of its own."""
    layer = nn.Linear(width, outputs)
    with torch.no_grad():
        layer.weight.normal_(0.0, 0.02, generator=torch.Generator().manual_seed(seed))
        layer.bias.zero_()
    return layer.to(backbone.device)
