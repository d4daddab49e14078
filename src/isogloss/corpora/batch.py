"""What an objective hands to training: inputs, and labels at the scored positions only."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ObjectiveBatch:
    """One batch of a language-modelling objective.

    The loss is `stack.lm_loss(states.flatten(0, 1)[label_positions], labels) / N`, with the states of
    the encoder or decoder [B, T, d], or of an encoder-decoder's decoder [B, S, d].

    Attributes:
        input_ids: [B, T] int64.
        attention_mask: [B, T] int64, 1 at text, 0 at padding (right).
        decoder_input_ids: [B, S] int64, encoder-decoder only; starts with the decoder start token.
        label_positions: [N] int64, flat index into B*T, or into B*S where there is a decoder input.
        labels: [N] int64, the token to predict from the state at that position.
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_input_ids: Tensor | None
    label_positions: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> "ObjectiveBatch":
        """Returns the batch with all tensors on `device`."""
        decoder = None if self.decoder_input_ids is None else self.decoder_input_ids.to(device)
        return ObjectiveBatch(
            self.input_ids.to(device),
            self.attention_mask.to(device),
            decoder,
            self.label_positions.to(device),
            self.labels.to(device),
        )

    def __getitem__(self, rows: slice) -> "ObjectiveBatch":
        """Some of its rows, with their labels."""
        decoder = self.decoder_input_ids
        width = (self.input_ids if decoder is None else decoder).shape[1]
        count = len(self.input_ids)
        places = torch.full((count,), -1)
        places[rows] = torch.arange(len(range(count)[rows]))
        place = places[self.label_positions // width]
        kept = place >= 0
        return ObjectiveBatch(
            self.input_ids[rows],
            self.attention_mask[rows],
            None if decoder is None else decoder[rows],
            (place * width + self.label_positions % width)[kept],
            self.labels[kept],
        )

    @property
    def token_count(self) -> int:
        """Tokens that the model reads, without padding (encoder and decoder side together)."""
        decoder = 0 if self.decoder_input_ids is None else self.decoder_input_ids.numel()
        return int(self.attention_mask.sum()) + decoder


def pad_rows(rows: Sequence[Tensor], padding: int) -> tuple[Tensor, Tensor]:
    """Pads int64 vectors on the right.

    Returns:
        `(ids [B, T], attention mask [B, T])` with T the longest row.
    """
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=padding)
    mask = torch.arange(ids.shape[1])[None, :] < lengths[:, None]
    return ids, mask.to(torch.int64)
