"""The LM head at the positions asked for, in chunks: no [batch, length, vocabulary] tensor ever exists (design 5.3)."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Elements of one chunk of logits: 32M fp32 values are 128 MB. Each chunk reads the whole matrix, so few are better.
_CHUNK_ELEMENTS = 1 << 25


def rows_per_chunk(vocabulary: int) -> int:
    """How many positions are scored at once."""
    return max(8, _CHUNK_ELEMENTS // vocabulary)


def chunk_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Logits [n, V] in fp32 (fp64 for fp64 states) of a chunk of head inputs [n, d]."""
    precision = _precision(hidden)
    if bias is not None and bias.dtype == hidden.dtype == precision:
        # One pass and one tensor instead of two.
        logits = functional.linear(hidden, weight, bias)
    else:
        logits = (hidden @ weight.T).to(precision)
        if bias is not None:
            logits = logits + bias.to(precision)
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def _precision(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies that computes its gradients in the forward, chunk by chunk.

    A frozen head gets no weight gradient, and logits are neither kept nor computed twice.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float | None
    ) -> Tensor:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        precision = _precision(hidden)
        hidden_gradient = torch.empty_like(hidden) if need_hidden else None
        weight_gradient = torch.zeros_like(weight, dtype=precision) if need_weight else None
        bias_gradient = torch.zeros_like(bias, dtype=precision) if need_bias and bias is not None else None
        total = hidden.new_zeros((), dtype=precision)
        size = rows_per_chunk(weight.shape[0])
        # Chunks of one size: a small last one would read the matrix for little.
        size = -(-hidden.shape[0] // max(1, -(-hidden.shape[0] // size))) or 1
        for start in range(0, hidden.shape[0], size):
            part, wanted = hidden[start : start + size], labels[start : start + size]
            logits = chunk_logits(part, weight, bias, softcap)
            normaliser = logits.logsumexp(-1)
            total += (normaliser - logits.gather(1, wanted.unsqueeze(1)).squeeze(1)).sum()
            if not (need_hidden or need_weight or need_bias):
                continue
            kept = logits.clone() if softcap else logits
            # In place: another tensor of this size costs more than the arithmetic.
            gradient = logits.sub_(normaliser.unsqueeze(1)).exp_()
            gradient[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
            if softcap:
                gradient = gradient * (1 - (kept / softcap) ** 2)
            if bias_gradient is not None:
                bias_gradient += gradient.sum(0)
            gradient = gradient.to(hidden.dtype)
            if hidden_gradient is not None:
                hidden_gradient[start : start + size] = gradient @ weight
            if weight_gradient is not None:
                weight_gradient += (gradient.T @ part).to(precision)
        saved = [item for item in (hidden_gradient, weight_gradient, bias_gradient) if item is not None]
        ctx.save_for_backward(*saved)
        ctx.present = (hidden_gradient is not None, weight_gradient is not None, bias_gradient is not None)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, output_gradient: Tensor) -> Any:  # type: ignore[override]
        saved = list(ctx.saved_tensors)
        hidden, weight, bias = (saved.pop(0) if here else None for here in ctx.present)
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if hidden is None else hidden * output_gradient.to(hidden.dtype),
            None if weight is None else (weight * output_gradient).to(weight_dtype),
            None if bias is None else (bias * output_gradient).to(bias_dtype),
            None,
            None,
        )


def cross_entropy_sum(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float | None = None
) -> Tensor:
    """Sum over N of `-log softmax(W h + b)[label]`, exact over the whole vocabulary.

    Args:
        hidden: Head inputs [N, d].
        weight: [V, d].
        bias: [V] or None.
        labels: [N] token ids.
        softcap: c of `c tanh(x / c)`, or None.
    """
    return _ChunkedCrossEntropy.apply(hidden, weight.to(hidden.dtype), bias, labels, softcap)  # type: ignore[no-any-return,no-untyped-call]


def logsumexp(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None = None) -> Tensor:
    """Log of the sum over the vocabulary of exp(logits), [N], chunked; differentiable through recomputation of each chunk."""
    parts = []
    size = rows_per_chunk(weight.shape[0])
    for start in range(0, hidden.shape[0], size):
        part = hidden[start : start + size]

        def one(part: Tensor) -> Tensor:
            return chunk_logits(part, weight.to(part.dtype), bias, softcap).logsumexp(-1)

        parts.append(
            torch.utils.checkpoint.checkpoint(one, part, use_reentrant=False) if part.requires_grad else one(part)
        )
    return torch.cat(parts) if parts else hidden.new_zeros(0)


def best_tokens(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None = None) -> Tensor:
    """The most likely token at each position, [N], chunked, without gradient."""
    with torch.no_grad():
        size = rows_per_chunk(weight.shape[0])
        parts = [
            chunk_logits(hidden[start : start + size], weight.to(hidden.dtype), bias, softcap).argmax(-1)
            for start in range(0, hidden.shape[0], size)
        ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long, device=hidden.device)
