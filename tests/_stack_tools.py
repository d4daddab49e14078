"""Batches and modules for the stack tests."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.modules import TransferModule, create_module, parse_module
from isogloss.stack import TextBatch

BOS = {"xlmr": 0, "xglm": 0, "modernbert": 1, "eurobert": 1, "phi3": 1}


def texts(count: int, lengths: Sequence[int], *, seed: int = 0, ends: Sequence[int] = ()) -> list[list[int]]:
    """Random token ids 10..119, each text closed by `ends`."""
    generator = torch.Generator().manual_seed(seed)
    return [
        [*torch.randint(10, 120, (lengths[i % len(lengths)],), generator=generator).tolist(), *ends]
        for i in range(count)
    ]


def pad(rows: Sequence[Sequence[int]], *, left: bool = False, fill: int = 5, width: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T]; the padding holds an ordinary token, so that nothing but the mask can tell."""
    width = max(width, *(len(row) for row in rows))
    ids = torch.full((len(rows), width), fill)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, place] = torch.tensor(row, dtype=torch.long)
        mask[number, place] = 1
    return ids, mask


def batch_of(
    backbone: Backbone, rows: Sequence[Sequence[int]], *, left: bool = False, routes: Any = None, seed: int = 1
) -> TextBatch:
    """A text batch; encoder-decoders get random decoder inputs of 4 tokens."""
    ids, mask = pad(rows, left=left)
    decoder = None
    if backbone.kind == "encoder-decoder":
        generator = torch.Generator().manual_seed(seed)
        decoder = torch.randint(10, 120, (len(rows), 4), generator=generator)
        decoder[:, 0] = backbone.decoder_start_id
    return TextBatch(ids, mask, decoder, routes=routes)


def make(
    backbone: Backbone,
    spec: str,
    *,
    seed: int = 0,
    role: str = "task",
    label: str = "",
    noise: float = 0.3,
    **extra: Any,
) -> TransferModule:
    """A module whose every trained weight is noise, so that no part of it is the identity."""
    module = create_module(parse_module(spec), backbone, seed=seed, **extra)
    generator = torch.Generator().manual_seed(1000 + seed)
    if noise:
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.requires_grad:
                    parameter.copy_(noise * torch.randn(parameter.shape, generator=generator))
    module.info.role = role  # type: ignore[assignment]
    if role == "language":
        module.info.language = label or "lng"
    else:
        module.info.task = label or "topic"
    return module


def hook_count(model: torch.nn.Module) -> int:
    """All hooks on all parts of a model."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    """Asserts equality up to a share of the largest value."""
    found, wanted = found.detach(), wanted.detach()
    assert found.shape == wanted.shape
    limit = tolerance * max(1.0, float(wanted.abs().max()))
    assert float((found - wanted).abs().max()) <= limit, float((found - wanted).abs().max())
