"""Trains the bundled language modules: an adapter and a prompt for every bundled language on every bundled backbone.

Run it after new bundled backbones:  python tools/bundle_modules.py --text ../shared/data/unlabelled
What is there already is kept, so an interrupted run continues.
"""

import argparse
import time
from pathlib import Path

import torch

from isogloss.backbones import load_backbone
from isogloss.backbones.bundled import bundled_names
from isogloss.languages import resolve
from isogloss.modules import parse_module
from isogloss.training.language_stage import LanguageStage, train_language

ROOT = Path(__file__).resolve().parent.parent / "src" / "isogloss" / "data" / "modules"
SPECS = {"adapter": "adapter:8", "prompt": "prompt:20"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, default=Path("../shared/data/unlabelled"))
    parser.add_argument("--kinds", nargs="*", default=[name.removeprefix("bundled:") for name in bundled_names()])
    parser.add_argument("--methods", nargs="*", default=list(SPECS))
    parser.add_argument("--languages", nargs="*", help="default: those of the backbone")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--out", type=Path, default=ROOT)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for kind in options.kinds:
        backbone = load_backbone(f"bundled:{kind}")
        for method in options.methods:
            for name in options.languages or backbone.languages:
                language = resolve(name)
                out = options.out / kind / method / language.code
                if (out / "module.json").is_file():
                    continue
                began = time.time()
                facts = train_language(
                    backbone,
                    language,
                    [options.text / f"{language.code}.jsonl.gz"],
                    parse_module(SPECS[method]),
                    LanguageStage(steps=options.steps, length=96, batch_size=8, limit=4000),
                    out,
                )
                metrics = facts["metrics"]
                print(
                    f"{kind} {method} {language.code}: loss {metrics['loss_without']:.3f} -> {metrics['loss']:.3f}, "
                    f"{time.time() - began:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
