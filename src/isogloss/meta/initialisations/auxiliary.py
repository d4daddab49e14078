"""Plain fine-tuning on the auxiliary languages' data: what meta-learning has to beat (the "augment" ablation, papers.md 4.4)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def auxiliary(
    parameters: Sequence[Tensor],
    loss: Callable[[Any], Tensor],
    draws: Mapping[str, Sequence[Any]],
    *,
    rate: float,
) -> Tensor:
    """Adds the sum over languages of the plain gradients.

    Args:
        parameters: Live weights.
        loss: Mean loss of a batch at them.
        draws: Language -> batches.
        rate: Not used: there are no inner steps.

    Returns:
        Mean loss.
    """
    losses = []
    for batches in draws.values():
        for batch in batches:
            value = loss(batch)
            torch.autograd.backward(value)
            losses.append(value.detach())
    return torch.stack(losses).mean()
