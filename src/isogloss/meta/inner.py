"""One inner step: gradients to base steps, statistics, gates. The same lines for every order of differentiation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isogloss.meta.base_steps import BaseStep
from isogloss.meta.features import group_features, statistics
from isogloss.meta.groups import FastWeights
from isogloss.meta.rules import Rule, State

Moments = list[tuple[Tensor, ...]]


@dataclass(frozen=True)
class Inner:
    """How the inner loop steps.

    Attributes:
        weights: What moves.
        rule: How far.
        base: Whose steps are gated.
        rates: Learning rate of each parameter.
        clip: Largest norm of all gradients together; None does not clip.
    """

    weights: FastWeights
    rule: Rule
    base: BaseStep
    rates: tuple[float, ...]
    clip: float | None = None


@dataclass(frozen=True)
class Clock:
    """Where in a fine-tuning a step stands: steps done, and the number that counts as the whole of it."""

    done: int
    whole: int

    @property
    def progress(self) -> float:
        """0 at the first step, 1 at the last and after it."""
        return min(1.0, self.done / max(1, self.whole - 1))


@dataclass(frozen=True)
class InnerStep:
    """What one step wants to do.

    Attributes:
        steps: u of each parameter, learning rate included; None where there is no gradient.
        gates: [G].
        moments: State of the base step after it.
        state: State of the rule after it.
    """

    steps: list[Tensor | None]
    gates: Tensor
    moments: Moments
    state: State


def inner_step(
    inner: Inner,
    values: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    loss: Tensor,
    moments: Moments,
    state: State,
    clock: Clock,
    *,
    graph: bool,
) -> InnerStep:
    """Base steps and gates from gradients.

    Args:
        inner: How to step.
        values: The weights.
        gradients: Of `loss`; None where it does not depend on a weight.
        loss: Scalar.
        moments: Of the base step.
        state: Of the rule.
        clock: Place of the step.
        graph: Whether a derivative has to pass through gradients and statistics; gates keep theirs in any case.
            Without, gradients and moments are changed in place and the returned moments are those given.
    """
    if not graph:
        return _in_place(inner, values, list(gradients), loss, moments, state, clock)
    gradients = _clipped(gradients, inner.clip)
    steps: list[Tensor | None] = []
    after: Moments = []
    for gradient, held, rate in zip(gradients, moments, inner.rates, strict=True):
        if gradient is None:
            steps.append(None)
            after.append(held)
            continue
        direction, held = inner.base.direction(gradient, held, clock.done)
        steps.append(rate * direction)
        after.append(held)
    features = None
    if inner.rule.sees_features:
        features = group_features(inner.weights, values, statistics(gradients), steps, loss, clock.progress)
    gates, state = inner.rule.gates(features, clock.progress, state)
    return InnerStep(steps, gates, after, state)


def _in_place(
    inner: Inner,
    values: Sequence[Tensor],
    gradients: list[Tensor | None],
    loss: Tensor,
    moments: Moments,
    state: State,
    clock: Clock,
) -> InnerStep:
    """The same without derivatives: moments are changed where they are, and gradients become the steps."""
    features = None
    with torch.no_grad():
        clip_in_place(gradients, inner.clip)
        seen = statistics(gradients) if inner.rule.sees_features else []
        steps = [
            None if gradient is None else inner.base.in_place(gradient, held, clock.done, rate)
            for gradient, held, rate in zip(gradients, moments, inner.rates, strict=True)
        ]
        if inner.rule.sees_features:
            features = group_features(inner.weights, values, seen, steps, loss, clock.progress)
    gates, state = inner.rule.gates(features, clock.progress, state)
    return InnerStep(steps, gates, moments, state)


def clip_in_place(gradients: Sequence[Tensor | None], clip: float | None) -> None:
    """Scales gradients so that their common norm is at most `clip`."""
    if clip is None:
        return
    present = [gradient for gradient in gradients if gradient is not None]
    if present:
        factor = _factor(present, clip)
        for gradient in present:
            gradient.mul_(factor)


def _clipped(gradients: Sequence[Tensor | None], clip: float | None) -> list[Tensor | None]:
    present = [gradient for gradient in gradients if gradient is not None]
    if clip is None or not present:
        return list(gradients)
    factor = _factor(present, clip)
    return [None if gradient is None else gradient * factor for gradient in gradients]


def _factor(gradients: Sequence[Tensor], clip: float) -> Tensor:
    """What `torch.nn.utils.clip_grad_norm_` multiplies by."""
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    return torch.clamp(clip / (norm + 1e-6), max=1.0)


def detached(state: State) -> State:
    """The same state without its history."""
    return {name: tensor.detach() for name, tensor in state.items()}
