"""Lines of UTF-8 text with their numbers, wherever they come from."""

from collections.abc import Iterable, Iterator

from isogloss.errors import IsoglossError


def decoded_lines(stream: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Yields `(number from 1, line without its end)`; each line is decoded for itself, so that a bad byte is located.

    Args:
        stream: A file opened for bytes, or a pipe. A byte order mark at its beginning is left out.
        name: What it is called in errors.

    Raises:
        IsoglossError: A line is not UTF-8; names it and the byte.
    """
    for number, raw in enumerate(stream, 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as problem:
            raise IsoglossError(
                f"{name} line {number}: byte {problem.start + 1} of the line is not valid UTF-8; convert it to UTF-8."
            ) from None
        yield number, line.rstrip("\r\n")


__all__ = ["decoded_lines"]
