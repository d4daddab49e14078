"""Keeps the libraries below from talking on stderr; our own notes stay."""

import logging
import os
import sys
import warnings

_NOISY = ("transformers", "datasets", "huggingface_hub", "accelerate", "torch", "httpx", "filelock")


class _Notes(logging.Handler):
    """Writes what isogloss itself has to say, such as how many rows were left out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line to whatever stderr is now."""
        print(f"note: {record.getMessage()}", file=sys.stderr)


def quiet() -> None:
    """Silences warnings and logs of other libraries for this process."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    warnings.filterwarnings("ignore")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = logging.getLogger("isogloss")
    if not any(isinstance(handler, _Notes) for handler in ours.handlers):
        ours.addHandler(_Notes(logging.WARNING))
