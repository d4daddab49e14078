"""Raw text in: plain files, JSON lines, folders of them and Hub data sets, one document at a time."""

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, cast

from isogloss.errors import IsoglossError
from isogloss.storage import file_digest
from isogloss.storage.lines import decoded_lines

TextSource = str | Path | Sequence[str | Path]
"""A file, a folder, `hub:ID[:config[:split]]`, or several of these."""

_SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")
_HUB = "hub:"
_PEEK = 1 << 20


def read_texts(source: TextSource, *, field: str = "text", limit: int | None = None) -> Iterator[str]:
    """Yields the documents of a source in order, streaming; blank documents are left out.

    A `.jsonl[.gz]` file holds one JSON object a line. A `.txt[.gz]` file holds one document a line,
    unless a blank line stands between two others in its first megabyte: then documents are separated
    by blank lines, and the lines of one document stay joined by a line break. A folder is read in the
    order of its file names, without its subfolders.

    Args:
        source: Path of a file or folder, `hub:ID[:config[:split]]` (split `train` when left out;
            streamed through `datasets`), or a sequence of these.
        field: The field (JSON) or column (Hub) that holds the text.
        limit: At most this many documents over the whole source.

    Raises:
        IsoglossError: A file is missing, empty, not UTF-8, not JSON or lacks the field (with its line).
    """
    yield from islice(_all(source, field), limit)


def source_files(source: TextSource) -> list[Path]:
    """Returns the files behind a source in reading order (none for a Hub data set).

    Raises:
        IsoglossError: A path is missing, of an unknown kind, or a folder without text files.
    """
    return [path for part in _parts(source) if not _is_hub(part) for path in _files(Path(part))]


def source_identity(source: TextSource) -> list[dict[str, Any]]:
    """Returns what a cache key needs to know of a source: size and digest of each file, in order.

    A Hub data set is known by its name only, since a stream has no digest: a changed data set under
    an unchanged name is not noticed.
    """
    identity: list[dict[str, Any]] = []
    for part in _parts(source):
        if _is_hub(part):
            identity.append({"hub": str(part)})
            continue
        for path in _files(Path(part)):
            kind = "jsonl" if ".jsonl" in path.name else "txt"
            identity.append({"kind": kind, "size": path.stat().st_size, "digest": file_digest(path)})
    return identity


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields `(line number from 1, line without its end)` of a UTF-8 file, gzip or plain.

    Raises:
        IsoglossError: The file is missing, a damaged gzip file or not UTF-8 (line named).
    """
    try:
        with _open(path) as stream:
            yield from decoded_lines(stream, f"The text file '{path}',")
    except (gzip.BadGzipFile, EOFError, zlib.error) as problem:
        raise IsoglossError(
            f"The text file '{path}' is not a whole gzip file: {problem}; fetch or compress it again."
        ) from problem
    except OSError as problem:
        raise IsoglossError(f"The text file '{path}' cannot be read: {problem.strerror}.") from problem


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields `(line number, object)` of a `.jsonl[.gz]` file; blank lines are left out.

    Raises:
        IsoglossError: A line is not a JSON object, or anything that `read_lines` refuses.
    """
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as problem:
            raise IsoglossError(
                f"The file '{path}', line {number}, is not JSON: {problem.msg} at column {problem.colno}; "
                "expected one JSON object a line."
            ) from problem
        if not isinstance(row, dict):
            raise IsoglossError(f"The file '{path}', line {number}, is not a JSON object but a {type(row).__name__}.")
        yield number, row


def text_field(path: Path | str, number: int, row: dict[str, Any], field: str) -> str:
    """Returns one text field of a row.

    Raises:
        IsoglossError: The field is missing or not text.
    """
    value = row.get(field)
    if isinstance(value, str):
        return value
    found = "is not text" if field in row else f"is missing (found: {', '.join(map(str, row)) or 'nothing'})"
    raise IsoglossError(
        f"The file '{path}', line {number}: the field '{field}' {found}; name the field that holds text."
    )


def _all(source: TextSource, field: str) -> Iterator[str]:
    for part in _parts(source):
        if _is_hub(part):
            yield from _read_hub(str(part), field)
            continue
        for path in _files(Path(part)):
            empty = True
            for text in _read_file(path, field):
                empty = False
                yield text
            if empty:
                raise IsoglossError(f"The text file '{path}' is empty; give a file that holds text, or leave it out.")


def _parts(source: TextSource) -> list[str | Path]:
    parts = [source] if isinstance(source, str | Path) else list(source)
    if not parts:
        raise IsoglossError("No text was given; name at least one file, folder or hub:ID.")
    return parts


def _is_hub(part: str | Path) -> bool:
    return isinstance(part, str) and part.startswith(_HUB)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(child for child in path.iterdir() if child.is_file() and child.name.endswith(_SUFFIXES))
        if not found:
            raise IsoglossError(f"The folder '{path}' holds no text file ({', '.join(_SUFFIXES)}).")
        return found
    if not path.exists():
        raise IsoglossError(
            f"The text file '{path}' does not exist; a Hub data set is written hub:ID[:config[:split]]."
        )
    if not path.name.endswith(_SUFFIXES):
        raise IsoglossError(f"The text file '{path}' is of an unknown kind; expected one of {', '.join(_SUFFIXES)}.")
    return [path]


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb"))


def _read_file(path: Path, field: str) -> Iterator[str]:
    if ".jsonl" in path.name:
        for number, row in read_rows(path):
            text = text_field(path, number, row, field)
            if text.strip():
                yield text
    elif _has_paragraphs(path):
        yield from _paragraphs(path)
    else:
        for _, line in read_lines(path):
            if line.strip():
                yield line


def _has_paragraphs(path: Path) -> bool:
    seen = 0
    gap = text_before = False
    for _, line in read_lines(path):
        if line.strip():
            if gap and text_before:
                return True
            text_before = True
        else:
            gap = text_before
        seen += len(line) + 1
        if seen > _PEEK:
            break
    return False


def _paragraphs(path: Path) -> Iterator[str]:
    lines: list[str] = []
    for _, line in read_lines(path):
        if line.strip():
            lines.append(line)
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _read_hub(name: str, field: str) -> Iterator[str]:
    identifier, *rest = name.removeprefix(_HUB).split(":")
    if not identifier or len(rest) > 2:
        raise IsoglossError(f"The text source '{name}' is malformed; expected hub:ID[:config[:split]].")
    config = rest[0] if rest and rest[0] else None
    split = rest[1] if len(rest) == 2 and rest[1] else "train"
    try:
        # Imported here: `datasets` takes seconds to load, and most runs read files.
        from datasets import load_dataset

        rows = load_dataset(identifier, config, split=split, streaming=True)
        for number, row in enumerate(rows, 1):
            text = text_field(name, number, row, field)
            if text.strip():
                yield text
    except IsoglossError:
        raise
    except Exception as problem:
        # `datasets`, the Hub client and pyarrow each raise errors of their own.
        first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
        raise IsoglossError(f"The Hub data set '{name}' cannot be read: {first}") from problem
