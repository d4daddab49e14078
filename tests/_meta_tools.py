"""A tiny backbone in float64 with a toy head, and windows over it whose outer gradients can be checked by differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone, load_backbone
from isogloss.meta.base_steps import BaseStep
from isogloss.meta.groups import fast_weights
from isogloss.meta.inner import Clock, Inner
from isogloss.meta.objective import Objective, twice_differentiable
from isogloss.meta.outer import Window, first_order, unrolled
from isogloss.meta.rules import make_rule
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack, TextBatch
from tests.conftest import save_tiny


@dataclass(frozen=True)
class ToyBatch:
    text: TextBatch
    labels: Tensor
    tokens: int = 0

    def to(self, device: Any) -> "ToyBatch":
        return self


class ToyHead(nn.Module):
    """Mean state -> linear -> cross-entropy, without any cast, so that float64 stays float64."""

    def __init__(self, width: int, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, classes)
        with torch.no_grad():
            self.layer.weight.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(5))
            self.layer.bias.zero_()

    def collate(self, rows: Sequence[tuple[list[int], int]], routes: Any = None) -> ToyBatch:
        width = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([[*found, *[1] * (width - len(found))] for found, _ in rows])
        mask = torch.tensor([[1] * len(found) + [0] * (width - len(found)) for found, _ in rows])
        return ToyBatch(TextBatch(ids, mask), torch.tensor([label for _, label in rows]))

    def loss(self, stack: Stack, batch: ToyBatch) -> tuple[Tensor, int]:
        logits = self.layer(stack.run(batch.text).pooled_mean())
        return nn.functional.cross_entropy(logits, batch.labels, reduction="sum"), len(batch.labels)


def rows(seed: int, count: int = 4) -> list[tuple[list[int], int]]:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 7, (count,), generator=random).tolist()
    return [
        (torch.randint(10, 120, (length,), generator=random).tolist(), int(torch.randint(3, (1,), generator=random)))
        for length in lengths
    ]


class Toy:
    """An inner loop in float64.

    Args:
        folder: Where a tiny backbone is saved.
        method: Rule.
        base: Base step.
        spec: Module.
        by: Grouping.
        full: Whether the backbone moves.
        clip: Of the inner gradients.
    """

    def __init__(
        self,
        folder: Path,
        method: str = "gates",
        *,
        base: str = "sgd",
        spec: str = "adapter:8",
        by: str = "layer",
        full: bool = True,
        clip: float | None = None,
        rate: float = 0.3,
        **options: Any,
    ) -> None:
        self.backbone: Backbone = load_backbone(folder, device="cpu")
        self.backbone.model.double()
        self.backbone.unfreeze() if full else self.backbone.freeze()
        self.module = create_module(parse_module(spec), self.backbone, seed=1).double()
        self.head = ToyHead(self.backbone.hidden_size).double()
        self.stack = Stack(self.backbone, [self.module])
        self.objective = Objective(self.stack, self.head)  # type: ignore[arg-type]
        parts = {"module": self.module, "head": self.head}
        self.weights = fast_weights({**parts, "backbone": self.backbone.model} if full else parts, self.backbone, by)  # type: ignore[arg-type]
        self.rule = make_rule(method, self.weights.groups, self.weights.layers, **options).double()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            # Away from the start, so that no gate equals another and no recurrence is idle.
            for parameter in self.rule.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        rates = tuple(rate for _ in self.weights.parameters)
        # Adam's usual eps makes a step that is all but discontinuous, which differences cannot follow.
        self.inner = Inner(self.weights, self.rule, BaseStep(base, eps=1e-2), rates, clip)  # type: ignore[arg-type]
        self.names = self.objective.names_of(self.weights)
        self.start = [parameter.detach().clone() for parameter in self.weights.parameters]
        # A trajectory that has already gone some way.
        self.moments = [
            tuple(
                0.05 * torch.rand(p.shape, generator=generator, dtype=p.dtype) for _ in range(self.inner.base.moments)
            )
            for p in self.weights.parameters
        ]
        self.state = {
            name: item + (0.2 * torch.rand(item.shape, generator=generator, dtype=item.dtype))
            for name, item in self.rule.begin().items()
        }

    def put_back(self) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.weights.parameters, self.start, strict=True):
                parameter.copy_(value)
                parameter.grad = None

    def at(self, values: Sequence[Tensor], batch: Any) -> Tensor:
        return self.objective.at(dict(zip(self.names, values, strict=True)), batch)

    def window(self, kind: str, steps: int, seed: int = 0) -> Window:
        """One window from the start; gradients are added to the rule."""
        self.put_back()
        support = [rows(10 * seed + number) for number in range(steps)]
        query = rows(10 * seed + 9)
        moments = [tuple(item.clone() for item in held) for held in self.moments]
        state = {name: item.clone() for name, item in self.state.items()}
        place = (moments, state, Clock(2, 8))
        if kind == "two-pass":
            return first_order(self.inner, self.objective, support, query, *place)
        with twice_differentiable(self.backbone.model):
            return unrolled(self.inner, self.at, support, query, *place, checkpoint=kind == "checkpoint")

    def gradients(self, kind: str, steps: int) -> list[Tensor]:
        """Outer gradients of the rule's parameters."""
        self.rule.zero_grad(set_to_none=True)
        self.window(kind, steps)
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in self.rule.parameters()]

    def difference(self, kind: str, steps: int, direction: Sequence[Tensor], size: float = 1e-5) -> float:
        """Central difference of the query loss along a direction of the rule's parameters."""
        found = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for parameter, part in zip(self.rule.parameters(), direction, strict=True):
                    parameter.add_(part, alpha=sign * size)
            found.append(float(self.window(kind, steps).query_loss))
            with torch.no_grad():
                for parameter, part in zip(self.rule.parameters(), direction, strict=True):
                    parameter.sub_(part, alpha=sign * size)
        return (found[0] - found[1]) / (2 * size)


def directions(rule: nn.Module, count: int = 3) -> list[list[Tensor]]:
    """Random directions over all parameters of a rule."""
    random = torch.Generator().manual_seed(11)
    return [[torch.randn(p.shape, generator=random, dtype=p.dtype) for p in rule.parameters()] for _ in range(count)]


def saved_tiny(folder: Path, name: str = "xlmr") -> Path:
    """A tiny backbone on disk."""
    return save_tiny(name, folder / name)
