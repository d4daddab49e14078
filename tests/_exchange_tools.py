"""Logits of a stack and of a model written out by hand, on the same two rows."""

from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.stack import Stack

IDS = torch.tensor([[5, 9, 33, 71, 8, 14], [90, 17, 4, 6, 55, 23]])
MASK = torch.ones_like(IDS)
DECODER_IDS = torch.tensor([[0, 11, 12], [0, 40, 7]])


def inputs(backbone: Backbone) -> dict[str, Any]:
    extra = {"decoder_input_ids": DECODER_IDS} if backbone.kind == "encoder-decoder" else {}
    return {"input_ids": IDS, "attention_mask": MASK, **extra}


def stack_logits(backbone: Backbone, *modules: Any) -> Tensor:
    with torch.no_grad():
        return Stack(backbone, list(modules)).logits(**inputs(backbone))


def model_logits(model: nn.Module, backbone: Backbone) -> Tensor:
    with torch.no_grad():
        return model(**inputs(backbone)).logits  # type: ignore[no-any-return]
