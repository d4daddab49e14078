"""Ctrl-C and SIGTERM during training: finish the step, keep everything, then stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from isogloss.errors import IsoglossError


class Interrupted(IsoglossError):  # noqa: N818  (it names what happened; nothing went wrong)
    """Training was stopped by Ctrl-C or SIGTERM; the message says how to continue."""


class StopRequest:
    """Whether someone asked to stop."""

    asked = False


@contextmanager
def stop_on_signals(tell: Callable[[str], None]) -> Iterator[StopRequest]:
    """Turns the first Ctrl-C or SIGTERM into a request; the second Ctrl-C stops at once.

    Args:
        tell: Shows a line to the user.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.asked = True
        # The signal may have come in the middle of another line, which Python's streams refuse to interrupt.
        with suppress(RuntimeError):
            tell("stopping after this step; press Ctrl-C again to stop at once")

    if threading.current_thread() is not threading.main_thread():
        # Python delivers signals to the main thread only, and lets only that thread ask for them.
        yield request
        return
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
