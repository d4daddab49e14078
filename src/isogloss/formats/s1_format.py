"""The soft prompt files of the S1 authors (https://arxiv.org/abs/2407.02317), for mT0 and its like.

One tensor `prompt_embeddings` of 2 L x d (100 x 768 for L = 50): only the first L rows were ever read or
trained (papers.md 1.2). Published as `slovak_prompt_100k` and so on, with or without a config beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats.foreign import CONFIG_FILE, as_language, read_config, read_tensor_file
from isogloss.formats.peft_format import import_prompt
from isogloss.modules import TransferModule

_SUFFIXES = (".safetensors", ".bin", ".pt")


def prompt_file(place: Path) -> Path | None:
    """The one tensor file of a folder (or the file itself); None when there is none or more than one."""
    if place.is_file():
        return place if place.suffix in _SUFFIXES else None
    found = sorted(path for path in place.iterdir() if path.suffix in _SUFFIXES) if place.is_dir() else []
    return found[0] if len(found) == 1 else None


def import_s1(source: str | Path, backbone: Backbone) -> TransferModule:
    """Imports an S1 prompt as a frozen soft prompt of its first L rows, before the text on the encoder.

    It is a language module when its name is `<language>_prompt...`, else a task module.

    Args:
        source: The tensor file, or a folder that holds it and perhaps `adapter_config.json`.
        backbone: An encoder-decoder of width d.

    Raises:
        IsoglossError: The file is damaged or not such a prompt, or the backbone is of another kind or width.
    """
    place = Path(source)
    path = prompt_file(place)
    if path is None:
        raise IsoglossError(f"The folder '{place}' does not hold exactly one prompt file ({', '.join(_SUFFIXES)}).")
    if backbone.kind != "encoder-decoder":
        raise IsoglossError(
            f"The S1 prompts stand on the encoder of an encoder-decoder, but {backbone.name} is of kind "
            f"{backbone.kind}."
        )
    config: Mapping[str, Any] = read_config(path.parent) if (path.parent / CONFIG_FILE).is_file() else {}
    # Their files always hold both copies, so a config that does not say so is completed.
    config = {**config, "num_transformer_submodules": config.get("num_transformer_submodules") or 2}
    name = path.stem if place.is_file() else place.name
    first, _, rest = name.partition("_")
    language = as_language(first) if rest.startswith("prompt") else None
    return import_prompt(path, read_tensor_file(path), config, backbone, "S1", name=name, language=language)
