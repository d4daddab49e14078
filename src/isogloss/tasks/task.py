"""What a task asks: its kind, fields, labels, template and metrics."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from isogloss.errors import IsoglossError
from isogloss.tasks.examples import Example

Kind = Literal["classification", "pair-classification", "tagging", "qa", "choice", "retrieval"]
Scheme = Literal["iob2", "plain", "auto"]
KINDS: tuple[str, ...] = get_args(Kind)

_IOB2 = re.compile(r"^(?:O|[BI]-\S+)$")

# What a reader must find in a row, per kind, and what it uses when it is there.
REQUIRED_FIELDS: Mapping[str, tuple[str, ...]] = {
    "classification": ("text", "label"),
    "pair-classification": ("text", "text_pair", "label"),
    "tagging": ("tokens", "tags"),
    "qa": ("question", "context", "answers"),
    "choice": ("text", "choice1", "choice2", "label"),
    "retrieval": ("text", "text_pair"),
}
OPTIONAL_FIELDS: Mapping[str, tuple[str, ...]] = {
    "classification": ("id",),
    "pair-classification": ("id",),
    "tagging": ("id",),
    "qa": ("id", "title"),
    "choice": ("id", "question"),
    "retrieval": ("id",),
}
LABEL_FIELDS = frozenset({"label", "tags", "answers"})


def is_iob2(tag: str) -> bool:
    """Whether ``tag`` is ``O``, ``B-type`` or ``I-type``."""
    return _IOB2.match(tag) is not None


def iob2_tags(types: Iterable[str]) -> tuple[str, ...]:
    """The tag set of some entity types: ``O``, then ``B-`` and ``I-`` of each type in the given order."""
    return ("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI"))


@dataclass(frozen=True)
class Task:
    """A task: what an example holds, which labels exist, how it is asked in text, how it is scored.

    Attributes:
        name: ``topic``, ``nli`` ... or the kind itself for a generic task.
        kind: One of ``KINDS``.
        fields: Logical field to the column names that may hold it, tried in order. ``{language}`` stands for
            the folder name of the language (Tatoeba names its columns so).
        labels: The label set, in the order of the class indices; None means that the training data decide
            (``with_labels_from``). For tagging: the tags, with their ``B-`` and ``I-``.
        label_map: Other names of labels in data sets, to ours; for IOB2 tags it maps entity types, and ``O``
            as the target drops the type. A name that is itself a label is never mapped.
        numbered: What the integers 0, 1, ... stand for in files that hold integers; None refuses integers
            when ``labels`` is set.
        scheme: For tagging: ``iob2`` (spans), ``plain`` (a label per token), ``auto`` (seen from the labels).
        metrics: Names of the metrics that ``evaluate_predictions`` gives.
        primary: The one to select and to average.
        positive: For a binary task the label that counts as positive.
        template: Name of the text-to-text template.
        verbaliser: Name of the label-word set, None if the task has none.
    """

    name: str
    kind: Kind
    fields: Mapping[str, tuple[str, ...]] = field(hash=False)
    labels: tuple[str, ...] | None = None
    label_map: Mapping[str, str] = field(default_factory=dict, hash=False)
    numbered: tuple[str, ...] | None = None
    scheme: Scheme | None = None
    metrics: tuple[str, ...] = ("accuracy",)
    primary: str = "accuracy"
    positive: str | None = None
    template: str = "generic"
    verbaliser: str | None = None

    def __post_init__(self) -> None:
        """Refuse a label set that cannot work."""
        if self.labels is not None:
            if not self.labels:
                raise IsoglossError(f"The label set of task {self.name!r} is empty: give at least one label.")
            twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
            if twice:
                raise IsoglossError(f"The label set of task {self.name!r} holds {twice[0]!r} twice: drop one.")

    @property
    def has_labels(self) -> bool:
        """Whether an example of this task carries a label or tags from a label set."""
        return self.kind in ("classification", "pair-classification", "tagging")

    @property
    def types(self) -> tuple[str, ...]:
        """Entity types of an IOB2 task, in label order; empty for other tasks."""
        if self.scheme != "iob2" or self.labels is None:
            return ()
        return tuple(dict.fromkeys(tag[2:] for tag in self.labels if tag != "O"))

    def label_index(self, label: str) -> int:
        """Class index of a label.

        Raises:
            IsoglossError: The label set is unknown yet, or does not hold the label.
        """
        if self.labels is None:
            raise IsoglossError(
                f"Task {self.name!r} has no label set yet: give the labels, or take them from training data."
            )
        try:
            return self.labels.index(label)
        except ValueError:
            raise IsoglossError(
                f"Task {self.name!r} has no label {label!r}: it accepts {', '.join(self.labels)}."
            ) from None

    def with_labels(self, labels: Sequence[str]) -> "Task":
        """The same task with this label set.

        For an IOB2 task bare entity types are enough: ``("PER", "LOC")`` becomes ``O B-PER I-PER B-LOC
        I-LOC``. A tagging task of scheme ``auto`` becomes ``iob2`` if every label is an IOB2 tag, else
        ``plain``.
        """
        chosen = tuple(labels)
        scheme = self.scheme
        if self.kind == "tagging":
            if scheme == "auto":
                scheme = "iob2" if all(is_iob2(tag) for tag in chosen) and "O" in chosen else "plain"
            if scheme == "iob2":
                types = dict.fromkeys(tag[2:] if is_iob2(tag) and tag != "O" else tag for tag in chosen)
                types.pop("O", None)
                chosen = iob2_tags(types)
        metrics, primary = self.metrics, self.primary
        if self.kind == "tagging" and self.name == "tagging":
            # the generic task learns only here whether its tags are spans
            metrics, primary = (
                (("f1", "precision", "recall"), "f1") if scheme == "iob2" else (("accuracy", "macro_f1"), "accuracy")
            )
        # integers in files follow the order that the user gave, if it was one of whole tags
        given = tuple(labels) if set(labels) == set(chosen) else chosen
        numbered = self.numbered if self.numbered is not None else given
        positive = self.positive if self.positive in chosen else None
        if self.positive is not None and positive is None:
            metrics = tuple(name for name in metrics if name not in ("f1", "average_precision"))
            primary = primary if primary in metrics else "accuracy"
        return dataclasses.replace(
            self,
            labels=chosen,
            numbered=numbered,
            scheme=scheme,
            metrics=metrics,
            primary=primary,
            positive=positive,
        )

    def with_labels_from(self, examples: Iterable[Example]) -> "Task":
        """The task itself if its label set is known, else with the labels of ``examples``, sorted.

        Raises:
            IsoglossError: There is no labelled example.
        """
        if self.labels is not None or not self.has_labels:
            return self
        seen: set[str] = set()
        for example in examples:
            if self.kind == "tagging":
                seen.update(example.tags or ())
            elif example.label is not None:
                seen.add(str(example.label))
        if not seen:
            raise IsoglossError(f"Task {self.name!r} takes its labels from the training data, but none of it has one.")
        if self.kind == "tagging" and self.scheme != "plain" and all(is_iob2(tag) for tag in seen):
            seen.add("O")
        return self.with_labels(sorted(seen))

    def to_dict(self) -> dict[str, Any]:
        """A plain dictionary for JSON; ``from_dict`` gives the task back."""
        out = {name: value for name, value in vars(self).items() if value is not None}
        out["fields"] = {name: list(columns) for name, columns in self.fields.items()}
        out["label_map"] = dict(self.label_map)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in out.items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Task":
        """Build a task from what ``to_dict`` gave.

        Raises:
            IsoglossError: An unknown key or kind, or a missing one.
        """
        known = {item.name for item in dataclasses.fields(Task)}
        strange = sorted(set(values) - known)
        if strange:
            raise IsoglossError(f"A saved task has the unknown key {strange[0]!r}: expected {sorted(known)}.")
        if values.get("kind") not in KINDS or "name" not in values or "fields" not in values:
            raise IsoglossError(
                f"A saved task needs name, fields and a kind among {', '.join(KINDS)}, got {dict(values)!r}."
            )
        ready = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        ready["fields"] = {name: tuple(columns) for name, columns in values["fields"].items()}
        return Task(**cast(dict[str, Any], ready))
