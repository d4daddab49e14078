"""Build the parallel data set: ``source/*.tsv`` (inline entity marks) to ``<lang>/<split>.jsonl``.

Plain Python, no isogloss import, so that the data can be rebuilt and checked without installing anything. The
source format, the tokenisation and the marking convention are in ``src/isogloss/data/parallel/README.md``.

Usage:
    python tools/build_parallel.py                     check everything, then write the jsonl files
    python tools/build_parallel.py --check             check everything, write nothing
    python tools/build_parallel.py --check tel_Telu    check one language (against English), write nothing
"""

import argparse
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "src" / "isogloss" / "data" / "parallel"
PIVOT = "eng_Latn"
PARALLEL_SPLITS = ("dev", "test")
SPLITS = ("dev", "test", "train")
TOPICS = {
    "sci": "science/technology",
    "tra": "travel",
    "pol": "politics",
    "spo": "sports",
    "hea": "health",
    "ent": "entertainment",
    "geo": "geography",
}
TYPES = ("PER", "LOC", "ORG")

# (language, id) -> why this translation cannot carry the same entity types as the English sentence.
EXCEPTIONS: dict[tuple[str, str], str] = {}

# Script tag of a language code -> start of the Unicode names of its letters.
SCRIPTS = {"Latn": "LATIN", "Telu": "TELUGU", "Cyrl": "CYRILLIC", "Arab": "ARABIC", "Deva": "DEVANAGARI"}

_MARK = re.compile(r"\[(\w+) ([^\[\]]*)\]")
_FILE = re.compile(r"([a-z]{3}_[A-Z][a-z]{3})\.(\w+)\.tsv")
_ID = re.compile(r"(\w+)-([a-z]{3})-(\d{2})")
# ZWNJ and ZWJ are spelling in the Indic scripts; every other invisible character is an accident.
_JOINERS = {"\u200c", "\u200d"}
_JOINER_SCRIPTS = {"Telu", "Deva"}
# What may be glued in front of a mark: an elided article or preposition (l', d', dell'), or Arabic clitics.
_ELISION = re.compile(r"\w{1,5}['\u2019]")
_ARABIC_CLITICS = re.compile(r"[\u0648\u0641\u0628\u0644\u0643\u0627]{1,3}")


class BuildError(Exception):
    """One or more source lines are wrong; ``problems`` holds one ``file:line: what`` string for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(frozen=True)
class Sentence:
    """One source line after parsing.

    Attributes:
        where: ``file:line`` for messages.
        lang: Language code, for example ``ces_Latn``.
        split: ``dev``, ``test`` or ``train``.
        id: Sentence id, the same in every language.
        topic: SIB-200 topic name.
        text: The sentence without marks.
        tokens: Its tokens.
        tags: IOB2 tags, as many as tokens.
    """

    where: str
    lang: str
    split: str
    id: str
    topic: str
    text: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]

    @property
    def types(self) -> Counter[str]:
        """How often each entity type occurs."""
        return Counter(tag[2:] for tag in self.tags if tag.startswith("B-"))

    def to_json(self) -> str:
        """The sentence as one jsonl line, without the line end."""
        record = {
            "id": self.id,
            "category": self.topic,
            "text": self.text,
            "tokens": self.tokens,
            "ner_tags": self.tags,
        }
        return json.dumps(record, ensure_ascii=False)


def _is_punctuation(char: str) -> bool:
    return unicodedata.category(char)[0] in "PS"


def token_spans(text: str) -> list[tuple[int, int]]:
    """Start and end (exclusive, in code points) of every token of ``text``.

    Split at whitespace, then every leading and trailing character of category P* or S* is a token of its own.
    Marks (M*) and joiners (Cf) are not P or S, so they stay inside their word.
    """
    spans: list[tuple[int, int]] = []
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        first = start
        while first < end and _is_punctuation(text[first]):
            first += 1
        last = end
        while last > first and _is_punctuation(text[last - 1]):
            last -= 1
        spans.extend((i, i + 1) for i in range(start, first))
        if first < last:
            spans.append((first, last))
        spans.extend((i, i + 1) for i in range(last, end))
    return spans


def parse_marked(marked: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Split a marked sentence into text, tokens and IOB2 tags.

    A word to which an entity is glued by an ending (``[LOC Ankara]'da``) or by an elided article or an Arabic
    clitic in front (``l'[ORG OMS]``) is tagged as a whole.

    Args:
        marked: The sentence with ``[TYPE words]`` marks.

    Returns:
        The text without marks, its tokens and their tags.

    Raises:
        ValueError: a mark is malformed or starts inside a word where the convention does not allow it.
    """
    pieces: list[str] = []
    marks: list[tuple[int, int, str]] = []
    length = done = 0
    for match in _MARK.finditer(marked):
        kind, words = match.groups()
        if kind not in TYPES:
            raise ValueError(f"unknown entity type {kind!r}, expected one of {', '.join(TYPES)}")
        if not words or words != words.strip():
            raise ValueError(f"mark {match.group()!r} is empty or has a space at its edge")
        pieces += [marked[done : match.start()], words]
        length += match.start() - done
        marks.append((length, length + len(words), kind))
        length += len(words)
        done = match.end()
    pieces.append(marked[done:])
    text = "".join(pieces)
    if "[" in text or "]" in text:
        raise ValueError("a square bracket does not belong to a mark like [LOC Brno]")

    spans = token_spans(text)
    tags = ["O"] * len(spans)
    for start, end, kind in marks:
        inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
        shown = text[start:end]
        if all(_is_punctuation(char) for char in shown if not char.isspace()):
            raise ValueError(f"mark {shown!r} holds only punctuation")
        glued = text[spans[inside[0]][0] : start]
        if glued and not (_ELISION.fullmatch(glued) or _ARABIC_CLITICS.fullmatch(glued)):
            raise ValueError(f"mark {shown!r} starts inside a word, after {glued!r}: begin it at the word border")
        for n, i in enumerate(inside):
            if tags[i] != "O":
                raise ValueError(f"two marks share the word {text[slice(*spans[i])]!r}")
            tags[i] = ("I-" if n else "B-") + kind
    return text, tuple(text[a:b] for a, b in spans), tuple(tags)


