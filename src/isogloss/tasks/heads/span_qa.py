"""Extractive question answering: two linear scores a context token, over overlapping windows of the context.

BERT's recipe as XTREME runs it: question first, rows of at most 384 tokens, windows that begin 128 tokens
apart, answers of at most 30 tokens. Answers are cut out of the original context by character offsets.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.tasks.examples import Example
from isogloss.tasks.heads._base import Head, linear, need_labels
from isogloss.tasks.heads._coder import Offsets
from isogloss.tasks.heads.protocol import Encoded, Prediction, Routes, TaskBatch
from isogloss.tasks.task import Task

_IGNORED = float("-inf")


class SpanQA(Head):
    """State of each token -> linear -> a softmax over the row for the begin and one for the end.

    A window that does not hold the whole answer is trained to point at its position 0 (CLS, or the row's
    first token), which no answer can use; so a window without the answer gives its spans little probability
    and windows can be compared. The score of a span is log P(begin) + log P(end) within its window; the best
    span of all windows wins.

    On a decoder a token's state has not seen what follows it, which costs accuracy; the `text` head is the
    other way.

    Args:
        task: qa.
        backbone: Any kind; of an encoder-decoder only the encoder runs.
        max_length: Most tokens of a row.
        stride: Tokens from the begin of one window to the next; a short window moves by half its length at
            most.
        max_question: Most tokens of the question (at most half a row).
        max_answer: Most tokens of an answer.
        best: How many answers a row keeps.
        seed: Of the layer's initial values.
    """

    name = "span"
    kinds = ("qa",)

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        max_length: int | None = 384,
        stride: int = 128,
        max_question: int = 64,
        max_answer: int = 30,
        best: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__(task, backbone, max_length=max_length)
        values = {"stride": stride, "max_question": max_question, "max_answer": max_answer, "best": best}
        for name, value in values.items():
            if value < 1:
                raise IsoglossError(f"The option {name} of the span head is {value}, but must be at least 1.")
        self.stride, self.max_question, self.max_answer, self.best = stride, max_question, max_answer, best
        self.seed = seed
        self.layer: nn.Linear = linear(backbone.hidden_size, 2, backbone, seed)

    def options(self) -> dict[str, Any]:
        """Keyword arguments that build the same head."""
        names = ("max_length", "stride", "max_question", "max_answer", "best", "seed")
        return {name: getattr(self, name) for name in names}

    def encode(self, examples: Sequence[Example], *, budget: int | None) -> list[Encoded]:
        """One row a window; every context token stands in at least one."""
        limit = self.limit(budget)
        room = self.coder.room(self.coder.two, limit, 4)
        questions = self.coder.tokens([example.question or "" for example in examples])
        contexts = self.coder.tokens_with_offsets([example.context or "" for example in examples])
        rows = []
        for number, (example, question, context) in enumerate(zip(examples, questions, contexts, strict=True)):
            kept = question[: min(self.max_question, room // 2)]
            rows += self._windows(number, example, kept, len(question) - len(kept), context, room - len(kept), limit)
        return rows

    def _windows(
        self,
        number: int,
        example: Example,
        question: list[int],
        lost: int,
        context: tuple[list[int], Offsets],
        room: int,
        limit: int | None,
    ) -> list[Encoded]:
        ids, offsets = context
        step = min(self.stride, max(1, room // 2))
        answer = _answer_tokens(example, offsets)
        rows = []
        for begin in range(0, max(1, len(ids)), step):
            end = min(begin + room, len(ids))
            row = self.coder.pair(question, ids[begin:end], limit, closing=False)
            positions = tuple(range(row.start, row.start + end - begin))
            labels: tuple[int, ...] = ()
            if example.answers:
                inside = answer is not None and begin <= answer[0] and answer[1] < end
                labels = (0, 0)
                if inside and answer is not None:
                    labels = (positions[answer[0] - begin], positions[answer[1] - begin])
            rows.append(
                Encoded(
                    number,
                    row.ids,
                    row.types,
                    labels=labels,
                    positions=positions,
                    offsets=tuple(offsets[begin:end]),
                    language=example.language,
                    lost=lost + row.lost,
                )
            )
            if end == len(ids):
                break
        return rows

    def collate(self, rows: Sequence[Encoded], routes: Routes | None = None) -> TaskBatch:
        """Pads to the longest row; labels are [B, 2] columns."""
        labels = torch.tensor([row.labels for row in rows]) if all(row.labels for row in rows) else None
        return TaskBatch(self.text_batch(rows, routes), tuple(rows), labels)

    def _scores(self, stack: Stack, batch: TaskBatch) -> Tensor:
        """Log-probabilities [B, 2, T] of begin and end over position 0 and the context of each row."""
        states = stack.run(batch.text).text_hidden
        scores = self.layer(states.float()).transpose(1, 2)
        allowed = torch.zeros(states.shape[:2], dtype=torch.bool)
        allowed[:, 0] = True
        for number, row in enumerate(batch.rows):
            if row.positions:
                allowed[number, row.positions[0] : row.positions[-1] + 1] = True
        found: Tensor = scores.masked_fill(~allowed.to(scores.device).unsqueeze(1), _IGNORED).log_softmax(-1)
        return found

    def loss(self, stack: Stack, batch: TaskBatch) -> tuple[Tensor, int]:
        """Sum over rows of the mean of begin and end cross-entropy, and the number of rows."""
        batch = batch.to(self.backbone.device)
        labels = need_labels(batch.labels, self.task)
        chosen = self._scores(stack, batch).gather(2, labels.unsqueeze(2))
        return -chosen.sum() / 2, len(labels)

    @torch.no_grad()
    def predict(self, stack: Stack, batch: TaskBatch) -> list[Prediction]:
        """The best spans of each row, exact over all pairs of begin and end."""
        scores = self._scores(stack, batch.to(self.backbone.device)).cpu()
        found = []
        for row, (begins, ends) in zip(batch.rows, scores, strict=True):
            if not row.positions:
                found.append(Prediction())
                continue
            inside = slice(row.positions[0], row.positions[-1] + 1)
            begin, end = begins[inside], ends[inside]
            width = min(self.max_answer, len(begin))
            padded = torch.cat((end, end.new_full((width,), _IGNORED)))
            totals = begin.unsqueeze(1) + padded.unfold(0, width, 1)[: len(begin)]
            values, places = totals.flatten().topk(min(self.best, totals.numel()))
            spans = []
            for value, place in zip(values.tolist(), places.tolist(), strict=True):
                first, last = place // width, place // width + place % width
                if value > _IGNORED:
                    spans.append((value, row.offsets[first][0], row.offsets[last][1]))
            found.append(Prediction(spans=tuple(spans)))
        return found

    def decode(
        self, examples: Sequence[Example], rows: Sequence[Encoded], predictions: Sequence[Prediction]
    ) -> list[Any]:
        """The text of the best span of all windows; without one, the empty text."""
        best: dict[int, tuple[float, str]] = {}
        for row, prediction in zip(rows, predictions, strict=True):
            context = examples[row.example].context or ""
            for score, begin, end in prediction.spans:
                text = context[begin:end].strip()
                if text and (row.example not in best or score > best[row.example][0]):
                    best[row.example] = (score, text)
        return [best[number][1] if number in best else "" for number in range(len(examples))]


def _answer_tokens(example: Example, offsets: Offsets) -> tuple[int, int] | None:
    """First and last token that share a character with the first answer."""
    if not example.answers:
        return None
    begin = example.answers[0].start
    end = begin + len(example.answers[0].text)
    touching = [place for place, (first, last) in enumerate(offsets) if first < end and last > begin and last > first]
    return (touching[0], touching[-1]) if touching else None
