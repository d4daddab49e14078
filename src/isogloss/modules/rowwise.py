"""Products that take one weight for the batch, or one weight for each row of it (design 5.2)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from isogloss.backbones import products

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "swish": F.silu,
    "silu": F.silu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "leakyrelu": F.leaky_relu,
}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer with shared or per-row weights, in the precision of `x`.

    Args:
        x: [B, T, in].
        weight: [out, in], or [B, out, in] with one matrix a row.
        bias: [out], or [B, out].

    Returns:
        [B, T, out].
    """
    weight = weight.to(x.dtype)
    if weight.dim() == 2:
        return products.linear(x, weight, None if bias is None else bias.to(x.dtype))
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias.to(x.dtype).unsqueeze(1), x, weight.transpose(1, 2))


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Multiplies [B, T, d] by a scalar `[1]`, or by one scalar a row `[B, 1]`."""
    factor = factor.to(x.dtype)
    return x * (factor if factor.dim() == 1 else factor.unsqueeze(1))
