"""The prompt pool of a backbone that was pre-trained with one: a part of the model, kept in a file of its own.

As part of the model its tensors train, freeze, move and count in the fingerprint with all others. On disk they stand apart,
so that the folder remains one that plain `transformers` loads without a word.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from isogloss.errors import IsoglossError
from isogloss.storage import load_tensors, save_tensors

POOL_NAME = "prompt_pool"
POOL_FILE = "pool.safetensors"


def attach_pool(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Makes the tensors part of the model, in its precision and place."""
    like = next(model.parameters())
    setattr(
        model,
        POOL_NAME,
        nn.ParameterDict(
            {
                name: nn.Parameter(tensor.detach().to(like.device, like.dtype), requires_grad=like.requires_grad)
                for name, tensor in tensors.items()
            }
        ),
    )


@contextmanager
def without_pool(model: nn.Module) -> Iterator[None]:
    """Within it the model is the bare one, as `transformers` knows it."""
    pool = getattr(model, POOL_NAME, None)
    if pool is not None:
        delattr(model, POOL_NAME)
    try:
        yield
    finally:
        if pool is not None:
            setattr(model, POOL_NAME, pool)


def save_pool(folder: Path, model: nn.Module) -> None:
    """Writes the model's pool, if it has one, beside its other files."""
    pool = getattr(model, POOL_NAME, None)
    if pool is not None:
        save_tensors(folder / POOL_FILE, {name: tensor.detach().to(torch.bfloat16) for name, tensor in pool.items()})


def load_pool(folder: Path, model: nn.Module) -> None:
    """Reads the pool of a backbone's folder into its model.

    Raises:
        IsoglossError: The file is missing.
    """
    path = folder / POOL_FILE
    if not path.is_file():
        raise IsoglossError(
            f"The backbone in '{folder}' was trained with a prompt pool, but its file {POOL_FILE} is missing; copy the folder again."
        )
    attach_pool(model, load_tensors(path))
