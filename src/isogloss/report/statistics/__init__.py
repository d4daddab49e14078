"""Statistics of a study: pure functions on arrays; nothing here knows of pages, files or models."""

from isogloss.report.statistics.correction import benjamini_hochberg, holm
from isogloss.report.statistics.correlation import (
    Correlation,
    correlate,
    correlation_difference,
    partial_correlation,
)
from isogloss.report.statistics.metric import Form, as_columns, form_of, score
from isogloss.report.statistics.resampling import Resampled, ScoredSet, draws_for, resample
from isogloss.report.statistics.spread import Estimate, estimate, paired_seed_error, seed_error, seeds_p

__all__ = [
    "Correlation",
    "Estimate",
    "Form",
    "Resampled",
    "ScoredSet",
    "as_columns",
    "benjamini_hochberg",
    "correlate",
    "correlation_difference",
    "draws_for",
    "estimate",
    "form_of",
    "holm",
    "paired_seed_error",
    "partial_correlation",
    "resample",
    "score",
    "seed_error",
    "seeds_p",
]
