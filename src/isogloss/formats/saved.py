"""Saved modules: a folder with `module.json`, `module.safetensors` and a model card.

`module.json` says what the module is and holds the digest of the tensor file, so that a changed byte is
noticed. `module.safetensors` holds `module/<group>.<tensor>` (float32, reparameterisation folded away),
`head/<name>` and `backbone/<parameter>`.
"""

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats.bundled import module_place
from isogloss.formats.card import model_card
from isogloss.formats.record import CARD_FILE, FORMAT, MODULE_FILE, TENSOR_FILE, SavedModule
from isogloss.modules import (
    METHODS,
    ModuleConfig,
    ModuleInfo,
    TransferModule,
    config_from_dict,
    create_module,
)
from isogloss.storage import (
    file_digest,
    load_tensors,
    new_folder,
    read_json,
    save_tensors,
    write_json,
    write_text,
)

_INFO_TYPES: dict[str, tuple[type, ...]] = {
    "role": (str,),
    "language": (str, type(None)),
    "task": (str, type(None)),
    "backbone": (str,),
    "fingerprint": (str,),
    "head": (dict,),
    "training": (dict,),
    "scores": (dict,),
}
_KEYS = {"format", "isogloss", "method", "config", "tensors", *_INFO_TYPES}


def isogloss_version() -> str:
    """The installed version, or `unknown` when isogloss runs from a bare source tree."""
    try:
        return version("isogloss")
    except PackageNotFoundError:
        return "unknown"


