"""The weights that a run changes: which they are, how they are named, and copies of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from isogloss.errors import IsoglossError
from isogloss.training.config import TrainedPart


def trained_parameters(parts: Sequence[TrainedPart]) -> list[nn.Parameter]:
    """Returns all parameters of all parts, checked.

    Raises:
        IsoglossError: Nothing to train, a frozen or repeated parameter, or one that is not float32 or
            float64.
    """
    found: list[nn.Parameter] = []
    owners: dict[int, str] = {}
    for part in parts:
        for parameter in part.parameters:
            if id(parameter) in owners:
                raise IsoglossError(
                    f"Training parts '{owners[id(parameter)]}' and '{part.name}' share a parameter; "
                    "name it in one of them."
                )
            if not parameter.requires_grad:
                raise IsoglossError(
                    f"Training part '{part.name}' holds a frozen parameter; leave it out or unfreeze it."
                )
            if parameter.dtype not in (torch.float32, torch.float64):
                raise IsoglossError(
                    f"Training part '{part.name}' holds {parameter.dtype} weights; trained weights must be "
                    "float32 (precision bf16 concerns the forward pass only)."
                )
            owners[id(parameter)] = part.name
            found.append(parameter)
    if not found:
        names = ", ".join(f"'{part.name}'" for part in parts) or "none"
        raise IsoglossError(f"There is nothing to train: the training parts ({names}) hold no parameters.")
    return found


def changing_tensors(modules: Mapping[str, nn.Module], trained: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """Returns the live trainable parameters and saved buffers of all modules as "<module>/<name>".

    Raises:
        IsoglossError: A trained parameter is in no module, or a trainable parameter is in no part.
    """
    named: dict[str, Tensor] = {}
    wanted, seen = {id(p) for p in trained}, set()
    for name, module in modules.items():
        for key, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            if id(parameter) not in wanted:
                raise IsoglossError(
                    f"The parameter '{key}' of module '{name}' asks for a gradient but is in no training "
                    "part; freeze it or add it to a part."
                )
            seen.add(id(parameter))
            named[f"{name}/{key}"] = parameter
        saved = module.state_dict(keep_vars=True)
        for key, buffer in module.named_buffers():
            if key in saved and id(buffer) not in seen:
                seen.add(id(buffer))
                named[f"{name}/{key}"] = buffer
    missing = len(wanted - seen)
    if missing:
        raise IsoglossError(f"{missing} trained parameters are in none of the modules, so they could not be saved.")
    return named


def copy_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns copies on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def put_back(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Writes values into the live tensors."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])
