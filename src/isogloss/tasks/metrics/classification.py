"""Accuracy, F1 of one class and over the classes, average precision. All in percent."""

from collections.abc import Hashable, Sequence

import numpy as np

from isogloss.errors import IsoglossError
from isogloss.tasks.metrics.spans import prf


def _check(gold: Sequence[object], predicted: Sequence[object]) -> None:
    if len(gold) != len(predicted):
        raise IsoglossError(f"{len(gold)} gold labels but {len(predicted)} predictions; give one for each.")


def accuracy(gold: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """Share of right predictions; 0 for no examples."""
    _check(gold, predicted)
    return 100 * float(np.mean([g == p for g, p in zip(gold, predicted, strict=True)])) if gold else 0.0


def class_f1(gold: Sequence[Hashable], predicted: Sequence[Hashable], label: Hashable) -> dict[str, float]:
    """Precision, recall and F1 of one class; with the positive class, the binary F1."""
    _check(gold, predicted)
    right = sum(g == p == label for g, p in zip(gold, predicted, strict=True))
    return prf(right, sum(g == label for g in gold), sum(p == label for p in predicted))


def per_class_f1(
    gold: Sequence[Hashable], predicted: Sequence[Hashable], labels: Sequence[Hashable] | None = None
) -> dict[Hashable, float]:
    """F1 of every class.

    Args:
        gold: The right labels.
        predicted: The predictions; None stands for output that was no label.
        labels: The classes; by default those that occur among the gold labels and the predictions, which is
            what scikit-learn's ``f1_score`` averages over.
    """
    _check(gold, predicted)
    seen = labels if labels is not None else sorted({*gold, *predicted} - {None}, key=str)
    return {label: class_f1(gold, predicted, label)["f1"] for label in seen}


def macro_f1(
    gold: Sequence[Hashable], predicted: Sequence[Hashable], labels: Sequence[Hashable] | None = None
) -> float:
    """Unweighted mean of ``per_class_f1``; 0 for no examples."""
    scores = per_class_f1(gold, predicted, labels)
    return float(np.mean(list(scores.values()))) if scores else 0.0


def average_precision(positive: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the precision-recall steps, over thresholds; equal scores are one threshold.

    The mean of the precision at each positive when no scores are equal; the measure of CheckThat! for
    check-worthiness. 0 when nothing is positive.

    Args:
        positive: Whether each example is positive.
        scores: The higher, the surer that it is.

    Raises:
        IsoglossError: Different lengths, or a score that is not a number.
    """
    _check(positive, scores)
    truth = np.asarray(positive, dtype=bool)
    values = np.asarray(scores, dtype=np.float64)
    if np.isnan(values).any():
        raise IsoglossError(
            "A score is not a number; average precision needs one for every example (did the model diverge?)."
        )
    if not truth.any():
        return 0.0
    order = np.argsort(-values, kind="stable")
    truth, values = truth[order], values[order]
    # the last row of every group of equal scores is where its threshold stands
    ends = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    hits = np.cumsum(truth)[ends]
    precision = hits / (ends + 1)
    recall = hits / truth.sum()
    return 100 * float(np.sum(np.diff(recall, prepend=0.0) * precision))
