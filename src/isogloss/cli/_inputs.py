"""Checks that need no model, done before long work, and small readings of option values."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.cli._console import say
from isogloss.errors import IsoglossError
from isogloss.storage import package_data

if TYPE_CHECKING:
    from isogloss.backbones import Backbone
    from isogloss.languages import Language


def split_list(values: Iterable[str] | str | None) -> list[str]:
    """Items of options that may be repeated and may hold several items separated by commas, each once."""
    texts = [values] if isinstance(values, str) else list(values or ())
    items = [item.strip() for text in texts for item in text.split(",")]
    return list(dict.fromkeys(item for item in items if item))


def pairs(values: Sequence[str] | None, option: str) -> dict[str, str]:
    """Reads `key=value` options.

    Raises:
        IsoglossError: One has no `=`.
    """
    found = {}
    for text in values or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise IsoglossError(f"{option} {text}: expected NAME=VALUE, such as {option} text=sentence.")
        found[key.strip()] = value.strip()
    return found


def json_pairs(values: Sequence[str] | None, option: str) -> dict[str, Any]:
    """Reads `key=value` options whose values are JSON, or else plain text."""
    found: dict[str, Any] = {}
    for key, text in pairs(values, option).items():
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def one_of(value: str, option: str, choices: Sequence[str]) -> str:
    """Returns a value that is among the choices.

    Raises:
        IsoglossError: It is not.
    """
    if value not in choices:
        raise IsoglossError(f"{option} {value}: expected {' or '.join(choices)}.")
    return value


def language(text: str, option: str) -> "Language":
    """Finds the language that an option names.

    Raises:
        IsoglossError: Names the option, and the nearest languages.
    """
    from isogloss.languages import resolve

    try:
        return resolve(text)
    except IsoglossError as problem:
        raise IsoglossError(f"{option} {text}: {problem}") from problem


def bundled_text(text: str, language: "Language") -> str:
    """The path behind `bundled:text`, the few paragraphs that travel with the package; other values as they are.

    Raises:
        IsoglossError: There are none in this language, or no bundled text of that name.
    """
    if not text.startswith("bundled:"):
        return text
    if text != "bundled:text":
        raise IsoglossError(f"--text {text}: there is no such bundled text; the one there is bundled:text.")
    folder = package_data() / "text"
    file = folder / f"{language.code}.txt"
    if not file.is_file():
        there = ", ".join(f"{language_name(path.stem)} ({path.stem})" for path in sorted(folder.glob("*.txt")))
        raise IsoglossError(
            f"--text bundled:text: there is none in {language.name} ({language.code}), only in {there or 'no language'}; "
            "give a file of your own."
        )
    return str(file)


def free_output(out: Path, overwrite: bool) -> Path:
    """Returns `--out` if training may write there.

    Raises:
        IsoglossError: It is occupied, or its place cannot be written to.
    """
    from isogloss.training.outputs import claim_output

    target = claim_output(out, overwrite=overwrite)
    place = target.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise IsoglossError(f"--out {out}: '{place}' is a file, so no folder can be made in it; choose another place.")
    if not os.access(place, os.W_OK):
        raise IsoglossError(f"--out {out}: '{place}' cannot be written to; choose another place.")
    return target


def check_device(device: str | None, threads: int | None) -> None:
    """Sets the number of threads and refuses a device that is not there.

    Raises:
        IsoglossError: The device is unknown or absent.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if device is None:
        return
    try:
        torch.empty(0, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as problem:
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        raise IsoglossError(f"--device {device}: there is no such device here; use {' or '.join(there)}.") from problem


def training_device(device: str | None) -> str | None:
    """The value of `--device` for training: of several processes of a launcher each takes a GPU of its own.

    Raises:
        IsoglossError: It names one GPU for all of them.
    """
    from isogloss.training._processes import launched, launched_device

    if device == "cpu" or not launched():
        return device
    if device not in (None, "cuda"):
        raise IsoglossError(f"--device {device}: each process of a launcher takes a device of its own; leave it out.")
    return str(launched_device())


def open_backbone(name: str, dtype: str | None, device: str | None) -> "Backbone":
    """Loads the backbone of a command, and says so, as large ones take a while."""
    from isogloss.backbones import load_backbone

    say(f"loading {name} ...")
    return load_backbone(name, dtype=dtype, device=device)


def check_backbone_name(name: str) -> None:
    """Refuses at once a backbone that is plainly not there.

    Raises:
        IsoglossError: An unknown bundled name, or a path that does not exist.
    """
    from isogloss.backbones.bundled import bundled_folder

    if name.startswith("bundled:"):
        bundled_folder(name)
    elif name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise IsoglossError(f"--backbone {name}: there is no such folder; see `isogloss backbones`.")


def language_name(code: str) -> str:
    """English name of a language by its code; the code itself when it is unknown."""
    from isogloss.languages import resolve

    try:
        return resolve(code).name
    except IsoglossError:
        return code


def metric_names(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Every metric of a table of scores, in order of appearance, without the count."""
    return list(dict.fromkeys(name for found in scores.values() for name in found if name != "n"))
