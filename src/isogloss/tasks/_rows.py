"""Files to raw rows: JSONL, JSON (SQuAD nesting), TSV, CSV, CoNLL-U and CoNLL columns, gzipped or not."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.storage.lines import decoded_lines

# Longest first, so that a suffix is not taken for the end of another one.
EXTENSIONS = (".jsonl", ".conllu", ".conll", ".iob2", ".json", ".tsv", ".csv")

_WIKIANN_PREFIX = re.compile(r"^[a-z][a-z-]{1,14}:(?=.)", re.DOTALL)


@dataclass(frozen=True)
class RawRow:
    """One row as the file has it.

    Attributes:
        where: ``FILE line N`` for messages.
        number: Row number in the file, from 0, blank lines not counted.
        values: Column name to value: str from TSV, CSV and CoNLL, any JSON value from JSONL.
    """

    where: str
    number: int
    values: Mapping[str, Any]


def split_of_file(path: Path) -> str | None:
    """The split that a file holds by its name (``test`` of ``test.jsonl.gz``); None if it is no data file."""
    name = path.name.removesuffix(".gz")
    for extension in EXTENSIONS:
        if name.endswith(extension) and len(name) > len(extension):
            return name.removesuffix(extension)
    return None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends."""
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            yield from decoded_lines(stream, str(path))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise IsoglossError(f"{path}: not a whole gzip file ({error}); fetch it again.") from None
    except OSError as error:
        raise IsoglossError(f"{path}: cannot be read ({error.strerror or error}).") from None


def read_rows(path: Path) -> Iterator[RawRow]:
    """Rows of one data file, in file order.

    Raises:
        IsoglossError: The file cannot be read, is not UTF-8, or a row of it is malformed; names file and
        line.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".jsonl"):
        return _jsonl(path)
    if name.endswith(".json"):
        return _json(path)
    if name.endswith(".tsv"):
        return _tsv(path)
    if name.endswith(".csv"):
        return _csv(path)
    if name.endswith(".conllu"):
        return _conllu(path)
    if name.endswith((".conll", ".iob2")):
        return _conll(path)
    raise IsoglossError(f"{path}: not a data file; expected one of {' '.join(EXTENSIONS)}, gzipped or not.")


def _jsonl(path: Path) -> Iterator[RawRow]:
    count = 0
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise IsoglossError(f"{where}: not valid JSON ({error}); expected one object a line.") from None
        if not isinstance(row, dict):
            raise IsoglossError(f"{where}: expected a JSON object, found {type(row).__name__}.")
        yield RawRow(where, count, row)
        count += 1


def _json(path: Path) -> Iterator[RawRow]:
    """A list of rows, or the nesting of SQuAD: data > paragraphs > qas."""
    text = "\n".join(line for _, line in _lines(path))
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise IsoglossError(f"{path}: not valid JSON ({error}).") from None
    data = content.get("data") if isinstance(content, dict) else content
    if not isinstance(data, list):
        raise IsoglossError(f'{path}: expected a list of rows, or SQuAD\'s {{"data": [...]}}.')
    rows: list[Any] = []
    for index, item in enumerate(data):
        if not (isinstance(item, dict) and "paragraphs" in item):
            rows.append(item)
            continue
        try:
            rows += [
                {"title": item.get("title"), "context": paragraph["context"], **question}
                for paragraph in item["paragraphs"]
                for question in paragraph["qas"]
            ]
        except (KeyError, TypeError):
            raise IsoglossError(
                f"{path} article {index + 1}: expected paragraphs that hold a context and qas, as SQuAD has."
            ) from None
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise IsoglossError(f"{path} row {index + 1}: expected an object, found {type(row).__name__}.")
        yield RawRow(f"{path} row {index + 1}", index, row)


def _unquote(cell: str) -> str:
    """Undo CSV quoting where it surely is quoting: quotes around, and only doubled quotes inside."""
    inner = cell[1:-1]
    if len(cell) >= 2 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _tsv(path: Path) -> Iterator[RawRow]:
    """TSV with a header. Most such files are not quoted, some (SIB-200) are where a text holds a quote."""
    header: list[str] | None = None
    count = 0
    for number, line in _lines(path):
        if not line.strip():
            continue
        if header is None:
            header = line.split("\t")
            if len(header) > 1 and all(len(name) > 1 and name[0] == name[-1] == '"' for name in header):
                yield from _csv(path, delimiter="\t")
                return
            _check_header(path, header)
            continue
        cells = line.split("\t")
        if len(cells) != len(header):
            raise IsoglossError(
                f"{path} line {number}: {len(cells)} tab-separated fields, but the header has {len(header)}."
            )
        values = {name: _unquote(cell) for name, cell in zip(header, cells, strict=True)}
        yield RawRow(f"{path} line {number}", count, values)
        count += 1


def _check_header(path: Path, header: list[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise IsoglossError(f"{path} line 1: the header names column {twice[0]!r} twice; rename one.")


def _csv(path: Path, delimiter: str = ",") -> Iterator[RawRow]:
    text = "\n".join(line for _, line in _lines(path))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    count, start = 0, 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not cells:
                continue
            if header is None:
                header = cells
                _check_header(path, header)
                continue
            if len(cells) != len(header):
                raise IsoglossError(f"{path} line {line}: {len(cells)} fields, but the header has {len(header)}.")
            yield RawRow(f"{path} line {line}", count, dict(zip(header, cells, strict=True)))
            count += 1
    except csv.Error as error:
        raise IsoglossError(f"{path} line {start}: not valid CSV ({error}).") from None


def _blocks(path: Path) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Sentences of a CoNLL file: the line where each starts, and its numbered lines."""
    block: list[tuple[int, str]] = []
    for number, line in _lines(path):
        if line.strip():
            block.append((number, line))
        elif block:
            yield block[0][0], block
            block = []
    if block:
        yield block[0][0], block


