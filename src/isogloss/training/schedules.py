"""Learning rates over time, as the factor on the peak rate; pure functions, so nothing needs saving."""

import math


def warmup_steps(warmup: float, steps: int) -> int:
    """Returns the warm-up in steps: a ratio of `steps`, rounded up, when below 1, else itself."""
    return math.ceil(warmup * steps) if warmup < 1 else int(warmup)


def learning_rate_factor(schedule: str, step: int, *, steps: int, warmup: int) -> float:
    """Returns the factor on the peak learning rate for one optimiser step.

    The values are those of `transformers.get_scheduler`, which the published runs used: warm-up rises
    linearly from 0 at step 0, "linear" and "cosine" reach 0 after the last step, "inverse-sqrt" is 1 at the
    end of the warm-up and falls with the square root (time scale: the warm-up, or 10,000 steps without one).

    Args:
        schedule: "linear", "constant", "cosine" or "inverse-sqrt".
        step: Steps already done, from 0.
        steps: Steps in all.
        warmup: Warm-up steps.
    """
    if step < warmup:
        return step / max(1, warmup)
    done = (step - warmup) / max(1, steps - warmup)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(0.0, 1.0 - done)
        case "cosine":
            return max(0.0, 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))
        case "inverse-sqrt":
            timescale = warmup or 10_000
            return 1.0 / math.sqrt((step + timescale - warmup) / timescale)
    raise ValueError(f"unknown schedule {schedule!r}")
