"""Folders and files that are whole or absent: written beside their place and renamed into it."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError


@contextmanager
def new_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path` when the block ends without an exception.

    Args:
        path: The folder to create. Its parent is created when missing.
        overwrite: Replace an existing folder that is not empty.

    Yields:
        A temporary folder on the same file system as `path`.

    Raises:
        IsoglossError: `path` already holds something and `overwrite` is false, or it is a file.
    """
    target = Path(path)
    refuse_occupied(target, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        _swap_in(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def refuse_occupied(target: Path, *, overwrite: bool) -> None:
    """Raises when `target` holds something that must not be replaced; meant to be called before long work."""
    if target.is_file():
        raise IsoglossError(f"The output '{target}' is a file; name a folder that does not exist yet.")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise IsoglossError(
            f"The output folder '{target}' already holds something; choose another one or allow it with --overwrite."
        )


def _swap_in(temporary: Path, target: Path) -> None:
    # A rename onto a non-empty folder fails, so what is replaced steps aside first and is deleted last.
    aside = None
    if target.is_dir():
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        target.replace(aside / "old")
    try:
        temporary.replace(target)
    except BaseException:
        if aside is not None:
            (aside / "old").replace(target)
            aside.rmdir()
        raise
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes one UTF-8 file so that a reader sees the old or the new content, never a part."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, content: Any) -> None:
    """Writes JSON atomically, keys in the order given, non-ASCII text readable."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        IsoglossError: The file is missing or not JSON.
    """
    source = Path(path)
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError as problem:
        raise IsoglossError(f"The file '{source}' does not exist.") from problem
    except UnicodeDecodeError as problem:
        raise IsoglossError(f"The file '{source}' is not UTF-8 text.") from problem
    except json.JSONDecodeError as problem:
        raise IsoglossError(f"The file '{source}', line {problem.lineno}, is not JSON: {problem.msg}.") from problem
