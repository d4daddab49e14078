"""One labelled example, the same shape for every task and data set."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One accepted answer of an extractive question.

    Attributes:
        text: The answer as it stands in the context.
        start: Offset of its first character in the context, counted in Unicode code points.
    """

    text: str
    start: int


@dataclass(frozen=True)
class Example:
    """One example; which fields are filled follows from the kind of its task.

    =====================  ========================================================================
    kind                   fields
    =====================  ========================================================================
    classification         ``text``, ``label`` (str)
    pair-classification    ``text``, ``text_pair``, ``label`` (str)
    tagging                ``tokens``, ``tags`` (same length)
    qa                     ``question``, ``context``, ``answers`` (at least one), ``title`` perhaps
    choice                 ``text`` (premise), ``question`` ("cause" or "effect", perhaps None),
                           ``choices`` (two or more), ``label`` (int, index into ``choices``)
    retrieval              ``text`` (the language), ``text_pair`` (its translation, English)
    =====================  ========================================================================

    In data read without labels ``label``, ``tags`` and ``answers`` are None.

    Attributes:
        id: Names the item. Translations of one item in several languages share it; items of different
            splits never do when the data set has usable ids (see ``reading``).
        language: Code of the language, ISO 639-3 and script, such as ``slk_Latn``.
    """

    id: str
    language: str
    text: str | None = None
    text_pair: str | None = None
    tokens: tuple[str, ...] | None = None
    question: str | None = None
    context: str | None = None
    choices: tuple[str, ...] | None = None
    label: int | str | None = None
    tags: tuple[str, ...] | None = None
    answers: tuple[Answer, ...] | None = None
    title: str | None = None

    def content(self) -> str:
        """All text of the example in one string, to compare examples by what they say."""
        parts = (self.text, self.text_pair, self.question, self.context, *(self.choices or ()))
        words = " ".join(self.tokens) if self.tokens is not None else None
        return "\n".join(part for part in (*parts, words) if part is not None)
