"""The backbone: a frozen multilingual model with its tokenizer, sites and LM head in pieces."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones.families import Family, Kind
from isogloss.backbones.pool_part import POOL_NAME
from isogloss.backbones.sites import Sites


@dataclass(eq=False)
class Backbone:
    """A loaded model and what isogloss needs to know about it.

    Attributes:
        name: Hub id, folder or `bundled:...` name it was loaded from.
        model: The `transformers` model with its LM head.
        tokenizer: Its tokenizer, or None when the folder has none (token ids only).
        family: Row of the families table (or a discovered one).
        sites: Where modules act.
        fingerprint: 16 hex digits over architecture and weights.
        languages: Codes of the languages it was trained on, when known (bundled ones).
        card: What its `isogloss.json` says.
        pool: Spec of the prompt pool that it was pre-trained with (`pool:256x4`), or ""; its tensors are in the model.
    """

    name: str
    model: Any
    tokenizer: Any
    family: Family
    sites: Sites
    fingerprint: str
    languages: tuple[str, ...] = ()
    card: dict[str, Any] = field(default_factory=dict)
    pool: str = ""

    @property
    def kind(self) -> Kind:
        """`encoder`, `decoder` or `encoder-decoder`."""
        return self.family.kind

    @property
    def config(self) -> Any:
        """The `transformers` configuration."""
        return self.model.config

    @property
    def hidden_size(self) -> int:
        """Width d of the residual stream."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def vocabulary_size(self) -> int:
        """Rows of the LM head."""
        return int(self.head_weight.shape[0])

    @property
    def max_length(self) -> int | None:
        """The longest sequence of the text side in tokens, special tokens and prompts included; None without a limit."""
        limit = getattr(self.config, "max_position_embeddings", None)
        if not self.family.absolute_positions or limit is None:
            tokenizer_limit = getattr(self.tokenizer, "model_max_length", None)
            usable = limit or (tokenizer_limit if tokenizer_limit and tokenizer_limit < 10**6 else None)
            return int(usable) if usable and self.kind != "encoder-decoder" else None
        # XLM-R counts positions from padding_idx + 1, which takes those rows out of its 514.
        return int(limit) - self.family.position_offset

    @property
    def pool_tensors(self) -> nn.ParameterDict | None:
        """The tensors of the prompt pool that it was pre-trained with: part of the model, so that they train and count with it."""
        return getattr(self.model, POOL_NAME, None)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.model.parameters())).device  # type: ignore[no-any-return]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.model.get_input_embeddings().weight.dtype  # type: ignore[no-any-return]

    @property
    def pad_id(self) -> int:
        """Token id used to fill masked positions."""
        for owner in (self.config, self.tokenizer):
            value = getattr(owner, "pad_token_id", None)
            if value is not None:
                return int(value)
        return 0

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Token ids that end a text (EOS, or SEP for encoders)."""
        found: list[int] = []
        for owner, attribute in (
            (self.tokenizer, "eos_token_id"),
            (self.tokenizer, "sep_token_id"),
            (self.config, "eos_token_id"),
        ):
            value = getattr(owner, attribute, None)
            values = value if isinstance(value, list | tuple) else [value]
            found += [int(item) for item in values if item is not None]
        return tuple(dict.fromkeys(found))

    @property
    def decoder_start_id(self) -> int:
        """First decoder input of an encoder-decoder."""
        value = getattr(self.config, "decoder_start_token_id", None)
        return int(value) if value is not None else self.pad_id

    def embed(self, input_ids: Tensor) -> Tensor:
        """Returns word embeddings [B, T, d] as the model itself would feed them (scaled where it scales)."""
        return self.model.get_input_embeddings()(input_ids)  # type: ignore[no-any-return]

    @property
    def body(self) -> nn.Module:
        """The model without its LM head (encoder or decoder kind)."""
        return self.model.base_model  # type: ignore[no-any-return]

    @property
    def encoder(self) -> nn.Module:
        """The encoder of an encoder-decoder."""
        return self.model.get_encoder()  # type: ignore[no-any-return]

    @property
    def decoder(self) -> nn.Module:
        """The decoder of an encoder-decoder."""
        return self.model.get_decoder()  # type: ignore[no-any-return]

    @property
    def head_weight(self) -> Tensor:
        """Vocabulary matrix [V, d]."""
        return self.model.get_output_embeddings().weight  # type: ignore[no-any-return]

    @property
    def head_bias(self) -> Tensor | None:
        """Vocabulary bias [V] or None."""
        return getattr(self.model.get_output_embeddings(), "bias", None)

    @property
    def logit_softcap(self) -> float | None:
        """`c` of `c * tanh(logits / c)` (Gemma 2), or None."""
        value = getattr(self.config, "final_logit_softcapping", None)
        return float(value) if value else None

    def head_input(self, hidden: Tensor) -> Tensor:
        """Maps last hidden states [..., d] to what the vocabulary matrix multiplies."""
        match self.family.head_transform:
            case "bert":
                return self.model.cls.predictions.transform(hidden)  # type: ignore[no-any-return]
            case "roberta":
                head = self.model.lm_head
                return head.layer_norm(nn.functional.gelu(head.dense(hidden)))  # type: ignore[no-any-return]
            case "modernbert":
                return self.model.head(hidden)  # type: ignore[no-any-return]
        # T5 says so in its configuration; uMT5 does it whenever input and output embeddings are one matrix; mT5 never.
        model_type = self.config.model_type
        scales = getattr(self.config, "scale_decoder_outputs", False) if model_type == "t5" else False
        if scales or (model_type == "umt5" and self.config.tie_word_embeddings):
            return hidden / math.sqrt(self.hidden_size)
        return hidden

    def freeze(self) -> None:
        """Turns gradients off for every weight of the backbone, and frees those that a training has left."""
        self.model.requires_grad_(False)
        self.model.zero_grad(set_to_none=True)

    def unfreeze(self) -> None:
        """Turns gradients on for every weight (the unfrozen arm of S2, plain fine-tuning)."""
        self.model.requires_grad_(True)
