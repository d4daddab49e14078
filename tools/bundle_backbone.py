"""Puts a pre-trained backbone into the package, its embeddings packed to 8 bits.

python tools/bundle_backbone.py runs/encoder encoder
"""

import argparse
import shutil
from pathlib import Path

from isogloss.backbones import load_backbone
from isogloss.backbones.packed import PACKED, save_packed
from isogloss.backbones.pool_part import save_pool, without_pool
from isogloss.storage import new_folder

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder that isogloss pretrain wrote")
    parser.add_argument("name", choices=("encoder", "decoder", "encoder-decoder"))
    arguments = parser.parse_args()
    bundle(arguments.source, _BACKBONES / arguments.name)


if __name__ == "__main__":
    main()
