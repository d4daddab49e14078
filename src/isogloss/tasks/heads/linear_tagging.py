"""A linear layer over the state of one sub-token a word: POS tagging, entity tagging.

Encoders label the first sub-token of a word, as XTREME does. A decoder's state has seen only what stands to
its left, so there the *last* sub-token is labelled: it is the first state that knows the whole word. Other
sub-tokens are never scored.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.tasks.examples import Example
from isogloss.tasks.heads._base import Head, linear, need_labels
from isogloss.tasks.heads.protocol import Encoded, Prediction, Routes, TaskBatch
from isogloss.tasks.task import Task


class LinearTagging(Head):
    """State of each word's sub-token -> dropout -> linear -> softmax cross-entropy.

    Words without a sub-token in the row (cut off, or made of characters that the tokenizer drops) are
    predicted as `fallback`; `words_without_state` counts them.

    Args:
        task: tagging.
        backbone: Any kind; of an encoder-decoder only the encoder runs.
        dropout: In front of the layer, in training.
        fallback: Tag of words without a state; None means `O` where there is one, else the most frequent tag
            of the first labelled examples that are encoded, which are the training data.
        max_length: Most tokens of a row.
        seed: Of the layer's initial values.
    """

    name = "linear"
    kinds = ("tagging",)

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        dropout: float = 0.1,
        fallback: str | None = None,
        max_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(task, backbone, max_length=max_length)
        if fallback is None and "O" in self.labels:
            fallback = "O"
        if fallback is not None and fallback not in self.labels:
            raise IsoglossError(f"The fallback tag {fallback!r} is none of {', '.join(self.labels)}.")
        self.fallback, self.seed = fallback, seed
        self.dropout = nn.Dropout(dropout)
        self.layer = linear(backbone.hidden_size, len(self.labels), backbone, seed)

    def options(self) -> dict[str, Any]:
        """Keyword arguments that build the same head."""
        return {
            "dropout": self.dropout.p,
            "fallback": self.fallback,
            "max_length": self.max_length,
            "seed": self.seed,
        }

    def encode(self, examples: Sequence[Example], *, budget: int | None) -> list[Encoded]:
        """One row an example, with the column of one sub-token a word."""
        if self.fallback is None:
            tags = Counter(tag for example in examples for tag in example.tags or ())
            self.fallback = tags.most_common(1)[0][0] if tags else None
        limit = self.limit(budget)
        rows = []
        coded = self.coder.words([example.tokens or () for example in examples])
        for number, (example, (ids, words)) in enumerate(zip(examples, coded, strict=True)):
            row = self.coder.single(ids, limit, closing=False)
            kept = words[: len(ids) - row.lost]
            column_of: dict[int, int] = {}
            for place, word in enumerate(kept):
                if self.coder.is_decoder:
                    column_of[word] = row.start + place
                else:
                    column_of.setdefault(word, row.start + place)
            labels: tuple[int, ...] = ()
            if example.tags is not None:
                labels = tuple(self.task.label_index(example.tags[word]) for word in column_of)
            rows.append(
                Encoded(
                    number,
                    row.ids,
                    row.types,
                    labels=labels,
                    positions=tuple(column_of.values()),
                    words=tuple(column_of),
                    language=example.language,
                    lost=row.lost,
                )
            )
        return rows

    def collate(self, rows: Sequence[Encoded], routes: Routes | None = None) -> TaskBatch:
        """Pads to the longest row; positions and labels are flat."""
        text = self.text_batch(rows, routes)
        width = text.input_ids.shape[1]
        positions = torch.tensor(
            [number * width + column for number, row in enumerate(rows) for column in row.positions],
            dtype=torch.long,
        )
        labelled = all(len(row.labels) == len(row.positions) for row in rows)
        labels = torch.tensor([label for row in rows for label in row.labels], dtype=torch.long) if labelled else None
        return TaskBatch(text, tuple(rows), labels, positions)

    def _logits(self, stack: Stack, batch: TaskBatch) -> Tensor:
        assert batch.positions is not None
        states = stack.run(batch.text).text_hidden.flatten(0, 1).index_select(0, batch.positions)
        return self.layer(self.dropout(states.float()))  # type: ignore[no-any-return]

    def loss(self, stack: Stack, batch: TaskBatch) -> tuple[Tensor, int]:
        """Sum of cross-entropies over the words, and how many they are."""
        batch = batch.to(self.backbone.device)
        labels = need_labels(batch.labels, self.task)
        return F.cross_entropy(self._logits(stack, batch), labels, reduction="sum"), len(labels)

    @torch.no_grad()
    def predict(self, stack: Stack, batch: TaskBatch) -> list[Prediction]:
        """A tag index at each labelled position."""
        best = self._logits(stack, batch.to(self.backbone.device)).argmax(-1).tolist()
        found, start = [], 0
        for row in batch.rows:
            found.append(Prediction(tags=tuple(best[start : start + len(row.positions)])))
            start += len(row.positions)
        return found

    def decode(
        self, examples: Sequence[Example], rows: Sequence[Encoded], predictions: Sequence[Prediction]
    ) -> list[Any]:
        """One tag a word of each example."""
        default = self.fallback or self.labels[0]
        found: list[Any] = [(default,) * len(example.tokens or ()) for example in examples]
        for row, prediction in zip(rows, predictions, strict=True):
            tags = list(found[row.example])
            for word, tag in zip(row.words, prediction.tags, strict=True):
                tags[word] = self.labels[tag]
            found[row.example] = tuple(tags)
        return found


def words_without_state(examples: Sequence[Example], rows: Sequence[Encoded]) -> int:
    """Words of the examples that no row of a tagging head has a state for."""
    return sum(len(example.tokens or ()) for example in examples) - sum(len(row.words) for row in rows)
