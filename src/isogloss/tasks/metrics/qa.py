"""Exact match and F1 of extractive answers: SQuAD's way and MLQA's, in percent.

Both normalise the answer and the gold text, give 1 for equal texts (exact match) and the F1 of their words as
multisets, and take the best over the gold answers. They differ in what is normalised and in what a word is.

SQuAD v1.1: lower case, ASCII punctuation out, the English articles out, words at white space. XQuAD and
TyDiQA-GoldP are scored so in XTREME too, whatever the language.

MLQA (arXiv 1910.07475 and its public evaluation): lower case, every character of Unicode category P out
besides the ASCII ones, the articles of the language out, and in Chinese each Han character a word, so that
Chinese answers of several words can be partly right.
"""

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

from isogloss.errors import IsoglossError

_CHINESE = frozenset({"zho", "cmn", "yue", "wuu", "lzh", "hak", "nan"})
# Han as MLQA's evaluation counts it; for Japanese, which MLQA does not have, we read Han and kana so too.
_CHARACTERS = {
    **dict.fromkeys(_CHINESE, re.compile("[\u4e00-\u9fa5]")),
    "jpn": re.compile("[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"),
}

# The languages of MLQA that have articles. In Arabic the article is a prefix; the public evaluation's pattern
# takes the two letters out wherever they stand, so this does too.
_ARTICLES = {
    "eng": re.compile(r"\b(a|an|the)\b"),
    "spa": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "vie": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "deu": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    "arb": re.compile("ال"),
    "ara": re.compile("ال"),
}


@lru_cache(maxsize=1)
def _punctuation() -> dict[int, None]:
    """A table for ``str.translate`` that takes out all punctuation of Unicode, and ASCII's symbols."""
    marks = {code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P")}
    return dict.fromkeys(marks | set(map(ord, string.punctuation)))


_ASCII_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


def squad_words(text: str) -> list[str]:
    """The words of an answer as SQuAD v1.1 compares them."""
    return _ARTICLES["eng"].sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()


def mlqa_words(text: str, language: str) -> list[str]:
    """The words of an answer as MLQA compares them.

    Args:
        text: An answer.
        language: ISO 639-3, a script after it does not matter (``deu`` or ``deu_Latn``). A language that is
            not in MLQA has no articles here.
    """
    code = language.partition("_")[0]
    text = text.lower().translate(_punctuation())
    articles = _ARTICLES.get(code)
    if articles is not None:
        text = articles.sub(" ", text)
    characters = _CHARACTERS.get(code)
    if characters is not None:
        text = characters.sub(lambda match: f" {match.group()} ", text)
    return text.split()


def exact(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """1 if the word lists are equal, else 0."""
    return float(list(gold) == list(predicted))


def overlap_f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """F1 of two multisets of words, between 0 and 1; 0 when they share none."""
    shared = (Counter(gold) & Counter(predicted)).total()
    return 2 * shared / (len(gold) + len(predicted)) if shared else 0.0


def _score(
    gold: Sequence[Sequence[str]], predicted: Sequence[str], words: Callable[[int, str], list[str]]
) -> dict[str, float]:
    if len(gold) != len(predicted):
        raise IsoglossError(f"{len(gold)} questions but {len(predicted)} predicted answers; give one for each.")
    em = f1 = 0.0
    for place, (answers, guess) in enumerate(zip(gold, predicted, strict=True)):
        if not answers:
            raise IsoglossError(f"Question {place + 1} has no gold answer; leave it out of the evaluation.")
        guessed = words(place, guess)
        right = [words(place, answer) for answer in answers]
        em += max(exact(answer, guessed) for answer in right)
        f1 += max(overlap_f1(answer, guessed) for answer in right)
    count = max(len(gold), 1)
    return {"em": 100 * em / count, "f1": 100 * f1 / count}


def squad(gold: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict[str, float]:
    """``em`` and ``f1`` of SQuAD v1.1.

    Args:
        gold: The accepted answers of every question, at least one each.
        predicted: One answer a question.

    Raises:
        IsoglossError: Different lengths, or a question without a gold answer.
    """
    return _score(gold, predicted, lambda place, text: squad_words(text))


def mlqa(gold: Sequence[Sequence[str]], predicted: Sequence[str], languages: Sequence[str]) -> dict[str, float]:
    """``em`` and ``f1`` of MLQA.

    Args:
        gold: The accepted answers of every question, at least one each.
        predicted: One answer a question.
        languages: Language of every answer, see ``mlqa_words``.

    Raises:
        IsoglossError: Different lengths, or a question without a gold answer.
    """
    return _score(gold, predicted, lambda place, text: mlqa_words(text, languages[place]))
