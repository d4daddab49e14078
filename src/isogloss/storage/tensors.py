"""Tensors on disk: safetensors only, written atomically, damage reported by file name."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from isogloss.errors import IsoglossError


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Writes named tensors to one safetensors file, whole or not at all.

    Args:
        path: The file to write.
        tensors: Tensors of any shape; copied to the CPU and made contiguous.
        metadata: Text pairs for the file's header.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # `clone` because safetensors refuses tensors that share memory, as tied weights and slices do.
    ready = {name: tensor.detach().to("cpu").clone().contiguous() for name, tensor in tensors.items()}
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    try:
        save_file(ready, name, metadata=dict(metadata) if metadata else None)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException as problem:
        Path(name).unlink(missing_ok=True)
        if isinstance(problem, SafetensorError):
            # safetensors wraps the operating system's error (a full disk, say) in its own class.
            raise IsoglossError(
                f"The file '{target}' could not be written: {problem}; free disk space or choose another folder."
            ) from problem
        raise


def load_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors file into CPU tensors.

    Raises:
        IsoglossError: The file is missing, truncated or not safetensors.
    """
    source = Path(path)
    if not source.is_file():
        raise IsoglossError(f"The tensor file '{source}' does not exist.")
    try:
        return dict(load_file(str(source)))
    except (SafetensorError, OSError, ValueError) as problem:
        raise IsoglossError(
            f"The tensor file '{source}' is damaged or not safetensors ({problem}); copy or train it again."
        ) from problem
