"""Atomic folders and files, content keys, safetensors: nothing half-written, nothing unpickled."""

from isogloss.storage.atomic import new_folder, read_json, write_json, write_text
from isogloss.storage.keys import content_key, file_digest
from isogloss.storage.tensors import load_tensors, save_tensors

__all__ = [
    "content_key",
    "file_digest",
    "load_tensors",
    "new_folder",
    "read_json",
    "save_tensors",
    "write_json",
    "write_text",
]
