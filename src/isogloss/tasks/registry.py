"""The named tasks and the generic ones; a new task is one more row of ``TASKS``."""

import dataclasses
from collections.abc import Mapping, Sequence

from isogloss.errors import IsoglossError
from isogloss.tasks.task import OPTIONAL_FIELDS, REQUIRED_FIELDS, Kind, Task, iob2_tags

# Columns that name an item. Which of them also identify it across splits is decided in ``_build``.
_ID = ("index_id", "id", "ID", "sent_id", "idx", "line_number")

_UPOS_NAMES = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"
UPOS = tuple(_UPOS_NAMES.split())
TOPICS = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")

_CLASSIFY = ("accuracy", "macro_f1")

# In the Hub's and in XTREME's copies 0 to 6 mean the same for WikiANN, UNER and MasakhaNER; 7 and 8 are DATE.
_NER_NUMBERS = (*iob2_tags(("PER", "ORG", "LOC")), "B-DATE", "I-DATE")

# IL-NER's names of the three types, and the types that only some data sets have. Zero-shot transfer needs one
# label set on both sides, so the others count as outside unless the user's own label set names them.
_NER_TYPES = {
    "NEP": "PER",
    "NEL": "LOC",
    "NEO": "ORG",
    **dict.fromkeys(("DATE", "TIME", "MISC", "OTH", "NEAR", "NEN", "NETI"), "O"),
}

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="topic",
            kind="classification",
            fields={"text": ("text", "sentence"), "label": ("category", "label", "topic"), "id": _ID},
            labels=TOPICS,
            label_map={
                "science_technology": "science/technology",
                "science-technology": "science/technology",
            },
            metrics=_CLASSIFY,
            template="topic",
            verbaliser="topic",
        ),
        Task(
            name="nli",
            kind="pair-classification",
            fields={
                "text": ("sentence1", "premise"),
                "text_pair": ("sentence2", "hypothesis"),
                "label": ("gold_label", "label"),
                "id": _ID,
            },
            labels=("entailment", "neutral", "contradiction"),
            label_map={"contradictory": "contradiction"},
            numbered=("entailment", "neutral", "contradiction"),
            metrics=_CLASSIFY,
            template="nli",
            verbaliser="nli",
        ),
        Task(
            name="paraphrase",
            kind="pair-classification",
            fields={
                "text": ("sentence1",),
                "text_pair": ("sentence2",),
                "label": ("label", "gold_label"),
                "id": _ID,
            },
            labels=("different", "paraphrase"),
            label_map={"no": "different", "yes": "paraphrase", "not_paraphrase": "different"},
            numbered=("different", "paraphrase"),
            metrics=(*_CLASSIFY, "f1"),
            positive="paraphrase",
            template="paraphrase",
            verbaliser="paraphrase",
        ),
        Task(
            name="ner",
            kind="tagging",
            fields={"tokens": ("tokens", "words"), "tags": ("ner_tags", "tags"), "id": _ID},
            labels=iob2_tags(("PER", "LOC", "ORG")),
            label_map=_NER_TYPES,
            numbered=_NER_NUMBERS,
            scheme="iob2",
            metrics=("f1", "precision", "recall"),
            primary="f1",
            template="ner",
        ),
        Task(
            name="pos",
            kind="tagging",
            fields={"tokens": ("tokens", "words"), "tags": ("upos", "pos_tags", "tags"), "id": _ID},
            labels=UPOS,
            # the Hub's copy of UD tags the surface form of a multiword token so
            label_map={"_": "X"},
            scheme="plain",
            metrics=("accuracy", "macro_f1", "xtreme_f1"),
            template="pos",
        ),
        Task(
            name="qa",
            kind="qa",
            fields={
                "question": ("question",),
                "context": ("context",),
                "answers": ("answers",),
                "title": ("title",),
                "id": ("id", "ID", "idx"),
            },
            metrics=("f1", "em", "mlqa_f1", "mlqa_em"),
            primary="f1",
            template="qa",
        ),
        Task(
            name="claims",
            kind="classification",
            fields={
                "text": ("text", "tweet_text", "tweet", "sentence"),
                "label": ("label", "class_label", "check_worthiness", "claim_worthiness"),
                "id": (*_ID, "tweet_id", "sentence_id"),
            },
            labels=("not-checkworthy", "checkworthy"),
            label_map={"no": "not-checkworthy", "yes": "checkworthy"},
            numbered=("not-checkworthy", "checkworthy"),
            metrics=("f1", "average_precision", *_CLASSIFY),
            primary="f1",
            positive="checkworthy",
            template="claims",
            verbaliser="claims",
        ),
        Task(
            name="sentiment",
            kind="classification",
            fields={"text": ("tweet", "text", "sentence"), "label": ("label", "sentiment"), "id": _ID},
            labels=("positive", "neutral", "negative"),
            metrics=_CLASSIFY,
            template="sentiment",
            verbaliser="sentiment",
        ),
        Task(
            name="choice",
            kind="choice",
            fields={
                "text": ("premise",),
                "choice1": ("choice1",),
                "choice2": ("choice2",),
                "question": ("question",),
                "label": ("label",),
                "id": _ID,
            },
            template="choice",
        ),
        Task(
            name="retrieval",
            kind="retrieval",
            fields={"text": ("{language}", "text", "sentence"), "text_pair": ("eng", "en"), "id": _ID},
            template="retrieval",
        ),
    )
}


