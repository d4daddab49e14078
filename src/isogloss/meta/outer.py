"""Outer gradients: of a query loss after some gated inner steps, with respect to the rule that set the gates.

`first_order` runs on the live weights with plain backward passes. After one inner step it is exact for every rule, as
theta' = theta - g(phi) u and u does not depend on phi: dL/dphi = -sum_l <grad L(theta')_l, u_l> dg_l/dphi (design 5.5;
Xu et al. 2021, https://arxiv.org/abs/2107.09840, published no method). After more it leaves out how a step changes the
gradients of the steps behind it. `unrolled` differentiates through all of that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isogloss.meta.inner import Clock, Inner, Moments, detached, inner_step
from isogloss.meta.rules import State

Batch = Any
# <gradient of one parameter, a base step>, from the parameter's number and the gradient.
Product = Callable[[int, Tensor], Tensor | float]
# Numbers of a base step that are made again at a time.
_PIECE = 2**20


@dataclass(frozen=True)
class Window:
    """What some inner steps and a query did.

    Attributes:
        query_loss: After the steps, a scalar without history.
        support_loss: Mean over the steps, before each.
        gates: [T, G].
        moments: State of the base step after them.
        state: State of the rule after them.
    """

    query_loss: Tensor
    support_loss: Tensor
    gates: Tensor
    moments: Moments
    state: State


def first_order(
    inner: Inner,
    loss: Callable[[Batch], Tensor],
    support: Sequence[Batch],
    query: Batch,
    moments: Moments,
    state: State,
    clock: Clock,
) -> Window:
    """Moves the live weights through the support batches and adds to the gradients of the rule.

    Query gradients are reduced to one number a group and freed as the backward pass makes them. Beside weights and
    moments the query pass needs the base steps of the window; the last of them is made again from the moments, so that
    one inner step of Adam or momentum keeps none. A rule whose gates are the same at every step needs their sum alone, however
    many there are.

    Args:
        inner: How to step.
        loss: Mean loss of a batch at the live weights.
        support: One batch an inner step.
        query: Of another language.
        moments: Of the base step.
        state: Of the rule, without history.
        clock: Place of the first step.
    """
    parameters = inner.weights.parameters
    taken: list[Product] = []
    steady = inner.rule.steady and len(support) > 1
    summed: list[Tensor | None] = [None] * len(parameters)
    gates: list[Tensor] = []
    losses: list[Tensor] = []
    # Those of an earlier training on the same weights would be added to the first step's.
    for parameter in parameters:
        parameter.grad = None
    for number, batch in enumerate(support):
        value = loss(batch)
        # `backward` and not `grad`: what it leaves in a parameter is that parameter's own memory, free to be reused.
        torch.autograd.backward(value)
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        value = value.detach()
        now = Clock(clock.done + number, clock.whole)
        step = inner_step(inner, parameters, gradients, value, moments, state, now, graph=False)
        del gradients
        moments, state = step.moments, step.state
        _move(inner, step.steps, step.gates.detach())
        again = number == len(support) - 1 and inner.base.moments > 0
        if steady:
            _add(summed, step.steps)
        else:
            taken.append(_made_again(inner, step.steps, moments, now.done) if again else _kept(step.steps))
        gates.append(step.gates)
        losses.append(value)
        del step
    value, products = _query(inner, loss, query, [_kept(summed)] if steady else taken)
    owners = gates[:1] if steady else gates
    wanted = [(gate, -row) for gate, row in zip(owners, products, strict=True) if gate.requires_grad]
    if wanted:
        torch.autograd.backward([gate for gate, _ in wanted], [row.to(gate.dtype) for gate, row in wanted])
    return Window(value, torch.stack(losses).mean(), torch.stack(gates).detach(), moments, detached(state))


@torch.no_grad()
def _move(inner: Inner, steps: Sequence[Tensor | None], gates: Tensor) -> None:
    shares = gates.tolist()
    for parameter, step, group in zip(inner.weights.parameters, steps, inner.weights.group_of, strict=True):
        if step is not None:
            parameter.sub_(step, alpha=shares[group])


@torch.no_grad()
def _add(summed: list[Tensor | None], steps: Sequence[Tensor | None]) -> None:
    for number, step in enumerate(steps):
        before = summed[number]
        summed[number] = step if before is None else before if step is None else before.add_(step)


def _kept(steps: Sequence[Tensor | None]) -> Product:
    def product(number: int, gradient: Tensor) -> Tensor | float:
        step = steps[number]
        return 0.0 if step is None else torch.dot(gradient.reshape(-1), step.reshape(-1))

    return product


def _made_again(inner: Inner, steps: Sequence[Tensor | None], moments: Moments, done: int) -> Product:
    """The same without holding on to the steps, of which no more than a piece is there at a time."""
    moved, base, rates = [step is not None for step in steps], inner.base, inner.rates

    def product(number: int, gradient: Tensor) -> Tensor | float:
        if not moved[number]:
            return 0.0
        pieces = zip(*(torch.split(item.reshape(-1), _PIECE) for item in (gradient, *moments[number])), strict=True)
        return torch.stack([torch.dot(piece, base.again(held, done, rates[number])) for piece, *held in pieces]).sum()

    return product


def _query(
    inner: Inner, loss: Callable[[Batch], Tensor], query: Batch, taken: Sequence[Product]
) -> tuple[Tensor, Tensor]:
    """Query loss, and <its gradient, step> for each inner step and group [T, G]."""
    weights = inner.weights
    products: list[list[Tensor | float]] = [[0.0] * weights.count for _ in taken]
    handles = []

    def reduce(number: int) -> Callable[[Tensor], None]:
        group = weights.group_of[number]

        def hook(parameter: Tensor) -> None:
            assert parameter.grad is not None
            for row, product in zip(products, taken, strict=True):
                row[group] = row[group] + product(number, parameter.grad)
            parameter.grad = None

        return hook

    try:
        for number, parameter in enumerate(weights.parameters):
            handles.append(parameter.register_post_accumulate_grad_hook(reduce(number)))  # type: ignore[no-untyped-call]
        value = loss(query)
        torch.autograd.backward(value)
    finally:
        for handle in handles:
            handle.remove()
    rows = [
        torch.stack([torch.as_tensor(item, dtype=value.dtype, device=value.device) for item in row]) for row in products
    ]
    return value.detach(), torch.stack(rows)


def unrolled(
    inner: Inner,
    loss_at: Callable[[Sequence[Tensor], Batch], Tensor],
    support: Sequence[Batch],
    query: Batch,
    moments: Moments,
    state: State,
    clock: Clock,
    *,
    checkpoint: bool = False,
) -> Window:
    """Differentiates through all inner steps (second derivatives), then moves the live weights; the truncated unroll.

    Args:
        inner: How to step.
        loss_at: Mean loss of a batch at given values of the fast weights, twice differentiable.
        support: One batch an inner step.
        query: Of another language.
        moments: Of the base step.
        state: Of the rule, without history.
        clock: Place of the first step.
        checkpoint: Keep only the weights after each step and compute each step again on the way back: memory for
            one step's graph instead of all.
    """
    start = [parameter.detach().clone() for parameter in inner.weights.parameters]
    run = _Unroll(inner, loss_at, support, clock)
    walk = run.kept if checkpoint else run.whole
    values, moments, state, query_loss = walk(_Point(start, moments, state), query)
    with torch.no_grad():
        for parameter, value in zip(inner.weights.parameters, values, strict=True):
            parameter.copy_(value)
    return Window(query_loss, torch.stack(run.losses).mean(), torch.stack(run.gates), moments, detached(state))


@dataclass(frozen=True)
class _Point:
    """Weights, base state and rule state between two inner steps."""

    values: list[Tensor]
    moments: Moments
    state: State

    def tensors(self) -> list[Tensor]:
        return [*self.values, *(item for held in self.moments for item in held), *self.state.values()]

    def like(self, tensors: Sequence[Tensor]) -> "_Point":
        """The same structure with other tensors."""
        left = iter(tensors)
        values = [next(left) for _ in self.values]
        moments = [tuple(next(left) for _ in held) for held in self.moments]
        return _Point(values, moments, {name: next(left) for name in self.state})

    def leaves(self) -> "_Point":
        """Copies without history that a gradient can be asked for."""
        return self.like([item.detach().requires_grad_(item.is_floating_point()) for item in self.tensors()])


_Result = tuple[list[Tensor], Moments, State, Tensor]


class _Unroll:
    def __init__(
        self, inner: Inner, loss_at: Callable[[Sequence[Tensor], Batch], Tensor], support: Sequence[Batch], clock: Clock
    ) -> None:
        self.inner, self.loss_at, self.support, self.clock = inner, loss_at, support, clock
        self.gates: list[Tensor] = []
        self.losses: list[Tensor] = []

    def step(self, number: int, point: _Point) -> tuple[_Point, Tensor, Tensor]:
        """One differentiable inner step."""
        # Views, as a weight that a step did not move is still the tensor that the gates before it were computed from, and
        # the inner gradient is that of the loss alone.
        values = [
            (item if item.requires_grad else item.detach().requires_grad_()).view_as(item) for item in point.values
        ]
        value = self.loss_at(values, self.support[number])
        gradients = torch.autograd.grad(value, values, create_graph=True, allow_unused=True)
        now = Clock(self.clock.done + number, self.clock.whole)
        step = inner_step(self.inner, values, gradients, value, point.moments, point.state, now, graph=True)
        moved = [
            item if step_ is None else item - step.gates[group].to(item.dtype) * step_
            for item, step_, group in zip(values, step.steps, self.inner.weights.group_of, strict=True)
        ]
        return _Point(moved, step.moments, step.state), step.gates, value

    def note(self, gates: Tensor, value: Tensor) -> None:
        self.gates.append(gates.detach())
        self.losses.append(value.detach())

    def whole(self, point: _Point, query: Batch) -> _Result:
        """One graph over all steps."""
        for number in range(len(self.support)):
            point, gates, value = self.step(number, point)
            self.note(gates, value)
        loss = self.loss_at(point.values, query)
        self._into_rule(loss)
        ended = point.like([item.detach() for item in point.tensors()])
        return ended.values, ended.moments, ended.state, loss.detach()

    def _into_rule(self, loss: Tensor) -> None:
        phi = [parameter for parameter in self.inner.rule.parameters() if parameter.requires_grad]
        if phi:
            found = torch.autograd.grad(loss, phi, allow_unused=True)
            _accumulate(phi, found)

    def kept(self, point: _Point, query: Batch) -> _Result:
        """One graph a step, made again on the way back."""
        points, random = [point], [_random(point)]
        for number in range(len(self.support)):
            point, gates, value = self.step(number, points[-1].leaves())
            self.note(gates, value)
            points.append(point.like([item.detach() for item in point.tensors()]))
            random.append(_random(point))
            del point
        last = points[-1].leaves()
        loss = self.loss_at(last.values, query)
        carried = list(torch.autograd.grad(loss, last.tensors(), allow_unused=True))
        after = _random(last)
        phi = [parameter for parameter in self.inner.rule.parameters() if parameter.requires_grad]
        for number in reversed(range(len(self.support))):
            before = points[number].leaves()
            _restore(random[number], before)
            ended, _, _ = self.step(number, before)
            pairs = [
                (output, gradient)
                for output, gradient in zip(ended.tensors(), carried, strict=True)
                if gradient is not None and output.requires_grad
            ]
            inputs = before.tensors()
            found = torch.autograd.grad(
                [output for output, _ in pairs], [*inputs, *phi], [gradient for _, gradient in pairs], allow_unused=True
            )
            carried = list(found[: len(inputs)])
            _accumulate(phi, found[len(inputs) :])
        _restore(after, last)
        ended = points[-1]
        return ended.values, ended.moments, ended.state, loss.detach()


def _accumulate(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _random(point: _Point) -> dict[str, Tensor]:
    """State of the generators that dropout draws from."""
    device = point.values[0].device
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore(state: dict[str, Tensor], point: _Point) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], point.values[0].device)
