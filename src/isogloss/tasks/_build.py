"""A raw row to an Example: columns found, types checked, labels normalised, offsets repaired."""

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.tasks._rows import RawRow
from isogloss.tasks.examples import Answer, Example
from isogloss.tasks.task import LABEL_FIELDS, REQUIRED_FIELDS, Task, is_iob2

# SNLI's and GLUE's mark for "no agreed label" or "label withheld".
_NO_LABEL = frozenset({"-", "-1", ""})
# How far a wrong answer_start may be off and still be repaired when the answer stands there just once.
_NEAR = 64
# Columns whose value names the item in the whole data set even when it is a bare number (FLORES numbers).
_GLOBAL_IDS = frozenset({"index_id"})


class RowProblem(IsoglossError):  # noqa: N818
    """A row that is malformed; ``reason`` is the short name under which skipped rows are counted."""

    def __init__(self, where: str, text: str, reason: str) -> None:
        super().__init__(f"{where}: {text}")
        self.reason = reason


@dataclass
class Builder:
    """Turns rows of one split into examples and counts what it repaired and left out.

    Attributes:
        folder: Name of the language's folder, for columns named after it.
        labelled: Whether labels must be there; otherwise they are not read at all.
        dropped: Reason to number of rows left out.
        repaired: Reason to number of rows mended.
    """

    task: Task
    language: str
    folder: str
    split: str
    labelled: bool = True
    dropped: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)

    def build(self, row: RawRow) -> Example | None:
        """The example of a row; None if it is one that has no answer or no gold label.

        Raises:
            RowProblem: The row is malformed.
        """
        values: dict[str, Any] = {"id": self._identity(row), "language": self.language}
        kind = self.task.kind
        if kind in ("classification", "pair-classification", "retrieval"):
            values["text"] = self._text(row, "text")
            if kind != "classification":
                values["text_pair"] = self._text(row, "text_pair")
        if kind in ("classification", "pair-classification") and self.labelled:
            label = self._label(row, self._value(row, "label"))
            if label is None:
                self.dropped["no gold label"] += 1
                return None
            values["label"] = label
        elif kind == "tagging":
            values |= self._tagged(row)
        elif kind == "qa":
            answers = self._question(row, values)
            if answers is not None and not answers:
                self.dropped["without an answer"] += 1
                return None
            values["answers"] = answers
        elif kind == "choice":
            self._choice(row, values)
        return Example(**values)

    def _column(self, row: RawRow, logical: str) -> str | None:
        for name in self.task.fields.get(logical, ()):
            name = name.replace("{language}", self.folder)
            if name in row.values and row.values[name] is not None:
                return name
        return None

    def _value(self, row: RawRow, logical: str) -> Any:
        column = self._column(row, logical)
        if column is None:
            names = [name.replace("{language}", self.folder) for name in self.task.fields.get(logical, ())]
            present = ", ".join(str(name) for name in row.values) or "none"
            raise RowProblem(
                row.where,
                f"no column {' or '.join(names)} for the {logical} of task {self.task.name!r}; "
                f"its columns are {present} (name another with --field {logical}=COLUMN).",
                "missing column",
            )
        return row.values[column]

    def _text(self, row: RawRow, logical: str) -> str:
        value = self._value(row, logical)
        if not isinstance(value, str):
            raise RowProblem(
                row.where,
                f"{self._column(row, logical)} must be a text, found {type(value).__name__} {_short(value)}.",
                "wrong type",
            )
        if not _is_unicode(value):
            raise RowProblem(
                row.where,
                f"{self._column(row, logical)} holds half a surrogate pair (\\ud800 to \\udfff); correct it.",
                "invalid Unicode",
            )
        if not value.strip():
            raise RowProblem(
                row.where,
                f"{self._column(row, logical)} is empty; give it a text or leave the row out.",
                "empty text",
            )
        return value

    def _identity(self, row: RawRow) -> str:
        """An id that translations share and different splits do not, as far as the data allow.

        A bare number under ``id``, ``idx`` or ``line_number`` counts rows within a split (XNLI, PAWS-X,
        XCOPA, CheckThat!), so the split goes in front of it. Without an id column nothing is shared between
        languages.
        """
        column = self._column(row, "id")
        if column is None:
            return f"{self.language}:{self.split}:{row.number}"
        value = row.values[column]
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise RowProblem(row.where, f"{column} must be a text or an integer, found {_short(value)}.", "wrong type")
        text = str(value).strip()
        return f"{self.split}:{text}" if text.isdigit() and column not in _GLOBAL_IDS else text

    def _label(self, row: RawRow, value: Any) -> str | None:
        """A label in the task's own words; None if the row is marked as having no gold label."""
        task = self.task
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, (str, int)):
            raise RowProblem(row.where, f"a label must be a text or an integer, found {_short(value)}.", "wrong type")
        text = str(value).strip()
        known = match_label(task, text)
        if known is not None:
            return known
        if text in _NO_LABEL:
            return None
        if task.labels is None:
            return text
        why = ""
        if text.lstrip("-").isdigit() and task.numbered is None:
            why = ", and what its integers mean is not known: name the labels in that order with --labels"
        raise RowProblem(
            row.where,
            f"unknown label {text!r}; task {task.name!r} accepts {', '.join(task.labels)}{why}.",
            "unknown label",
        )

    def _tagged(self, row: RawRow) -> dict[str, Any]:
        tokens = self._list(row, "tokens")
        if not tokens:
            raise RowProblem(row.where, "the row has no tokens; leave it out.", "empty text")
        for token in tokens:
            if not isinstance(token, str) or not token.strip() or not _is_unicode(token):
                raise RowProblem(
                    row.where,
                    f"every token must be a valid text that is not empty, found {_short(token)}.",
                    "empty text",
                )
        if not self.labelled:
            return {"tokens": tuple(tokens)}
        tags = self._list(row, "tags")
        if len(tags) != len(tokens):
            raise RowProblem(
                row.where,
                f"{len(tokens)} tokens but {len(tags)} tags; there must be one tag a token.",
                "lengths",
            )
        if self.task.scheme == "iob2":
            return {"tokens": tuple(tokens), "tags": self._iob2(row, tags)}
        found = []
        for tag in tags:
            label = self._label(row, tag)
            if label is None:
                raise RowProblem(row.where, f"the tag {tag!r} is a placeholder, not a tag.", "no gold label")
            found.append(label)
        return {"tokens": tuple(tokens), "tags": tuple(found)}

    def _iob2(self, row: RawRow, tags: Sequence[Any]) -> tuple[str, ...]:
        """Tags in the task's types, valid IOB2.

        MasakhaNER and WikiANN have spans that begin with ``I-``; conlleval and seqeval count such a span all
        the same, so it is given its ``B-`` here and the row is counted as repaired.
        """
        out: list[str] = []
        broken = False
        before = "O"
        for tag in tags:
            name = self._tag_name(row, tag)
            kind = name[2:]
            if name.startswith("I-") and before[2:] != kind:
                broken = True
                name = f"B-{kind}"
            before = name
            out.append(self._known_type(row, name))
        if broken:
            self.repaired["span begins with I-, read as B-"] += 1
        return tuple(out)

    def _tag_name(self, row: RawRow, tag: Any) -> str:
        task = self.task
        if isinstance(tag, int) and not isinstance(tag, bool):
            if task.numbered is None or not 0 <= tag < len(task.numbered):
                accepted = "none" if task.numbered is None else f"0 to {len(task.numbered) - 1}"
                raise RowProblem(
                    row.where,
                    f"the tag {tag} is an integer without a known meaning (known: {accepted}); "
                    "give the tags as text, or in their order with --labels.",
                    "unknown label",
                )
            tag = task.numbered[tag]
        if not isinstance(tag, str) or not is_iob2(tag):
            raise RowProblem(
                row.where, f"{tag!r} is not an IOB2 tag; expected O, B-TYPE or I-TYPE.", "invalid IOB2 tag"
            )
        return tag

    def _known_type(self, row: RawRow, name: str) -> str:
        task = self.task
        if name == "O" or task.labels is None or name in task.labels:
            return name
        kind = task.label_map.get(name[2:])
        if kind == "O":
            return "O"
        mapped = f"{name[:2]}-{kind}" if kind is not None else name
        mapped = mapped.replace("--", "-", 1)
        if mapped in task.labels:
            return mapped
        raise RowProblem(
            row.where,
            f"unknown label {name!r}; task {task.name!r} accepts the types {', '.join(task.types)} "
            "(add it with --labels, or map it).",
            "unknown label",
        )

    def _list(self, row: RawRow, logical: str) -> list[Any]:
        """A list column; from TSV and CSV a JSON or Python list, or words separated by spaces."""
        value = self._value(row, logical)
        if isinstance(value, str):
            value = _parse_list(value)
        if not isinstance(value, (list, tuple)):
            raise RowProblem(
                row.where,
                f"{self._column(row, logical)} must be a list, found {type(value).__name__} {_short(value)}.",
                "wrong type",
            )
        return list(value)

    def _question(self, row: RawRow, values: dict[str, Any]) -> tuple[Answer, ...] | None:
        values["question"] = self._text(row, "question")
        context = values["context"] = self._text(row, "context")
        title = self._column(row, "title")
        values["title"] = row.values[title] if title and isinstance(row.values[title], str) else None
        if not self.labelled:
            return None
        if row.values.get("is_impossible") is True:
            return ()
        pairs = self._answer_pairs(row)
        return tuple(self._located(row, context, text, start) for text, start in pairs)

    def _answer_pairs(self, row: RawRow) -> list[tuple[str, int]]:
        """Texts and offsets, from SQuAD's list of objects and from the Hub's object of two lists."""
        value = self._value(row, "answers")
        if isinstance(value, str):
            value = _parse_list(value)
        texts: Any = None
        starts: Any = None
        if isinstance(value, Mapping):
            texts, starts = value.get("text"), value.get("answer_start")
            if isinstance(texts, str):
                texts, starts = [texts], [starts]
        elif isinstance(value, (list, tuple)) and all(isinstance(item, Mapping) for item in value):
            texts = [item.get("text") for item in value]
            # an offset that is not given is looked for
            starts = [item.get("answer_start", -1) for item in value]
        lists = isinstance(texts, (list, tuple)) and isinstance(starts, (list, tuple))
        good = lists and len(texts) == len(starts)
        if not good or not all(isinstance(t, str) for t in texts) or not all(_is_int(s) for s in starts):
            raise RowProblem(
                row.where,
                "answers must be a list of {text, answer_start} or an object of the two lists text and "
                f"answer_start, found {_short(value)}.",
                "wrong type",
            )
        # some releases write an unanswerable question as one answer without text
        return [(text, int(start)) for text, start in zip(texts, starts, strict=True) if text.strip()]

    def _located(self, row: RawRow, context: str, text: str, start: int) -> Answer:
        if start >= 0 and context.startswith(text, start):
            return Answer(text, start)
        found = [match.start() for match in re.finditer(f"(?={re.escape(text)})", context)]
        near = [place for place in found if abs(place - start) <= _NEAR]
        chosen = near if len(near) == 1 else found
        if len(chosen) == 1:
            self.repaired["answer_start moved to where the answer stands"] += 1
            return Answer(text, chosen[0])
        raise RowProblem(
            row.where,
            f"answer_start {start} does not point at the answer {_short(text)}, which stands "
            f"{len(found) or 'no'} times in the context; correct the offset.",
            "answer not in context",
        )

    def _choice(self, row: RawRow, values: dict[str, Any]) -> None:
        values["text"] = self._text(row, "text")
        values["choices"] = tuple(
            self._text(row, name) for name in REQUIRED_FIELDS["choice"] if name.startswith("choice")
        )
        if self._column(row, "question") is not None:
            values["question"] = self._text(row, "question")
        if not self.labelled:
            return
        value = self._value(row, "label")
        text = str(int(value)) if isinstance(value, bool) else str(value).strip()
        if text not in ("0", "1"):
            raise RowProblem(
                row.where,
                f"unknown label {_short(value)}; task {self.task.name!r} accepts 0 and 1.",
                "unknown label",
            )
        values["label"] = int(text)


def match_label(task: Task, text: str) -> str | None:
    """The task's label that ``text`` means (itself, a mapped name, another case, a number), or None."""
    labels = task.labels
    if labels is None:
        return task.label_map.get(text)
    if text in labels:
        return text
    lower = {label.lower(): label for label in reversed(labels)}
    mapped = task.label_map.get(text, task.label_map.get(text.lower()))
    if mapped in labels:
        return mapped
    if text.lower() in lower:
        return lower[text.lower()]
    if task.numbered is not None and text.isdecimal() and int(text) < len(task.numbered):
        named = task.numbered[int(text)]
        return named if named in labels else None
    return None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_unicode(text: str) -> bool:
    # JSON can spell half a surrogate pair, which is no character and breaks tokenizers
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _parse_list(text: str) -> Any:
    stripped = text.strip()
    if stripped[:1] in ("[", "{"):
        for parse in (json.loads, ast.literal_eval):
            try:
                return parse(stripped)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
        return text
    return stripped.split()


__all__ = ["LABEL_FIELDS", "Builder", "RowProblem", "match_label"]
