"""The committed language table, read once at the first question."""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

DATA: Traversable = files("isogloss.languages") / "data"


@dataclass(frozen=True)
class Entry:
    """A row of `languages.tsv`; its head explains the columns."""

    iso639_3: str
    prefix: str
    iso639_1: str | None
    name: str
    script: str
    other_scripts: tuple[str, ...]
    region_scripts: dict[str, str]
    family: str
    branch: str
    family_from: str
    also: tuple[str, ...]
    other_names: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The rows, and the ways in: every code, every full name, every name without its bracket."""

    entries: dict[str, Entry]
    codes: dict[str, str]
    names: dict[str, tuple[str, ...]]
    short_names: dict[str, tuple[str, ...]]
    scripts: dict[str, str]


def fold(text: str) -> str:
    """Make names comparable: no case, no accents, single spaces instead of punctuation."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(re.sub(r"[\W_]+", " ", plain.casefold()).split())


def _rows(name: str) -> list[list[str]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def _entry(row: list[str]) -> Entry:
    iso, prefix, two, name, script, others, regions, family, branch, family_from, also, names = row
    return Entry(
        iso639_3=iso,
        prefix=prefix,
        iso639_1=two or None,
        name=name,
        script=script,
        other_scripts=tuple(others.split()),
        region_scripts={pair[:2]: pair[3:] for pair in regions.split()},
        family=family,
        branch=branch,
        family_from=family_from,
        also=tuple(also.split()),
        other_names=tuple(n for n in names.split("|") if n),
    )


@cache
def table() -> Table:
    """Read the table; cached for the life of the process."""
    entries = {entry.iso639_3: entry for entry in map(_entry, _rows("languages.tsv")[1:])}
    codes: dict[str, str] = {}
    # Later lines win: `gn` is Guarani as a whole in ISO 639-1, but Paraguayan Guarani in the data sets.
    for entry in entries.values():
        if entry.iso639_1:
            codes[entry.iso639_1] = entry.iso639_3
    for entry in entries.values():
        codes.update(dict.fromkeys(entry.also, entry.iso639_3))
    codes.update((iso, iso) for iso in entries)
    names: dict[str, dict[str, None]] = {}
    short_names: dict[str, dict[str, None]] = {}
    for entry in entries.values():
        for name in (entry.name, *entry.other_names):
            names.setdefault(fold(name), {})[entry.iso639_3] = None
            short_names.setdefault(fold(re.sub(r" \([^)]*\)$", "", name)), {})[entry.iso639_3] = None
    return Table(
        entries=entries,
        codes=codes,
        names={name: tuple(found) for name, found in names.items()},
        short_names={name: tuple(found) for name, found in short_names.items()},
        scripts={row[0]: row[1] for row in _rows("scripts.tsv")},
    )
