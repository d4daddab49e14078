"""A linear layer over one pooled state: classification, pair classification, multiple choice.

A choice is scored as one row an alternative, premise and question first, with a softmax over the alternatives
of an example.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.tasks.examples import Example
from isogloss.tasks.heads._base import Head, linear, need_labels
from isogloss.tasks.heads._coder import Row
from isogloss.tasks.heads.protocol import Encoded, Prediction, Routes, TaskBatch
from isogloss.tasks.task import Task

Pooling = Literal["first", "mean", "last"]
_DEFAULT_POOLING: dict[str, Pooling] = {"encoder": "first", "decoder": "last", "encoder-decoder": "mean"}


class LinearClassification(Head):
    """Pooled state -> dropout -> linear -> softmax cross-entropy.

    Args:
        task: classification, pair-classification or choice.
        backbone: Any kind; of an encoder-decoder only the encoder runs.
        pooling: `first` token (CLS), `mean` of the tokens, `last` position (decoders; the last prompt vector
            when a prompt stands after the text). None takes what suits the kind: first, last, mean.
        dropout: In front of the layer, in training.
        max_length: Most tokens of a row.
        seed: Of the layer's initial values.
    """

    name = "linear"
    kinds = ("classification", "pair-classification", "choice")

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        pooling: Pooling | None = None,
        dropout: float = 0.1,
        max_length: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(task, backbone, max_length=max_length)
        self.pooling = pooling or _usual_pooling(backbone)
        if self.pooling not in ("first", "mean", "last"):
            raise IsoglossError(f"The pooling '{pooling}' is unknown; use first, mean or last.")
        if (self.pooling == "last") != (backbone.kind == "decoder") and self.pooling != "mean":
            fitting = "last or mean" if backbone.kind == "decoder" else "first or mean"
            raise IsoglossError(
                f"The pooling '{self.pooling}' says little of a text on a {backbone.kind}; use {fitting}."
            )
        self.seed = seed
        self.dropout = nn.Dropout(dropout)
        outputs = 1 if task.kind == "choice" else len(self.labels)
        self.layer = linear(backbone.hidden_size, outputs, backbone, seed)

    def options(self) -> dict[str, Any]:
        """Keyword arguments that build the same head."""
        return {
            "pooling": self.pooling,
            "dropout": self.dropout.p,
            "max_length": self.max_length,
            "seed": self.seed,
        }

    def encode(self, examples: Sequence[Example], *, budget: int | None) -> list[Encoded]:
        """One row an example; a choice holds one alternative a choice."""
        limit = self.limit(budget)
        if self.task.kind == "choice":
            return [self._choices(number, example, limit) for number, example in enumerate(examples)]
        firsts = self.coder.tokens([example.text or "" for example in examples])
        seconds: list[list[int]] = []
        if self.task.kind == "pair-classification":
            seconds = self.coder.tokens([example.text_pair or "" for example in examples])
        rows = []
        for number, example in enumerate(examples):
            row = (
                self.coder.pair(firsts[number], seconds[number], limit, closing=False)
                if seconds
                else self.coder.single(firsts[number], limit, closing=False)
            )
            rows.append(_encoded(number, row, self.class_index(example), example.language))
        return rows

    def _choices(self, number: int, example: Example, limit: int | None) -> Encoded:
        premise = example.text or ""
        if example.question:
            known = example.question in ("cause", "effect")
            premise += f" What was the {example.question}?" if known else f" {example.question}"
        first, *choices = self.coder.tokens([premise, *(example.choices or ())])
        rows = tuple(
            _encoded(number, self.coder.pair(first, choice, limit, closing=False), (), example.language)
            for choice in choices
        )
        return Encoded(number, [], labels=self.class_index(example), alternatives=rows, language=example.language)

    def collate(self, rows: Sequence[Encoded], routes: Routes | None = None) -> TaskBatch:
        """Pads to the longest row; alternatives stand behind one another and share their example's route."""
        if self.task.kind == "choice":
            flat = [inner for row in rows for inner in row.alternatives]
            text = self.text_batch(flat, routes, [len(row.alternatives) for row in rows])
        else:
            text = self.text_batch(rows, routes)
        return TaskBatch(text, tuple(rows), self.class_labels(rows))

    def _log_probabilities(self, stack: Stack, batch: TaskBatch) -> Tensor:
        output = stack.run(batch.text)
        if self.pooling == "mean":
            pooled = output.pooled_mean()
        elif self.pooling == "last":
            pooled = output.last_hidden
        else:
            pooled = output.text_hidden[:, 0]
        logits = self.layer(self.dropout(pooled.float()))
        if self.task.kind == "choice":
            counts = [len(row.alternatives) for row in batch.rows]
            logits = nn.utils.rnn.pad_sequence(
                list(logits.squeeze(1).split(counts)), batch_first=True, padding_value=float("-inf")
            )
        found: Tensor = logits.log_softmax(-1)
        return found

    def loss(self, stack: Stack, batch: TaskBatch) -> tuple[Tensor, int]:
        """Sum of cross-entropies over the labels, and the number of examples."""
        batch = batch.to(self.backbone.device)
        labels = need_labels(batch.labels, self.task)
        return F.nll_loss(self._log_probabilities(stack, batch), labels, reduction="sum"), len(labels)

    @torch.no_grad()
    def predict(self, stack: Stack, batch: TaskBatch) -> list[Prediction]:
        """Log-probabilities of the labels."""
        scores = self._log_probabilities(stack, batch.to(self.backbone.device)).tolist()
        counts = [len(row.alternatives) or len(self.labels) for row in batch.rows]
        return [Prediction(scores=tuple(row[:count])) for row, count in zip(scores, counts, strict=True)]

    def decode(
        self, examples: Sequence[Example], rows: Sequence[Encoded], predictions: Sequence[Prediction]
    ) -> list[Any]:
        """The label with the highest score; for a choice its index."""
        return self.best_labels(examples, rows, predictions)


def _encoded(number: int, row: Row, labels: tuple[int, ...], language: str) -> Encoded:
    return Encoded(number, row.ids, row.types, labels=labels, language=language, lost=row.lost)


def _usual_pooling(backbone: Backbone) -> Pooling:
    """What the model's own configuration says (EuroBERT: over all tokens), else the usual one of its kind."""
    if getattr(backbone.config, "classifier_pooling", None) in ("mean", "late"):
        return "mean"
    return _DEFAULT_POOLING[backbone.kind]
