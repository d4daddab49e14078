"""Names of files and data sets with the language left open."""

from isogloss.errors import IsoglossError
from isogloss.languages._language import Language


def fill_pattern(pattern: str, language: Language) -> str:
    """Fills `{iso639_1}` (the three letters where a language has no two), `{iso639_3}`, `{code}` and `{name}`.

    Raises:
        IsoglossError: Another name stands in braces.
    """
    try:
        return pattern.format(
            code=language.code,
            iso639_1=language.iso639_1 or language.iso639_3,
            iso639_3=language.iso639_3,
            name=language.name,
        )
    except (KeyError, IndexError, ValueError) as problem:
        raise IsoglossError(
            f"The pattern '{pattern}' has something else in braces than iso639_1, iso639_3, code or name."
        ) from problem
