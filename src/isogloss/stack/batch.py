"""What goes into a stack and what comes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextBatch:
    """One batch of token ids.

    Attributes:
        input_ids: [B, T] int64.
        attention_mask: [B, T], 1 on tokens, 0 on padding (on either side).
        decoder_input_ids: [B, S] for encoder-decoders, starting with the decoder start token, padded on the right.
        token_type_ids: [B, T] segment ids, for models that were trained with them.
        routes: Slot name -> [B] int64, which module of that slot's bank each row uses. A module that is told its text's
            language (`route_of`) reads [B] or [B, R] places here instead, -1 for none.
        query_mask: [B, T], the tokens that a prompt chosen by the text may look at; None means all. A causal model must
            not look at what it has to predict.
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_input_ids: Tensor | None = None
    token_type_ids: Tensor | None = None
    routes: Mapping[str, Tensor] | None = None
    query_mask: Tensor | None = None

    def to(self, device: torch.device | str) -> "TextBatch":
        """The same batch on a device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            decoder_input_ids=None if self.decoder_input_ids is None else self.decoder_input_ids.to(device),
            token_type_ids=None if self.token_type_ids is None else self.token_type_ids.to(device),
            routes=None if self.routes is None else {name: rows.to(device) for name, rows in self.routes.items()},
            query_mask=None if self.query_mask is None else self.query_mask.to(device),
        )

    @property
    def tokens(self) -> int:
        """Number of real tokens of the text side."""
        return int(self.attention_mask.sum())


@dataclass(frozen=True)
class StackOutput:
    """Last hidden states.

    Attributes:
        text_hidden: [B, T, d], laid out like `input_ids`; undefined on padding. Encoder side for encoder-decoders.
        last_hidden: [B, d], the state that predicts what follows the text: the last position that is not EOS, which is
            the last prompt vector for a prompt after the text.
        attention_mask: [B, T] of the text.
        decoder_hidden: [B, S, d] for encoder-decoders run with `decoder_input_ids`.
        to_head: Maps states [N, d] and the rows they belong to [N] to what the vocabulary matrix multiplies: the head's own
            transform, then inverted invertible adapters.
    """

    text_hidden: Tensor
    last_hidden: Tensor
    attention_mask: Tensor
    decoder_hidden: Tensor | None = None
    to_head: Callable[[Tensor, Tensor], Tensor] | None = None

    def pooled_mean(self) -> Tensor:
        """Mean of the text states over real tokens, [B, d]."""
        mask = self.attention_mask.unsqueeze(-1).to(self.text_hidden.dtype)
        return (self.text_hidden * mask).sum(1) / mask.sum(1).clamp(min=1)

    @cached_property
    def lm_states(self) -> Tensor:
        """Head inputs at every position: [B, S, d] of the decoder of an encoder-decoder, else [B, T, d] of the text."""
        width = self._states.shape[1]
        everywhere = torch.arange(self._states.shape[0] * width, device=self._states.device)
        return self.at(everywhere).view(self._states.shape)

    @cached_property
    def lm_last(self) -> Tensor:
        """Head inputs of `last_hidden`, [B, d]."""
        rows = torch.arange(self.last_hidden.shape[0], device=self.last_hidden.device)
        return self.last_hidden if self.to_head is None else self.to_head(self.last_hidden, rows)

    def at(self, flat_positions: Tensor) -> Tensor:
        """Head inputs at [N] flat positions (row * width + column) -> [N, d]; the rest is never computed."""
        states = self._states.flatten(0, 1).index_select(0, flat_positions)
        return states if self.to_head is None else self.to_head(states, flat_positions // self._states.shape[1])

    @property
    def _states(self) -> Tensor:
        return self.text_hidden if self.decoder_hidden is None else self.decoder_hidden
