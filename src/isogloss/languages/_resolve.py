"""From what people and data sets write to a `Language`."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from isogloss.errors import IsoglossError
from isogloss.languages._language import Language
from isogloss.languages._table import Entry, fold, table

# Treebanks whose folder name says less than their text: (language, treebank) -> (language, script).
_TREEBANKS = {
    ("nob", "nynorsk"): ("nno", "Latn"),
    ("nob", "nynorsklia"): ("nno", "Latn"),
    ("srp", "set"): ("srp", "Latn"),
    ("cmn", "gsd"): ("cmn", "Hant"),
    ("cmn", "pud"): ("cmn", "Hant"),
    ("cmn", "hk"): ("cmn", "Hant"),
}
_MANY = 8  # how many codes an error message lists at most


def resolve(text: str) -> Language:
    """Find the language that a text means. Case does not matter.

    Accepted are ISO 639-1 and 639-3 codes (`sk`, `slk`), older and bibliographic ones (`iw`, `slo`), English
    names (`Slovak`), a code with a script (`slk_Latn`, `zh-Hant`), language tags (`pt-BR`, `zh-TW`), and
    folder names of treebanks (`de_gsd`, `UD_Slovak-SNK`). A code wins over a name spelt like it. A
    macrolanguage means its main language (`zh` `zho_Hans`, `ar` `arb_Arab`, `sq` `als_Latn`; see
    `docs/languages.md`). Without a script the usual one is meant.

    Args:
        text: What the user or the data set wrote.

    Returns:
        The language.

    Raises:
        IsoglossError: The text names no language, or several, or a script the language is not written in,
            or a language whose script isogloss does not know and the text does not say.
    """
    stripped = text.strip()
    if not stripped:
        raise IsoglossError("The language is empty; write a code or a name, such as slk_Latn, sk or Slovak.")
    known = table()
    iso = known.codes.get(stripped.lower()) or _named(stripped)
    if iso is not None:
        return _make(known.entries[iso], None, stripped)
    treebank = re.fullmatch(r"UD_(.+)-(\w+)", stripped, flags=re.IGNORECASE)
    if treebank:
        iso = _named(treebank[1])
        if iso is not None:
            return _in_treebank(iso, treebank[2], None, stripped)
    language = _tagged(stripped) or _name_with_script(stripped)
    if language is None:
        raise IsoglossError(f"Unknown language {stripped!r}; {_suggestion(stripped)}.")
    return language


def all_languages() -> list[Language]:
    """Every language whose usual script is known, each in that script, by code.

    More languages (about 7,800) are understood by `resolve` when the script is given, such as `aaa_Latn`.
    """
    rows = [_language(entry, entry.script) for entry in table().entries.values() if entry.script]
    return sorted(rows, key=lambda language: language.code)


def scripts(language: str | Language) -> tuple[str, ...]:
    """The scripts a language is known to be written in, the usual one first (empty if unknown)."""
    iso = (language if isinstance(language, Language) else resolve(language)).iso639_3
    entry = table().entries[iso]
    return ((entry.script,) if entry.script else ()) + entry.other_scripts


def resolve_folders(names: Iterable[str]) -> dict[str, Language]:
    """Resolve the folder names of one data set, each a different language.

    Args:
        names: Folder names, such as `["de_gsd", "sk_snk"]`.

    Returns:
        Folder name to language, in the order given.

    Raises:
        IsoglossError: A name is unknown, or two names mean the same language.
    """
    found: dict[str, Language] = {}
    owner: dict[str, str] = {}
    for name in names:
        language = resolve(name)
        if owner.setdefault(language.code, name) != name:
            raise IsoglossError(
                f"The folders {owner[language.code]!r} and {name!r} both mean {language.code} "
                f"({language.name}); keep one of them or name them by different language and script codes."
            )
        found[name] = language
    return found


def _named(text: str) -> str | None:
    """The language with this name, or None; several are an error."""
    key = fold(text)
    found = table().names.get(key) or table().short_names.get(key) or ()
    if len(found) > 1:
        entries = [table().entries[iso] for iso in found]
        listed = ", ".join(f"{entry.prefix} ({_full_name(entry, key)})" for entry in entries[:_MANY])
        more = f" and {len(entries) - _MANY} more" if len(entries) > _MANY else ""
        raise IsoglossError(f"{text!r} is the name of several languages; write one of the codes {listed}{more}.")
    return found[0] if found else None


def _full_name(entry: Entry, key: str) -> str:
    """The name that made this entry a candidate, so that the reader can tell the candidates apart."""
    return next((n for n in (entry.name, *entry.other_names) if fold(n).startswith(key)), entry.name)


def _tagged(text: str) -> Language | None:
    """A code followed by script, region or treebank; None if the text does not begin with a code."""
    first, *rest = re.split(r"[-_]", text)
    known = table()
    iso = known.codes.get(first.lower())
    if iso is None:
        return None
    script: str | None = None
    region: str | None = None
    treebank: str | None = None
    for place, part in enumerate(rest):
        bcp47 = text[len(first)] == "-"
        if part.title() in known.scripts and script is None and treebank is None:
            script = part.title()
        elif bcp47 and place == 0 and len(part) == 3 and part.lower() in known.codes:
            iso = known.codes[part.lower()]  # extended language subtag, zh-yue
        elif re.fullmatch(r"[A-Za-z]{2}|[0-9]{3}", part) and region is None and treebank is None:
            region = part.upper()
        elif bcp47 and re.fullmatch(r"[A-Za-z0-9]{5,8}|[0-9][A-Za-z0-9]{3}", part):
            continue  # a variant such as de-1996 does not change the language
        elif re.fullmatch(r"[A-Za-z0-9]{2,}", part) and treebank is None and not _looks_like_script(part):
            treebank = part
        elif script is None and _looks_like_script(part):
            raise IsoglossError(
                f"Unknown script {part!r} in the language {text!r}; use a four-letter ISO 15924 code, "
                f"such as {known.entries[iso].prefix}_{known.entries[iso].script or 'Latn'}."
            )
        else:
            return None
    entry = known.entries[iso]
    if script is None and region is not None:
        script = entry.region_scripts.get(region)
    if treebank is not None or (region is not None and script is None):
        return _in_treebank(iso, treebank or region or "", script, text)
    return _make(entry, script, text)


def _name_with_script(text: str) -> Language | None:
    """`Serbian (Latin)`, `Chinese (Traditional)`; None if it is nothing of the kind."""
    match = re.fullmatch(r"(.+?) \((.+)\)", text)
    iso = _named(match[1]) if match else None
    if match is None or iso is None:
        return None
    wanted = fold(match[2])
    named = {"simplified": "Hans", "traditional": "Hant"} | {fold(n): c for c, n in table().scripts.items()}
    return _make(table().entries[iso], named[wanted], text) if wanted in named else None


def _looks_like_script(part: str) -> bool:
    """True for `Latin`, `Xyzw`: a capital and lower case, which no treebank suffix is, or a script's name."""
    names = {name.casefold() for name in table().scripts.values()}
    return part.casefold() in names or (part != part.lower() and part == part.title() and part.isalpha())


