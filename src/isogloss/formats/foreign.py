"""What all importers share: reading the files of other libraries and building our module from them."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats.saved import build_module, fill_module
from isogloss.languages import resolve
from isogloss.modules import ModuleConfig, TransferModule
from isogloss.storage import load_tensors, read_json

CONFIG_FILE = "adapter_config.json"


@dataclass(frozen=True)
class ForeignInfo:
    """Facts about an imported module that its file tells or its name suggests.

    Attributes:
        library: Where the format comes from.
        name: What it was called there.
        trained_on: The backbone that the file names, or "".
        language: Code of the language that it stands for; None means that it is a task module.
    """

    library: str
    name: str
    trained_on: str = ""
    language: str | None = None


def read_config(folder: Path) -> dict[str, Any]:
    """Reads `adapter_config.json`.

    Raises:
        IsoglossError: It is missing or no JSON object.
    """
    content = read_json(folder / CONFIG_FILE)
    if not isinstance(content, dict):
        raise IsoglossError(f"The file '{folder / CONFIG_FILE}' does not hold a JSON object.")
    return content


def read_weights(folder: Path, names: tuple[str, ...]) -> tuple[Path, dict[str, Tensor]]:
    """Reads the first of the named tensor files that exists, safetensors or a `.bin` of plain tensors.

    Raises:
        IsoglossError: None exists, or it is damaged or holds anything but named tensors.
    """
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise IsoglossError(
            f"The folder '{folder}' holds none of {', '.join(names)}, so there are no weights to import."
        )
    return path, read_tensor_file(path)


def read_tensor_file(path: Path) -> dict[str, Tensor]:
    """Reads one tensor file as float32; a `.bin` is unpickled with nothing but tensors allowed.

    Raises:
        IsoglossError: It is damaged or holds anything but named tensors.
    """
    if path.suffix == ".safetensors":
        content: Any = load_tensors(path)
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, OSError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as problem:
            raise IsoglossError(
                f"The file '{path}' is damaged or holds more than tensors, which is not loaded for safety."
            ) from problem
    if not isinstance(content, Mapping) or not all(isinstance(item, Tensor) for item in content.values()):
        raise IsoglossError(f"The file '{path}' does not hold a dictionary of named tensors.")
    return {str(name): tensor.float() for name, tensor in content.items()}


def as_language(text: str) -> str | None:
    """The code of a language when `text` names one."""
    try:
        return resolve(text).code
    except IsoglossError:
        return None


def imported_module(
    config: ModuleConfig, tensors: Mapping[str, Tensor], backbone: Backbone, source: Path, info: ForeignInfo
) -> TransferModule:
    """Builds a frozen module of `config` with the given tensors (`group.tensor`).

    Raises:
        IsoglossError: The tensors do not fit the config on this backbone.
    """
    module = build_module(config, backbone)
    fill_module(module, tensors, source=str(source))
    module.info.role = "language" if info.language else "task"
    module.info.language = info.language
    module.info.task = None if info.language else info.name
    module.info.training = {
        "imported_from": info.library,
        "name_there": info.name,
        "trained_on": info.trained_on,
    }
    return module
