"""Tasks as text: what a text-to-text model reads, what it should write, and how its output is read back.

The QA, NER, NLI and claim templates are those of "Soft Language Prompts for Language Transfer"
(arXiv 2407.02317, section on tasks; exact strings from its code), with its fallbacks for output that is no
answer. The others follow the same style and are ours.
"""

import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from isogloss.errors import IsoglossError
from isogloss.tasks.examples import Example
from isogloss.tasks.metrics.spans import TextSpans, text_spans
from isogloss.tasks.task import Task

Parsed = str | int | tuple[str, ...] | TextSpans | None

_URL = re.compile(r"(?:https?://|www\.)\S+")


class Template(Protocol):
    """A task as text."""

    @property
    def name(self) -> str:
        """Name of the template."""
        ...

    @property
    def max_target_tokens(self) -> int | None:
        """Longest target that the source system allows, None where it sets no limit of its own."""
        ...

    def source(self, example: Example) -> str:
        """What the model reads."""
        ...

    def target(self, example: Example) -> str:
        """What the model should write."""
        ...

    def parse(self, output: str, example: Example) -> Parsed:
        """Label, tags, spans or answer in ``output``.

        None stands for output that is no answer where the task has no published fallback; metrics count it
        as wrong and report its share.
        """
        ...


def _fields(example: Example) -> dict[str, str]:
    values = {
        "text": example.text,
        "text_pair": example.text_pair,
        "tokens": " ".join(example.tokens) if example.tokens is not None else None,
        "question": example.question,
        "context": example.context,
        "title": example.title,
    }
    for number, choice in enumerate(example.choices or (), start=1):
        values[f"choice{number}"] = choice
    return {name: value for name, value in values.items() if value is not None}


def _remove_urls(text: str) -> str:
    return " ".join(_URL.sub(" ", text).split())


def _without_case(text: str) -> str:
    return text.strip().casefold()


def _bare(text: str) -> str:
    return text.strip(string.whitespace + string.punctuation).casefold()


@dataclass(frozen=True)
class LabelTemplate:
    """The model writes a word that stands for the label.

    Attributes:
        format: Format string over the example's fields (``{text}``, ``{text_pair}``, ``{choice1}`` ...).
        words: Label to its word.
        fallback: Output without a known word to a label; None leaves it unparsed.
        clean: Applied to every field before it is put in.
    """

    name: str
    format: str
    words: Mapping[str | int, str]
    max_target_tokens: int | None = None
    fallback: Callable[[str], str | None] | None = None
    clean: Callable[[str], str] | None = None

    def source(self, example: Example) -> str:
        """The filled format string."""
        values = _fields(example)
        if self.clean is not None:
            values = {name: self.clean(value) for name, value in values.items()}
        try:
            return self.format.format(**values)
        except KeyError as error:
            raise IsoglossError(
                f"Template {self.name!r} needs the field {error.args[0]}, which example {example.id} lacks; "
                f"it has {', '.join(values)}."
            ) from None

    def target(self, example: Example) -> str:
        """The label's word."""
        if example.label is None or example.label not in self.words:
            raise IsoglossError(
                f"Template {self.name!r} has no word for the label {example.label!r} of example "
                f"{example.id}; it has words for {', '.join(map(str, self.words))}."
            )
        return self.words[example.label]

    def parse(self, output: str, example: Example) -> str | int | None:
        """The label whose word is the output, else the fallback's.

        White space around the output does not count; case does only where words differ in nothing else, and so does
        punctuation at the ends (`C`, `C++`; `+`, `-`).
        """
        for form in (str.strip, _without_case, _bare):
            found = form(output)
            for label, word in self.words.items():
                if found and found == form(word):
                    return label
        return self.fallback(output) if self.fallback is not None else None


@dataclass(frozen=True)
class SpanTemplate:
    """NER: ``tag: {tokens}`` to ``LABEL: entity`` items joined by ``$$``; no entities, no text."""

    types: tuple[str, ...]
    name: str = "ner"
    prefix: str = "tag: "
    max_target_tokens: int | None = 30

    def source(self, example: Example) -> str:
        """The tokens after the prefix."""
        return self.prefix + _fields(example)["tokens"]

    def target(self, example: Example) -> str:
        """The entities in text order."""
        if example.tokens is None or example.tags is None:
            raise IsoglossError(f"Template {self.name!r} needs tokens and tags, example {example.id} lacks them.")
        return " $$ ".join(f"{kind}: {entity}" for kind, entity in text_spans(example.tokens, example.tags))

    def parse(self, output: str, example: Example) -> TextSpans:
        """All items with a known type; what is no such item is left out."""
        spans = []
        for item in output.split("$$"):
            kind, mark, entity = item.partition(":")
            if mark and entity.strip() and (not self.types or kind.strip() in self.types):
                spans.append((kind.strip(), " ".join(entity.split())))
        return TextSpans(spans)


@dataclass(frozen=True)
class TagTemplate:
    """One tag a token: ``pos: {tokens}`` to the tags separated by spaces."""

    labels: tuple[str, ...]
    default: str
    name: str = "pos"
    prefix: str = "pos: "
    max_target_tokens: int | None = None

    def source(self, example: Example) -> str:
        """The tokens after the prefix."""
        return self.prefix + _fields(example)["tokens"]

    def target(self, example: Example) -> str:
        """The tags."""
        if example.tags is None:
            raise IsoglossError(f"Template {self.name!r} needs tags, example {example.id} lacks them.")
        return " ".join(example.tags)

    def parse(self, output: str, example: Example) -> tuple[str, ...]:
        """Exactly one tag a token: what is missing or no tag becomes the default, what is too much is cut."""
        count = len(example.tokens or ())
        tags = [tag if tag in self.labels else self.default for tag in output.split()[:count]]
        return (*tags, *[self.default] * (count - len(tags)))