def _check_text(line: str, lang: str) -> str | None:
    """What is wrong with the characters of one source line, or None."""
    if line != unicodedata.normalize("NFC", line):
        return "is not in Unicode NFC"
    script = lang[4:]
    for char in line:
        if char in _JOINERS and script in _JOINER_SCRIPTS:
            continue
        category = unicodedata.category(char)
        if char != "\t" and (category[0] == "C" or (category[0] == "Z" and char != " ")):
            return f"holds the invisible character U+{ord(char):04X}"
    return None


def _check_script(text: str, lang: str) -> str | None:
    letters = [char for char in text if char.isalpha()]
    name = SCRIPTS[lang[4:]]
    share = sum(unicodedata.name(char, "").startswith(name) for char in letters) / max(len(letters), 1)
    return None if share >= 0.6 else f"only {share:.0%} of the letters are {name.lower()}"


def _parse_line(line: str, where: str, lang: str, split: str) -> Sentence:
    """Parse one source line.

    Raises:
        ValueError: the line breaks a rule of the format; the message says which.
    """
    problem = _check_text(line, lang)
    if problem:
        raise ValueError(problem)
    cells = line.split("\t")
    if len(cells) != 3:
        raise ValueError(f"has {len(cells)} tab-separated cells, expected 3 (id, topic, text)")
    key, topic, marked = cells
    if marked != marked.strip() or "  " in marked:
        raise ValueError("has a space at the start or end of the text, or a double space")
    match = _ID.fullmatch(key)
    if match is None or match[1] != split or match[2] not in TOPICS:
        raise ValueError(f"id {key!r} is not like {split}-sci-01")
    if topic != TOPICS[match[2]]:
        raise ValueError(f"topic {topic!r} does not fit id {key!r}, expected {TOPICS[match[2]]!r}")
    text, tokens, tags = parse_marked(marked)
    if not any(tag != "O" for tag in tags):
        raise ValueError("has no marked entity")
    problem = _check_script(text, lang)
    if problem:
        raise ValueError(problem)
    return Sentence(where, lang, split, key, topic, text, tokens, tags)


def read_source(path: Path) -> tuple[list[Sentence], list[str]]:
    """Read one ``<lang>.<split>.tsv``; returns its good sentences and the problems of the other lines."""
    match = _FILE.fullmatch(path.name)
    if match is None or match[2] not in SPLITS or match[1][4:] not in SCRIPTS:
        return [], [f"{path.name}:1: file name is not <lang>.<split>.tsv with split in {', '.join(SPLITS)}"]
    lang, split = match.groups()
    try:
        # Only "\n" ends a line: other separators inside a line are an error, not a line end.
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        return [], [f"{path.name}:1: is not UTF-8 ({error.reason} at byte {error.start})"]
    if lines[-1] == "":
        lines.pop()
    if not lines or lines[0] != "id\ttopic\ttext":
        return [], [f"{path.name}:1: header is not id<TAB>topic<TAB>text"]
    sentences: list[Sentence] = []
    problems: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path.name}:{number}"
        try:
            sentences.append(_parse_line(line, where, lang, split))
        except ValueError as error:
            problems.append(f"{where}: {error}")
    return sentences, problems


def _key(text: str) -> str:
    """The text without case, punctuation and spacing, so that near-identical copies are found."""
    return " ".join(text[a:b] for a, b in token_spans(text) if not _is_punctuation(text[a])).casefold()


