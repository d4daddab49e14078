"""First-order MAML: the gradient of the query loss at the adapted weights, taken for that at the initial ones.

Finn et al. 2017, https://arxiv.org/abs/1703.03400, section 5.2; Nichol et al. 2018, https://arxiv.org/abs/1803.02999. Plain
backward passes on the live weights; episodes as in X-MAML (papers.md 4.4).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isogloss.meta.initialisations.xmaml import add_gradients


def fomaml(
    parameters: Sequence[Tensor],
    loss: Callable[[Any], Tensor],
    draws: Mapping[str, Sequence[Any]],
    *,
    rate: float,
) -> Tensor:
    """Adds the sum over languages of grad L_query at the adapted weights to the gradients.

    Args:
        parameters: Live initial weights, moved and put back.
        loss: Mean loss of a batch at the live weights.
        draws: Language -> support batches, and the query batch last.
        rate: Of the inner SGD steps.

    Returns:
        Mean query loss.
    """
    start = [parameter.detach().clone() for parameter in parameters]
    losses = []
    for batches in draws.values():
        for batch in batches[:-1]:
            descend(parameters, torch.autograd.grad(loss(batch), list(parameters), allow_unused=True), rate)
        value = loss(batches[-1])
        found = torch.autograd.grad(value, list(parameters), allow_unused=True)
        put_back(parameters, start)
        add_gradients(parameters, found)
        losses.append(value.detach())
    return torch.stack(losses).mean()


@torch.no_grad()
def descend(parameters: Sequence[Tensor], gradients: Sequence[Tensor | None], rate: float) -> None:
    """One plain SGD step in place."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            parameter.sub_(gradient, alpha=rate)


@torch.no_grad()
def put_back(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Writes values into parameters."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
