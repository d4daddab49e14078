"""Metrics in percent, each checked against its public definition."""

from isogloss.tasks.metrics.classification import (
    accuracy,
    average_precision,
    class_f1,
    macro_f1,
    per_class_f1,
)
from isogloss.tasks.metrics.evaluate import evaluate_predictions
from isogloss.tasks.metrics.qa import mlqa, mlqa_words, squad, squad_words
from isogloss.tasks.metrics.spans import (
    TextSpans,
    span_f1,
    spans,
    spans_to_tags,
    tag_accuracy,
    text_span_f1,
    text_spans,
    xtreme_pos_f1,
)

__all__ = [
    "TextSpans",
    "accuracy",
    "average_precision",
    "class_f1",
    "evaluate_predictions",
    "macro_f1",
    "mlqa",
    "mlqa_words",
    "per_class_f1",
    "span_f1",
    "spans",
    "spans_to_tags",
    "squad",
    "squad_words",
    "tag_accuracy",
    "text_span_f1",
    "text_spans",
    "xtreme_pos_f1",
]
