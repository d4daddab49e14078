"""Which language a folder of a data set holds."""

import unicodedata
from collections import Counter
from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.languages import Language, resolve
from isogloss.tasks._rows import read_rows, split_of_file

# First word of a letter's Unicode name to the ISO 15924 code of its script.
_SCRIPTS = {
    "LATIN": "Latn",
    "CYRILLIC": "Cyrl",
    "ARABIC": "Arab",
    "GREEK": "Grek",
    "HEBREW": "Hebr",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "GURMUKHI": "Guru",
    "GUJARATI": "Gujr",
    "ORIYA": "Orya",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "KANNADA": "Knda",
    "MALAYALAM": "Mlym",
    "SINHALA": "Sinh",
    "THAI": "Thai",
    "LAO": "Laoo",
    "TIBETAN": "Tibt",
    "MYANMAR": "Mymr",
    "GEORGIAN": "Geor",
    "ARMENIAN": "Armn",
    "ETHIOPIC": "Ethi",
    "KHMER": "Khmr",
    "TIFINAGH": "Tfng",
    "NKO": "Nkoo",
    "CANADIAN": "Cans",
    "CHEROKEE": "Cher",
}
_ROWS_FOR_SCRIPT = 20


def language_of(folder: str, root: Path | None) -> Language | None:
    """The language that a folder or Hub configuration means by its name; None if it means none.

    A code of a language whose usual script the language table does not know is taken in the script that its
    first rows are written in.
    """
    # Hub configurations of XTREME and MLQA: "XQuAD.de", "mlqa.de.de"; a mixed pair names no language
    pieces = folder.split(".")
    if len(pieces) == 3 and pieces[1] != pieces[2]:
        return None
    for name in dict.fromkeys((folder, pieces[-1])):
        try:
            return resolve(name)
        except IsoglossError:
            continue
    if root is None:
        return None
    script = _script(root / folder)
    try:
        return resolve(f"{folder}_{script}") if script is not None else None
    except IsoglossError:
        return None


def _script(folder: Path) -> str | None:
    """Script of most letters in the first rows of the folder's first data file."""
    file = next((file for file in sorted(folder.iterdir()) if split_of_file(file) is not None), None)
    if file is None:
        return None
    letters: Counter[str] = Counter()
    try:
        for row in read_rows(file):
            if row.number >= _ROWS_FOR_SCRIPT:
                break
            for value in row.values.values():
                words = value if isinstance(value, list) else [value]
                for word in words:
                    if isinstance(word, str):
                        letters.update(unicodedata.name(c, "").split(" ")[0] for c in word if c.isalpha())
    except IsoglossError:
        return None
    return next((_SCRIPTS[name] for name, _ in letters.most_common() if name in _SCRIPTS), None)
