"""isogloss: carry a task from the languages that have labels to the languages that do not."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Loaded on first use: `import isogloss` and the command line's help stay fast.
_WHERE = {
    "Backbone": "isogloss.backbones",
    "load_backbone": "isogloss.backbones",
    "Bank": "isogloss.stack",
    "Stack": "isogloss.stack",
    "TextBatch": "isogloss.stack",
    "create_module": "isogloss.modules",
    "parse_module": "isogloss.modules",
    "load_module": "isogloss.formats",
    "save_module": "isogloss.formats",
    "import_module": "isogloss.formats",
    "export_module": "isogloss.formats",
    "IsoglossError": "isogloss.errors",
}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'isogloss' has no attribute '{name}'")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
