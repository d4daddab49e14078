"""What a module asks of a backbone: actions at sites.

An action is pure: its function gets the tensors of its group either as they are (`[...]`, one module for the whole
batch) or gathered per row (`[B, ...]`, a routed bank), and does the same thing with both (`rowwise.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Weights = Mapping[str, Tensor]
Point = Literal["stream", "attention", "ffn", "parallel"]
Placement = Literal["before", "after-bos", "after"]


@dataclass(frozen=True)
class BlockAction:
    """Adds `apply(x)` at a point of one block.

    `stream`: x is the residual stream at the end of the block (normed first where the norm comes last).
    `attention`, `ffn`: x is that sublayer's output before the residual is added, and the sum takes its place.
    `parallel`: x is the feed-forward sublayer's input, the sum is made with its output.
    """

    group: str
    side: str
    block: int
    point: Point
    apply: Callable[[Tensor, Weights], Tensor]


@dataclass(frozen=True)
class LinearAction:
    """Adds `apply(x)` to the output of one linear layer with input x."""

    group: str
    side: str
    block: int
    role: str
    apply: Callable[[Tensor, Weights], Tensor]


@dataclass(frozen=True)
class EmbeddingAction:
    """Maps the embedding site by `forward`, and the states before the LM head by `inverse` (None: not mapped back)."""

    group: str
    forward: Callable[[Tensor, Weights], Tensor]
    inverse: Callable[[Tensor, Weights], Tensor] | None


@dataclass(frozen=True)
class InsertionAction:
    """Inserts `length` vectors into the input embeddings of a side.

    `before`: in front of the text. `after-bos`: behind the first token when that is BOS/CLS, else in front.
    `after`: behind the text, in front of a closing EOS/SEP.
    """

    group: str
    side: str
    placement: Placement
    length: int


@dataclass(frozen=True)
class PromptAction(InsertionAction):
    """The same vectors for every text: `vectors(weights)`, [L, d] or [B, L, d]."""

    vectors: Callable[[Weights], Tensor]


@dataclass(frozen=True)
class PromptText:
    """What a retrieved prompt may see of its texts.

    Attributes:
        input_ids: [B, T].
        mask: [B, T] bool, the tokens that may be looked at; never those that a causal model still has to predict.
        embeddings: [B, T, d], the backbone's own word embeddings.
        states: [B, T, d], last states of the bare backbone over the text, without prompt or module; None if no action reads them.
        training: Whether the stack is in training mode.
    """

    input_ids: Tensor
    mask: Tensor
    embeddings: Tensor
    states: Tensor | None
    training: bool


@dataclass(frozen=True)
class Retrieved:
    """What was found for each text.

    Attributes:
        vectors: [B, L, d], inserted.
        attention: [B, M], how much each key was attended to; rows sum to 1.
        loss: [B], added to the training loss; None for none.
    """

    vectors: Tensor
    attention: Tensor
    loss: Tensor | None = None


@dataclass(frozen=True)
class RetrievalAction(InsertionAction):
    """Vectors chosen by the text: `retrieve(text, weights, route)`.

    Attributes:
        retrieve: `route` is what the batch's routes hold under the slot's name ([B] or [B, R]), or None.
        reads: Whether the word embeddings are enough, or the states of a prompt-free pass are needed first.
        detached: Whether no gradient flows into that pass.
        positions: Which positions the vectors take: `shift` (the text moves on by L), `own` (a range of their own at the end
            of the position table; the text stays), `none` (no position at all; the text stays).
    """

    retrieve: Callable[[PromptText, Weights, Tensor | None], Retrieved]
    reads: Literal["embeddings", "states"]
    detached: bool
    positions: Literal["shift", "own", "none"]


Action = BlockAction | LinearAction | EmbeddingAction | PromptAction | RetrievalAction
