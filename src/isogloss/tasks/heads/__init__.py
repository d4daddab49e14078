"""Task heads: how a task is asked of a backbone, what is scored, how predictions are read back."""

from isogloss.tasks.heads._base import Head
from isogloss.tasks.heads.linear_classification import LinearClassification
from isogloss.tasks.heads.linear_tagging import LinearTagging, words_without_state
from isogloss.tasks.heads.protocol import Encoded, Prediction, TaskBatch, TaskHead, Truncation, truncation
from isogloss.tasks.heads.registry import HEADS, check_head, default_head, head_from_json, head_names, make_head
from isogloss.tasks.heads.span_qa import SpanQA
from isogloss.tasks.heads.text_to_text import TextToText
from isogloss.tasks.heads.verbaliser import VerbaliserHead

__all__ = [
    "HEADS",
    "Encoded",
    "Head",
    "LinearClassification",
    "LinearTagging",
    "Prediction",
    "SpanQA",
    "TaskBatch",
    "TaskHead",
    "TextToText",
    "Truncation",
    "VerbaliserHead",
    "check_head",
    "default_head",
    "head_from_json",
    "head_names",
    "make_head",
    "truncation",
    "words_without_state",
]
