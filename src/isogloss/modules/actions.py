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
class PromptAction:
    """Inserts `vectors(weights)` ([L, d] or [B, L, d]) into the input embeddings of a side.

    `before`: in front of the text. `after-bos`: behind the first token when that is BOS/CLS, else in front.
    `after`: behind the text, in front of a closing EOS/SEP.
    """

    group: str
    side: str
    placement: Placement
    length: int
    vectors: Callable[[Weights], Tensor]


Action = BlockAction | LinearAction | EmbeddingAction | PromptAction
