"""The parts of a metric, example by example, so that a report can resample them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from isogloss.tasks import Example, Task, TextSpans, evaluate_predictions
from isogloss.tasks.metrics.spans import spans, text_spans

Parts = list[list[float]]


def example_parts(task: Task, metric: str, examples: Sequence[Example], decoded: Sequence[Any]) -> Parts | None:
    """What each example adds to a metric.

    Args:
        task: With its label set.
        metric: Name of the metric.
        examples: With gold answers.
        decoded: One prediction an example; None is an unreadable one.

    Returns:
        Per example (correct,) for accuracy and the metrics of questions; (hits, predicted, gold) for F1 of spans, F1 of a
        class and accuracy over tokens; (predicted, gold) label indices for macro F1. None for metrics that no such parts make.
    """
    if task.kind == "tagging":
        return _tagging(metric, examples, decoded)
    if task.kind == "qa":
        return [
            [evaluate_predictions(task, [example], [answer])[metric] / 100]
            for example, answer in zip(examples, decoded, strict=True)
        ]
    if task.kind == "retrieval":
        return None
    pairs = [(example.label, answer) for example, answer in zip(examples, decoded, strict=True)]
    if metric == "accuracy":
        return [[float(gold == guess)] for gold, guess in pairs]
    if metric == "f1" and task.positive is not None:
        yes = task.positive
        return [[float(gold == guess == yes), float(guess == yes), float(gold == yes)] for gold, guess in pairs]
    if metric == "macro_f1" and task.labels:
        place = {label: float(number) for number, label in enumerate(task.labels)}
        return [[place.get(guess, -1.0), place[str(gold)]] for gold, guess in pairs]
    return None


def _tagging(metric: str, examples: Sequence[Example], decoded: Sequence[Any]) -> Parts | None:
    if metric == "accuracy":
        return [_token_counts(example, tags) for example, tags in zip(examples, decoded, strict=True)]
    if metric != "f1":
        return None
    if any(isinstance(guess, TextSpans) for guess in decoded):
        return [_text_counts(example, guess) for example, guess in zip(examples, decoded, strict=True)]
    return [_span_counts(example, tags) for example, tags in zip(examples, decoded, strict=True)]


def _token_counts(example: Example, tags: Sequence[str] | None) -> list[float]:
    gold = example.tags or ()
    guess = tags if tags is not None else ("O",) * len(gold)
    # The F1 of counts with as many predicted as gold is the accuracy over all tokens together.
    return [float(sum(a == b for a, b in zip(gold, guess, strict=True))), float(len(gold)), float(len(gold))]


def _span_counts(example: Example, tags: Sequence[str] | None) -> list[float]:
    gold, guess = set(spans(example.tags or ())), set(spans(tags or ()))
    return [float(len(gold & guess)), float(len(guess)), float(len(gold))]


def _text_counts(example: Example, guess: TextSpans | None) -> list[float]:
    gold = Counter(text_spans(example.tokens or (), example.tags or ()))
    found = Counter(guess or ())
    return [float((gold & found).total()), float(found.total()), float(gold.total())]
