"""Backbones that travel with the package: embeddings in 8 bits, so that a vocabulary of words fits in a few megabytes."""

from pathlib import Path

import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.storage import load_tensors, save_tensors

PACKED = "packed.safetensors"
_LEVELS = ".int8"
_SCALES = ".scale"


def pack(state: dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """Stores every matrix of `rows` rows as int8 [rows, d] and one bf16 scale a row, all else as bf16.

    Symmetric rounding to 255 levels by each row's largest entry: an error of at most 0.4 % of that entry.

    Args:
        state: A model's weights; tied ones under one name.
        rows: Size of the vocabulary, which tells embeddings from other matrices.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.ndim == 2 and tensor.shape[0] == rows:
            values = tensor.float()
            # Rounded before it divides, so that what is unpacked later is a product of exactly this number.
            scale = (values.abs().amax(dim=1).clamp(min=1e-12) / 127).to(torch.bfloat16)
            packed[name + _LEVELS] = (values / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
            packed[name + _SCALES] = scale
        else:
            packed[name] = tensor.to(torch.bfloat16)
    return packed


def unpack(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights that `pack` stored, in bf16.

    Raises:
        IsoglossError: Levels without scales.
    """
    state: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if name.endswith(_SCALES) and name.removesuffix(_SCALES) + _LEVELS in packed:
            continue
        if not name.endswith(_LEVELS):
            state[name] = tensor
            continue
        plain = name.removesuffix(_LEVELS)
        if plain + _SCALES not in packed:
            raise IsoglossError(f"The packed weights have no '{plain + _SCALES}'; install the package again.")
        state[plain] = (tensor.float() * packed[plain + _SCALES].float()[:, None]).to(torch.bfloat16)
    return state


def save_packed(folder: Path, state: dict[str, Tensor], rows: int) -> None:
    """Writes `packed.safetensors` into a backbone's folder."""
    save_tensors(folder / PACKED, pack(state, rows))


def load_packed(folder: Path) -> dict[str, Tensor] | None:
    """The weights of a folder that holds a packed file, else None.

    Raises:
        IsoglossError: The file is damaged.
    """
    path = folder / PACKED
    return unpack(load_tensors(path)) if path.is_file() else None