def _comment(line: str, row: dict[str, Any]) -> None:
    key, mark, value = line[1:].partition("=")
    if mark and key.strip() in ("sent_id", "text"):
        row[key.strip()] = value.strip()


def _is_comment(line: str) -> bool:
    """Whether a line above a CoNLL sentence is a comment and not the token ``#`` with its tag."""
    if not line.startswith("#") or "\t" in line:
        return False
    return len(line.split()) != 2 or line.startswith(("# newdoc", "# newpar"))


def _conllu(path: Path) -> Iterator[RawRow]:
    """CoNLL-U: syntactic words only; ranges of multiword tokens and empty nodes are skipped."""
    count = 0
    for start, block in _blocks(path):
        row: dict[str, Any] = {"tokens": [], "lemmas": [], "upos": [], "xpos": []}
        for number, line in block:
            if line.startswith("#"):
                _comment(line, row)
                continue
            cells = line.split("\t")
            if len(cells) != 10:
                raise IsoglossError(f"{path} line {number}: {len(cells)} tab-separated columns, CoNLL-U has 10.")
            if "-" in cells[0] or "." in cells[0]:
                continue
            for name, cell in zip(("tokens", "lemmas", "upos", "xpos"), cells[1:5], strict=True):
                row[name].append(cell)
        if row["tokens"]:
            yield RawRow(f"{path} line {start}", count, row)
            count += 1


def _conll(path: Path) -> Iterator[RawRow]:
    """Token and tag a line, blank lines between sentences.

    Two columns or more separated by tabs or spaces: the token is the first, the tag the last (CoNLL-2003,
    MasakhaNER). Lines that begin with a counter, as UNER's ``.iob2`` has, give the second and the third.
    WikiANN writes the language before each token (``en:Paris``), which is taken off when every token has it.
    """
    sentences: list[tuple[int, dict[str, Any]]] = []
    for start, block in _blocks(path):
        row: dict[str, Any] = {"tokens": [], "tags": []}
        for number, line in block:
            if not row["tokens"] and _is_comment(line):
                _comment(line, row)
                continue
            if line.startswith("-DOCSTART-"):
                continue
            cells = line.split("\t") if "\t" in line else line.split(" ")
            if len(cells) < 2:
                raise IsoglossError(f"{path} line {number}: expected a token and a tag, found {line!r}.")
            counted = len(cells) > 2 and cells[0] == str(len(row["tokens"]) + 1)
            row["tokens"].append(cells[1] if counted else cells[0])
            row["tags"].append(cells[2] if counted else cells[-1].strip())
        if row["tokens"]:
            sentences.append((start, row))
    prefixed = bool(sentences) and all(_WIKIANN_PREFIX.match(token) for _, row in sentences for token in row["tokens"])
    for count, (start, row) in enumerate(sentences):
        if prefixed:
            row["tokens"] = [_WIKIANN_PREFIX.sub("", token) for token in row["tokens"]]
        yield RawRow(f"{path} line {start}", count, row)
