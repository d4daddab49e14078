"""The stack notation: `prompt:slk > adapter:topic`, read aloud, parsed once, with errors that point."""

import difflib
from dataclasses import dataclass
from functools import lru_cache

from isogloss.errors import IsoglossError
from isogloss.modules import METHODS


@dataclass(frozen=True)
class Term:
    """One module of a stack: how it works and what it stands for."""

    method: str
    label: str

    def __str__(self) -> str:
        """`method:label`."""
        return f"{self.method}:{self.label}"


@lru_cache(maxsize=256)
def parse_notation(text: str) -> tuple[Term, ...]:
    """Parses a stack, first module first.

    Examples:
        >>> [str(term) for term in parse_notation("prompt:slk>adapter : topic")]
        ['prompt:slk', 'adapter:topic']

    Raises:
        IsoglossError: Quotes the text and marks the place.
    """
    terms = []
    start = 0
    for part in text.split(">"):
        inner = part.strip()
        at = start + (len(part) - len(part.lstrip()) if inner else 0)
        if not inner:
            raise IsoglossError(
                _point(text, start, "a module is missing here; write method:label, for example prompt:slk")
            )
        method, colon, label = (piece.strip() for piece in inner.partition(":"))
        if method not in METHODS:
            near = difflib.get_close_matches(method, METHODS, n=1)
            hint = f"did you mean '{near[0]}'" if near else f"the methods are {', '.join(METHODS)}"
            raise IsoglossError(_point(text, at, f"the method '{method}' is unknown; {hint}"))
        if not colon or not label:
            raise IsoglossError(
                _point(
                    text,
                    at + len(inner),
                    f"'{method}' says nothing of what it stands for; write {method}:language or {method}:task",
                )
            )
        if ":" in label or any(character.isspace() for character in label):
            raise IsoglossError(_point(text, at + inner.index(":") + 1, f"'{label}' is not one language or task name"))
        terms.append(Term(method, label))
        start += len(part) + 1
    return tuple(terms)


def format_notation(terms: tuple[Term, ...]) -> str:
    """Writes a stack as it is read."""
    return " > ".join(str(term) for term in terms)


def _point(text: str, position: int, problem: str) -> str:
    return f"The stack '{text}' cannot be read: {problem}.\n  {text}\n  {' ' * position}^"
