"""Predicting with a task module and language modules: mixed-language batches, one backbone, one pass (design 5.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import TransferModule
from isogloss.stack import Bank, Stack
from isogloss.tasks import Example
from isogloss.tasks.heads import Encoded, Head, Prediction
from isogloss.training.buckets import reading_batches
from isogloss.training.language_stage import EVERY

Missing = Literal["error", "none"]


@dataclass(frozen=True)
class _Group:
    """Languages whose modules share one shape, and the stack that serves them together."""

    stack: Stack
    index: Mapping[str, int]
    routed: bool


class Predictor:
    """A task module, its head, and the language modules to swap in.

    Args:
        backbone: The frozen backbone.
        task_module: What was trained on the source language.
        head: Its head.
        language_modules: Code -> module; rows of a language use its module. The one under EVERY stands before it in all rows.
        languages: Every language that will be asked for.
        missing: What a language without a module gets: an `error`, or `none` (the backbone and task module alone).
        stack_options: `prompt_fusion` and the like.

    Raises:
        IsoglossError: A language has no module and `missing` is `error`.
    """

    def __init__(
        self,
        backbone: Backbone,
        task_module: TransferModule,
        head: Head,
        language_modules: Mapping[str, TransferModule],
        languages: Sequence[str],
        *,
        missing: Missing = "error",
        stack_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.backbone, self.head = backbone, head
        self._groups: dict[str, _Group] = {}
        shared = [module for code, module in language_modules.items() if code == EVERY]
        language_modules = {code: module for code, module in language_modules.items() if code != EVERY}
        wanted = list(dict.fromkeys(languages))
        lacking = [code for code in wanted if code not in language_modules]
        if lacking and language_modules and missing == "error":
            raise IsoglossError(
                f"No language module for {', '.join(lacking)} among those given ({', '.join(sorted(language_modules))}); "
                "add theirs to --modules, or allow --missing none."
            )
        by_shape: dict[Any, list[str]] = {}
        for code in wanted:
            module = language_modules.get(code)
            by_shape.setdefault(None if module is None else module.shape_key, []).append(code)
        for shape, codes in by_shape.items():
            parts: list[TransferModule | Bank] = [task_module]
            if shape is not None:
                parts.insert(0, Bank([language_modules[code] for code in codes]))
            stack = Stack(backbone, [*shared, *parts], **dict(stack_options or {}))
            group = _Group(stack, {code: number for number, code in enumerate(codes)}, shape is not None)
            for code in codes:
                self._groups[code] = group

    def predict(
        self, examples: Sequence[Example], *, tokens_per_batch: int | None = None
    ) -> tuple[list[Any], list[Encoded], list[Prediction]]:
        """Predicts examples of any of the languages, in batches of similar length that mix languages.

        Args:
            examples: In any order.
            tokens_per_batch: Most tokens of a batch, padding included; None takes what suits the device.

        Returns:
            One decoded answer an example in their order, the rows (their `example` counts in `examples`), and one
            prediction a row.
        """
        decoded: list[Any] = [None] * len(examples)
        all_rows: list[Encoded] = []
        all_predictions: list[Prediction] = []
        for group in {id(found): found for found in self._groups.values()}.values():
            chosen = [number for number, example in enumerate(examples) if example.language in group.index]
            if not chosen:
                continue
            part = [examples[number] for number in chosen]
            rows = self.head.encode(part, budget=group.stack.text_budget)
            predictions = self._predict_rows(group, part, rows, tokens_per_batch)
            for number, answer in zip(chosen, self.head.decode(part, rows, predictions), strict=True):
                decoded[number] = answer
            all_rows += [replace(row, example=chosen[row.example]) for row in rows]
            all_predictions += predictions
        return decoded, all_rows, all_predictions

    def _predict_rows(
        self, group: _Group, examples: Sequence[Example], rows: Sequence[Encoded], tokens_per_batch: int | None
    ) -> list[Prediction]:
        found: list[Prediction | None] = [None] * len(rows)
        if not rows:
            return []
        # A dev score in the middle of training, or right after it, must not have the head's dropout in it.
        group.stack.eval()
        self.head.eval()
        for batch in reading_batches([row.length for row in rows], self.backbone.device, tokens_per_batch):
            picked = [rows[number] for number in batch]
            spoken = [examples[row.example].language for row in picked]
            routes: dict[str, Any] = dict(group.stack.language_routes(spoken))
            if group.routed:
                routes["language"] = [group.index[code] for code in spoken]
            with torch.no_grad():
                asked = self.head.collate(picked, routes or None).to(self.backbone.device)
                predictions = self.head.predict(group.stack, asked)
            for number, prediction in zip(batch, predictions, strict=True):
                found[number] = prediction
        return [prediction for prediction in found if prediction is not None]
