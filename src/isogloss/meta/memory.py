"""How much memory a meta-training will take, told before it starts, and cheaper ways when it will not fit."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from isogloss.errors import IsoglossError

_GIB = 2**30
# Numbers kept for the backward pass, a token and block, in multiples of width and of feed-forward width; measured
# (benchmarks/meta_cost.py) rather than counted, as kernels differ.
_WIDTHS, _FFN = 14, 3
# A graph that can be differentiated once more also holds the backward pass's own numbers.
_TWICE = 2.5
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the memory of an outer step depends on.

    Attributes:
        fast: Numbers in the fast weights.
        frozen: Numbers in the rest of the model.
        moments: Tensors of state a weight (SGD 0, momentum 1, Adam 2).
        inner_steps: T.
        second_order: Whether the outer gradient goes through the inner gradients.
        checkpoint: Whether inner steps are computed again instead of kept.
        steady: Whether the rule's gates are the same at every step, so that first order keeps the sum of the steps alone.
        copies: Further copies of the fast weights (start of the trajectory, outer optimiser).
        tokens: Tokens of the largest batch, padding included.
        length: Longest row.
        width: Of the residual stream.
        ffn: Of the feed-forward layer.
        heads: Of the attention.
        blocks: Transformer blocks.
        bytes_a_number: 4, or 8 in tests.
    """

    fast: int
    frozen: int
    moments: int
    inner_steps: int
    second_order: bool
    checkpoint: bool = False
    steady: bool = False
    copies: int = 1
    tokens: int
    length: int
    width: int
    ffn: int
    heads: int
    blocks: int
    bytes_a_number: int = 4


@dataclass(frozen=True)
class Estimate:
    """Bytes of one outer step.

    Attributes:
        weights: Model, fast weights, their copies and states.
        steps: Base steps or unrolled weights that are kept over the window.
        activations: What the backward passes need, gradients included.
    """

    weights: int
    steps: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.steps + self.activations

    def __str__(self) -> str:
        """For people."""
        return (
            f"an outer step takes about {gibibytes(self.total)} of memory (weights and states {gibibytes(self.weights)}, kept "
            f"steps {gibibytes(self.steps)}, activations {gibibytes(self.activations)})"
        )


def estimate(shape: Shape) -> Estimate:
    """Bytes that one outer step takes at its peak, to about a third."""
    size = shape.bytes_a_number
    # Scores are formed in full where attention must have a second derivative, and otherwise not at all.
    scores = 3 * shape.heads * shape.length if shape.second_order else 0
    graph = shape.tokens * shape.blocks * (_WIDTHS * shape.width + _FFN * shape.ffn + scores) * size
    weights = (shape.frozen + shape.fast * (1 + shape.copies + shape.moments)) * size
    if not shape.second_order:
        # With moments, the last base step is made again from them; the support's gradients are there after its graph.
        kept = shape.inner_steps - (1 if shape.moments else 0)
        if shape.steady:
            kept = min(kept, 1)
        return Estimate(weights, kept * shape.fast * size, max(graph, shape.fast * size))
    held = 1 if shape.checkpoint else shape.inner_steps
    # A step keeps gradient, base step, new weights and their intermediate products.
    steps = ((4 + 3 * shape.moments) * held + (shape.inner_steps if shape.checkpoint else 0)) * shape.fast * size
    return Estimate(weights, steps, int(graph * (_TWICE * held + 1)))


def free_memory(device: torch.device) -> int | None:
    """Bytes that a run may still take, None where that cannot be known."""
    if device.type == "cuda":
        # What PyTorch holds for later tensors is not free to others, but to us.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used, parts = (_CGROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        # Files that were read count as used, but make room when memory is asked for.
        rows = [line.split() for line in parts.read_text().splitlines()] if parts.is_file() else []
        cached = sum(int(row[1]) for row in rows if row[0] in ("active_file", "inactive_file"))
        found.append(int(limit.read_text()) - int(used.read_text()) + cached)
    return max(0, min(found)) if found else None


def refuse_too_large(shape: Shape, free: int | None, *, start: bool = False) -> Estimate:
    """The estimate of a run that fits.

    Args:
        shape: Of the run.
        free: Bytes to be had; None does not check.
        start: Whether initial weights are learned, which has other ways to be cheaper.

    Raises:
        IsoglossError: It does not fit; names cheaper ways that do.
    """
    wanted = estimate(shape)
    if free is None or wanted.total <= free:
        return wanted
    one = replace(shape, inner_steps=1)
    ways: Mapping[str, Shape] = (
        {
            "--inner-steps 1": one,
            "--method fomaml": replace(shape, second_order=False),
        }
        if start
        else {
            "--checkpoint": replace(shape, checkpoint=True),
            "--order first": replace(shape, second_order=False),
            "--inner-steps 1": replace(one, second_order=False),
            "--inner-steps 1 --base sgd": replace(one, second_order=False, moments=0),
        }
    )
    costs = {way: estimate(other).total for way, other in ways.items() if other != shape}
    cheaper = [f"{way} (about {gibibytes(cost)})" for way, cost in costs.items() if cost <= free]
    advice = " or ".join(cheaper) if cheaper else "a smaller --batch-size, shorter rows (--max-length) or a module"
    many = f"{shape.inner_steps} inner steps" if shape.inner_steps > 1 else "1 inner step"
    raise IsoglossError(
        f"Meta-training with {many} of {'second' if shape.second_order else 'first'} order needs about "
        f"{gibibytes(wanted.total)} of memory, but {gibibytes(free)} are free; use {advice}."
    )


def gibibytes(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / 2**20:.0f} MiB"


def model_shape(config: Any) -> dict[str, int]:
    """Width, feed-forward width and heads of a `transformers` configuration, under any of their names."""

    def first(*names: str, default: int) -> int:
        for name in names:
            value = getattr(config, name, None)
            if isinstance(value, int):
                return value
        return default

    width = first("hidden_size", "d_model", "n_embd", default=1)
    return {
        "width": width,
        "ffn": first("intermediate_size", "d_ff", "ffn_dim", "n_inner", default=4 * width),
        "heads": first("num_attention_heads", "num_heads", "attention_heads", "n_head", default=1),
    }
