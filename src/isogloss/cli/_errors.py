"""From an exception to the sentence that a user reads, and the exit status."""

import errno
from typing import Any

from isogloss.errors import IsoglossError

_BUG = 1
_USER = 2


def explain(problem: BaseException) -> tuple[str, int]:
    """Returns what to print on stderr, and the exit status.

    Args:
        problem: Whatever a command raised.
    """
    if isinstance(problem, IsoglossError):
        return _sentence(str(problem)), _USER
    if hasattr(problem, "format_message"):
        return _usage(problem), _USER
    if isinstance(problem, KeyboardInterrupt) or type(problem).__name__ == "Abort":
        return _sentence("Interrupted; run the same command again to start over or to continue."), _USER
    system = _system(problem)
    if system:
        return _sentence(system), _USER
    reason = " ".join(str(problem).split())
    return (
        f"error: This should not happen ({type(problem).__name__}: {reason}); run the command again with "
        "--debug and report what it prints.",
        _BUG,
    )


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return f"error: {line}" if line.endswith((".", "!", "?", ")")) else f"error: {line}."


def _usage(problem: Any) -> str:
    """A wrong option or argument, in the parser's words and with where to look."""
    context = getattr(problem, "ctx", None)
    text = str(problem.format_message()).strip()
    if type(problem).__name__ == "NoArgsIsHelpError" or (context is not None and "\n" in text):
        return text
    path = getattr(context, "command_path", "isogloss")
    return f"{_sentence(text)} See `{path} --help`."


def _system(problem: BaseException) -> str | None:
    """Troubles of the machine, which libraries report in many ways; None when it is none of them."""
    text = str(problem)
    number = getattr(problem, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
        where = _name(problem)
        return f"The disk is full{where}; free some space and run the same command again."
    if isinstance(problem, PermissionError):
        return f"Permission is denied{_name(problem)}; choose a place that you may read or write."
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return "The memory is used up; use a smaller --batch-size, shorter rows or another --device."
    if isinstance(problem, OSError) and getattr(problem, "filename", None):
        return f"The file or folder{_name(problem)} cannot be used: {problem.strerror or text}."
    if isinstance(problem, OSError) and problem.strerror:
        return f"The system refused something: {problem.strerror}."
    return None


def _name(problem: BaseException) -> str:
    name = getattr(problem, "filename", None)
    return f" ('{name}')" if name else ""
