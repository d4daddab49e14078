"""What a gate network sees of each group at one step: statistics of gradients, steps and weights (papers.md 4.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isogloss.meta.groups import FastWeights

# Inside square roots and logarithms, so that a group without gradient gives finite numbers and derivatives.
_TINY = 1e-24
# Ravi and Larochelle's p: magnitudes below e^-p are passed on linearly.
_P = 10.0


@dataclass(frozen=True)
class Features:
    """Statistics of one inner step, one number a group [G] unless said otherwise.

    Attributes:
        mean: Mean of the gradient.
        rms: Root mean square of the gradient.
        weight_rms: Of the weights.
        step_rms: Of the base step, learning rate included.
        depth: 0 at the bottom, 1 at the top.
        loss: Of the support batch, a scalar.
        progress: Share of the fine-tuning that is done, 0 to 1.
    """

    mean: Tensor
    rms: Tensor
    weight_rms: Tensor
    step_rms: Tensor
    depth: Tensor
    loss: Tensor
    progress: float


def depths(layers: Sequence[int]) -> Tensor:
    """Layer numbers scaled to [0, 1], [G]."""
    top = max(1, *layers) if layers else 1
    return torch.tensor([layer / top for layer in layers], dtype=torch.float32)


def statistics(gradients: Sequence[Tensor | None]) -> list[tuple[Tensor, Tensor] | None]:
    """Sum and sum of squares of each gradient, without a copy of any."""
    return [None if gradient is None else (gradient.sum(), _square(gradient)) for gradient in gradients]


def _square(x: Tensor) -> Tensor:
    flat = x.reshape(-1)
    return torch.dot(flat, flat)


def group_features(
    weights: FastWeights,
    values: Sequence[Tensor],
    gradients: Sequence[tuple[Tensor, Tensor] | None],
    steps: Sequence[Tensor | None],
    loss: Tensor,
    progress: float,
) -> Features:
    """Statistics by group.

    Args:
        weights: The groups.
        values: The weights, one a parameter.
        gradients: What `statistics` says of their gradients; None where the loss does not depend on a parameter.
        steps: Base steps, None in the same places.
        loss: Scalar.
        progress: 0 to 1.
    """
    zero = loss.detach() * 0.0
    rows = [
        torch.stack(
            [
                *((zero, zero) if gradient is None else (part.to(loss.dtype) for part in gradient)),
                _square(value).to(loss.dtype),
                zero if step is None else _square(step).to(loss.dtype),
            ]
        )
        for value, gradient, step in zip(values, gradients, steps, strict=True)
    ]
    counts = torch.zeros(weights.count, dtype=loss.dtype, device=loss.device)
    for value, group in zip(values, weights.group_of, strict=True):
        counts[group] += value.numel()
    sums = torch.zeros(weights.count, 4, dtype=loss.dtype, device=loss.device)
    mean, square, weight, step_square = (
        sums.index_add(0, weights.index(), torch.stack(rows)) / counts.unsqueeze(1)
    ).unbind(1)
    return Features(
        mean=mean,
        rms=(square + _TINY).sqrt(),
        weight_rms=(weight + _TINY).sqrt(),
        step_rms=(step_square + _TINY).sqrt(),
        depth=depths(weights.layers).to(loss.device, loss.dtype),
        loss=loss,
        progress=progress,
    )


def scaled(x: Tensor) -> Tensor:
    """Ravi and Larochelle's preprocessing: [...] to [..., 2], (log|x| / p, sign) or (-1, e^p x) for small x."""
    size = x.abs()
    large = size >= torch.exp(torch.tensor(-_P, dtype=x.dtype, device=x.device))
    # `where` inside, so that the branch not taken has a finite derivative as well.
    logarithm = torch.where(large, size, torch.ones_like(size)).log() / _P
    first = torch.where(large, logarithm, -torch.ones_like(x))
    second = torch.where(large, x.sign(), x * torch.exp(torch.tensor(_P, dtype=x.dtype, device=x.device)))
    return torch.stack((first, second), dim=-1)
