"""Tiny random models of the real architectures, saved to disk and loaded as Hub models are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from isogloss.backbones import Backbone, load_backbone

_COMMON: dict[str, Any] = {"vocab_size": 120}
TINY: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForMaskedLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=64)),
    "xlmr": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=66, pad_token_id=1, bos_token_id=0, eos_token_id=2)),
    "modernbert": ("ModernBertConfig", "ModernBertForMaskedLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)),
    "eurobert": ("EuroBertConfig", "EuroBertForMaskedLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=64, pad_token_id=0, bos_token_id=1, eos_token_id=2)),
    "xglm": ("XGLMConfig", "XGLMForCausalLM", dict(d_model=32, num_layers=2, attention_heads=4, ffn_dim=64, pad_token_id=1, bos_token_id=0, eos_token_id=2)),
    "bloom": ("BloomConfig", "BloomForCausalLM", dict(hidden_size=32, n_layer=2, n_head=4, pad_token_id=3)),
    "llama": ("LlamaConfig", "LlamaForCausalLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, pad_token_id=0)),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, pad_token_id=0, eos_token_id=2)),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, head_dim=8, pad_token_id=0, eos_token_id=1)),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, head_dim=8, pad_token_id=0, eos_token_id=1)),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)),
    "umt5": ("UMT5Config", "UMT5ForConditionalGeneration", dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)),
    # Not in the families table: found by walking the module tree.
    "phi3": ("Phi3Config", "Phi3ForCausalLM", dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, pad_token_id=0, eos_token_id=2, bos_token_id=1)),
}  # fmt: skip
ENCODERS = ("bert", "xlmr", "modernbert", "eurobert")
DECODERS = ("xglm", "bloom", "llama", "qwen2", "gemma", "gemma2")
ENCODER_DECODERS = ("mt5", "umt5")


def save_tiny(name: str, folder: Path) -> Path:
    """Saves a tiny random model of an architecture with dropout 0 and returns its folder."""
    config_name, model_name, values = TINY[name]
    config = getattr(transformers, config_name)(**{**_COMMON, **values})
    for key in (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "dropout_rate",
        "hidden_dropout",
    ):
        if hasattr(config, key):
            setattr(config, key, 0.0)
    torch.manual_seed(0)
    model = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for name_, parameter in model.named_parameters():
            # Random norms and biases too, so that a test cannot pass because they are the identity.
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "embed" in name_ or "shared" in name_:
                parameter.mul_(5.0)
            else:
                parameter.mul_(3.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """`tiny("xlmr")` loads (once a session) a tiny backbone of that architecture."""
    loaded: dict[str, Backbone] = {}

    def get(name: str) -> Backbone:
        if name not in loaded:
            loaded[name] = load_backbone(save_tiny(name, tmp_path_factory.mktemp(name) / "backbone"), device="cpu")
        return loaded[name]

    return get
