"""Modules on disk: our own folders, and the formats of AdapterHub, PEFT and the S1 authors."""

from isogloss.formats.exchange import export_module, import_module
from isogloss.formats.record import SavedModule
from isogloss.formats.saved import list_modules, load_module, read_info, save_module

__all__ = [
    "SavedModule",
    "export_module",
    "import_module",
    "list_modules",
    "load_module",
    "read_info",
    "save_module",
]
