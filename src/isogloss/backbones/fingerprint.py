"""A fingerprint says whether a module was trained on this very backbone."""

import hashlib
from typing import Any

import torch
from torch import nn

# What changes the computation without changing a weight. Read under every name that transformers uses for it.
_CONFIG_KEYS = (
    "model_type", "num_attention_heads", "n_head", "num_heads", "attention_heads", "num_key_value_heads",
    "hidden_act", "activation_function", "feed_forward_proj", "hidden_activation", "layer_norm_eps", "layer_norm_epsilon",
    "rms_norm_eps", "scale_embedding", "tie_word_embeddings",
)  # fmt: skip
_SAMPLE = 1 << 16


def fingerprint(model: nn.Module, config: Any) -> str:
    """Returns 16 hex digits made of the architecture and the weights.

    Weights are rounded to bfloat16 first, so the precision that a model is loaded in does not matter. Of a tensor with
    more than 65,536 elements an evenly spaced sample of that size counts: it tells any two trainings apart and keeps a
    model of billions of weights to about a second.

    Args:
        model: The model, on any device.
        config: Its `transformers` configuration.
    """
    digest = hashlib.sha256()
    for key in _CONFIG_KEYS:
        value = getattr(config, key, None)
        if value is not None:
            digest.update(f"{key}={value};".encode())
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            flat = parameter.detach().reshape(-1)
            if flat.numel() > _SAMPLE:
                flat = flat[:: flat.numel() // _SAMPLE]
            values = flat.to("cpu", torch.bfloat16).contiguous()
            digest.update(f"{name}{tuple(parameter.shape)};".encode())
            digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]
