"""Predictions of a task to its metrics."""

from collections.abc import Sequence
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.tasks.examples import Example
from isogloss.tasks.metrics import classification, qa
from isogloss.tasks.metrics.spans import (
    TextSpans,
    span_f1,
    tag_accuracy,
    text_span_f1,
    text_spans,
    xtreme_pos_f1,
)
from isogloss.tasks.task import Task


def evaluate_predictions(
    task: Task, examples: Sequence[Example], decoded: Sequence[Any], scores: Sequence[float] | None = None
) -> dict[str, float]:
    """Metrics in percent, and ``n``.

    Args:
        task: Names the metrics.
        examples: With their gold labels, tags or answers.
        decoded: One prediction an example: a label; tags (one a token) or ``TextSpans``; an answer; the index
            of a choice; for retrieval the id of the example found. None is output that could not be read: it
            is wrong, and its share is given as ``unparsed``.
        scores: How sure each example is positive, for ``average_precision``, which is left out without them.

    Returns:
        At least ``task.primary``; ``n`` is the number of examples as a float.

    Raises:
        IsoglossError: Lengths that differ, or examples without gold labels.
    """
    if len(examples) != len(decoded):
        raise IsoglossError(f"{len(examples)} examples but {len(decoded)} predictions; give one for each.")
    if not examples:
        raise IsoglossError(f"There is no example of task {task.name!r} to evaluate on; give at least one.")
    if task.kind == "tagging":
        out = _tagging(task, examples, decoded)
    elif task.kind == "qa":
        out = _answers(task, examples, decoded)
    elif task.kind == "retrieval":
        out = {"accuracy": classification.accuracy([example.id for example in examples], decoded)}
    else:
        out = _labels(task, examples, decoded, scores)
    unread = sum(prediction is None for prediction in decoded)
    if unread:
        out["unparsed"] = 100 * unread / len(decoded)
    return {**out, "n": len(examples)}


def _gold(task: Task, examples: Sequence[Example], name: str) -> list[Any]:
    gold = [getattr(example, name) for example in examples]
    if any(value is None for value in gold):
        place = next(place for place, value in enumerate(gold) if value is None)
        raise IsoglossError(
            f"Example {examples[place].id} has no {name}, so task {task.name!r} cannot be scored on it; "
            "read the data with labels."
        )
    return gold


def _labels(
    task: Task, examples: Sequence[Example], decoded: Sequence[Any], scores: Sequence[float] | None
) -> dict[str, float]:
    gold = _gold(task, examples, "label")
    out: dict[str, float] = {}
    for name in task.metrics:
        if name == "accuracy":
            out[name] = classification.accuracy(gold, decoded)
        elif name == "macro_f1":
            out[name] = classification.macro_f1(gold, decoded)
        elif name == "f1":
            out[name] = classification.class_f1(gold, decoded, task.positive)["f1"]
        elif name == "average_precision" and scores is not None:
            positive = [label == task.positive for label in gold]
            out[name] = classification.average_precision(positive, scores)
    return out


def _tagging(task: Task, examples: Sequence[Example], decoded: Sequence[Any]) -> dict[str, float]:
    gold = _gold(task, examples, "tags")
    if any(isinstance(prediction, TextSpans) for prediction in decoded):
        texts = [text_spans(example.tokens or (), tags) for example, tags in zip(examples, gold, strict=True)]
        return text_span_f1(texts, [TextSpans(prediction or ()) for prediction in decoded])
    guesses = [
        prediction if prediction is not None else ("O",) * len(tags)
        for prediction, tags in zip(decoded, gold, strict=True)
    ]
    if task.scheme == "iob2":
        return span_f1(gold, guesses)
    out = {"accuracy": tag_accuracy(gold, guesses)}
    if "macro_f1" in task.metrics:
        out["macro_f1"] = classification.macro_f1(
            [tag for tags in gold for tag in tags], [tag for tags in guesses for tag in tags]
        )
    if "xtreme_f1" in task.metrics:
        out["xtreme_f1"] = xtreme_pos_f1(gold, guesses)
    return out


def _answers(task: Task, examples: Sequence[Example], decoded: Sequence[Any]) -> dict[str, float]:
    gold = [[answer.text for answer in answers] for answers in _gold(task, examples, "answers")]
    guesses = [prediction if prediction is not None else "" for prediction in decoded]
    plain = qa.squad(gold, guesses)
    own = qa.mlqa(gold, guesses, [example.language for example in examples])
    return {**plain, "mlqa_f1": own["f1"], "mlqa_em": own["em"]}