def _generic(kind: Kind) -> Task:
    names = (*REQUIRED_FIELDS[kind], *OPTIONAL_FIELDS[kind])
    fields = {name: (_ID if name == "id" else (name,)) for name in names}
    return Task(
        name=kind,
        kind=kind,
        fields=fields,
        scheme="auto" if kind == "tagging" else None,
        # a tagging task learns its metrics with its labels, see Task.with_labels
        metrics=("accuracy",) if kind == "tagging" else _CLASSIFY,
        template=kind,
    )


GENERIC: Mapping[str, Task] = {
    "classification": _generic("classification"),
    "pair-classification": _generic("pair-classification"),
    "tagging": _generic("tagging"),
}


def task_names() -> tuple[str, ...]:
    """All names that ``get_task`` knows, the prepared tasks first."""
    return (*TASKS, *GENERIC)


def get_task(
    name: str,
    fields: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    label_map: Mapping[str, str] | None = None,
) -> Task:
    """A task by name.

    Args:
        name: ``topic nli paraphrase ner pos qa claims sentiment choice retrieval``, or a generic kind
            ``classification pair-classification tagging`` (``qa`` is both).
        fields: Logical field to column name, to read data that name their columns otherwise; such a column
            must then be there.
        labels: Label set in class order; entity types are enough for ``ner``. For data that hold integers,
            the order says what the integers mean, unless the task fixes that itself.
        label_map: Names in the data to names of labels, added to what the task knows.

    Raises:
        IsoglossError: Unknown task or logical field.
    """
    task = TASKS.get(name) or GENERIC.get(name)
    if task is None:
        raise IsoglossError(f"There is no task {name!r}: expected one of {', '.join(task_names())}.")
    if fields:
        known = (*REQUIRED_FIELDS[task.kind], *OPTIONAL_FIELDS[task.kind])
        for logical in fields:
            if logical not in known:
                raise IsoglossError(
                    f"--field {logical}={fields[logical]}: task {name!r} has no field {logical!r}, "
                    f"it has {', '.join(known)}."
                )
        task = dataclasses.replace(
            task, fields={**task.fields, **{logical: (column,) for logical, column in fields.items()}}
        )
    if label_map:
        task = dataclasses.replace(task, label_map={**task.label_map, **label_map})
    if labels:
        if not task.has_labels:
            raise IsoglossError(f"--labels: task {name!r} has no label set; leave --labels out.")
        task = task.with_labels(labels)
    return task
