"""Sentence retrieval: for every sentence its translation, by mean-pooled states; nothing is trained.

XTREME's Tatoeba task (Hu et al. 2020, https://arxiv.org/abs/2003.11080, section 3) pools a middle layer and, in its public
script, searches the other side for each English sentence; that direction is `from_english` here. Unless told otherwise the
last layer is pooled, as that is the one that language modules have acted on whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import TransferModule
from isogloss.stack import Bank, Stack, TextBatch
from isogloss.stack.layers import reading_layer
from isogloss.tasks import Example, Task, evaluate_predictions, get_task, read
from isogloss.tasks.reading import PIVOT
from isogloss.training.buckets import reading_batches
from isogloss.training.evaluation import mean_scores
from isogloss.training.inference import Missing
from isogloss.training.language_stage import EVERY
from isogloss.training.search import best_matches

_TEXTS = 1024


@torch.no_grad()
def sentence_vectors(
    stack: Stack,
    texts: Sequence[str],
    routes: Mapping[str, Sequence[int]] | None = None,
    *,
    tokens_per_batch: int | None = None,
    layer: int | None = None,
    languages: Sequence[str] | None = None,
) -> Tensor:
    """Mean of a text's last hidden states (the encoder's, for an encoder-decoder), prompts and padding left out.

    Special tokens count, as in XTREME; they are those that the backbone's tokenizer adds. Texts that are too long
    are cut at the end.

    Args:
        stack: Backbone with modules, or without any.
        texts: [N], in any order and length; batches are made of similar lengths.
        routes: Slot name -> [N] indices into that slot's bank, so that a batch may mix languages.
        tokens_per_batch: Most tokens of a batch, padding included; None takes what suits the device.
        layer: Block whose states are pooled, counted from 1; None is the last one.
        languages: [N] codes, for modules that are told the language of a text.

    Returns:
        [N, d] in fp32, on the CPU.

    Raises:
        IsoglossError: The backbone has no tokenizer, or a route has not one index a text.
    """
    for name, route in (routes or {}).items():
        if len(route) != len(texts):
            raise IsoglossError(
                f"The route of '{name}' has {len(route)} indices for {len(texts)} texts; give one a text."
            )
    backbone = stack.backbone
    if not texts:
        return torch.zeros(0, backbone.hidden_size)
    rows = _tokenise(backbone, texts, stack.text_budget)
    stack.eval()
    found = torch.empty(len(texts), backbone.hidden_size)
    for batch in reading_batches([len(row) for row in rows], backbone.device, tokens_per_batch):
        picked = [torch.tensor(rows[number]) for number in batch]
        ids = torch.nn.utils.rnn.pad_sequence(picked, batch_first=True, padding_value=backbone.pad_id)
        lengths = torch.tensor([len(row) for row in picked])
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
        chosen = {
            name: torch.tensor([int(route[number]) for number in batch]) for name, route in (routes or {}).items()
        }
        if languages is not None:
            chosen |= stack.language_routes([languages[number] for number in batch])
        with reading_layer(backbone, layer):
            output = stack.run(TextBatch(ids, mask, routes=chosen or None).to(backbone.device))
        # The sum over a long text loses digits in bf16.
        pooled = replace(output, text_hidden=output.text_hidden.float()).pooled_mean()
        found[torch.as_tensor(batch)] = pooled.cpu()
    return found


def evaluate_retrieval(
    backbone: Backbone,
    language_modules: Mapping[str, TransferModule],
    data: str | Path,
    targets: Sequence[str],
    *,
    split: str = "test",
    limit: int | None = None,
    missing: Missing = "error",
    bad_rows: str = "error",
    task: Task | None = None,
    tokens_per_batch: int | None = None,
    layer: int | None = None,
    scoring: str = "cosine",
) -> dict[str, Any]:
    """Scores how often the nearest sentence of the other side is the translation.

    The candidates of a language are the sentences of its own rows, so fewer rows (`limit`) make it easier. A sentence
    that stands there twice is one candidate.

    Args:
        backbone: The backbone.
        language_modules: By code; English sentences (eng_Latn) use that of English. Empty for the bare backbone.
        data: Rows that hold both sides (Tatoeba), or a parallel set with an English folder and shared ids.
        targets: Language codes, without English.
        split: Which split to score.
        limit: At most this many pairs a language.
        missing: A language without a module while others have one: an `error`, or `none`.
        bad_rows: `error`, or `skip` malformed rows and count them.
        task: `retrieval`, with other columns than the usual ones.
        tokens_per_batch: Size of the mixed-language batches; None takes what suits the device.
        layer: Block whose states are pooled, counted from 1; None is the last one.
        scoring: `cosine`, or `margin` (ratio, 4 neighbours).

    Returns:
        As `evaluation.evaluate`. The metrics are `to_english` (the language's sentences look among the English ones),
        `from_english`, and `accuracy`, the mean of the two, all in percent.

    Raises:
        IsoglossError: A language has no module, or the data cannot be read.
    """
    task = task or get_task("retrieval")
    wanted = list(dict.fromkeys([*targets, PIVOT]))
    own = {code: module for code, module in language_modules.items() if code != EVERY}
    lacking = [code for code in wanted if code not in own]
    if own and lacking and missing == "error":
        raise IsoglossError(
            f"No language module for {', '.join(lacking)} among those given ({', '.join(sorted(own))}); "
            "English sentences need one too; add theirs to --modules, or allow --missing none."
        )
    pairs: dict[str, list[Example]] = {}
    dropped: dict[str, Any] = {}
    for code in targets:
        found = read(data, code, split, task, limit=limit, bad_rows=bad_rows)  # type: ignore[arg-type]
        pairs[code] = found.examples
        if found.dropped:
            dropped[code] = dict(found.dropped)
    vectors = _Vectors(backbone, language_modules, pairs, tokens_per_batch, layer)
    scores = {code: _score(task, examples, *vectors.of(code, examples), scoring) for code, examples in pairs.items()}
    return {
        "task": task.name,
        "split": split,
        "source": [],
        "scores": scores,
        "mean": mean_scores(list(scores.values())),
        "mean_over": list(scores),
        **({"dropped": dropped} if dropped else {}),
    }


class _Vectors:
    """The vector of every distinct sentence of all languages, each computed once."""

    def __init__(
        self,
        backbone: Backbone,
        modules: Mapping[str, TransferModule],
        pairs: Mapping[str, Sequence[Example]],
        tokens_per_batch: int | None,
        layer: int | None,
    ) -> None:
        texts: dict[str, dict[str, None]] = {}
        for code, examples in pairs.items():
            for example in examples:
                texts.setdefault(code, {})[example.text or ""] = None
                # English is the same under every target.
                texts.setdefault(PIVOT, {})[example.text_pair or ""] = None
        self._rows: dict[tuple[str, str], int] = {}
        parts: list[Tensor] = []
        for stack, codes, routed in _stacks(backbone, modules, list(texts)):
            keys = [(code, text) for code in codes for text in texts[code]]
            routes = {"language": [codes.index(code) for code, _ in keys]} if routed else None
            self._rows |= {key: len(self._rows) + number for number, key in enumerate(keys)}
            parts.append(
                sentence_vectors(
                    stack,
                    [text for _, text in keys],
                    routes,
                    tokens_per_batch=tokens_per_batch,
                    layer=layer,
                    languages=[code for code, _ in keys],
                )
            )
        self._vectors = torch.cat(parts)

    def of(self, code: str, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Both sides of a language's pairs, [N, d] each."""
        here = [self._rows[code, example.text or ""] for example in examples]
        english = [self._rows[PIVOT, example.text_pair or ""] for example in examples]
        return self._vectors[here], self._vectors[english]


def _stacks(
    backbone: Backbone, modules: Mapping[str, TransferModule], codes: Sequence[str]
) -> list[tuple[Stack, list[str], bool]]:
    """One stack for all languages whose modules have one shape; its languages; whether it has a bank."""
    shared = [modules[EVERY]] if EVERY in modules else []
    by_shape: dict[Any, list[str]] = {}
    for code in codes:
        by_shape.setdefault(modules[code].shape_key if code in modules else None, []).append(code)
    return [
        (
            Stack(backbone, [*shared, *([Bank([modules[code] for code in group])] if shape is not None else [])]),
            group,
            shape is not None,
        )
        for shape, group in by_shape.items()
    ]


def _score(task: Task, examples: Sequence[Example], here: Tensor, english: Tensor, scoring: str) -> dict[str, float]:
    to_english = _found(
        examples, [example.text_pair for example in examples], best_matches(here, english, scoring=scoring)
    )
    from_english = _found(
        examples, [example.text for example in examples], best_matches(english, here, scoring=scoring)
    )
    one, other = (evaluate_predictions(task, examples, ids) for ids in (to_english, from_english))
    return {
        "accuracy": (one["accuracy"] + other["accuracy"]) / 2,
        "to_english": one["accuracy"],
        "from_english": other["accuracy"],
        "n": one["n"],
    }


def _found(examples: Sequence[Example], texts: Sequence[str | None], places: Tensor) -> list[str]:
    """Ids of the examples found; a copy of the right sentence is the right sentence."""
    return [
        examples[number if texts[place] == texts[number] else place].id for number, place in enumerate(places.tolist())
    ]


def _tokenise(backbone: Backbone, texts: Sequence[str], limit: int | None) -> list[list[int]]:
    if backbone.tokenizer is None:
        raise IsoglossError(f"Retrieval needs a tokenizer, but {backbone.name} has none; add its files to the folder.")
    cut: dict[str, Any] = {} if limit is None else {"truncation": True, "max_length": limit}
    rows: list[list[int]] = []
    for start in range(0, len(texts), _TEXTS):
        rows += backbone.tokenizer(list(texts[start : start + _TEXTS]), verbose=False, **cut)["input_ids"]
    # A text of nothing that the vocabulary knows still needs one state.
    return [row or [*backbone.eos_ids[:1]] or [backbone.pad_id] for row in rows]
