"""Studies: a grid in one file, a plan of steps, a store that survives, workers that fill it."""

import importlib
from typing import Any

# Loaded on first use: the status of a study must not wait for torch.
_WHERE = {
    "LocalEngine": "engine",
    "Plan": "steps",
    "Step": "steps",
    "Store": "store",
    "Study": "spec",
    "make_plan": "plan",
    "rank_sources": "rank",
    "read_status": "status",
    "read_study": "reading",
    "run_plan": "runner",
}

__all__ = [*_WHERE]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'isogloss.study' has no attribute '{name}'")
    return getattr(importlib.import_module(f"isogloss.study.{_WHERE[name]}"), name)
