"""Label words: the words of the model's vocabulary that stand for the labels.

The topic words for XGLM and BLOOM are those of "Soft Prompt Tuning for Cross-Lingual Transfer: When Less is
More" (arXiv 2402.03782, verbalisers of its code): English words, used for every target language, chosen to be
single tokens. Its code trains on the last sub-token of a word and evaluates on the first; here it is one
setting for both (``part``). The other sets are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.tasks.task import Task

Part = Literal["single", "first", "last", "all"]

_TOPIC = {
    "science/technology": "science",
    "travel": "travel",
    "politics": "politics",
    "sports": "sports",
    "health": "health",
    "entertainment": "entertainment",
    "geography": "earth",
}
WORDS: Mapping[str, Mapping[str, str]] = {
    "topic": _TOPIC,
    "topic-xglm": _TOPIC,
    "topic-bloom": {**_TOPIC, "entertainment": "fun", "politics": "government", "sports": "play"},
    "nli": {"entailment": "yes", "neutral": "maybe", "contradiction": "no"},
    "paraphrase": {"different": "no", "paraphrase": "yes"},
    "sentiment": {"positive": "good", "neutral": "neutral", "negative": "bad"},
    "claims": {"not-checkworthy": "no", "checkworthy": "yes"},
}


@dataclass(frozen=True)
class Verbaliser:
    """Label words, the same for all languages or with words of their own for some.

    Attributes:
        words: Label to word, in class order.
        by_language: Language code to label words; languages that are not in it use ``words``.
    """

    words: Mapping[str, str]
    by_language: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse words for other labels than the set has, empty words and two labels with one word."""
        for language, words in ((None, self.words), *self.by_language.items()):
            where = f"The label words{f' of {language}' if language else ''}"
            if set(words) != set(self.words):
                raise IsoglossError(f"{where} are for {', '.join(words)}; expected exactly {', '.join(self.words)}.")
            by_word: dict[str, str] = {}
            for label, word in words.items():
                if not word.strip():
                    raise IsoglossError(f"{where}: the word of {label!r} is empty; give it one.")
                if word in by_word:
                    raise IsoglossError(f"{where}: {by_word[word]!r} and {label!r} have the same word {word!r}.")
                by_word[word] = label

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in class order."""
        return tuple(self.words)

    def words_for(self, language: str | None) -> Mapping[str, str]:
        """Label to word for one language, in class order."""
        chosen = self.by_language.get(language, self.words) if language is not None else self.words
        return {label: chosen[label] for label in self.words}


def get_verbaliser(
    task: Task,
    family: str | None = None,
    words: Mapping[str, str] | None = None,
    by_language: Mapping[str, Mapping[str, str]] | None = None,
) -> Verbaliser:
    """The label words of a task.

    Args:
        task: Gives the labels and the name of their word set. A label without a prepared word is its own
        word.
        family: Model type of the backbone (``xglm``, ``bloom``), which may have words of its own.
        words: Label to word, instead of the prepared ones.
        by_language: Language, by any code or name, to label words.

    Raises:
        IsoglossError: The task has no labels, a word is for no label of it, or a language is unknown.
    """
    if task.labels is None or task.kind not in ("classification", "pair-classification"):
        raise IsoglossError(f"Task {task.name!r} has no label set for label words; a verbaliser is for classification.")
    prepared: Mapping[str, str] = {}
    if task.verbaliser is not None:
        prepared = WORDS.get(f"{task.verbaliser}-{family}", WORDS.get(task.verbaliser, {}))
    strange = sorted(set(words or {}) - set(task.labels))
    if strange:
        raise IsoglossError(
            f"The label word {(words or {})[strange[0]]!r} is for {strange[0]!r}, which is no label of task "
            f"{task.name!r}; it has {', '.join(task.labels)}."
        )
    chosen = {label: (words or {}).get(label, prepared.get(label, label)) for label in task.labels}
    # Examples carry full codes; words under "de" would never be found, without a word about it.
    return Verbaliser(chosen, {resolve(language).code: found for language, found in (by_language or {}).items()})


def _ids(tokenizer: Any, word: str, leading_space: bool) -> tuple[int, ...]:
    text = f" {word}" if leading_space else word
    ids = [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if len(ids) > 1:
        # SentencePiece may set its word-begin mark apart; it stands for no word, so the word begins after it
        first = tokenizer.convert_ids_to_tokens(ids[0])
        if isinstance(first, str) and first.strip("\u2581\u0120 ") == "":
            ids = ids[1:]
    if not ids or getattr(tokenizer, "unk_token_id", None) in ids:
        raise IsoglossError(f"The label word {word!r} is not in the vocabulary of the model; choose another word.")
    return tuple(ids)


@dataclass(frozen=True)
class SingleTokenReport:
    """How label words are tokenised.

    Attributes:
        pieces: Word to its pieces.
        single: Words that are one token.
        multiple: Words that are several.
    """

    pieces: Mapping[str, tuple[str, ...]]
    single: tuple[str, ...]
    multiple: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every word is one token."""
        return not self.multiple


def single_token_check(tokenizer: Any, words: Mapping[str, str], *, leading_space: bool = False) -> SingleTokenReport:
    """Which label words are single tokens of this tokenizer.

    Raises:
        IsoglossError: A word holds a piece that the vocabulary lacks.
    """
    pieces = {
        word: tuple(tokenizer.convert_ids_to_tokens(list(_ids(tokenizer, word, leading_space))))
        for word in words.values()
    }
    single = tuple(word for word, found in pieces.items() if len(found) == 1)
    return SingleTokenReport(pieces, single, tuple(word for word in pieces if word not in single))


def tokenise_label_words(
    tokenizer: Any, words: Mapping[str, str], *, part: Part = "first", leading_space: bool = False
) -> dict[str, tuple[int, ...]]:
    """Token ids of label words.

    Args:
        tokenizer: A Hugging Face tokenizer.
        words: Label to word.
        part: ``first`` or ``last`` sub-token of a word that has several; ``all`` of them; ``single`` refuses
        it.
        leading_space: Tokenise the word as it stands inside a sentence. Off as in S2, whose label word is
            predicted after soft prompt tokens.

    Returns:
        Label to ids, in the order of ``words``; one id unless ``part`` is ``all``.

    Raises:
        IsoglossError: Words that share their ids, or that the vocabulary lacks.
    """
    ids: dict[str, tuple[int, ...]] = {}
    for label, word in words.items():
        found = _ids(tokenizer, word, leading_space)
        if part == "single" and len(found) > 1:
            pieces = " ".join(map(str, tokenizer.convert_ids_to_tokens(list(found))))
            raise IsoglossError(
                f"The label word {word!r} of {label!r} is {len(found)} tokens ({pieces}); "
                "choose a word that is one token, or score first, last or all of them."
            )
        ids[label] = {"first": found[:1], "last": found[-1:]}.get(part, found)
    by_ids: dict[tuple[int, ...], str] = {}
    for label, found in ids.items():
        if found in by_ids:
            other = by_ids[found]
            raise IsoglossError(
                f"The label words {words[other]!r} ({other}) and {words[label]!r} ({label}) have the same "
                f"{'tokens' if part == 'all' else f'{part} token'}; choose other words, or score all tokens."
            )
        by_ids[found] = label
    return ids
