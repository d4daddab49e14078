"""Which language a row is in: what the user said, or a language identifier."""

from collections.abc import Sequence
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.languages import resolve


class Identifier:
    """Gives the language code of each text.

    Attributes:
        languages: Every code that it can give.
        sure: Whether the codes say something about the texts.
    """

    def __init__(self, languages: Sequence[str], *, sure: bool, model: Any = None) -> None:
        self.languages, self.sure, self._model = tuple(languages), sure, model
        self._codes: dict[str, str] = {}

    @classmethod
    def fixed(cls, code: str, *, sure: bool = True) -> "Identifier":
        """All texts are in one language."""
        return cls([code], sure=sure)

    @classmethod
    def automatic(cls, languages: Sequence[str]) -> "Identifier":
        """The likeliest of some languages for each text; of all that py3langid knows when none are given.

        Raises:
            IsoglossError: py3langid is not installed, or knows none of the languages.
        """
        try:
            from py3langid.langid import MODEL_FILE, LanguageIdentifier
        except ImportError as problem:
            raise IsoglossError(
                "--language auto: finding out the language needs py3langid; install it with `pip install "
                "'isogloss[identify]'`, or name the language."
            ) from problem
        model = LanguageIdentifier.from_model_file(MODEL_FILE)
        by_label = _labels(model)
        wanted = {resolve(code).iso639_3: code for code in languages}
        twins = sorted(code for code in languages if code not in wanted.values())
        if twins:
            raise IsoglossError(
                f"--language auto: py3langid does not tell {twins[0]} from {wanted[resolve(twins[0]).iso639_3]}, one language in "
                "two scripts; name the language of the rows, or leave one of the two modules out."
            )
        chosen = {label: wanted.get(iso) for label, iso in by_label.items()}
        if languages:
            unknown = sorted(code for iso, code in wanted.items() if iso not in by_label.values())
            if unknown:
                raise IsoglossError(
                    f"--language auto: py3langid cannot recognise {', '.join(unknown)}; name the language of the "
                    "rows, or leave that module out."
                )
            chosen = {label: code for label, code in chosen.items() if code}
        found = cls(languages, sure=True, model=model)
        found._codes = {label: code or resolve(label).code for label, code in chosen.items()}
        if languages:
            model.set_languages(list(found._codes))
        else:
            found.languages = tuple(dict.fromkeys(found._codes.values()))
        return found

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The code of each text."""
        if self._model is None:
            return [self.languages[0]] * len(texts)
        return [self._codes[self._model.classify(text)[0]] for text in texts]


def _labels(model: Any) -> dict[str, str]:
    """The identifier's labels (ISO 639-1) to ISO 639-3 codes."""
    found = {}
    for label in model.labels:
        try:
            found[str(label)] = resolve(str(label)).iso639_3
        except IsoglossError:
            continue
    return found
