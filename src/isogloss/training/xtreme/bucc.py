"""BUCC 2018: translation pairs hidden in two texts, mined by margin; the threshold is chosen on the development split.

Files as BUCC and XTREME give them, in the folder or one folder a language: `de-en.dev.de` and `de-en.dev.en` (id, tab,
sentence), `de-en.dev.gold` (id, tab, id), and the same for `test`. BUCC's own `sample` and `training` stand for dev and test.
Vectors are means over tokens: XTREME's script says CLS, but its numbers need the mean (papers.md 5.5). As in its script, a
sentence that a text has several times is one candidate, and its pairs are not extracted, as its id is not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.corpora.reading import read_lines
from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.modules import TransferModule
from isogloss.stack import Stack
from isogloss.training.retrieval import sentence_vectors
from isogloss.training.search import MinedPairs, Search, best_threshold, mine, mining_scores
from isogloss.training.xtreme.data import NothingToScoreError

_SPLITS = {"dev": ("dev", "sample"), "test": ("test", "training")}


@dataclass(frozen=True)
class BuccSplit:
    """Two texts and the pairs between them.

    Attributes:
        first: Sentences in the language.
        second: Sentences in English.
        gold: Pairs of rows (first, second).
    """

    first: list[str]
    second: list[str]
    gold: frozenset[tuple[int, int]]


def bucc_languages(folder: Path) -> dict[str, str]:
    """Languages with a development and a test split: code -> BUCC's own two letters."""
    found = {}
    for path in sorted([*folder.glob("*-en.*.gold"), *folder.glob("*/*-en.*.gold")]):
        own = path.name.split("-en.")[0]
        if all(_base(folder, own, split) for split in _SPLITS):
            found[resolve(own).code] = own
    return found


def _base(folder: Path, own: str, split: str) -> Path | None:
    for name in _SPLITS[split]:
        for place in (folder, folder / f"{own}-en"):
            if (place / f"{own}-en.{name}.gold").is_file():
                return place / f"{own}-en.{name}"
    return None


def read_bucc(folder: Path, own: str, split: str) -> BuccSplit:
    """Reads one split.

    Raises:
        NothingToScoreError: There is no gold pair.
        IsoglossError: A file is missing, a line is not `id, tab, text`, or a gold pair names no sentence.
    """
    base = _base(folder, own, split)
    if base is None:
        raise IsoglossError(
            f"BUCC in '{folder}' has no {split} split for {own}; expected {own}-en.{split}.gold beside its texts."
        )
    sides: list[dict[str, int]] = []
    texts: list[list[str]] = []
    for suffix in (own, "en"):
        path = base.with_name(f"{base.name}.{suffix}")
        rows = [_two(path, number, line) for number, line in read_lines(path) if line.strip()]
        sides.append({key: place for place, (key, _) in enumerate(rows)})
        texts.append([text for _, text in rows])
    gold = set()
    path = base.with_name(f"{base.name}.gold")
    for number, line in read_lines(path):
        if not line.strip():
            continue
        one, other = _two(path, number, line)
        if one not in sides[0] or other not in sides[1]:
            raise IsoglossError(
                f"{path}, line {number}: the pair {one}, {other} names a sentence that is not in the texts."
            )
        gold.add((sides[0][one], sides[1][other]))
    if not gold:
        raise NothingToScoreError(
            f"{path}: there is no pair in it, as in downloads that withhold the gold pairs of the test split."
        )
    return BuccSplit(texts[0], texts[1], frozenset(gold))


def _two(path: Path, number: int, line: str) -> tuple[str, str]:
    first, tab, second = line.partition("\t")
    if not tab or not first.strip() or not second.strip():
        raise IsoglossError(f"{path}, line {number}: expected two columns separated by a tab.")
    return first.strip(), second.strip()


def distinct(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """Each text once, and the row of each; -1 for one that stands in several."""
    rows: dict[str, int] = {}
    for row, text in enumerate(texts):
        rows[text] = -1 if text in rows else row
    return list(rows), torch.tensor(list(rows.values()), dtype=torch.long)


def evaluate_bucc(
    backbone: Backbone,
    shared: TransferModule | None,
    folder: Path,
    *,
    layer: int | None = None,
    search: Search = "auto",
    limit: int | None = None,
    tokens_per_batch: int | None = None,
    left_out: dict[str, str] | None = None,
) -> dict[str, dict[str, float]]:
    """F1 of the mined pairs of the test split at the threshold that is best on the development split.

    Args:
        backbone: The backbone.
        shared: A module for every language, or None.
        folder: See the module's text.
        layer: Block whose states are pooled; None is the last.
        search: See `search.neighbours`.
        limit: At most this many sentences a side (gold pairs beyond are left out); None for all.
        tokens_per_batch: Size of batches; None takes what suits the device.
        left_out: Gets the languages that have no gold pair, and why.

    Returns:
        Code -> `{"f1", "precision", "recall", "threshold", "n"}`.

    Raises:
        NothingToScoreError: No language has gold pairs of both splits.
        IsoglossError: The files are not as expected.
    """
    stack = Stack(backbone, [shared] if shared is not None else [])
    codes = bucc_languages(folder)
    if not codes:
        raise NothingToScoreError(
            f"BUCC in '{folder}' has no language with dev and test; expected files like de-en.dev.gold there."
        )

    def mined(own: str, code: str, split: str) -> tuple[MinedPairs, frozenset[tuple[int, int]]]:
        data = read_bucc(folder, own, split)
        first, second = data.first[:limit], data.second[:limit]
        gold = frozenset(pair for pair in data.gold if pair[0] < len(first) and pair[1] < len(second))
        options: dict[str, Any] = {"layer": layer, "tokens_per_batch": tokens_per_batch}
        if not gold:
            raise NothingToScoreError(
                f"There is no gold pair among the first {limit} sentences of BUCC's {split} split in {code}; raise --limit."
            )
        (first, rows_first), (second, rows_second) = distinct(first), distinct(second)
        one = sentence_vectors(stack, first, languages=[code] * len(first), **options)
        other = sentence_vectors(stack, second, languages=["eng_Latn"] * len(second), **options)
        found = mine(one, other, search=search)
        here, there = rows_first[found.first], rows_second[found.second]
        known = (here >= 0) & (there >= 0)
        return MinedPairs(here[known], there[known], found.scores[known]), gold

    scores = {}
    lacking = {} if left_out is None else left_out
    for code, own in codes.items():
        try:
            threshold = best_threshold(*mined(own, code, "dev"))
            scores[code] = {**mining_scores(*mined(own, code, "test"), threshold), "threshold": threshold}
        except NothingToScoreError as problem:
            lacking[code] = str(problem)
    if not scores:
        raise NothingToScoreError(f"Of BUCC no language is left to score: {next(iter(lacking.values()))}")
    return scores