def _in_treebank(iso: str, treebank: str, script: str | None, text: str) -> Language:
    other = _TREEBANKS.get((iso, treebank.lower()))
    if other is not None and script is None:
        iso, script = other
    return _make(table().entries[iso], script, text)


def _make(entry: Entry, script: str | None, text: str) -> Language:
    """A language in the given or usual script, if it can be written in it."""
    chosen = script or entry.script
    if not chosen:
        raise IsoglossError(
            f"The usual script of {text!r} ({entry.name}) is not known to isogloss; "
            f"write the script too, such as {entry.prefix}_Latn."
        )
    plausible = (entry.script, *entry.other_scripts, "Latn")  # anything may be romanised
    if entry.script and chosen not in plausible:
        written = " or ".join(f"{entry.prefix}_{s}" for s in dict.fromkeys(plausible))
        raise IsoglossError(
            f"{text!r} gives the script {chosen} ({table().scripts.get(chosen, chosen)}), in which "
            f"{entry.name} is not known to be written; use {written}."
        )
    return _language(entry, chosen)


def _language(entry: Entry, script: str) -> Language:
    return Language(
        code=f"{entry.prefix}_{script}",
        iso639_3=entry.iso639_3,
        script=script,
        name=entry.name,
        iso639_1=entry.iso639_1,
        family=entry.family,
        branch=entry.branch,
    )


def _suggestion(text: str) -> str:
    """The nearest valid names and codes, as the end of a sentence."""
    known = table()
    key = fold(text)
    usual = [entry for entry in known.entries.values() if entry.script]
    by_name = {fold(name): entry for entry in usual for name in (entry.name, *entry.other_names)}
    found = [by_name[name] for name in get_close_matches(key, by_name, n=3, cutoff=0.6)]
    head = re.split(r"[-_ ]", text.lower())[0]
    if len(head) <= 4:
        codes = [c for c in known.codes if known.entries[known.codes[c]].script]
        matches = get_close_matches(head, codes, n=3, cutoff=0.6)
        found = [known.entries[known.codes[code]] for code in matches] + found
    near = ", ".join(dict.fromkeys(f"{entry.prefix}_{entry.script} ({entry.name})" for entry in found[:4]))
    return f"the nearest are {near}" if near else "write a code or an English name, such as slk_Latn, sk or Slovak"
