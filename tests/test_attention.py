"""Our bf16 attention on a CPU against PyTorch's in fp32: values, gradients, masks, and where it steps aside."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from isogloss.backbones import attention as own

ROWS, HEADS, KEY_HEADS, LENGTH, WIDTH = 5, 4, 2, 7, 8


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the queries that our own kernel was called with."""
    seen: list[tuple[int, ...]] = []
    plain = own._Attention.apply

    def noted(query: Tensor, *rest: Any) -> Any:
        seen.append(tuple(query.shape))
        return plain(query, *rest)

    monkeypatch.setattr(own, "_Attention", SimpleNamespace(apply=noted))
    return seen


def _mask(kind: str) -> Tensor | None:
    seen = torch.ones(ROWS, 1, LENGTH, LENGTH, dtype=torch.bool)
    seen[1, :, :, -2:] = False
    seen[3, :, :, 0] = False
    if kind == "boolean":
        return seen
    if kind == "added":
        return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return None


def _run(
    function: Any, precision: torch.dtype, mask: Tensor | None, *, causal: bool, biased: bool, key_heads: int = HEADS
) -> list[Tensor]:
    """The value and the gradients of queries, keys, values and the position bias, in fp32."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(ROWS, HEADS, LENGTH, WIDTH), *[(ROWS, key_heads, LENGTH, WIDTH)] * 2, (1, HEADS, LENGTH, LENGTH)]
    inputs = [
        torch.randn(shape, generator=generator).to(torch.bfloat16).to(precision).requires_grad_() for shape in shapes
    ]
    module = SimpleNamespace(is_causal=causal, num_key_value_groups=HEADS // key_heads)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.clamp(min=torch.finfo(precision).min).to(precision)
    value, weights = function(module, *inputs[:3], mask, scaling=0.3, position_bias=inputs[3] if biased else None)
    assert weights is None
    value.backward(torch.randn(value.shape, generator=generator).to(torch.bfloat16).to(precision))
    return [value.detach().float(), *(item.grad.float() for item in inputs[: 4 if biased else 3])]  # type: ignore[union-attr]


@pytest.mark.parametrize("block", [1, 2 * HEADS * LENGTH * LENGTH, 1 << 20])
@pytest.mark.parametrize("key_heads", [HEADS, KEY_HEADS])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("mask", "causal"), [("none", False), ("none", True), ("boolean", False), ("added", False)])
def test_the_same_as_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
    calls: list[tuple[int, ...]],
    block: int,
    key_heads: int,
    biased: bool,
    mask: str,
    causal: bool,
) -> None:
    monkeypatch.setattr(own, "_BLOCK_ELEMENTS", block)
    options = {"causal": causal, "biased": biased, "key_heads": key_heads}
    found = _run(own.attention, torch.bfloat16, _mask(mask), **options)  # type: ignore[arg-type]
    assert calls == [(ROWS, HEADS, LENGTH, WIDTH)]
    wanted = _run(sdpa_attention_forward, torch.float32, _mask(mask), **options)  # type: ignore[arg-type]
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).norm()) < 0.01 * float(other.norm())


def test_autocast_decides_the_precision(calls: list[tuple[int, ...]]) -> None:
    inputs = [torch.randn(ROWS, HEADS, LENGTH, WIDTH, requires_grad=True) for _ in range(3)]
    module = SimpleNamespace(is_causal=False)
    with torch.autocast("cpu", torch.bfloat16):
        value, _ = own.attention(module, inputs[0], inputs[1], inputs[2].bfloat16(), None)
    assert calls and value.dtype is torch.bfloat16
    value.float().sum().backward()
    assert inputs[0].grad is not None and inputs[0].grad.dtype is torch.float32


@pytest.mark.parametrize("why", ["fp32", "no gradient", "nothing learned", "dropout", "second derivative", "too long"])
def test_other_calls_go_to_the_function_of_transformers(
    monkeypatch: pytest.MonkeyPatch, calls: list[tuple[int, ...]], why: str
) -> None:
    precision = torch.float32 if why == "fp32" else torch.bfloat16
    inputs = [torch.randn(ROWS, HEADS, LENGTH, WIDTH, dtype=precision) for _ in range(3)]
    for item in inputs:
        item.requires_grad_(why != "nothing learned")
    if why == "too long":
        monkeypatch.setattr(own, "_LARGEST_ROW", LENGTH)
    module = SimpleNamespace(is_causal=False)
    backends = [SDPBackend.MATH] if why == "second derivative" else [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
    with torch.set_grad_enabled(why != "no gradient"), sdpa_kernel(backends):
        torch.manual_seed(3)
        found, _ = own.attention(module, *inputs, None, dropout=0.5 if why == "dropout" else 0.0)
        torch.manual_seed(3)
        wanted, _ = sdpa_attention_forward(module, *inputs, None, dropout=0.5 if why == "dropout" else 0.0)
    assert not calls
    assert torch.equal(found, wanted)
