"""Fresh backbones: the shapes that `pretrain` builds, in architectures that `transformers` knows.

Encoder: EuroBERT's (pre-norm, rotary). Decoder: Llama's. Encoder-decoder: mT5's. All tie input and output embeddings.
"""

from typing import Any

import torch

from isogloss.training.recipe import Recipe

# Linear layers that write to the residual stream.
_RESIDUAL = (
    ".self_attn.o_proj",
    ".mlp.down_proj",
    ".SelfAttention.o",
    ".EncDecAttention.o",
    ".DenseReluDense.wo",
)


def fresh_model(recipe: Recipe, tokenizer: Any) -> Any:
    """Builds a randomly initialised model for a recipe, seeded by it.

    Args:
        recipe: Its `kind` and `model` say what to build.
        tokenizer: Gives the vocabulary size and special tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        build = {"encoder": _encoder, "decoder": _decoder, "encoder-decoder": _encoder_decoder}[recipe.kind]
        model = build(recipe, tokenizer)
    if recipe.embeddings != "random":
        _silence_blocks(model)
    return model


def _silence_blocks(model: Any) -> None:
    """Blocks start by adding nothing, so that the first hidden states are the embeddings; random blocks drown what those know."""
    with torch.no_grad():
        for name, layer in model.named_modules():
            if name.endswith(_RESIDUAL):
                layer.weight.zero_()


def _shared(recipe: Recipe, tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "tie_word_embeddings": True,
    }


def _llama_shape(recipe: Recipe) -> dict[str, Any]:
    shape = recipe.model
    return {
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "max_position_embeddings": shape.max_length,
        "attention_dropout": shape.dropout,
    }


def _encoder(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import EuroBertConfig, EuroBertForMaskedLM

    config = EuroBertConfig(**_shared(recipe, tokenizer), **_llama_shape(recipe), mask_token_id=tokenizer.mask_token_id)
    return EuroBertForMaskedLM(config)


def _decoder(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_shared(recipe, tokenizer), **_llama_shape(recipe)))


def _encoder_decoder(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import MT5Config, MT5ForConditionalGeneration

    shape = recipe.model
    config = MT5Config(
        **{**_shared(recipe, tokenizer), "bos_token_id": None},
        d_model=shape.hidden,
        d_kv=shape.hidden // shape.heads,
        d_ff=shape.ffn,
        num_layers=shape.layers,
        num_decoder_layers=shape.decoder_layers or shape.layers,
        num_heads=shape.heads,
        dropout_rate=shape.dropout,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = MT5ForConditionalGeneration(config)
    with torch.no_grad():
        # mT5 draws tied embeddings with deviation 1 and does not rescale the head's input; at that size the first logits
        # would have a deviation of sqrt(d).
        model.get_input_embeddings().weight.normal_(0, 0.05)
    return model
