"""Attention for training in bf16 on a CPU, where PyTorch's own gradient is slow.

PyTorch 2.13's fused CPU kernel takes ten times as long for the gradient in bf16 as for the value, three times as long as in fp32
(measured at 64 tokens: docs/benchmarks.md). At the lengths of sentences the score matrices are small, so here they are kept as bf16 and the
gradient is five plain batched products. Without a gradient, in other precisions, on accelerators and for long rows the call
goes to the function that transformers itself takes for `sdpa`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

NAME = "isogloss"
# Scores in work at a time: 2 MB of bf16 stay in a processor's cache.
_BLOCK_ELEMENTS = 1 << 20
# Rows with more scores than this keep the fused kernel, which stores none.
_LARGEST_ROW = 1 << 24
_HALF = (torch.bfloat16, torch.float16)


def use_own_attention(model: Any) -> None:
    """Lets a transformers model whose attention is `sdpa` compute it by `attention`, which has the same interface and masks."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if getattr(model.config, "_attn_implementation", None) != "sdpa":
        return
    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The attention function of transformers' `AttentionInterface`.

    Args:
        module: The calling layer.
        query: [batch, heads, queries, d].
        key: [batch, key heads, keys, d]; key heads divide heads.
        value: [batch, key heads, keys, d'].
        attention_mask: Boolean (True is seen) or added to the scores, broadcast to [batch, heads, queries, keys]; None.
        dropout: Of the attention weights.
        scaling: Of the scores; None means 1 / sqrt(d).
        is_causal: Without a mask, no query sees later keys; None means what the layer says.
        position_bias: Added to the scores (T5), broadcast as the mask.
        **options: Given on.

    Returns:
        Weighted values [batch, queries, heads, d'], and None in place of the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else value.dtype
    if (
        not _suits(query, key, value, position_bias, precision)
        or dropout
        or options.get("softcap")
        or "cache" in options
    ):
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout, scaling, is_causal, position_bias, **options
        )
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    bias = _bias(query, key, attention_mask, position_bias, causal, precision)
    with torch.autocast("cpu", enabled=False):
        result = _Attention.apply(  # type: ignore[no-untyped-call]
            query.to(precision),
            key.to(precision),
            value.to(precision),
            bias,
            query.shape[-1] ** -0.5 if scaling is None else scaling,
        )
    return result.transpose(1, 2).contiguous(), None


def _suits(query: Tensor, key: Tensor, value: Tensor, position_bias: Tensor | None, precision: torch.dtype) -> bool:
    learned = (query, key, value, position_bias)
    return (
        query.device.type == "cpu"
        and precision in _HALF
        and torch.is_grad_enabled()
        and any(item is not None and item.requires_grad for item in learned)
        and query.shape[0] == key.shape[0]
        and query.shape[1] * query.shape[2] * key.shape[2] <= _LARGEST_ROW
        # Off where a second derivative is wanted, which only the plain kernel has.
        and torch.backends.cuda.flash_sdp_enabled()  # type: ignore[no-untyped-call]
        and not torch._C._are_functorch_transforms_active()
    )


def _bias(
    query: Tensor, key: Tensor, mask: Tensor | None, position_bias: Tensor | None, causal: bool, precision: torch.dtype
) -> Tensor | None:
    """What is added to the scores, four-dimensional, or None."""
    queries, keys = query.shape[2], key.shape[2]
    if mask is None and causal and queries > 1:
        mask = torch.ones(queries, keys, dtype=torch.bool).tril()[None, None]
    lowest = torch.finfo(precision).min
    if position_bias is not None:
        position_bias = position_bias.to(precision)
    if mask is None:
        return position_bias
    if mask.dtype is torch.bool:
        if position_bias is not None:
            return torch.where(mask, position_bias, lowest)
        return torch.zeros(mask.shape, dtype=precision).masked_fill_(~mask, lowest)
    added = mask.clamp(min=lowest).to(precision)
    return added if position_bias is None else added + position_bias


class _Attention(torch.autograd.Function):
    """softmax(scale q k' + bias) v, block by block of rows, so that scores stay in the cache; keeps the weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        rows, heads, queries, _ = query.shape
        size = max(1, _BLOCK_ELEMENTS // (heads * queries * key.shape[2]))
        # Laid out as the layer reads it next.
        result = query.new_empty(rows, queries, heads, value.shape[-1]).transpose(1, 2)
        kept = []
        for start in range(0, rows, size):
            block = slice(start, start + size)
            scores = torch.matmul(query[block], key[block].transpose(-1, -2)).mul_(scale)
            if bias is not None:
                scores.add_(bias if bias.shape[0] == 1 else bias[block])
            weights = torch.softmax(scores, -1)
            result[block] = torch.matmul(weights, value[block])
            kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale, ctx.size, ctx.bias_shape = scale, size, None if bias is None else bias.shape
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        query, key, value, *kept = ctx.saved_tensors
        needs = ctx.needs_input_grad
        of_query, of_key, of_value = (torch.empty_like(item) for item in (query, key, value))
        of_bias = gradient.new_zeros(ctx.bias_shape, dtype=torch.float32) if needs[3] else None
        for index, weights in enumerate(kept):
            block = slice(index * ctx.size, (index + 1) * ctx.size)
            of_value[block] = torch.matmul(weights.transpose(-1, -2), gradient[block])
            slope = torch.matmul(gradient[block], value[block].transpose(-1, -2))
            slope = torch._softmax_backward_data(slope, weights, -1, weights.dtype)
            if of_bias is not None:
                whole = of_bias if len(of_bias) == 1 else of_bias[block]
                whole += slope.float().sum_to_size(whole.shape)
            slope.mul_(ctx.scale)
            of_query[block] = torch.matmul(slope, key[block])
            of_key[block] = torch.matmul(slope.transpose(-1, -2), query[block])
        return of_query, of_key, of_value, None if of_bias is None else of_bias.to(gradient.dtype), None
