"""One door for all foreign formats: which one a folder holds is told by its files."""

from pathlib import Path

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats.adapterhub import import_adapterhub
from isogloss.formats.foreign import CONFIG_FILE, read_config
from isogloss.formats.peft_format import WEIGHT_FILES, export_peft, import_peft
from isogloss.formats.record import MODULE_FILE
from isogloss.formats.s1_format import import_s1, prompt_file
from isogloss.formats.saved import load_module
from isogloss.languages import resolve
from isogloss.modules import TransferModule

FORMATS = ("peft",)


def import_module(
    folder: str | Path, backbone: Backbone, *, language: str | None = None, task: str | None = None
) -> TransferModule:
    """Imports a module from AdapterHub, PEFT or the S1 authors as a frozen module for `backbone`.

    Args:
        folder: The folder of the checkpoint (for S1 also the file itself).
        backbone: The model that it was trained on.
        language: Code or name; makes it a language module, or with `task` names the source language.
        task: Name of the task; makes it a task module. Without both, the file's own name decides.

    Raises:
        IsoglossError: The format is not recognised, or its importer refuses it.
    """
    module = _import(Path(folder), backbone)
    if task is not None:
        module.info.role, module.info.task, module.info.language = "task", task, None
    elif language is not None:
        module.info.role, module.info.task = "language", None
    if language is not None:
        module.info.language = resolve(language).code
    return module


def _import(place: Path, backbone: Backbone) -> TransferModule:
    if not place.exists():
        raise IsoglossError(f"There is no folder '{place}' to import from.")
    if (place / MODULE_FILE).is_file():
        return load_module(place, backbone)
    if (place / CONFIG_FILE).is_file():
        config = read_config(place)
        if "peft_type" in config and any((place / name).is_file() for name in WEIGHT_FILES) and "fusion" not in config:
            return import_peft(place, backbone)
        if "config" in config:
            return import_adapterhub(place, backbone)
    if prompt_file(place) is not None:
        return import_s1(place, backbone)
    raise IsoglossError(
        f"The folder '{place}' is not recognised: AdapterHub and PEFT checkpoints have an {CONFIG_FILE} "
        "beside their weights, "
        "an S1 prompt is one tensor file."
    )


def export_module(
    module: TransferModule,
    folder: str | Path,
    format: str = "peft",
    *,
    backbone: Backbone,
    overwrite: bool = False,
) -> Path:
    """Writes a module in the format of another library.

    Args:
        module: A prompt or LoRA module.
        folder: The folder to make.
        format: `peft`.
        backbone: The backbone that the module was made for.
        overwrite: Replace a folder that already holds something.

    Raises:
        IsoglossError: The format is unknown or cannot express the module.
    """
    if format not in FORMATS:
        raise IsoglossError(f"The export format '{format}' is unknown; use {', '.join(FORMATS)}.")
    return export_peft(module, folder, backbone, overwrite=overwrite)