@dataclass(frozen=True)
class AnswerTemplate:
    """QA: ``question: {question} context: {context}`` to the text of the first answer."""

    name: str = "qa"
    format: str = "question: {question} context: {context}"
    max_target_tokens: int | None = None

    def source(self, example: Example) -> str:
        """The filled format string."""
        return self.format.format(**_fields(example))

    def target(self, example: Example) -> str:
        """The first answer."""
        if not example.answers:
            raise IsoglossError(f"Template {self.name!r} needs an answer, example {example.id} lacks one.")
        return example.answers[0].text

    def parse(self, output: str, example: Example) -> str:
        """The output without the white space around it."""
        return output.strip()


_NLI = '{text} \n\nQuestion: Does this imply that "{text_pair}"? Yes, no, or maybe?'
_PARAPHRASE = '{text} \n\nQuestion: Is this a paraphrase of "{text_pair}"? Yes or no?'
_CHOICE = "{text} \n\nQuestion: What was the {question}? A: {choice1} B: {choice2}"


def _nli(task: Task) -> Template:
    return LabelTemplate(
        "nli",
        _NLI,
        {"entailment": "Yes", "neutral": "Maybe", "contradiction": "No"},
        max_target_tokens=3,
        fallback=lambda output: "neutral",
    )


def _claims(task: Task) -> Template:
    return LabelTemplate(
        "claims",
        "checkworthiness claim: {text}",
        {"not-checkworthy": "Not checkworthy", "checkworthy": "Checkworthy"},
        max_target_tokens=4,
        fallback=lambda output: "not-checkworthy" if "No" in output else "checkworthy",
        clean=_remove_urls,
    )


def _labels(task: Task) -> tuple[str, ...]:
    if task.labels is None:
        raise IsoglossError(f"Task {task.name!r} as text needs its labels: give them, or take them from training data.")
    return task.labels


def _plain(name: str, text: str) -> Callable[[Task], Template]:
    return lambda task: LabelTemplate(name, text, {label: label for label in _labels(task)})


def _tagging(task: Task) -> Template:
    if task.scheme == "iob2":
        return SpanTemplate(task.types)
    labels = _labels(task)
    prefix = "pos: " if task.name == "pos" else "tag each: "
    return TagTemplate(labels, "X" if "X" in labels else labels[0], name=task.template, prefix=prefix)


_TEMPLATES: Mapping[str, Callable[[Task], Template]] = {
    "topic": _plain("topic", "topic: {text}"),
    "nli": _nli,
    "paraphrase": lambda task: LabelTemplate(
        "paraphrase", _PARAPHRASE, {"different": "No", "paraphrase": "Yes"}, max_target_tokens=3
    ),
    "ner": _tagging,
    "pos": _tagging,
    "tagging": _tagging,
    "qa": lambda task: AnswerTemplate(),
    "claims": _claims,
    "sentiment": lambda task: LabelTemplate(
        "sentiment", "sentiment: {text}", {label: label.capitalize() for label in _labels(task)}
    ),
    "choice": lambda task: LabelTemplate("choice", _CHOICE, {0: "A", 1: "B"}, max_target_tokens=3),
    "classification": _plain("classification", "classify: {text}"),
    "pair-classification": _plain("pair-classification", "classify: {text} and: {text_pair}"),
}


def template_names() -> tuple[str, ...]:
    """Names of the prepared templates."""
    return tuple(_TEMPLATES)


def get_template(task: Task, format_string: str | None = None) -> Template:
    """The template of a task, or one from a format string.

    Args:
        task: Names the template and, for label templates, the label set.
        format_string: What the model reads, with the example's fields in braces, such as
            ``"review: {text} rating:"``; the target stays that of the task's own template.

    Raises:
        IsoglossError: The task has no text form, its label set is unknown, or the format string is malformed
            or names an unknown field.
    """
    make = _TEMPLATES.get(task.template)
    if make is None:
        raise IsoglossError(f"Task {task.name!r} has no text-to-text form; choose another head for it.")
    if task.template in ("nli", "paraphrase", "claims"):
        # the words of these templates belong to the task's own labels
        words = make(task)
        strange = set(_labels(task)) - set(words.words) if isinstance(words, LabelTemplate) else set()
        if strange:
            make = _TEMPLATES[task.kind]
    template = make(task)
    if format_string is None:
        return template
    known = ("text", "text_pair", "tokens", "question", "context", "title", "choice1", "choice2")
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(format_string) if name is not None]
    except ValueError as error:
        raise IsoglossError(f"--head-option template={format_string!r}: not a format string ({error}).") from None
    strange_names = [name for name in names if name not in known]
    if strange_names or not names:
        what = f"unknown field {strange_names[0]!r}" if strange_names else "no field"
        raise IsoglossError(
            f"--head-option template={format_string!r}: {what}; expected some of {', '.join(known)} in braces."
        )
    return FormatTemplate(template, format_string)


@dataclass(frozen=True)
class FormatTemplate:
    """Another template with its input written by a format string."""

    inner: Template
    format: str
    name: str = "format"

    @property
    def max_target_tokens(self) -> int | None:
        """As the inner template."""
        return self.inner.max_target_tokens

    def source(self, example: Example) -> str:
        """The filled format string."""
        return LabelTemplate(self.name, self.format, {}).source(example)

    def target(self, example: Example) -> str:
        """As the inner template."""
        return self.inner.target(example)

    def parse(self, output: str, example: Example) -> Parsed:
        """As the inner template."""
        return self.inner.parse(output, example)
