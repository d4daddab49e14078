"""Puts a pre-trained backbone into the package, its embeddings packed to 8 bits.

python tools/bundle_backbone.py runs/encoder encoder
python tools/bundle_backbone.py encoder --scores scores.json   # measured afterwards: only the card changes
python tools/bundle_backbone.py encoder --note "What a reader of its losses should know."

Scores are a JSON list of {"task": "SIB-200 topics, English", "metric": "accuracy", "score": 66.2, "command": "isogloss ..."}.
"""

import argparse
import shutil
from pathlib import Path
from typing import Any

from isogloss.backbones import load_backbone
from isogloss.backbones.packed import PACKED, save_packed
from isogloss.backbones.pool_part import save_pool, without_pool
from isogloss.errors import IsoglossError
from isogloss.storage import new_folder, read_json, write_json, write_text
from isogloss.training.pretrain_card import model_card
from isogloss.training.recipe import Recipe

_SCORE = {"task", "metric", "score", "command"}
_BACKBONES = Path(__file__).resolve().parent.parent / "src" / "isogloss" / "data" / "backbones"


def bundle(source: Path, target: Path) -> None:
    """Writes `target` from the folder that `isogloss pretrain` made."""
    backbone = load_backbone(source)
    seen: set[int] = set()
    state = {}
    with without_pool(backbone.model):
        for name, tensor in backbone.model.state_dict().items():
            if tensor.data_ptr() not in seen:  # tied weights have two names
                seen.add(tensor.data_ptr())
                state[name] = tensor
    with new_folder(target, overwrite=True) as folder:
        for path in source.iterdir():
            if path.is_file() and path.suffix != ".safetensors":
                shutil.copy2(path, folder / path.name)
        save_packed(folder, state, backbone.vocabulary_size)
        save_pool(folder, backbone.model)
    packed = load_backbone(target)
    size = (target / PACKED).stat().st_size / 1e6
    print(f"{target}: {size:.1f} MB, fingerprint {packed.fingerprint} (unpacked: {backbone.fingerprint})")


def read_scores(path: Path) -> list[dict[str, Any]]:
    """The scores of a JSON file.

    Raises:
        IsoglossError: It is no list of such entries.
    """
    found = read_json(path)
    rows = found if isinstance(found, list) else [None]
    for row in rows:
        if not isinstance(row, dict) or set(row) != _SCORE or not isinstance(row["score"], int | float):
            raise IsoglossError(f"'{path}': expected a list of entries with {', '.join(sorted(_SCORE))}, not {found}.")
    return rows


def change_card(folder: Path, **changed: Any) -> None:
    """Puts facts (`scores`, `notes`) into the `isogloss.json` and the card of a backbone, in place of earlier ones."""
    facts = {**read_json(folder / "isogloss.json"), **changed}
    write_text(folder / "README.md", model_card(Recipe(**facts["recipe"]), facts))
    write_json(folder / "isogloss.json", facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source", type=Path, nargs="?", help="folder that isogloss pretrain wrote; none: keep what is bundled"
    )
    parser.add_argument("name", choices=("encoder", "encoder-pool", "decoder", "encoder-decoder"))
    parser.add_argument("--scores", type=Path, metavar="FILE.json", help="what it reaches, for its card")
    parser.add_argument("--note", action="append", metavar="TEXT", help="a sentence for its card; may be repeated")
    arguments = parser.parse_args()
    if arguments.source is None and arguments.scores is None and arguments.note is None:
        parser.error("give a source, --scores or --note")
    try:
        changed: dict[str, Any] = {} if arguments.scores is None else {"scores": read_scores(arguments.scores)}
        if arguments.note is not None:
            changed["notes"] = arguments.note
        if arguments.source is not None:
            bundle(arguments.source, _BACKBONES / arguments.name)
        if changed:
            change_card(_BACKBONES / arguments.name, **changed)
    except IsoglossError as problem:
        parser.error(str(problem))


if __name__ == "__main__":
    main()