def _check_unique(sentences: Iterable[Sentence]) -> list[str]:
    """Ids and texts are unique within a language, over all splits: train and test are disjoint."""
    problems: list[str] = []
    ids: dict[tuple[str, str], Sentence] = {}
    texts: dict[tuple[str, str], Sentence] = {}
    for one in sentences:
        first = ids.setdefault((one.lang, one.id), one)
        if first is not one:
            problems.append(f"{one.where}: id {one.id!r} is already used at {first.where}")
        first = texts.setdefault((one.lang, _key(one.text)), one)
        if first is not one:
            problems.append(f"{one.where}: same text as {first.where}")
    return problems


def _check_parallel(lang: str, split: str, own: Mapping[str, Sentence], pivot: Mapping[str, Sentence]) -> list[str]:
    """One split of a translation against the English one: same ids, same entity types, really translated."""
    file = f"{lang}.{split}.tsv"
    problems = [f"{file}:1: id {key!r} of the English file is missing" for key in pivot if key not in own]
    for key, one in own.items():
        english = pivot.get(key)
        if english is None:
            problems.append(f"{one.where}: id {key!r} is not in the English file")
            continue
        if _key(one.text) == _key(english.text):
            problems.append(f"{one.where}: text is the English sentence")
        same = one.types == english.types
        excepted = (lang, key) in EXCEPTIONS
        if not same and not excepted:
            have, want = (" ".join(sorted(s.types.elements())) for s in (one, english))
            problems.append(f"{one.where}: entity types are {have}, but the English sentence has {want}")
        if same and excepted:
            problems.append(f"{one.where}: is in EXCEPTIONS, but its entity types equal the English ones")
    return problems


def load(root: Path = ROOT, only: str | None = None) -> dict[tuple[str, str], list[Sentence]]:
    """Read and validate all source files.

    Args:
        root: The folder that holds ``source/``.
        only: A language code: read only this language and English.

    Returns:
        The sentences of every (language, split), in file order, keys sorted.

    Raises:
        BuildError: with every problem found, each naming file and line.
    """
    sentences: list[Sentence] = []
    problems: list[str] = []
    names: set[str] = set()
    for path in sorted((root / "source").glob("*.tsv")):
        if only is not None and not path.name.startswith((f"{only}.", f"{PIVOT}.")):
            continue
        names.add(path.name)
        found, wrong = read_source(path)
        sentences += found
        problems += wrong
    langs = {PIVOT, *(name.split(".")[0] for name in names)} | ({only} if only else set())
    for lang in sorted(langs):
        for split in PARALLEL_SPLITS:
            if f"{lang}.{split}.tsv" not in names:
                problems.append(f"{lang}.{split}.tsv:1: file is missing; a language needs dev and test")
    if problems:
        raise BuildError(problems)

    # From the file names, not the sentences: a file with no sentence must fail the parallel check too.
    table: dict[tuple[str, str], list[Sentence]] = {}
    for name in sorted(names):
        lang, split, _ = name.split(".")
        table[lang, split] = []
    for one in sentences:
        table[one.lang, one.split].append(one)
    problems += _check_unique(sentences)
    for (lang, split), rows in table.items():
        pivot = {one.id: one for one in table.get((PIVOT, split), [])}
        if lang != PIVOT:
            problems += _check_parallel(lang, split, {one.id: one for one in rows}, pivot)
    known = {(one.lang, one.id) for one in sentences}
    for lang, key in EXCEPTIONS:
        if lang in langs and (lang, key) not in known:
            problems.append(f"build_parallel.py: EXCEPTIONS names {lang} {key}, which does not exist")
    if problems:
        raise BuildError(problems)
    return table


def render(table: Mapping[tuple[str, str], Sequence[Sentence]]) -> dict[str, str]:
    """The built files: relative path to contents."""
    return {
        f"{lang}/{split}.jsonl": "".join(one.to_json() + "\n" for one in rows) for (lang, split), rows in table.items()
    }


def write(files: Mapping[str, str], root: Path = ROOT) -> None:
    """Write the built files, each complete or not at all; remove built files without a source."""
    for name, contents in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        try:
            temporary.write_text(contents, encoding="utf-8", newline="\n")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    for old in root.glob("*/*.jsonl"):
        if old.relative_to(root).as_posix() not in files:
            old.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build and check the parallel data set.")
    parser.add_argument(
        "--check", nargs="?", const="", metavar="LANG", help="check (all, or one language); write nothing"
    )
    check = parser.parse_args(arguments).check
    try:
        table = load(only=check or None)
    except BuildError as error:
        print(error, file=sys.stderr)
        print(f"build_parallel: {len(error.problems)} problem(s), nothing written", file=sys.stderr)
        return 1
    if check is None:
        write(render(table))
    for (lang, split), rows in table.items():
        types = Counter(kind for one in rows for kind in one.types.elements())
        print(f"{lang} {split}: {len(rows)} sentences, " + ", ".join(f"{types[t]} {t}" for t in TYPES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
