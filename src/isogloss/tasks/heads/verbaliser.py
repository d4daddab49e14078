"""Classification by label words through the backbone's own LM head; there are no weights to train here.

Decoder (arXiv 2402.03782, section 3): text, prompt (if the stack has one after the text), EOS; the state in
front of EOS predicts the label word. Encoder-decoder: the word is what the decoder writes. Encoder: the word
fills a mask of a template. Words of several tokens are scored exactly: the sum of their tokens'
log-probabilities, each given the ones before it (given the masks only, for encoders). Encoder-decoders write the end
token too; so do decoders where a word is the beginning of another one, which could otherwise never score better. What
the words of one text begin with is run once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Stack, StackOutput
from isogloss.tasks.examples import Example
from isogloss.tasks.heads._base import Head, need_labels, pad
from isogloss.tasks.heads._states import (
    branched_states,
    continuation_states,
    last_states,
    target_states,
    token_log_probabilities,
)
from isogloss.tasks.heads._words import WordPart, label_ids, shared_beginnings
from isogloss.tasks.heads.protocol import Encoded, Prediction, Routes, TaskBatch
from isogloss.tasks.task import Task
from isogloss.tasks.templates import get_template
from isogloss.tasks.verbaliser import get_verbaliser

_MASK = "{mask}"
_MASK_TEMPLATES = {
    "classification": "{mask} : {text}",
    "pair-classification": "{text} ? {mask} , {text_pair}",
}


class VerbaliserHead(Head):
    """Label words scored by the LM head.

    Args:
        task: classification or pair-classification.
        backbone: Any kind.
        words: Label to word; None takes those prepared for the task and the model family.
        by_language: Language code to label words, for the rows in that language.
        part: `auto` and `all` score all tokens of a word, `single` refuses words of several, `first` and
            `last` score one.
        normalise: What the loss normalises over: the whole `vocabulary`, as S2 does, or the `labels` only.
            Predictions are always the best of the label words.
        length_normalised: Divide a word's log-probability by its number of tokens.
        template: Format string of the input (`review: {text} rating:`); for encoders with `{mask}` in it.
        leading_space: Tokenise words as inside a sentence; None does so for encoders.
        max_length: Most tokens of a row, without the label word of decoders.
    """

    name = "verbaliser"
    kinds = ("classification", "pair-classification")

    def __init__(
        self,
        task: Task,
        backbone: Backbone,
        *,
        words: Mapping[str, str] | None = None,
        by_language: Mapping[str, Mapping[str, str]] | None = None,
        part: WordPart = "auto",
        normalise: Literal["vocabulary", "labels"] = "vocabulary",
        length_normalised: bool = False,
        template: str | None = None,
        leading_space: bool | None = None,
        max_length: int | None = None,
    ) -> None:
        super().__init__(task, backbone, max_length=max_length)
        if normalise not in ("vocabulary", "labels"):
            raise IsoglossError(f"The normalisation '{normalise}' is unknown; use vocabulary or labels.")
        if part not in ("auto", "single", "first", "last", "all"):
            raise IsoglossError(f"The part '{part}' of a label word is unknown; use auto, single, first, last or all.")
        self.verbaliser = get_verbaliser(task, backbone.config.model_type, words, by_language)
        self.part: WordPart = part
        self.normalise, self.length_normalised = normalise, length_normalised
        self.leading_space = backbone.kind == "encoder" if leading_space is None else leading_space
        self.ids = label_ids(self.coder.tokenizer, self.verbaliser, part, leading_space=self.leading_space)
        written = backbone.kind == "encoder-decoder" or (backbone.kind == "decoder" and self.ids.nested())
        self._ends = self.coder.eos if written else ()
        if backbone.kind == "decoder" and written and not self._ends:
            raise IsoglossError(
                f"A label word is the beginning of another one, and {backbone.name} has no end token to tell them apart; "
                "choose other words."
            )
        self.template = template
        if backbone.kind == "encoder":
            self.template = template or _MASK_TEMPLATES[task.kind]
            if self.template.count(_MASK) != 1:
                raise IsoglossError(
                    f"The template {self.template!r} needs {_MASK} once, where the encoder fills the word in."
                )
            if self.coder.tokenizer.mask_token_id is None:
                raise IsoglossError(f"{backbone.name} has no mask token; use the head 'linear'.")
        # Built once here, so that a malformed template is refused before any text is read.
        parts = [] if self.template is None else [part for part in self.template.split(_MASK) if "{" in part]
        self._parts = {part: get_template(task, part) for part in parts}

    def options(self) -> dict[str, Any]:
        """Keyword arguments that build the same head; the words are written out."""
        languages = self.verbaliser.by_language
        return {
            "words": dict(self.verbaliser.words_for(None)),
            "by_language": {language: dict(self.verbaliser.words_for(language)) for language in languages},
            "part": self.part,
            "normalise": self.normalise,
            "length_normalised": self.length_normalised,
            "template": self.template,
            "leading_space": self.leading_space,
            "max_length": self.max_length,
        }

    # -- rows --------------------

    def encode(self, examples: Sequence[Example], *, budget: int | None) -> list[Encoded]:
        """One row an example; for encoders an alternative for each number of masks."""
        limit = self.limit(budget)
        if self.backbone.kind == "encoder":
            return [self._masked(number, example, limit) for number, example in enumerate(examples)]
        if self.backbone.kind == "decoder" and limit is not None:
            # Words behind the text take positions too.
            limit -= 0 if self.ids.single else self.ids.longest() + len(self._ends) - 1
        if self.template is not None:
            return [self._templated(number, example, limit) for number, example in enumerate(examples)]
        closing = self.backbone.kind != "decoder" or self.ids.single
        firsts = self.coder.tokens([example.text or "" for example in examples])
        seconds: list[list[int]] = []
        if self.task.kind == "pair-classification":
            seconds = self.coder.tokens([example.text_pair or "" for example in examples])
        rows = []
        for number, example in enumerate(examples):
            row = (
                self.coder.pair(firsts[number], seconds[number], limit, closing=closing)
                if seconds
                else self.coder.single(firsts[number], limit, closing=closing)
            )
            rows.append(self._row(number, example, row.ids, row.types, row.lost))
        return rows

    def _row(
        self,
        number: int,
        example: Example,
        ids: list[int],
        types: list[int] | None,
        lost: int,
        positions: tuple[int, ...] = (),
    ) -> Encoded:
        labels = self.class_index(example)
        target = self.ids.of(example.language)[labels[0]] if labels and self.backbone.kind != "encoder" else ()
        return Encoded(
            number,
            ids,
            types,
            target=target,
            labels=labels,
            positions=positions,
            language=example.language,
            lost=lost,
        )

    def _filled(self, example: Example) -> list[str]:
        """The template's pieces around the mask, filled."""
        assert self.template is not None
        return [
            self._parts[part].source(example) if part in self._parts else part for part in self.template.split(_MASK)
        ]

    def _templated(self, number: int, example: Example, limit: int | None) -> Encoded:
        closing = self.backbone.kind != "decoder" or self.ids.single
        layout = self.coder.one.size

        def size(candidate: Example) -> int:
            return len(self.coder.tokens(self._filled(candidate))[0]) + layout

        fitted, lost = self.coder.fit(example, size, limit)
        row = self.coder.single(self.coder.tokens(self._filled(fitted))[0], limit, closing=closing)
        return self._row(number, example, row.ids, row.types, lost + row.lost)

    def _masked(self, number: int, example: Example, limit: int | None) -> Encoded:
        lengths = sorted({len(word) for word in self.ids.of(example.language)})
        extra = self.coder.one.size + lengths[-1]
        fitted, lost = self.coder.fit(
            example,
            lambda candidate: sum(map(len, self.coder.tokens(self._filled(candidate)))) + extra,
            limit,
        )
        left, right = self.coder.tokens(self._filled(fitted))
        mask = int(self.coder.tokenizer.mask_token_id)
        variants = []
        for count in lengths:
            row = self.coder.single([*left, *[mask] * count, *right], limit)
            begin = row.start + len(left)
            variants.append(self._row(number, example, row.ids, row.types, 0, tuple(range(begin, begin + count))))
        labels = self.class_index(example)
        # The variants differ in their masks only, so what they lost is counted once.
        return Encoded(number, [], labels=labels, alternatives=tuple(variants), language=example.language, lost=lost)

    def collate(self, rows: Sequence[Encoded], routes: Routes | None = None) -> TaskBatch:
        """Pads to the longest row; `targets` are the gold words of decoders and encoder-decoders."""
        labels = self.class_labels(rows)
        if self.backbone.kind != "encoder":
            targets = None if labels is None else pad([self._target(row.target) for row in rows], -1)
            return TaskBatch(self.text_batch(rows, routes), tuple(rows), labels, targets=targets)
        flat = [variant for row in rows for variant in row.alternatives]
        text = self.text_batch(flat, routes, [len(row.alternatives) for row in rows])
        forced = None
        if labels is not None and self.normalise == "vocabulary" and len(flat) > len(rows):
            forced = self.text_batch([self._gold_variant(row) for row in rows], routes)
        return TaskBatch(text, tuple(rows), labels, forced=forced)

    def _target(self, word: tuple[int, ...]) -> tuple[int, ...]:
        return (*word, *self._ends)

    def _gold_variant(self, row: Encoded) -> Encoded:
        length = len(self.ids.of(row.language)[row.labels[0]])
        return next(variant for variant in row.alternatives if len(variant.positions) == length)

    # -- loss --------------------

    def loss(self, stack: Stack, batch: TaskBatch) -> tuple[Tensor, int]:
        """Sum of cross-entropies of the gold words (all their tokens), and the number of examples."""
        batch = batch.to(self.backbone.device)
        labels = need_labels(batch.labels, self.task)
        if self.normalise == "labels":
            scores = self._single(stack, batch) if self._at_last else self._scores(stack, batch)
            return F.cross_entropy(scores, labels, reduction="sum"), len(labels)
        if self._at_last:
            gold = [self.ids.of(row.language)[row.labels[0]][0] for row in batch.rows]
            return stack.lm_loss(stack.run(batch.text).lm_last, torch.tensor(gold, device=labels.device)), len(labels)
        if self.backbone.kind == "encoder":
            states, places, tokens = self._gold_masks(stack, batch)
            return stack.lm_loss(states.at(places), tokens), len(labels)
        assert batch.targets is not None
        if self.backbone.kind == "decoder":
            states = continuation_states(stack, batch.text, batch.targets[:, :-1])
        else:
            states = target_states(stack, batch.text, batch.targets)
        real = (batch.targets >= 0).flatten().nonzero().squeeze(1)
        return stack.lm_loss(states.at(real), batch.targets.flatten()[real]), len(labels)

    @property
    def _at_last(self) -> bool:
        return self.backbone.kind == "decoder" and self.ids.single

    def _gold_masks(self, stack: Stack, batch: TaskBatch) -> tuple[StackOutput, Tensor, Tensor]:
        text = batch.forced or batch.text
        variants = [self._gold_variant(row) for row in batch.rows]
        width = text.input_ids.shape[1]
        places = [number * width + column for number, row in enumerate(variants) for column in row.positions]
        tokens = [token for row in batch.rows for token in self.ids.of(row.language)[row.labels[0]]]
        device = text.input_ids.device
        return stack.run(text), torch.tensor(places, device=device), torch.tensor(tokens, device=device)

    # -- scores --------------------

    @torch.no_grad()
    def predict(self, stack: Stack, batch: TaskBatch) -> list[Prediction]:
        """Log-probabilities of the labels, normalised over the labels."""
        batch = batch.to(self.backbone.device)
        scores = self._single(stack, batch) if self._at_last else self._scores(stack, batch)
        return [Prediction(scores=tuple(row)) for row in scores.log_softmax(-1).tolist()]

    def word_scores(self, stack: Stack, batch: TaskBatch) -> Tensor:
        """Exact log-probabilities [B, K] of the label words (means over tokens if length-normalised)."""
        return self._scores(stack, batch.to(self.backbone.device))

    def _single(self, stack: Stack, batch: TaskBatch) -> Tensor:
        """Logits [B, K]: the rows of the LM head for the label words, at the last state."""
        ids = torch.tensor(
            [[word[0] for word in self.ids.of(row.language)] for row in batch.rows],
            device=batch.text.input_ids.device,
        )
        needed, place = torch.unique(ids, return_inverse=True)
        return stack.label_logits(stack.run(batch.text).lm_last, needed).gather(1, place)

    def _scores(self, stack: Stack, batch: TaskBatch) -> Tensor:
        if self._at_last:
            states = last_states(stack.run(batch.text))
            steps = [[[number] for _ in self.labels] for number in range(len(batch.rows))]
        elif self.backbone.kind == "encoder":
            states, steps = self._mask_steps(stack, batch)
        elif self.backbone.kind == "decoder":
            states, steps = self._continuation_steps(stack, batch)
        else:
            states, steps = self._target_steps(stack, batch)
        words = [[self._target(word) for word in self.ids.of(row.language)] for row in batch.rows]
        pairs = [
            (place, token, number * len(self.labels) + label)
            for number, row in enumerate(words)
            for label, word in enumerate(row)
            for place, token in zip(steps[number][label], word, strict=True)
        ]
        device = batch.text.input_ids.device
        places_, tokens, owners = (torch.tensor(column, device=device) for column in zip(*pairs, strict=True))
        found = token_log_probabilities(stack, states, places_, tokens)
        total = found.new_zeros(len(words) * len(self.labels)).index_add(0, owners, found).view(len(words), -1)
        if self.length_normalised:
            total = total / torch.tensor([[len(word) for word in row] for row in words], device=device)
        return total

    def _mask_steps(self, stack: Stack, batch: TaskBatch) -> tuple[StackOutput, list[list[list[int]]]]:
        width = batch.text.input_ids.shape[1]
        steps, line = [], 0
        for row in batch.rows:
            columns = {
                len(variant.positions): [(line + place) * width + column for column in variant.positions]
                for place, variant in enumerate(row.alternatives)
            }
            steps.append([columns[len(word)] for word in self.ids.of(row.language)])
            line += len(row.alternatives)
        return stack.run(batch.text), steps

    def _continuation_steps(self, stack: Stack, batch: TaskBatch) -> tuple[StackOutput, list[list[list[int]]]]:
        stems: list[tuple[int, ...]] = []
        source: list[int] = []
        lines: list[list[int]] = []
        for number, row in enumerate(batch.rows):
            kept, owners = shared_beginnings([self._target(word) for word in self.ids.of(row.language)])
            lines.append([len(stems) + owner for owner in owners])
            stems += kept
            source += [number] * len(kept)
        device = batch.text.input_ids.device
        texts = torch.tensor(source, device=device)
        states = branched_states(stack, batch.text, pad(stems, -1).to(device), texts)
        width = states.text_hidden.shape[1]
        steps = [
            [
                [line * width + step for step in range(len(self._target(word)))]
                for line, word in zip(lines[number], self.ids.of(row.language), strict=True)
            ]
            for number, row in enumerate(batch.rows)
        ]
        return states, _share_first(steps)

    def _target_steps(self, stack: Stack, batch: TaskBatch) -> tuple[StackOutput, list[list[list[int]]]]:
        words = [self._target(word) for row in batch.rows for word in self.ids.of(row.language)]
        states = target_states(stack, batch.text, pad(words, -1).to(batch.text.input_ids.device))
        width, count = states.text_hidden.shape[1], len(self.labels)
        lines = [[line * width + step for step in range(len(word))] for line, word in enumerate(words)]
        steps = [lines[number * count : (number + 1) * count] for number in range(len(batch.rows))]
        return states, _share_first(steps)

    def decode(
        self, examples: Sequence[Example], rows: Sequence[Encoded], predictions: Sequence[Prediction]
    ) -> list[Any]:
        """The label whose word scores best."""
        return self.best_labels(examples, rows, predictions)


def _share_first(steps: list[list[list[int]]]) -> list[list[list[int]]]:
    """All words of a text share their first state; taking one copy of it normalises it once."""
    for row_steps in steps:
        for word_steps in row_steps:
            word_steps[0] = row_steps[0][0]
    return steps
