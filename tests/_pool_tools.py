"""A tiny multilingual world for pools: text in three languages whose words differ, and recipes to pre-train on it."""

import json
import random
from pathlib import Path
from typing import Any

from isogloss.training.recipe import Recipe

LANGUAGES = ("eng_Latn", "deu_Latn", "ces_Latn")


def write_world(folder: Path) -> Path:
    """`text/<language>.txt` and `parallel/<language>.jsonl` below `folder`."""
    draw = random.Random(0)
    (folder / "text").mkdir(parents=True)
    (folder / "parallel").mkdir()
    for number, code in enumerate(LANGUAGES):
        words = ["".join(draw.choices(("abcdefgh", "ijklmnop", "qrstuvwx")[number], k=4)) for _ in range(40)]
        lines = [" ".join(draw.choices(words, k=12)) for _ in range(80)]
        (folder / "text" / f"{code}.txt").write_text("\n\n".join(lines), encoding="utf-8")
        rows = [json.dumps({"key": str(key), "text": line}) for key, line in enumerate(lines[:30])]
        (folder / "parallel" / f"{code}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def recipe(world: Path, **changes: Any) -> Recipe:
    """A few steps of masked LM, translation LM and contrast on a minimal encoder."""
    values: dict[str, Any] = {
        "name": "tiny",
        "kind": "encoder",
        "languages": list(LANGUAGES),
        "text": [str(world / "text")],
        "parallel": [str(world / "parallel")],
        "tokenizer": {"vocabulary": 500},
        "model": {"hidden": 16, "layers": 1, "heads": 2, "ffn": 32, "max_length": 64},
        "objectives": [
            {"name": "masked", "weight": 0.5},
            {"name": "translation", "weight": 0.25},
            {"name": "contrast", "weight": 0.25},
        ],
        "stages": [{"steps": 6, "length": 24, "batch": 4}],
        "precision": "fp32",
        "validation_documents": 4,
        "pool": "pool:4x2",
        **changes,
    }
    return Recipe(**values)
