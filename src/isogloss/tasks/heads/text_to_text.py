"""Every task as text: the model reads the filled template and writes the answer (arXiv 2407.02317).

Encoder-decoders write the target behind the decoder's start token; decoders write it behind the text (and any
prompt after it), with the loss on the target only. Predictions are generated greedily and read back by the
template.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.tasks.examples import Example
from isogloss.tasks.heads._base import Head, need_labels, pad
from isogloss.tasks.heads._states import continuation_states, target_states
from isogloss.tasks.heads.protocol import Encoded, Prediction, Routes, TaskBatch
from isogloss.tasks.task import Task
from isogloss.tasks.templates import LabelTemplate, get_template

# What the S1 code generated: it called predict without a length, and transformers' default is 20 (papers.md
# 1.5b).
_PUBLISHED_NEW_TOKENS = 20
_ANSWER_TOKENS = 64


class TextToText(Head):
    """Template in, template out.

    Args:
        task: Any kind but retrieval; a choice needs its question.
        backbone: decoder or encoder-decoder.
        template: Format string of the input, instead of the task's own.
        max_length: Most tokens of a row, without the target.
        max_new_tokens: Most tokens of a prediction; None is the longest label word for labels, 64 for
            answers, and for tagging twice the text plus 16.
        published_generation: Generate 20 tokens at most, as the published code did.
        published_targets: Cut targets to the template's length (30 tokens for NER), as the published code
            did.
        published_windows: Cut a question's text that is too long into pieces that do not overlap; each is a row, and the
            last one's answer counts, as in the published code. Otherwise the context is cut.
    """

    name = "text"
    kinds = ("classification", "pair-classification", "tagging", "qa", "choice")

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        template: str | None = None,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        published_generation: bool = False,
        published_targets: bool = False,
        published_windows: bool = False,
    ) -> None:
        super().__init__(task, backbone, max_length=max_length)
        if backbone.kind == "encoder":
            raise IsoglossError(
                f"The head 'text' needs a model that writes text, but {backbone.name} is an encoder; "
                "use linear, span or verbaliser."
            )
        if max_new_tokens is not None and max_new_tokens < 1:
            raise IsoglossError(f"max_new_tokens is {max_new_tokens}, but must be at least 1.")
        self.format = template
        self.template = get_template(task, template)
        self.max_new_tokens = max_new_tokens
        self.published_generation, self.published_targets = published_generation, published_targets
        self.published_windows = published_windows and task.kind == "qa"
        own = getattr(self.template, "inner", self.template)
        words = list(own.words.values()) if isinstance(own, LabelTemplate) else []
        self._longest_word = max((len(ids) for ids in self._target_ids(words)), default=0)
        # A decoder's template ends where the answer begins.
        self._separator = list(self.coder.two.middle) if self.coder.is_decoder else []

    def options(self) -> dict[str, Any]:
        """Keyword arguments that build the same head."""
        return {
            "template": self.format,
            "max_length": self.max_length,
            "max_new_tokens": self.max_new_tokens,
            "published_generation": self.published_generation,
            "published_targets": self.published_targets,
            **({"published_windows": True} if self.published_windows else {}),
        }

    def _target_ids(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [(*ids, *self.coder.eos) for ids in self.coder.tokens(texts)]

    def encode(self, examples: Sequence[Example], *, budget: int | None) -> list[Encoded]:
        """One row an example; too long a text is cut in its fields, so that the question stays whole."""
        limit = self.limit(budget)
        room = limit
        if limit is not None and self.coder.is_decoder:
            # What is written takes positions too; labelled rows leave room for their own target below.
            room = limit - min(self._reserve(limit), limit // 2)
        sources = self.coder.tokens([self.template.source(example) for example in examples])
        extra = self.coder.one.size + len(self._separator)
        rows = []
        for number, (example, ids) in enumerate(zip(examples, sources, strict=True)):
            lost = 0
            fitted, pieces = example, [ids]
            if self.published_windows and room is not None and len(ids) + extra > room:
                # `decode` keeps what it reads last.
                pieces = [ids[start : start + room - extra] for start in range(0, len(ids), room - extra)]
            elif room is not None and len(ids) + extra > room:
                fitted, lost = self.coder.fit(
                    example,
                    lambda item: len(self.coder.tokens([self.template.source(item)])[0]) + extra,
                    room,
                )
                pieces = [self.coder.tokens([self.template.source(fitted)])[0]]
            for piece in pieces:
                row = self.coder.single([*piece, *self._separator], room, closing=False)
                target = self._target(fitted)
                if limit is not None and self.coder.is_decoder and len(row.ids) + len(target) > limit:
                    lost += len(row.ids) + len(target) - limit
                    target = target[: limit - len(row.ids)]
                rows.append(
                    Encoded(number, row.ids, row.types, target=target, language=example.language, lost=lost + row.lost)
                )
        return rows

    def _reserve(self, limit: int) -> int:
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return limit if self.task.kind == "tagging" else self._longest_word or _ANSWER_TOKENS

    def _target(self, example: Example) -> tuple[int, ...]:
        if example.label is None and example.tags is None and not example.answers:
            return ()
        target = self._target_ids([self.template.target(example)])[0]
        if self.published_targets and self.template.max_target_tokens is not None:
            target = target[: self.template.max_target_tokens]
        return target

    def collate(self, rows: Sequence[Encoded], routes: Routes | None = None) -> TaskBatch:
        """Pads texts and targets to the longest of each."""
        targets = pad([row.target for row in rows], -1) if all(row.target for row in rows) else None
        return TaskBatch(self.text_batch(rows, routes), tuple(rows), targets=targets)

    def loss(self, stack: Stack, batch: TaskBatch) -> tuple[Tensor, int]:
        """Sum of cross-entropies over the target tokens, and how many they are."""
        batch = batch.to(self.backbone.device)
        targets = need_labels(batch.targets, self.task)
        if self.coder.is_decoder:
            states = continuation_states(stack, batch.text, targets[:, :-1])
        else:
            states = target_states(stack, batch.text, targets)
        real = (targets >= 0).flatten().nonzero().squeeze(1)
        return stack.lm_loss(states.at(real), targets.flatten()[real]), len(real)

    def new_tokens(self, row: Encoded) -> int:
        """Most tokens that are generated for a row."""
        if self.published_generation:
            return _PUBLISHED_NEW_TOKENS
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        if self._longest_word:
            return self._longest_word
        return _ANSWER_TOKENS if self.task.kind == "qa" else 2 * len(row.input_ids) + 16

    @torch.no_grad()
    def predict(self, stack: Stack, batch: TaskBatch) -> list[Prediction]:
        """What is generated, up to the end token."""
        batch = batch.to(self.backbone.device)
        # A row is cut at its own length, so what it says does not depend on its neighbours.
        counts = [self.new_tokens(row) for row in batch.rows]
        most = max(counts)
        if self.coder.is_decoder and stack.text_budget is not None:
            most = max(1, min(most, stack.text_budget - int(batch.text.input_ids.shape[1])))
        generated = stack.generate(
            batch.text.input_ids, batch.text.attention_mask, routes=batch.text.routes, max_new_tokens=most
        ).tolist()
        return [Prediction(text=self._read(ids[:count])) for ids, count in zip(generated, counts, strict=True)]

    def _read(self, ids: list[int]) -> str:
        ends = [place for place, token in enumerate(ids) if token in self.coder.eos]
        text: str = self.coder.tokenizer.decode(ids[: ends[0]] if ends else ids, skip_special_tokens=True)
        return text.strip()

    def decode(
        self, examples: Sequence[Example], rows: Sequence[Encoded], predictions: Sequence[Prediction]
    ) -> list[Any]:
        """The template's reading of each output, with its fallbacks; None where there is no answer in it."""
        found: list[Any] = [None] * len(examples)
        for row, prediction in zip(rows, predictions, strict=True):
            found[row.example] = self.template.parse(prediction.text, examples[row.example])
        return found
