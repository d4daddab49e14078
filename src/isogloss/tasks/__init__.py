"""Labelled data to examples, predictions to metrics."""

from isogloss.tasks._rows import split_of_file
from isogloss.tasks.examples import Answer, Example
from isogloss.tasks.few_shot import FewShot, few_shot
from isogloss.tasks.leaks import check_leaks, duplicate_contents, without_duplicates
from isogloss.tasks.metrics import TextSpans, evaluate_predictions, spans_to_tags
from isogloss.tasks.reading import (
    SplitRead,
    available,
    canonical_split,
    find_folder,
    read,
    read_split,
    splits,
)
from isogloss.tasks.registry import get_task, task_names
from isogloss.tasks.task import KINDS, Kind, Task, iob2_tags, is_iob2
from isogloss.tasks.templates import Template, get_template, template_names
from isogloss.tasks.verbaliser import (
    SingleTokenReport,
    Verbaliser,
    get_verbaliser,
    single_token_check,
    tokenise_label_words,
)

__all__ = [
    "KINDS",
    "Answer",
    "Example",
    "FewShot",
    "Kind",
    "SingleTokenReport",
    "SplitRead",
    "Task",
    "Template",
    "TextSpans",
    "Verbaliser",
    "available",
    "canonical_split",
    "check_leaks",
    "duplicate_contents",
    "evaluate_predictions",
    "few_shot",
    "find_folder",
    "get_task",
    "get_template",
    "get_verbaliser",
    "iob2_tags",
    "is_iob2",
    "read",
    "read_split",
    "single_token_check",
    "spans_to_tags",
    "split_of_file",
    "splits",
    "task_names",
    "template_names",
    "tokenise_label_words",
    "without_duplicates",
]
