"""The LM head at the positions asked for, in pieces: no [batch, length, vocabulary] tensor ever exists (design 5.3)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isogloss.backbones.products import linear

# Elements of one chunk of logits: 32M fp32 values are 128 MB. Each chunk reads the whole matrix, so few are better.
_CHUNK_ELEMENTS = 1 << 25
# Where a frozen head goes over the vocabulary in blocks, one of these is in work at a time. A processor keeps 4 MB in
# its cache; an accelerator wants few and large ones.
_BLOCK_ELEMENTS = {"cpu": 1 << 20}
_FEWEST_COLUMNS = 512


def rows_per_chunk(vocabulary: int) -> int:
    """How many positions are scored at once."""
    return max(8, _CHUNK_ELEMENTS // vocabulary)


def _columns_per_block(positions: int, device: str) -> int:
    return max(_FEWEST_COLUMNS, _BLOCK_ELEMENTS.get(device, _CHUNK_ELEMENTS) // max(1, positions) // 64 * 64)


def chunk_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """Logits [n, V] in fp32 (fp64 for fp64 states) of a chunk of head inputs [n, d]."""
    precision = _precision(hidden)
    if bias is None or bias.dtype == hidden.dtype == precision:
        # One pass and one tensor instead of two.
        logits = linear(hidden, weight, bias).to(precision)
    else:
        logits = linear(hidden, weight).to(precision) + bias.to(precision)
    return softcap * torch.tanh(logits / softcap) if softcap else logits


def _precision(hidden: Tensor) -> torch.dtype:
    return torch.promote_types(hidden.dtype, torch.float32)


class _FrozenHeadCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies under a frozen head, in one pass over blocks of the vocabulary.

    The gradient of the states is sum_v softmax_v W_v - W_label. Its first term is gathered block by block under the largest
    logit so far and scaled again when a larger one comes, as the normaliser is; so neither all logits of a position nor
    a second pass are needed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        softcap: float | None,
        each: Tensor | None,
    ) -> Tensor:
        precision = _precision(hidden)
        count, device = len(hidden), hidden.device
        largest = torch.full((count, 1), -torch.inf, dtype=precision, device=device)
        total = torch.zeros(count, 1, dtype=precision, device=device)
        at_label = torch.zeros(count, 1, dtype=precision, device=device)
        gathered = torch.zeros(hidden.shape, dtype=precision, device=device) if ctx.needs_input_grad[0] else None
        size = _columns_per_block(count, device.type)
        for start in range(0, weight.shape[0] if count else 0, size):
            rows = weight[start : start + size]
            logits = chunk_logits(hidden, rows, None if bias is None else bias[start : start + size], softcap)
            place = labels.unsqueeze(1) - start
            here = (place >= 0) & (place < logits.shape[1])
            at_label = torch.where(here, logits.gather(1, place.clamp(0, logits.shape[1] - 1)), at_label)
            before, largest = largest, torch.maximum(largest, logits.amax(1, keepdim=True))
            again = (before - largest).exp_()
            slope = _softcap_slope(logits, softcap) if softcap and gathered is not None else None
            # In place: another tensor of this size costs more than the arithmetic.
            logits.sub_(largest).exp_()
            total.mul_(again).add_(logits.sum(1, keepdim=True))
            if gathered is not None:
                shares = logits if slope is None else logits.mul_(slope)
                gathered.mul_(again).add_(linear(shares.to(hidden.dtype), rows.T))
        if gathered is not None:
            wanted = weight[labels].to(precision)
            gathered.div_(total).sub_(wanted if not softcap else wanted * _softcap_slope(at_label, softcap))
            ctx.save_for_backward(gathered.to(hidden.dtype))
        losses = largest + total.log() - at_label
        if each is not None:
            each.copy_(losses.squeeze(1))
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * output_gradient.to(gradient.dtype), None, None, None, None, None


def _softcap_slope(capped: Tensor, softcap: float) -> Tensor:
    """The derivative of `c tanh(x / c)`, from its value."""
    return 1 - (capped / softcap) ** 2


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies under a head that is trained; computes its gradients in the forward, chunk by chunk of positions.

    Logits are neither kept nor computed twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        softcap: float | None,
        each: Tensor | None,
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
            losses = normaliser - logits.gather(1, wanted.unsqueeze(1)).squeeze(1)
            if each is not None:
                each[start : start + size] = losses
            total += losses.sum()
            slope = _softcap_slope(logits, softcap) if softcap else None
            # In place: another tensor of this size costs more than the arithmetic.
            gradient = logits.sub_(normaliser.unsqueeze(1)).exp_()
            gradient[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
            if slope is not None:
                gradient.mul_(slope)
            if bias_gradient is not None:
                bias_gradient += gradient.sum(0)
            gradient = gradient.to(hidden.dtype)
            if hidden_gradient is not None:
                hidden_gradient[start : start + size] = linear(gradient, weight.T)
            if weight_gradient is not None:
                weight_gradient += linear(gradient.T, part.T).to(precision)
        saved = [item for item in (hidden_gradient, weight_gradient, bias_gradient) if item is not None]
        ctx.save_for_backward(*saved)
        ctx.present = (hidden_gradient is not None, weight_gradient is not None, bias_gradient is not None)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: Tensor) -> Any:
        saved = list(ctx.saved_tensors)
        hidden, weight, bias = (saved.pop(0) if here else None for here in ctx.present)
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if hidden is None else hidden * output_gradient.to(hidden.dtype),
            None if weight is None else (weight * output_gradient).to(weight_dtype),
            None if bias is None else (bias * output_gradient).to(bias_dtype),
            None,
            None,
            None,
        )


def cross_entropy_sum(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    softcap: float | None = None,
    each: Tensor | None = None,
) -> Tensor:
    """Sum over N of `-log softmax(W h + b)[label]`, exact over the whole vocabulary.

    Args:
        hidden: Head inputs [N, d].
        weight: [V, d].
        bias: [V] or None.
        labels: [N] token ids.
        softcap: c of `c tanh(x / c)`, or None.
        each: [N], filled with what is summed, without gradient.
    """
    trains_head = torch.is_grad_enabled() and (weight.requires_grad or (bias is not None and bias.requires_grad))
    way = _ChunkedCrossEntropy if trains_head else _FrozenHeadCrossEntropy
    return way.apply(hidden, weight.to(hidden.dtype), bias, labels, softcap, each)  # type: ignore[no-any-return,no-untyped-call]


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
