"""Label words as token ids, for each language, and the sharing of what several words begin with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from isogloss.tasks.verbaliser import Verbaliser, tokenise_label_words

WordPart = Literal["auto", "single", "first", "last", "all"]
Ids = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class LabelIds:
    """Token ids of the label words.

    Attributes:
        default: Of the languages without words of their own, one tuple a label in class order.
        by_language: Of the others.
        single: Whether every word is scored by one token.
    """

    default: Ids
    by_language: Mapping[str, Ids]
    single: bool

    def of(self, language: str) -> Ids:
        """The ids for one language."""
        return self.by_language.get(language, self.default)

    def longest(self) -> int:
        """Tokens of the longest word."""
        return max(len(word) for ids in (self.default, *self.by_language.values()) for word in ids)

    def nested(self) -> bool:
        """Whether a word is the beginning of another one of its language."""
        return any(
            one != other and other[: len(one)] == one
            for ids in (self.default, *self.by_language.values())
            for one in ids
            for other in ids
        )


def label_ids(tokenizer: Any, verbaliser: Verbaliser, part: WordPart, *, leading_space: bool) -> LabelIds:
    """Tokenises every language's words; `auto` is `all`, scored by one token when that is all there is.

    Raises:
        IsoglossError: A word that the vocabulary lacks, or two words that are the same tokens.
    """
    wanted = "all" if part == "auto" else part

    def ids(words: Mapping[str, str]) -> Ids:
        return tuple(tokenise_label_words(tokenizer, words, part=wanted, leading_space=leading_space).values())

    default = ids(verbaliser.words_for(None))
    by_language = {language: ids(verbaliser.words_for(language)) for language in verbaliser.by_language}
    single = all(len(word) == 1 for found in (default, *by_language.values()) for word in found)
    return LabelIds(default, by_language, single)


def shared_beginnings(words: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """What to run to score words: each word without its last token, once, and no beginning of another.

    Returns:
        The beginnings, and for each word which of them holds its states.
    """
    kept: list[tuple[int, ...]] = []
    for stem in sorted({word[:-1] for word in words}, key=len, reverse=True):
        if not any(longer[: len(stem)] == stem for longer in kept):
            kept.append(stem)
    owners = [next(place for place, stem in enumerate(kept) if stem[: len(word) - 1] == word[:-1]) for word in words]
    return kept, owners
