"""Generation over assembled embeddings, by `transformers`' own `generate`."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.stack import head
from isogloss.stack.bank import Rows
from isogloss.stack.batch import TextBatch

if TYPE_CHECKING:
    from isogloss.stack.stack import Stack


def generate(stack: "Stack", batch: TextBatch, rows: Rows, max_new_tokens: int, options: dict[str, Any]) -> Tensor:
    """New token ids [B, S]; see `Stack.generate`.

    Raises:
        IsoglossError: The backbone is an encoder.
    """
    backbone = stack.backbone
    if backbone.kind == "encoder":
        raise IsoglossError(
            f"{backbone.name} is an encoder and cannot generate text; use a decoder or an encoder-decoder."
        )
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "do_sample": False,
        "pad_token_id": backbone.pad_id,
        **options,
    }
    with torch.no_grad(), stack.attached(rows), _inverse_before_head(stack, rows):
        if backbone.kind == "decoder":
            assembled = stack.assemble(batch, rows, pad_left=True)
            with stack.embedding_generated(rows):
                return backbone.model.generate(  # type: ignore[no-any-return]
                    inputs_embeds=assembled.embeddings, attention_mask=assembled.attention_mask, **settings
                )
        return _generate_encoder_decoder(stack, batch, rows, settings)


def _generate_encoder_decoder(stack: "Stack", batch: TextBatch, rows: Rows, settings: dict[str, Any]) -> Tensor:
    from transformers.modeling_outputs import BaseModelOutput

    backbone = stack.backbone
    batch_size = batch.input_ids.shape[0]
    states, assembled = stack.encode(batch, rows)
    start = torch.full((batch_size, 1), backbone.decoder_start_id, device=states.device)
    prompts = stack.placed_prompts("decoder", rows, batch_size)
    length = sum(prompt.vectors.shape[-2] for prompt in prompts)
    if length:
        if settings.get("num_beams", 1) > 1 or settings.get("do_sample"):
            raise IsoglossError("A prompt on the decoder side generates greedily only; drop num_beams and do_sample.")
        return _greedy_with_decoder_prompt(stack, rows, states, assembled.attention_mask, prompts, start, settings)
    generated = backbone.model.generate(
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=assembled.attention_mask,
        decoder_input_ids=start,
        **settings,
    )
    return generated[:, 1:]  # type: ignore[no-any-return]


def _greedy_with_decoder_prompt(
    stack: "Stack",
    rows: Rows,
    states: Tensor,
    mask: Tensor,
    prompts: list[Any],
    start: Tensor,
    settings: dict[str, Any],
) -> Tensor:
    """Greedy decoding behind decoder-side prompt vectors, which `transformers` cannot be given as embeddings."""
    from transformers import DynamicCache, EncoderDecoderCache

    backbone = stack.backbone
    batch_size = start.shape[0]
    embeddings = backbone.embed(start)
    embeddings = torch.cat(
        [prompt.vectors.to(embeddings.dtype).expand(batch_size, *prompt.vectors.shape[-2:]) for prompt in prompts]
        + [embeddings],
        dim=1,
    )
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    ends = torch.tensor(backbone.eos_ids, device=start.device)
    finished = torch.zeros(batch_size, dtype=torch.bool, device=start.device)
    tokens = []
    for _ in range(settings["max_new_tokens"]):
        hidden = backbone.decoder(
            inputs_embeds=embeddings,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state[:, -1]
        ready = stack.head_map(rows)(hidden, torch.arange(batch_size, device=hidden.device))
        token = head.best_tokens(ready, backbone.head_weight, backbone.head_bias, backbone.logit_softcap)
        token = token.masked_fill(finished, backbone.pad_id)
        tokens.append(token)
        finished = finished | torch.isin(token, ends)
        if bool(finished.all()):
            break
        embeddings = backbone.embed(token.unsqueeze(1))
    return torch.stack(tokens, dim=1)


class _inverse_before_head:  # noqa: N801 - used like a function
    """Within it, what reaches the backbone's own vocabulary matrix has gone through the inverted invertible adapters."""

    def __init__(self, stack: "Stack", rows: Rows) -> None:
        self._stack, self._rows = stack, rows
        self._handle: Any = None

    def __enter__(self) -> None:
        if self._stack.inverts:
            head = self._stack.backbone.model.get_output_embeddings()
            self._handle = head.register_forward_pre_hook(
                lambda module, inputs: (self._stack.invert(inputs[0], self._rows),)
            )

    def __exit__(self, *problem: object) -> None:
        if self._handle is not None:
            self._handle.remove()
