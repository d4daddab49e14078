"""A fine-tuning that goes on from window to window: weights, base state and rule state, in checkpoints like any module."""

import torch
from torch import Tensor, nn

from isogloss.meta.inner import Clock, Inner, Moments
from isogloss.meta.outer import Window
from isogloss.meta.rules import State

# Parts of a fine-tuning whose mean gates are remembered, to show and to compare with.
TRACE = 8


def part_of(clock: Clock) -> int:
    """Which part of a fine-tuning a step belongs to, from 0."""
    return min(int(clock.progress * TRACE), TRACE - 1)


class Trajectory(nn.Module):
    """Simulated fine-tuning of `horizon` inner steps, begun again from the start when they are over.

    Everything that changes is a buffer (the weights' buffers share the live weights' memory), so that a checkpoint of
    this module continues it to the same bits.

    Args:
        inner: How it steps.
        horizon: Inner steps before it begins again.
    """

    trace: Tensor
    traced: Tensor
    done: Tensor

    def __init__(self, inner: Inner, horizon: int) -> None:
        super().__init__()
        self._inner, self.horizon = inner, horizon
        groups = inner.weights.count
        for number, parameter in enumerate(inner.weights.parameters):
            self.register_buffer(f"value_{number}", parameter.detach())
            # The start can be made again from seed and backbone, so checkpoints need not hold it.
            # In main memory, as it is needed once a horizon.
            self.register_buffer(f"start_{number}", parameter.detach().to("cpu", copy=True), persistent=False)
            for place, moment in enumerate(inner.base.initial(parameter)):
                self.register_buffer(f"moment_{number}_{place}", moment)
        for name, tensor in inner.rule.begin().items():
            self.register_buffer(f"state_{name}", tensor.detach().clone())
        device = inner.weights.device
        self.register_buffer("trace", torch.zeros(TRACE, groups, device=device))
        self.register_buffer("traced", torch.zeros(TRACE, device=device))
        self.register_buffer("done", torch.zeros((), dtype=torch.int64))

    @property
    def clock(self) -> Clock:
        """Place of the next inner step."""
        return Clock(int(self.done), self.horizon)

    @property
    def moments(self) -> Moments:
        """State of the base step; the live tensors."""
        return [
            tuple(self.get_buffer(f"moment_{number}_{place}") for place in range(self._inner.base.moments))
            for number in range(len(self._inner.weights.parameters))
        ]

    @property
    def state(self) -> State:
        """State of the rule."""
        return {name: self.get_buffer(f"state_{name}").clone() for name in self._inner.rule.begin()}

    @torch.no_grad()
    def advance(self, window: Window) -> None:
        """Takes over what a window has done, and begins again at the end of the horizon."""
        for old, new in zip(self.moments, window.moments, strict=True):
            for held, value in zip(old, new, strict=True):
                held.copy_(value)
        for name, value in window.state.items():
            self.get_buffer(f"state_{name}").copy_(value)
        for number, gates in enumerate(window.gates):
            place = part_of(Clock(int(self.done) + number, self.horizon))
            # A running mean that forgets, as the rule changes while it is learned.
            share = max(0.1, 1.0 / (float(self.traced[place]) + 1.0))
            self.trace[place].lerp_(gates.to(self.trace.dtype), share)
            self.traced[place] += 1
        self.done += len(window.gates)
        if int(self.done) >= self.horizon:
            self.restart()

    @torch.no_grad()
    def restart(self) -> None:
        """Puts weights and states back to the start."""
        for number in range(len(self._inner.weights.parameters)):
            self.get_buffer(f"value_{number}").copy_(self.get_buffer(f"start_{number}"))
        for held in self.moments:
            for moment in held:
                moment.zero_()
        for name, tensor in self._inner.rule.begin().items():
            self.get_buffer(f"state_{name}").copy_(tensor)
        self.done.zero_()

    def mean_gates(self) -> list[list[float]]:
        """Mean gates by part of the fine-tuning and group; parts that were never reached are left out."""
        rows = [row for row, count in zip(self.trace.tolist(), self.traced.tolist(), strict=True) if count]
        return [[round(value, 6) for value in row] for row in rows]
