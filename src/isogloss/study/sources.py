"""Where a study's inputs lie, and what they are by content: backbones, text, data sets, ready modules."""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.backbones.bundled import bundled_folder
from isogloss.errors import IsoglossError
from isogloss.languages import Language, fill_pattern, resolve
from isogloss.storage import content_key, file_digest, package_data, read_json
from isogloss.tasks import available, canonical_split

if TYPE_CHECKING:
    from isogloss.training.update import Update

_TEXT_ENDS = (".jsonl.gz", ".jsonl", ".txt.gz", ".txt")
_WHOLE = 64 << 20
_PIECE = 1 << 20
_PIECES = 64
_START = ("init", "text", "source")  # Options of module specs that say how training began, not what was built.
Data = str | Mapping[str, str]


@cache
def digest(path: Path) -> str:
    """Digest of a file; of a very large one, of its size and evenly spaced pieces."""
    size = path.stat().st_size
    if size <= _WHOLE:
        return file_digest(path)
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        for number in range(_PIECES):
            stream.seek(number * (size - _PIECE) // (_PIECES - 1))
            found.update(stream.read(_PIECE))
    return found.hexdigest()


@cache
def backbone_identity(name: str) -> str:
    """Content key of a backbone: of its files, or of its id (and cached revision) on the Hub."""
    place = _backbone_folder(name)
    if place is None:
        return content_key({"hub": name})[:16]
    kept = sorted(
        item
        for item in place.iterdir()
        if item.suffix in (".json", ".safetensors", ".model", ".txt", ".bin") and item.is_file()
    )
    return content_key({item.name: _told_by(item) for item in kept})[:16]


def _told_by(item: Path) -> str:
    """Digest of a backbone's file; what its card says beside how it was made changes no result, so it is left out."""
    if item.name != "isogloss.json":
        return digest(item)
    card = read_json(item)
    for name in ("scores", "notes"):
        card.pop(name, None)
    # As `write_json` writes it, so that a card that never had them keeps its digest.
    text = json.dumps(card, ensure_ascii=False, indent=2) + "\n"
    return hashlib.sha256(text.encode()).hexdigest()


def _backbone_folder(name: str) -> Path | None:
    if name.startswith("bundled:"):
        return Path(bundled_folder(name))
    place = Path(name).expanduser()
    if place.is_dir():
        return place
    if name.startswith((".", "/", "~")):
        raise IsoglossError(f"The backbone '{name}' does not exist; name a folder, a Hub id or bundled:encoder.")
    return None


@cache
def backbone_kind(name: str) -> str | None:
    """`encoder`, `decoder` or `encoder-decoder`; None when that cannot be told without the network."""
    from isogloss.backbones.families import family_of

    place = _backbone_folder(name)
    if place is None or not (place / "config.json").is_file():
        return None
    family = family_of(str(read_json(place / "config.json").get("model_type")))
    return family.kind if family else None


def backbone_is_here(name: str) -> bool:
    """Whether a backbone can be loaded without the network."""
    from huggingface_hub import try_to_load_from_cache

    if _backbone_folder(name) is not None:
        return True
    return can_be_backbone(name) and isinstance(try_to_load_from_cache(name, "config.json"), str)


def can_be_backbone(name: str) -> bool:
    """Whether a name is that of a folder or may be a Hub id, which has an owner and a name and no more."""
    return _backbone_folder(name) is not None or name.count("/") < 2


def lacks_model(name: str) -> bool:
    """Whether a name is that of a folder which holds no model."""
    place = _backbone_folder(name)
    return place is not None and not (place / "config.json").is_file()


def backbone_card(name: str) -> dict[str, Any]:
    """What a backbone of ours says about itself; nothing for others."""
    place = _backbone_folder(name)
    if place is None or not (place / "isogloss.json").is_file():
        return {}
    found: dict[str, Any] = read_json(place / "isogloss.json")
    return found


def text_of(language: Language, folders: Sequence[str]) -> str | None:
    """The text of a language: a file, or `hub:ID...`; None where no folder has one."""
    for name in folders:
        if "{" in name:
            filled = fill_pattern(name, language)
            if filled.startswith("hub:") or Path(filled).is_file():
                return filled
            continue
        found = _texts(name).get(language.code)
        if found is not None:
            return str(found)
    return None


@cache
def _texts(name: str) -> dict[str, Path]:
    folder = package_data() / "text" if name == "bundled:text" else Path(name).expanduser()
    if not folder.is_dir():
        raise IsoglossError(
            f"the folder '{name}' does not exist; name a folder with <language>.txt or .jsonl[.gz], "
            "bundled:text, or set the variable in it (ISOGLOSS_SHARED)."
        )
    found: dict[str, Path] = {}
    for item in sorted(folder.iterdir()):
        end = next((end for end in _TEXT_ENDS if item.name.endswith(end)), None)
        if end is None:
            continue
        try:
            code = resolve(item.name.removesuffix(end)).code
        except IsoglossError:
            continue  # README.txt and the like
        found.setdefault(code, item)
    return found


def text_identity(text: str) -> str:
    """Content key of a text."""
    if text.startswith("hub:"):
        return content_key({"hub": text})[:16]
    return digest(Path(text))[:16]


def data_for(data: Data, code: str) -> str:
    """The data set of a language, where one task takes each language from another."""
    if isinstance(data, str):
        return data
    for name, value in data.items():
        if name != "default" and resolve(name).code == code:
            return value
    if "default" not in data:
        raise IsoglossError(f"no data set is named for {code}, and there is no `default` among {', '.join(data)}.")
    return data["default"]


@cache
def languages_in(data: str) -> dict[str, str]:
    """Languages of a data set: code to folder."""
    return available(data)


def data_is_here(data: str) -> bool:
    """Whether a data set can be looked at without the network."""
    return data == "bundled:parallel" or Path(data).expanduser().is_dir()


def unseen_identity(data: str, code: str, split: str) -> str:
    """Content key of one split of one language of a data set that is known by name only."""
    return content_key({"hub": data, "language": code, "split": split})[:16]


@cache
def data_identity(data: str, code: str, split: str) -> str | None:
    """Content key of one split of one language; None when it is not there."""
    folders = languages_in(data)
    if code not in folders:
        return None
    root = package_data() / "parallel" if data == "bundled:parallel" else Path(data).expanduser()
    if not root.is_dir():
        return unseen_identity(data, code, split)
    found = _split_file(data, code, split)
    return digest(found)[:16] if found else None


def row_count(data: str, code: str, split: str) -> int:
    """Rows of one split, roughly; 0 where that cannot be told without the network."""
    found = _split_file(data, code, split)
    if found is None:
        return 0
    opener = gzip.open if found.suffix == ".gz" else open
    with opener(found, "rb") as stream:
        if any(end in found.name for end in (".conll", ".iob2")):
            # Sentences end with blank lines.
            return sum(not line.strip() for line in stream)
        lines = sum(1 for _ in stream)
    return lines - 1 if any(end in found.name for end in (".tsv", ".csv")) else lines


def _split_file(data: str, code: str, split: str) -> Path | None:
    root = package_data() / "parallel" if data == "bundled:parallel" else Path(data).expanduser()
    folder = root / languages_in(data)[code]
    for item in sorted(folder.iterdir()) if folder.is_dir() else []:
        if canonical_split(item.name.split(".")[0]) == canonical_split(split):
            return item
    return None


@cache
def module_digest(folder: str) -> str:
    """Digest of a saved module's tensors."""
    from isogloss.formats import read_info

    return read_info(Path(folder).expanduser()).digest[:16]


@cache
def update_identity(text: str) -> str | None:
    """`saved:` and the content key of a saved update rule or learned start; None for a control, which is no more than its words."""
    from isogloss.meta import open_update
    from isogloss.meta.applied import ControlUpdate

    found = open_update(text)
    return None if isinstance(found, ControlUpdate) else saved_identity(found)


def saved_identity(update: "Update") -> str:
    """Identity of a saved rule or start as it stands on the disk now."""
    return f"saved:{content_key(dict(update.facts))[:16]}"


@cache
def update_seen(text: str) -> list[str]:
    """Languages whose labels took part in learning a saved rule or start; none for a control."""
    from isogloss.meta import open_update

    return list(open_update(text).seen)


@cache
def ready_module(folder: str, backbone: str, spec: str, code: str) -> tuple[str, str] | None:
    """A module that exists already: its folder and the digest of its tensors; None where there is none of this spec.

    A bare method takes any module of it. How a module started counts only where the spec says how.
    """
    from isogloss.formats import read_info
    from isogloss.modules import parse_module

    root = package_data() / "modules" if folder == "bundled:modules" else Path(folder).expanduser()
    if not root.is_dir():
        raise IsoglossError(f"the folder '{folder}' does not exist; name a folder with modules, or bundled:modules.")
    config = parse_module(spec)
    usual = {item.name: item.default for item in fields(config)}
    places = [root / str(backbone_kind(backbone)) / config.method / code, root / config.method / code, root / code]
    for place in places:
        if not (place / "module.json").is_file():
            continue
        saved = read_info(place)
        if saved.method != config.method:
            continue
        wanted = {item.name: getattr(config, item.name) for item in fields(config)}
        unsaid = {name for name in _START if name in wanted and wanted[name] == usual[name]}
        if spec == saved.method or all(
            name in unsaid or getattr(saved.config, name) == value for name, value in wanted.items()
        ):
            return str(place), saved.digest
    return None


def clear() -> None:
    """Forgets everything that was looked up: files may have changed."""
    for looked_up in (
        digest,
        backbone_identity,
        backbone_kind,
        _texts,
        languages_in,
        data_identity,
        module_digest,
        ready_module,
        update_identity,
        update_seen,
    ):
        looked_up.cache_clear()


def facts(value: Any) -> Any:
    """A value as JSON holds it, without what is None: a spec that does not say something equals one that says nothing."""
    if isinstance(value, Mapping):
        return {str(key): facts(item) for key, item in value.items() if item is not None}
    return [facts(item) for item in value] if isinstance(value, list | tuple) else value
