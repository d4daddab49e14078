"""Large fp32 matrix products on a CPU, by the library that is fast on it.

PyTorch gives fp32 products to MKL, which takes its AVX-512 kernels on Intel's processors alone; elsewhere it computes at half
of what the processor can do. oneDNN, which is part of PyTorch too, has no such rule. What is computed is the same up to
the order of summation.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isogloss.backbones.processor import processor

SWITCH = "ISOGLOSS_ONEDNN"
# oneDNN prepares each new shape for about a millisecond, and copies the weight into a layout of its own each time: small
# products, few rows and huge weights stay where they were.
_FEWEST_ROWS = 16
_SMALLEST_PRODUCT = 1 << 24
_LARGEST_WEIGHT = 1 << 25


@cache
def pays() -> bool:
    """Whether oneDNN is used on this machine: AVX-512, and not Intel's. The environment's `ISOGLOSS_ONEDNN=0` or `1` decides instead."""
    backends: Any = torch.backends
    if not (backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    wanted = os.environ.get(SWITCH)
    if wanted in ("0", "1"):
        return wanted == "1"
    wide = backends.cpu.get_cpu_capability().startswith("AVX512")
    return bool(wide and backends.mkl.is_available()) and "GenuineIntel" not in processor()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x [..., in], weight [out, in], bias [out] -> [..., out]; differentiable any number of times."""
    if not (pays() and _suits(x, weight, bias)):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and (
        x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return,no-untyped-call]
    return _onednn(x.contiguous(), weight, bias)


def _suits(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    width = weight.shape[1]
    rows = x.numel() // width if width else 0
    return (
        rows >= _FEWEST_ROWS
        and rows * weight.numel() >= _SMALLEST_PRODUCT
        and weight.numel() <= _LARGEST_WEIGHT
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or bias.dtype == torch.float32)
        and x.device.type == weight.device.type == "cpu"
        and (weight.stride(1) == 1 or weight.stride(0) == 1)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    """oneDNN's linear layer with its gradients; a frozen weight needs no copy of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, weight)
        return _onednn(x.contiguous(), weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1]) if need_weight or need_bias else None
        return (
            linear(gradient, weight.T) if need_x else None,
            linear(rows.T, x.reshape(-1, x.shape[-1]).T) if rows is not None and need_weight else None,
            rows.sum(0) if rows is not None and need_bias else None,
        )


@contextmanager
def fast_linears(layers: Sequence[nn.Linear]) -> Iterator[None]:
    """Within it these layers compute by `linear`; their hooks, weights and classes stay as they are."""
    taken = [layer for layer in layers if "forward" not in layer.__dict__] if pays() else []
    for layer in taken:
        layer.__dict__["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in taken:
            del layer.__dict__["forward"]


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)
