"""X-MAML's outer step: second-order MAML over the auxiliary languages.

Nooralahzadeh et al. 2020, https://arxiv.org/abs/2003.02739, as its authors' code ran it (papers.md 4.4): for each auxiliary
language a batch of 32, its first half support, its second half query; one inner SGD step; the query loss is
differentiated with respect to the initial weights, through the inner gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LossAt = Callable[[Sequence[Tensor], Any], Tensor]


def xmaml(parameters: Sequence[Tensor], loss_at: LossAt, draws: Mapping[str, Sequence[Any]], *, rate: float) -> Tensor:
    """Adds d/dtheta sum over languages of L_query(theta - rate * grad L_support(theta)) to the gradients.

    Args:
        parameters: Initial weights, which stay as they are.
        loss_at: Mean loss of a batch at given weights, twice differentiable.
        draws: Language -> support batches, and the query batch last.
        rate: Of the inner SGD steps.

    Returns:
        Mean query loss, without history.
    """
    losses = []
    for batches in draws.values():
        values: list[Tensor] = list(parameters)
        for batch in batches[:-1]:
            gradients = torch.autograd.grad(loss_at(values, batch), values, create_graph=True, allow_unused=True)
            values = [
                value.view_as(value) if gradient is None else value - rate * gradient
                for value, gradient in zip(values, gradients, strict=True)
            ]
        loss = loss_at(values, batches[-1])
        found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
        add_gradients(parameters, found)
        losses.append(loss.detach())
        del values, loss, found
    return torch.stack(losses).mean()


def add_gradients(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """Accumulates, as `backward` would."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)