def save_module(module: TransferModule, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a module as a folder, whole or not at all.

    Args:
        module: Any module; it is folded and written in float32, and stays as it is in memory.
        folder: The folder to make.
        overwrite: Replace a folder that already holds something.

    Returns:
        The folder.

    Raises:
        IsoglossError: The folder is occupied or cannot be written, the module has no fingerprint, or it has
            facts that are not JSON.
    """
    info = module.info
    if not info.fingerprint:
        raise IsoglossError(
            "The module has no backbone fingerprint, so it could never be loaded; make it by create_module."
        )
    plain = module.folded()
    tensors = _all_tensors(module, plain)
    description: dict[str, Any] = {
        "format": FORMAT,
        "isogloss": isogloss_version(),
        "method": plain.method,
        **asdict(info),
        "config": asdict(plain.config),
    }
    parameters = sum(tensor.numel() for tensor in tensors.values())
    try:
        with new_folder(folder, overwrite=overwrite) as temporary:
            save_tensors(temporary / TENSOR_FILE, tensors)
            digest = file_digest(temporary / TENSOR_FILE)
            description["tensors"] = {"file": TENSOR_FILE, "sha256": digest, "parameters": parameters}
            write_json(temporary / MODULE_FILE, description)
            saved = SavedModule(
                Path(folder), plain.method, plain.config, info, description["isogloss"], digest, parameters
            )
            write_text(temporary / CARD_FILE, model_card(saved))
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise IsoglossError(
            f"The module cannot be saved in '{folder}' ({reason}); free disk space or choose another folder."
        ) from problem
    except TypeError as problem:
        raise IsoglossError(
            f"The module cannot be saved in '{folder}', because a fact in its info is not JSON ({problem}); "
            "use text, numbers, lists and dictionaries."
        ) from problem
    return Path(folder)


def _all_tensors(module: TransferModule, plain: TransferModule) -> dict[str, Tensor]:
    tensors = {f"module/{name}": tensor.detach().float() for name, tensor in plain.weight_tensors().items()}
    # The head and the changed weights are read from the module itself: a folded copy stands for its groups.
    head: Mapping[str, Tensor] = module.head.state_dict() if module.head is not None else module.head_state
    tensors |= {f"head/{name}": tensor.detach().float() for name, tensor in head.items()}
    return tensors | {f"backbone/{name}": tensor for name, tensor in (module.backbone_state or {}).items()}


def read_info(folder: str | Path) -> SavedModule:
    """Reads what a saved module says about itself, without its tensors.

    Args:
        folder: Written by `save_module`, or the name of a bundled one (`bundled:encoder/adapter/sk`).

    Raises:
        IsoglossError: No module folder, a newer format, an unknown method or key, or a damaged `module.json`.
    """
    place = module_place(folder)
    source = place / MODULE_FILE
    if not source.is_file():
        if (place / "rule.json").is_file():
            raise IsoglossError(
                f"The folder '{place}' is an update rule and not a module; fine-tune with it by `train task --update` "
                "and give the folder of that."
            )
        raise IsoglossError(f"The folder '{place}' is not a saved module: it has no {MODULE_FILE}.")
    content = read_json(source)
    number = content.get("format") if isinstance(content, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise IsoglossError(f"The file '{source}' does not describe a saved module: it has no format number.")
    if number > FORMAT:
        raise IsoglossError(
            f"The module in '{place}' has format {number}, but {FORMAT} is the newest known; update isogloss."
        )
    unknown, missing = set(content) - _KEYS, _KEYS - set(content)
    if unknown:
        raise IsoglossError(
            f"The file '{source}' has the unknown key '{min(unknown)}'; a newer isogloss may have saved it."
        )
    if missing:
        raise IsoglossError(f"The file '{source}' lacks the key '{min(missing)}'; copy or train the module again.")
    for key, types in _INFO_TYPES.items():
        if not isinstance(content[key], types):
            raise IsoglossError(f"The file '{source}' has a '{key}' of the wrong type ({type(content[key]).__name__}).")
    if content["role"] not in ("language", "task", "shared"):
        raise IsoglossError(
            f"The file '{source}' has the role '{content['role']}'; it must be language, task or shared."
        )
    return SavedModule(
        folder=place,
        method=str(content["method"]),
        config=_read_config(source, content),
        info=ModuleInfo(**{key: content[key] for key in _INFO_TYPES}),
        version=str(content["isogloss"]),
        **_read_digest(source, content["tensors"]),
    )


def _read_config(source: Path, content: Mapping[str, Any]) -> ModuleConfig:
    if not isinstance(content["config"], dict):
        raise IsoglossError(
            f"The file '{source}' has a 'config' of the wrong type ({type(content['config']).__name__})."
        )
    try:
        return config_from_dict(str(content["method"]), content["config"])
    except IsoglossError as problem:
        raise IsoglossError(f"The file '{source}' cannot be read: {problem}") from problem
    except (TypeError, ValueError) as problem:
        raise IsoglossError(f"The file '{source}' has a config value of the wrong type ({problem}).") from problem


def _read_digest(source: Path, facts: Any) -> dict[str, Any]:
    match facts:
        case {"file": "module.safetensors", "sha256": str(digest), "parameters": int(parameters)}:
            return {"digest": digest, "parameters": parameters}
    raise IsoglossError(f"The file '{source}' does not say what its tensor file is; copy or train the module again.")


def load_module(folder: str | Path, backbone: Backbone) -> TransferModule:
    """Loads a saved module for the backbone that it was trained on; all its tensors are frozen.

    Args:
        folder: As in `read_info`.
        backbone: Must have the module's fingerprint.

    Returns:
        The module in evaluation mode on the backbone's device. Head weights are in `head_state`, changed
        backbone weights in `backbone_state`.

    Raises:
        IsoglossError: What `read_info` refuses, another backbone, or a tensor file that is not the saved one.
    """
    saved = read_info(folder)
    if saved.info.fingerprint != backbone.fingerprint:
        raise IsoglossError(
            f"The module in '{saved.folder}' was trained on {saved.info.backbone or 'an unnamed backbone'} "
            f"(fingerprint {saved.info.fingerprint}), but this backbone is {backbone.name} "
            f"(fingerprint {backbone.fingerprint}); load the backbone that it names."
        )
    path = saved.folder / TENSOR_FILE
    if not path.is_file():
        raise IsoglossError(f"The module in '{saved.folder}' has no {TENSOR_FILE}; copy or train it again.")
    if file_digest(path) != saved.digest:
        raise IsoglossError(
            f"The file '{path}' is truncated or altered: its digest is not the recorded one; copy it again."
        )
    parts: dict[str, dict[str, Tensor]] = {"module": {}, "head": {}, "backbone": {}}
    for name, tensor in load_tensors(path).items():
        part, _, rest = name.partition("/")
        if part not in parts or not rest:
            raise IsoglossError(f"The file '{path}' holds the tensor '{name}', which belongs to no part of a module.")
        parts[part][rest] = tensor
    module = build_module(saved.config, backbone)
    if module.folded() is not module:
        raise IsoglossError(
            f"The config in '{saved.folder / MODULE_FILE}' asks for parts that a saved module does not have."
        )
    fill_module(module, parts["module"], source=str(path))
    module.info, module.digest = saved.info, saved.digest
    module.head_state = {name: tensor.to(backbone.device) for name, tensor in parts["head"].items()}
    module.backbone_state = _checked_backbone_state(parts["backbone"], backbone, path) or None
    return module


def build_module(config: ModuleConfig, backbone: Backbone) -> TransferModule:
    """Builds a module whose tensors will be replaced, so that nothing is asked of a tokenizer or labels."""
    extra: dict[str, Any] = {}
    if "vectors" in inspect.signature(METHODS[config.method][1].__init__).parameters:
        extra["vectors"] = torch.zeros(getattr(config, "length", 1), backbone.hidden_size)
    return create_module(config, backbone, **extra)


def fill_module(module: TransferModule, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Copies named tensors into a module and freezes it; every tensor on both sides must find its partner.

    Args:
        module: As `build_module` makes it.
        tensors: Tensors by `group.tensor`.
        source: What an error message calls their origin.

    Raises:
        IsoglossError: A tensor is missing, is not wanted, or has another shape.
    """
    wanted = module.weight_tensors()
    missing, extra = set(wanted) - set(tensors), set(tensors) - set(wanted)
    if missing:
        raise IsoglossError(f"The tensors of '{source}' lack '{min(missing)}' ({len(missing)} missing); copy it again.")
    if extra:
        raise IsoglossError(f"The tensors of '{source}' include '{min(extra)}', which has no use ({len(extra)} such).")
    with torch.no_grad():
        for name, target in wanted.items():
            found = tensors[name]
            if found.shape != target.shape:
                raise IsoglossError(
                    f"The tensor '{name}' of '{source}' has shape {tuple(found.shape)}, "
                    f"but {tuple(target.shape)} is needed."
                )
            target.copy_(found)
    freeze(module)


def freeze(module: nn.Module) -> None:
    """Turns gradients off and evaluation mode on."""
    module.requires_grad_(False)
    module.eval()


def _checked_backbone_state(tensors: Mapping[str, Tensor], backbone: Backbone, path: Path) -> dict[str, Tensor]:
    known = dict(backbone.model.named_parameters(remove_duplicate=False))
    for name, tensor in tensors.items():
        if name not in known or known[name].shape != tensor.shape:
            raise IsoglossError(
                f"The file '{path}' changes the weight '{name}', which {backbone.name} has not in that shape."
            )
    return dict(tensors)


def list_modules(root: str | Path, *, problems: list[str] | None = None) -> list[SavedModule]:
    """Finds the saved modules under a folder, by path.

    Args:
        root: Searched with everything beneath it, except hidden folders.
        problems: Collects what is wrong with unreadable ones; without it the first problem is raised.

    Raises:
        IsoglossError: `root` is not a folder, or a module cannot be read and `problems` is None.
    """
    if not Path(root).is_dir():
        raise IsoglossError(f"The folder '{root}' does not exist, so it holds no modules.")
    found = []
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if MODULE_FILE not in files:
            continue
        folders.clear()
        try:
            found.append(read_info(place))
        except IsoglossError as problem:
            if problems is None:
                raise
            problems.append(str(problem))
    return sorted(found, key=lambda saved: str(saved.folder))
