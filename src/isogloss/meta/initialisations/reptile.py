"""Reptile: towards the weights that some plain steps on one language lead to.

Nichol et al. 2018, https://arxiv.org/abs/1803.02999: theta <- theta + eps * mean over languages of (theta_T - theta).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from isogloss.meta.initialisations.fomaml import descend, put_back
from isogloss.meta.initialisations.xmaml import add_gradients


def reptile(
    parameters: Sequence[Tensor],
    loss: Callable[[Any], Tensor],
    draws: Mapping[str, Sequence[Any]],
    *,
    rate: float,
) -> Tensor:
    """Adds theta - mean theta_T to the gradients, so that an outer SGD step of rate eps is Reptile's.

    Args:
        parameters: Live initial weights, moved and put back.
        loss: Mean loss of a batch at the live weights.
        draws: Language -> batches, all of them steps.
        rate: Of the inner SGD steps.

    Returns:
        Mean loss of the last batches.
    """
    start = [parameter.detach().clone() for parameter in parameters]
    losses = []
    for batches in draws.values():
        for batch in batches:
            value = loss(batch)
            descend(parameters, torch.autograd.grad(value, list(parameters), allow_unused=True), rate)
        losses.append(value.detach())
        with torch.no_grad():
            moved = [(old - new) / len(draws) for old, new in zip(start, parameters, strict=True)]
        put_back(parameters, start)
        add_gradients(parameters, moved)
    return torch.stack(losses).mean()
