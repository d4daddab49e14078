"""Makes data/glossary/<language>.jsonl, aligned text for pre-training, from data/glossary/source/*.txt.

    python tools/build_glossary.py [--check]

A source file is a semantic field: `@concept` lines, each followed by one line `code|term|sentence` per language. A
concept gives two rows a language, the term and the sentence, with keys that join them across languages.
"""

import argparse
import json
import sys
from pathlib import Path

from isogloss.languages import resolve

_FOLDER = Path(__file__).resolve().parent.parent / "data" / "glossary"
_CODES = ("eng", "deu", "spa", "fra", "ces", "slk", "pol", "tel", "swh", "tur", "rus", "arb", "hin")


def read_field(path: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """Returns concept -> language code -> (term, sentence).

    Raises:
        ValueError: A malformed line, a concept that occurs twice or lacks a language.
    """
    concepts: dict[str, dict[str, tuple[str, str]]] = {}
    name = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            name = line[1:].strip()
            if name in concepts:
                raise ValueError(f"{path}, line {number}: the concept '{name}' occurs twice.")
            concepts[name] = {}
            continue
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 3 or not all(parts) or parts[0] not in _CODES or not name or parts[0] in concepts[name]:
            raise ValueError(f"{path}, line {number}: expected code|term|sentence below a @concept, each code once.")
        concepts[name][parts[0]] = (parts[1], parts[2])
    for name, languages in concepts.items():
        if missing := sorted(set(_CODES) - set(languages)):
            raise ValueError(f"{path}: the concept '{name}' lacks {', '.join(missing)}.")
    return concepts


def build() -> dict[str, str]:
    """Returns the content of every file to write, by name."""
    rows: dict[str, list[str]] = {code: [] for code in _CODES}
    for path in sorted((_FOLDER / "source").glob("*.txt")):
        for concept, languages in read_field(path).items():
            for code, (term, sentence) in languages.items():
                for part, text in (("term", term), ("sentence", sentence)):
                    row = {"key": f"{path.stem}/{concept}/{part}", "text": text}
                    rows[code].append(json.dumps(row, ensure_ascii=False))
    return {f"{resolve(code).code}.jsonl": "\n".join(lines) + "\n" for code, lines in rows.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is out of date")
    check = parser.parse_args().check
    stale = 0
    for name, text in build().items():
        path = _FOLDER / name
        if check:
            stale += not path.is_file() or path.read_text(encoding="utf-8") != text
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"{stale} files of {_FOLDER} are out of date; run: python tools/build_glossary.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
