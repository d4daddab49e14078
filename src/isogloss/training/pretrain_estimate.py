"""How long a pre-training will take and how much memory it needs, measured before it starts."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from itertools import chain

import torch

from isogloss.corpora import ParallelCorpus, TokenStore
from isogloss.stack import Stack
from isogloss.training.config import LossResult
from isogloss.training.pretrain_stream import PretrainStep, PretrainStream
from isogloss.training.recipe import Recipe

# Weights, gradients and the two moments of AdamW, in fp32.
_BYTES_A_PARAMETER = 16
# So many draws find every objective but the rarest.
_DRAWS = 64


def estimate(
    recipe: Recipe,
    stack: Stack,
    stores: Mapping[str, TokenStore],
    parallel: ParallelCorpus | None,
    loss: Callable[[Stack, PretrainStep], LossResult],
) -> str:
    """Runs one step of each objective at each row length, without changing a weight, and says what all of them will take.

    Args:
        recipe: What will run.
        stack: The model in training.
        stores: Training text.
        parallel: Aligned text.
        loss: Of a batch.

    Returns:
        One line: time of all steps on this machine, memory of the model's state, and the most that was in use.
    """
    parameters = [weight for weight in stack.backbone.model.parameters() if weight.requires_grad]
    device = stack.backbone.device
    seconds, share = 0.0, sum(item.weight for item in recipe.objectives)
    for stage in recipe.stages:
        one = recipe.model_copy(update={"stages": [stage]})
        stream = PretrainStream(one, stores, parallel, stack.backbone)
        seen: dict[str, float] = {}
        for step in chain.from_iterable(stream.window(1) for _ in range(_DRAWS)):
            name = step.objective.model_dump_json()
            if name in seen:
                continue
            for _ in range(2):  # the first makes room and chooses kernels
                began = time.monotonic()
                with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
                    result = loss(stack, step)
                torch.autograd.backward(result.total / max(result.count, 1))
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seen[name] = step.objective.weight * (time.monotonic() - began)
                for weight in parameters:
                    weight.grad = None
            if len(seen) == len(recipe.objectives):
                break
        seconds += stage.steps * recipe.accumulation * sum(seen.values()) / share
    state = _BYTES_A_PARAMETER * sum(weight.numel() for weight in parameters)
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # Weights, activations and gradients were measured; the moments, half of the state, come on top.
    return (
        f"about {_clock(seconds)} for {recipe.steps:,} steps on {device}; {_size(state)} for weights, gradients and "
        f"optimiser, {_size(peak + state / 2)} in all"
    )


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"
