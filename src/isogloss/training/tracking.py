"""Curves for TensorBoard, Weights & Biases and whatever else `accelerate` knows by name."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from isogloss.errors import IsoglossError
from isogloss.training._processes import create_accelerator


class Tracker:
    """Sends numbers to one tracker of `accelerate`; without a name it does nothing.

    Args:
        name: "tensorboard", "wandb", "mlflow" ...; None for none.
        folder: Where trackers that write files put them.
        config: Settings to note; only text and numbers are sent.
        device: Device of the trained parameters.

    Raises:
        IsoglossError: The tracker is unknown, not installed, or does not start.
    """

    def __init__(self, name: str | None, folder: Path, config: Mapping[str, Any], device: torch.device) -> None:
        self._accelerator = None
        if name is None:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # said below, in our words
                accelerator = create_accelerator(device, log_with=name, project_dir=str(folder))
        except ValueError as problem:
            raise IsoglossError(f"Tracker '{name}' is not one that accelerate knows: {problem}") from problem
        if not accelerator.log_with:
            raise IsoglossError(f"Tracker '{name}' is not installed; install the package '{name}' or train without it.")
        plain = {key: value for key, value in config.items() if isinstance(value, int | float | str)}
        try:
            accelerator.init_trackers("isogloss", config=plain)
        except Exception as problem:  # every tracker has errors of its own (no login, no server, no disk)
            raise IsoglossError(f"Tracker '{name}' did not start: {problem}") from problem
        self._accelerator = accelerator

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Sends numbers of one step."""
        if self._accelerator is not None:
            self._accelerator.log(dict(values), step=step)

    def close(self) -> None:
        """Writes what is pending."""
        # `end_training` would also take down the process group, which the next run still needs.
        if self._accelerator is not None:
            for tracker in self._accelerator.trackers:
                tracker.finish()
