"""What share of the machine's bf16 matrix rate pre-training turns into useful arithmetic (issue 3: at least 50 %).

    python benchmarks/pretrain_throughput.py [--rounds 3] [--threads 1] [--width 384] [--layers 6]

Each round measures two things one after the other: products of bf16 matrices, and `isogloss pretrain` itself (masked LM, packed
rows, bf16, the project's glossary as text). Useful are, for a token, six operations a weight of its layers and twelve times width
and row length a layer for attention; for a scored position, six a weight of the vocabulary matrix. Everything else (norms,
softmax, optimiser, reading and masking of text) counts as time and not as arithmetic.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _timing import arguments, write_json

from isogloss.cli._console import print_table
from isogloss.training.pretrain import pretrain
from isogloss.training.recipe import Recipe

_ROOT = Path(__file__).resolve().parent.parent
_LENGTH = 128
_RATE = 0.15


def matrix_rate(rows: int, width: int, seconds: float) -> float:
    """Operations per second of a bf16 product [rows, width] x [width, 4 width]."""
    left, right = torch.randn(rows, width).bfloat16(), torch.randn(4 * width, width).bfloat16()
    for _ in range(3):
        torch.nn.functional.linear(left, right)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        torch.nn.functional.linear(left, right)
        count += 1
    return 2 * rows * width * 4 * width * count / (time.perf_counter() - began)


def recipe(options: Any) -> Recipe:
    """Masked LM on the glossary, all rows full."""
    glossary = str(_ROOT / "data" / "glossary")
    languages = sorted(path.stem for path in Path(glossary).glob("*.jsonl"))
    return Recipe.model_validate(
        {
            "name": "throughput",
            "kind": "encoder",
            "languages": languages,
            "text": [glossary],
            "tokenizer": {"vocabulary": options.vocabulary},
            "model": {
                "hidden": options.width,
                "layers": options.layers,
                "heads": options.width // 64 or 1,
                "ffn": options.width * 8 // 3 // 64 * 64 or 64,
                "max_length": _LENGTH,
            },
            "objectives": [{"name": "masked", "weight": 1.0, "rate": _RATE}],
            "stages": [{"steps": options.steps, "length": _LENGTH, "batch": options.batch}],
            "learning_rate": 1e-4,
            "seed": options.seed,
        }
    )


def useful(facts: dict[str, Any], width: int, layers: int, ffn: int) -> float:
    """Operations of the model's matrices for the tokens of a run."""
    body = layers * (4 * width * width + 3 * width * ffn)
    per_token = 6 * body + 12 * layers * _LENGTH * width + _RATE * 6 * width * facts["vocabulary"]
    return float(per_token * facts["tokens_seen"])


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32, help=f"rows of {_LENGTH} tokens")
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    options = parser.parse_args()
    if options.tiny:
        options.width, options.layers, options.steps, options.vocabulary = 64, 2, 2, 600
    torch.set_num_threads(options.threads)
    made = recipe(options)
    rates, speeds, shares = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.rounds):
            rate = matrix_rate(options.batch * _LENGTH, options.width, 0.2 if options.tiny else 2.0)
            facts = pretrain(made, Path(folder) / str(turn), cache_dir=Path(folder) / "cache")
            done = useful(facts, options.width, options.layers, made.model.ffn) / facts["seconds"]
            rates.append(rate / 1e9)
            speeds.append(facts["tokens_seen"] / facts["seconds"])
            shares.append(100 * done / rate)
    rows = [
        (name, f"{statistics.median(values):,.0f}", f"{min(values):,.0f} - {max(values):,.0f}")
        for name, values in (
            ("bf16 products, GFLOP/s", rates),
            ("pre-training, tokens/s", speeds),
            ("useful share, %", shares),
        )
    ]
    print_table(
        ("", "median", "range"), rows, title=f"{options.layers} layers of {options.width}", right=(1, 2), keep=(0,)
    )
    write_json(options.json, {"gflops": rates, "tokens_per_second": speeds, "share": shares})


if __name__ == "__main__":
    main()
