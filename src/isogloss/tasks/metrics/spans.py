"""Entity spans and tags: strict IOB2 F1, the S1 text-span F1, tagging accuracy.

``span_f1`` counts an entity as right when type, begin and end are right, over all sentences together. Tags
that break IOB2 (a span that begins with ``I-``) are read as conlleval does, which is the default mode of the
``seqeval`` library: a span begins at ``B-``, and at an ``I-`` that follows ``O`` or another type.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from isogloss.errors import IsoglossError

Span = tuple[str, int, int]


class TextSpans(tuple[tuple[str, str], ...]):
    """Entities without positions: (type, text) pairs, as a text-to-text model writes them."""

    __slots__ = ()


def spans(tags: Sequence[str]) -> list[Span]:
    """Entities of a tag sequence: (type, first token, token after the last).

    Raises:
        IsoglossError: A tag is not IOB2.
    """
    found: list[Span] = []
    kind, start = "", 0
    for place, tag in enumerate((*tags, "O")):
        prefix, _, name = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not name):
            raise IsoglossError(f"{tag!r} is not an IOB2 tag; expected O, B-TYPE or I-TYPE.")
        if kind and (prefix != "I" or name != kind):
            found.append((kind, start, place))
            kind = ""
        if tag != "O" and not kind:
            kind, start = name, place
    return found


def text_spans(tokens: Sequence[str], tags: Sequence[str]) -> TextSpans:
    """Entities of a tagged sentence as (type, text), the text's tokens joined by spaces."""
    return TextSpans((kind, " ".join(tokens[start:end])) for kind, start, end in spans(tags))


def spans_to_tags(tokens: Sequence[str], found: TextSpans) -> tuple[str, ...]:
    """IOB2 tags for (type, text) pairs.

    Each entity takes the first place where its tokens stand and no entity stands yet; one that stands nowhere
    is lost.
    """
    tags = ["O"] * len(tokens)
    for kind, text in found:
        words = text.split()
        for start in range(len(tokens) - len(words) + 1):
            end = start + len(words)
            if list(tokens[start:end]) == words and all(tag == "O" for tag in tags[start:end]):
                tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (len(words) - 1)]
                break
    return tuple(tags)


def check_lengths(gold: Sequence[Sequence[object]], predicted: Sequence[Sequence[object]]) -> None:
    """Refuse sentences of different number or length."""
    if len(gold) != len(predicted):
        raise IsoglossError(f"{len(gold)} gold sentences but {len(predicted)} predicted ones; give one for each.")
    for number, (right, guess) in enumerate(zip(gold, predicted, strict=True), start=1):
        if len(right) != len(guess):
            raise IsoglossError(
                f"Sentence {number} has {len(right)} gold tags but {len(guess)} predicted; give one a token."
            )


def prf(right: int, gold: int, predicted: int) -> dict[str, float]:
    """Precision, recall and F1 in percent from counts; a ratio without a denominator is 0."""
    precision = right / predicted if predicted else 0.0
    recall = right / gold if gold else 0.0
    f1 = 2 * right / (gold + predicted) if gold + predicted else 0.0
    return {"f1": 100 * f1, "precision": 100 * precision, "recall": 100 * recall}


def span_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Entity-level micro F1, precision and recall, with ``f1/TYPE`` for every type of the gold data.

    Raises:
        IsoglossError: Different lengths, or tags that are not IOB2.
    """
    check_lengths(gold, predicted)
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    guessed: Counter[str] = Counter()
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        gold_spans, predicted_spans = spans(gold_tags), spans(predicted_tags)
        total.update(kind for kind, _, _ in gold_spans)
        guessed.update(kind for kind, _, _ in predicted_spans)
        right.update(kind for kind, _, _ in set(gold_spans) & set(predicted_spans))
    out = prf(right.total(), total.total(), guessed.total())
    for kind in sorted(total):
        out[f"f1/{kind}"] = prf(right[kind], total[kind], guessed[kind])["f1"]
    return out


def text_span_f1(gold: Sequence[TextSpans], predicted: Sequence[TextSpans]) -> dict[str, float]:
    """Micro F1 over (type, text) pairs, matched as multisets within a sentence (S1, arXiv 2407.02317).

    Raises:
        IsoglossError: Different numbers of sentences.
    """
    if len(gold) != len(predicted):
        raise IsoglossError(f"{len(gold)} gold sentences but {len(predicted)} predicted ones; give one for each.")
    right = sum((Counter(g) & Counter(p)).total() for g, p in zip(gold, predicted, strict=True))
    return prf(right, sum(map(len, gold)), sum(map(len, predicted)))


def tag_accuracy(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Share of tokens with the right tag, in percent, over all sentences together."""
    check_lengths(gold, predicted)
    hits = [g == p for gs, ps in zip(gold, predicted, strict=True) for g, p in zip(gs, ps, strict=True)]
    return 100 * float(np.mean(hits)) if hits else 0.0


def _runs(tags: Sequence[str]) -> set[Span]:
    found: set[Span] = set()
    start = 0
    for place in range(1, len(tags) + 1):
        if place == len(tags) or tags[place] != tags[start] or tags[start].startswith("S"):
            found.add((tags[start], start, place))
            start = place
    return found


def xtreme_pos_f1(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """XTREME's number for UDPOS, in percent: seqeval's F1 run on plain part-of-speech tags.

    The effect on the 17 UPOS tags: a run of equal tags is one span, but each ``SCONJ`` and ``SYM`` is a span
    of its own, since seqeval takes a tag's first letter for its prefix and ``S`` for a single-token span
    (seqeval 0.0.12, of XTREME's time; 1.x drops the first letter of a tag and so confuses some).
    """
    check_lengths(gold, predicted)
    right = total = guessed = 0
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        gold_runs, predicted_runs = _runs(gold_tags), _runs(predicted_tags)
        right += len(gold_runs & predicted_runs)
        total += len(gold_runs)
        guessed += len(predicted_runs)
    return prf(right, total, guessed)["f1"]
