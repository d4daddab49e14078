"""The families table: where modules act in each model architecture of `transformers`.

A family is one row. Paths are relative to the whole model (with its LM head) for `blocks`, `final_norm` and
`embedding_output`, and relative to one block for the rest. `{side}` stands for `encoder` or `decoder`.
"""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["encoder", "decoder", "encoder-decoder"]
Norm = Literal["pre", "post"]


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        name: What people call the family.
        model_types: `config.model_type` values that belong to it.
        kind: Encoder, decoder or encoder-decoder.
        norm: Where the norms of a block stand; it decides how an adapter joins the residual stream (design 5.1).
        blocks: Path of the block list, by side.
        final_norm: Path of the last norm of a side (pre-norm families), by side.
        last_norm: Path, inside a block, of the norm that ends it (post-norm families).
        attention_output: Path, inside a block, of the module whose output is the attention sublayer's contribution.
        ffn_output: The same for the feed-forward sublayer. A `{ffn}` part is filled by `ffn_index`.
        ffn_input: Path, inside a block, of the module whose input is what a parallel adapter reads.
        ffn_index: For T5-like blocks, the index of the feed-forward sublayer by side.
        linears: Role of a linear layer -> path inside a block, the targets of LoRA.
        embedding_output: Path of the module whose output is the embedding site, where it is not the word embedding.
        head_transform: Which function stands between the last hidden state and the vocabulary matrix.
        position_offset: First position id (learned absolute positions that count from the padding index).
        absolute_positions: Whether `config.max_position_embeddings` is a hard limit.
        takes_position_ids: Whether the body accepts `position_ids`.
        prefix_cache: Whether a leading prompt may be run once and its keys and values shared by the batch.
        fp16_safe: Whether float16 is known to work.
    """

    name: str
    model_types: tuple[str, ...]
    kind: Kind
    norm: Norm
    blocks: dict[str, str]
    final_norm: dict[str, str] = field(default_factory=dict)
    last_norm: str | None = None
    attention_output: str | None = None
    ffn_output: str | None = None
    ffn_input: str | None = None
    ffn_index: dict[str, int] = field(default_factory=dict)
    linears: dict[str, str] = field(default_factory=dict)
    embedding_output: str | None = None
    head_transform: Literal["none", "bert", "roberta", "modernbert"] = "none"
    position_offset: int = 0
    absolute_positions: bool = False
    takes_position_ids: bool = True
    prefix_cache: bool = False
    fp16_safe: bool = True


_LLAMA_LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_BERT_BLOCK = {
    "last_norm": "output.LayerNorm",
    "attention_output": "attention.output.dropout",
    "ffn_output": "output.dropout",
    "ffn_input": "intermediate",
    "linears": {
        "q": "attention.self.query",
        "k": "attention.self.key",
        "v": "attention.self.value",
        "o": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
}


def _t5(name: str, model_types: tuple[str, ...]) -> Family:
    return Family(
        name=name,
        model_types=model_types,
        kind="encoder-decoder",
        norm="pre",
        blocks={"encoder": "encoder.block", "decoder": "decoder.block"},
        final_norm={"encoder": "encoder.final_layer_norm", "decoder": "decoder.final_layer_norm"},
        attention_output="layer.0.dropout",
        ffn_output="layer.{ffn}.dropout",
        ffn_input="layer.{ffn}.layer_norm",
        ffn_index={"encoder": 1, "decoder": 2},
        linears={
            "q": "layer.0.SelfAttention.q",
            "k": "layer.0.SelfAttention.k",
            "v": "layer.0.SelfAttention.v",
            "o": "layer.0.SelfAttention.o",
            # What the decoder asks of the encoder; PEFT's targets `q` and `v` mean these layers too.
            "crossq": "layer.1.EncDecAttention.q",
            "crossk": "layer.1.EncDecAttention.k",
            "crossv": "layer.1.EncDecAttention.v",
            "crosso": "layer.1.EncDecAttention.o",
            "up": "layer.{ffn}.DenseReluDense.wi_0",
            "up2": "layer.{ffn}.DenseReluDense.wi_1",
            "down": "layer.{ffn}.DenseReluDense.wo",
        },
        takes_position_ids=False,
        fp16_safe=False,
    )


def _llama(name: str, model_types: tuple[str, ...], *, kind: Kind = "decoder", prefix_cache: bool = True) -> Family:
    side = "encoder" if kind == "encoder" else "decoder"
    return Family(
        name=name,
        model_types=model_types,
        kind=kind,
        norm="pre",
        blocks={side: "model.layers"},
        final_norm={side: "model.norm"},
        attention_output="self_attn.o_proj",
        ffn_output="mlp.down_proj",
        ffn_input="post_attention_layernorm",
        linears=_LLAMA_LINEARS,
        prefix_cache=prefix_cache,
    )


FAMILIES: tuple[Family, ...] = (
    Family(
        name="BERT",
        model_types=("bert",),
        kind="encoder",
        norm="post",
        blocks={"encoder": "bert.encoder.layer"},
        embedding_output="bert.embeddings",
        head_transform="bert",
        absolute_positions=True,
        **_BERT_BLOCK,  # type: ignore[arg-type]
    ),
    Family(
        name="XLM-R",
        model_types=("xlm-roberta", "roberta", "camembert"),
        kind="encoder",
        norm="post",
        blocks={"encoder": "roberta.encoder.layer"},
        embedding_output="roberta.embeddings",
        head_transform="roberta",
        position_offset=2,
        absolute_positions=True,
        **_BERT_BLOCK,  # type: ignore[arg-type]
    ),
    Family(
        name="ModernBERT",
        model_types=("modernbert",),
        kind="encoder",
        norm="pre",
        blocks={"encoder": "model.layers"},
        final_norm={"encoder": "model.final_norm"},
        attention_output="attn.out_drop",
        ffn_output="mlp.Wo",
        ffn_input="mlp_norm",
        linears={"qkv": "attn.Wqkv", "o": "attn.Wo", "up": "mlp.Wi", "down": "mlp.Wo"},
        embedding_output="model.embeddings",
        head_transform="modernbert",
    ),
    _llama("EuroBERT", ("eurobert",), kind="encoder", prefix_cache=False),
    Family(
        name="XGLM",
        model_types=("xglm",),
        kind="decoder",
        norm="pre",
        blocks={"decoder": "model.layers"},
        final_norm={"decoder": "model.layer_norm"},
        attention_output="self_attn.out_proj",
        ffn_output="fc2",
        ffn_input="final_layer_norm",
        linears={
            "q": "self_attn.q_proj",
            "k": "self_attn.k_proj",
            "v": "self_attn.v_proj",
            "o": "self_attn.out_proj",
            "up": "fc1",
            "down": "fc2",
        },
        absolute_positions=True,
        prefix_cache=True,
    ),
    Family(
        name="BLOOM",
        model_types=("bloom",),
        kind="decoder",
        norm="pre",
        blocks={"decoder": "transformer.h"},
        final_norm={"decoder": "transformer.ln_f"},
        attention_output="self_attention.dense",
        ffn_output="mlp.dense_4h_to_h",
        ffn_input="post_attention_layernorm",
        linears={
            "qkv": "self_attention.query_key_value",
            "o": "self_attention.dense",
            "up": "mlp.dense_h_to_4h",
            "down": "mlp.dense_4h_to_h",
        },
        embedding_output="transformer.word_embeddings_layernorm",
        takes_position_ids=False,
        prefix_cache=True,
    ),
    _llama("Llama", ("llama", "mistral")),
    _llama("Qwen", ("qwen2", "qwen3")),
    _llama("Gemma", ("gemma",)),
    # From the second generation on Gemma norms its sublayers' outputs and mixes sliding-window caches: the stream
    # adapter is unchanged, sublayer adapters would sit before a norm, so those sites are left unnamed.
    Family(
        name="Gemma 2/3",
        model_types=("gemma2", "gemma3_text"),
        kind="decoder",
        norm="pre",
        blocks={"decoder": "model.layers"},
        final_norm={"decoder": "model.norm"},
        linears=_LLAMA_LINEARS,
    ),
    _t5("mT5 / mT0", ("mt5", "t5")),
    _t5("uMT5", ("umt5",)),
)


def family_of(model_type: str) -> Family | None:
    """Returns the row for a `config.model_type`, or None when the table has none."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)
