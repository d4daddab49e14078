"""Atomic folders and files, content keys, safetensors: nothing half-written, nothing unpickled."""

from typing import TYPE_CHECKING, Any

from isogloss.storage.atomic import new_folder, read_json, write_json, write_text
from isogloss.storage.keys import content_key, file_digest
from isogloss.storage.package import package_data

if TYPE_CHECKING:
    from isogloss.storage.tensors import load_tensors, save_tensors

__all__ = [
    "content_key",
    "file_digest",
    "load_tensors",
    "new_folder",
    "package_data",
    "read_json",
    "save_tensors",
    "write_json",
    "write_text",
]


def __getattr__(name: str) -> Any:
    # Tensors bring torch along; the status of a study, asked every few seconds, must not wait for that.
    if name in ("load_tensors", "save_tensors"):
        from isogloss.storage import tensors

        return getattr(tensors, name)
    raise AttributeError(f"module 'isogloss.storage' has no attribute '{name}'")
