"""The optimisers, one group of parameters per part, and their state as named tensors and numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isogloss.training.config import FitConfig, TrainedPart


def create_optimiser(config: FitConfig, parts: Sequence[TrainedPart]) -> Optimizer:
    """Makes the optimiser; every group carries "peak" (its peak learning rate) and "part" (its part's name).

    Args:
        config: Names the optimiser and its constants.
        parts: What is trained. Parts without parameters add no group.
    """
    groups = []
    for part in parts:
        rate = config.learning_rate if part.learning_rate is None else part.learning_rate
        decay = config.weight_decay if part.weight_decay is None else part.weight_decay
        vectors = [p for p in part.parameters if p.ndim < 2 and decay and not config.decay_vectors]
        rest = [p for p in part.parameters if not (p.ndim < 2 and decay and not config.decay_vectors)]
        for parameters, own_decay in ((rest, decay), (vectors, 0.0)):
            if parameters:
                groups.append(
                    {
                        "params": parameters,
                        "lr": rate,
                        "weight_decay": own_decay,
                        "peak": rate,
                        "part": part.name,
                    }
                )
    if config.optimiser == "adamw":
        # The fused kernel does one pass over memory instead of about ten; on a CPU that is most of the step's
        # cost.
        fused = all(p.device.type in ("cpu", "cuda") for group in groups for p in _parameters(group))
        return torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, weight_decay=0.0, fused=fused)
    if config.optimiser == "sgd":
        return _DecoupledSGD(groups, momentum=config.momentum)
    # As the Hugging Face Trainer sets it (papers.md 1.3, 5.3): the rate is ours, not relative to step or
    # weights.
    from transformers.optimization import Adafactor

    optimiser: Optimizer = Adafactor(
        groups,
        lr=config.learning_rate,
        eps=(1e-30, 1e-3),
        clip_threshold=1.0,
        decay_rate=-config.decay_rate,
        beta1=None,
        weight_decay=0.0,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    return optimiser


def _parameters(group: Mapping[str, Any]) -> Sequence[nn.Parameter]:
    parameters: Sequence[nn.Parameter] = group["params"]
    return parameters


class _DecoupledSGD(torch.optim.SGD):
    """SGD whose weight decay is decoupled, so that the option means the same for all three optimisers."""

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        for group in groups:
            group["decoupled_decay"], group["weight_decay"] = group["weight_decay"], 0.0
        super().__init__(groups, lr=0.0, momentum=momentum)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and group["decoupled_decay"]:
                    parameter.mul_(1.0 - group["lr"] * group["decoupled_decay"])
        return super().step(closure)


def optimiser_state(optimiser: Optimizer) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Returns the state as tensors and numbers, both named "<parameter number>/<key>"."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for index, values in optimiser.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}/{key}"] = value
            elif value is not None:
                numbers[f"{index}/{key}"] = value
    return tensors, numbers


def restore_optimiser_state(optimiser: Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, float]) -> None:
    """Puts back what `optimiser_state` returned, onto the devices of the parameters."""
    state: dict[int, dict[str, Tensor | float]] = {}
    named: dict[str, Tensor | float] = {**tensors, **numbers}
    for name, value in named.items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
