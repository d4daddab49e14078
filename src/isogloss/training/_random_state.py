"""The state of torch's, numpy's and Python's generators as tensors, so that it needs no pickle."""

import random
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_PYTHON_WORDS = 625


def seed_everything(seed: int) -> None:
    """Seeds torch (all devices), numpy and Python."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture(device: torch.device) -> dict[str, Tensor]:
    """Returns the generators' state as uint8 tensors whose sizes never change."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert version == 3 and name == "MT19937" and len(words) == _PYTHON_WORDS
    state = {
        "torch": torch.get_rng_state(),
        "python": _bytes(struct.pack(f"<{_PYTHON_WORDS}I?d", *words, gauss is not None, gauss or 0.0)),
        "numpy": _bytes(struct.pack("<ii d", position, has_gauss, cached) + np.asarray(keys, "<u4").tobytes()),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Puts back what `capture` returned; a device that the state does not know keeps its own."""
    torch.set_rng_state(state["torch"].cpu())
    *words, has, gauss = struct.unpack(f"<{_PYTHON_WORDS}I?d", _raw(state["python"]))
    random.setstate((3, tuple(words), gauss if has else None))
    raw = _raw(state["numpy"])
    head = struct.calcsize("<ii d")
    position, has_gauss, cached = struct.unpack("<ii d", raw[:head])
    keys = np.frombuffer(raw[head:], "<u4").astype(np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, cached))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@contextmanager
def preserved(device: torch.device) -> Iterator[None]:
    """Leaves the generators after the block as they were before it."""
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)


def _bytes(raw: bytes) -> Tensor:
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _raw(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().numpy().tobytes()
