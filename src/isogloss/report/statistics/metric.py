"""Metrics as functions of sums over examples, so that any resampling of examples is a matrix product."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Form = Literal["mean", "counts", "labels"]


def form_of(metric: str, width: int) -> Form | None:
    """How a metric is computed from the parts of its examples.

    Args:
        metric: Its name, which tells apart nothing but two-part metrics.
        width: Numbers an example.

    Returns:
        `mean` (correct,), `counts` (hits, predicted, gold) or `labels` (predicted, gold); None for anything else.
    """
    if width == 2:
        return "labels" if metric.startswith("macro") else None
    forms: dict[int, Form] = {1: "mean", 3: "counts"}
    return forms.get(width)


def as_columns(form: Form, parts: Sequence[Sequence[float]] | Array, classes: int = 0) -> Array:
    """What is summed over examples.

    Args:
        form: From `form_of`.
        parts: [n, 1, 2 or 3], see `form_of`.
        classes: For `labels`, the number of labels; a negative predicted label stands for no label.

    Returns:
        [n, 1] for `mean`, [n, 3] for `counts`, [n, 3 * classes] for `labels`: right, predicted and gold of each class.
    """
    values = np.asarray(parts, dtype=np.float64)
    if form != "labels":
        return values
    predicted, gold = values[:, 0].astype(int), values[:, 1].astype(int)
    labels = np.arange(classes)
    is_predicted, is_gold = predicted[:, None] == labels, gold[:, None] == labels
    return np.concatenate([is_predicted & is_gold, is_predicted, is_gold], axis=1).astype(np.float64)


def score(form: Form, sums: Array, size: Array | float) -> Array:
    """The metric in percent.

    Args:
        form: From `form_of`.
        sums: [..., k], sums of `as_columns` over the examples drawn.
        size: [...] or one number: how many examples were drawn; used by `mean` only.

    Returns:
        [...]; F1 without anything predicted or gold is 0, as the task metrics have it. Macro F1 is over the classes
        that occur among the gold or predicted labels drawn.
    """
    if form == "mean":
        return np.asarray(100 * sums[..., 0] / size)
    if form == "counts":
        return _f1(sums[..., 0], sums[..., 1] + sums[..., 2])
    right, predicted, gold = np.split(sums, 3, axis=-1)
    both = predicted + gold
    occurring = (both > 0).sum(axis=-1)
    total = _f1(right, both).sum(axis=-1)
    return np.asarray(np.divide(total, occurring, out=np.zeros_like(total), where=occurring > 0))


def _f1(right: Array, both: Array) -> Array:
    return np.divide(200 * right, both, out=np.zeros_like(both), where=both > 0)
