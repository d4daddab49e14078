"""The live line of a training run, on stderr; stdout belongs to results."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text


class Progress:
    """Shows step, loss, tokens per second and time left.

    On a terminal it is a line that changes; elsewhere a line every few seconds.

    Attributes:
        details: Makes a second line, when one is shown; None for none.

    Args:
        title: What is being trained.
        every_seconds: Seconds between lines when the stream is not a terminal.
        stream: Where to write; stderr by default.
    """

    def __init__(self, title: str = "training", *, every_seconds: float = 30.0, stream: TextIO | None = None) -> None:
        self.title, self.every_seconds = title, every_seconds
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._steps, self._first, self._began, self._tokens, self._shown = 0, 0, 0.0, 0, 0.0
        self._line = ""
        self.details: Callable[[], str] | None = None

    def begin(self, step: int, steps: int) -> None:
        """Starts the clock at `step` of `steps`."""
        self._steps, self._first, self._tokens = steps, step, 0
        self._began = self._shown = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()

    def update(self, step: int, loss: float, tokens: int) -> None:
        """Reports `tokens` more tokens, at `step` with the mean `loss` of late."""
        self._tokens += tokens
        now = time.monotonic()
        pause = 0.2 if self._live else self.every_seconds
        elapsed = max(now - self._began, 1e-9)
        self._line = self._text(step, loss, elapsed)
        if now - self._shown >= pause:
            self._shown = now
            if self._live:
                self._live.update(Text(self._lines()), refresh=True)
            else:
                self._console.print(self._lines(), markup=False)

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        self._console.print(f"{self.title}: {text}", markup=False)

    def end(self) -> None:
        """Leaves the last state as an ordinary line."""
        if self._live:
            self._live.stop()
            self._live = None
        if self._line:
            self._console.print(self._lines(), markup=False)
            self._line = ""

    def _lines(self) -> str:
        more = self.details() if self.details else ""
        return f"{self._line}\n  {more}" if more else self._line

    def _text(self, step: int, loss: float, elapsed: float) -> str:
        left = (self._steps - step) * elapsed / max(1, step - self._first)
        rate = self._tokens / elapsed
        return (
            f"{self.title}: step {step}/{self._steps}  loss {loss:.4f}  {_short(rate)} tokens/s  "
            f"{_clock(elapsed)} gone, {_clock(left)} left"
        )


def _short(number: float) -> str:
    return f"{number / 1000:.1f}k" if number >= 1000 else f"{number:.0f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
