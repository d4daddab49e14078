"""Positions that a model computes in one epoch: length buckets, random batches padded to their longest row, padding to 128.

Counts only, nothing is timed. Texts are those of the bundled parallel data set, or of `--data` (a folder in any layout that
`isogloss` reads); tokens are those of `--tokenizer`. `cost` is positions over real tokens: 1 would be no padding at all.
"""

from importlib.resources import files
from typing import Any

import numpy as np
from _timing import arguments, machine, write_json
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from isogloss.backbones.bundled import bundled_folder
from isogloss.tasks import available, get_task, read_split
from isogloss.training.buckets import TokenBudgetBatches

FIXED = 128


def lengths_of(data: Any, split: str, tokenizer: Any) -> dict[str, list[int]]:
    """Language -> tokens of each text, special tokens included."""
    task = get_task("topic")
    return {
        language: [
            len(ids)
            for ids in tokenizer([example.text for example in read_split(data, language, split, task)])["input_ids"]
        ]
        for language in sorted(available(data))
    }


def costs_of(lengths: list[int], batch_size: int, seed: int) -> dict[str, float]:
    """Positions over real tokens, by three ways; texts longer than 128 are cut for all of them, as the fixed way does."""
    cut = np.minimum(np.asarray(lengths), FIXED)
    order = np.random.default_rng(seed).permutation(len(cut))
    random = [cut[order[start : start + batch_size]] for start in range(0, len(cut), batch_size)]
    buckets = [cut[batch] for batch in TokenBudgetBatches(cut, batch_size=batch_size, seed=seed).epoch_batches()]
    real = int(cut.sum())
    return {
        "fixed": len(cut) * FIXED / real,
        "random": sum(int(batch.max()) * len(batch) for batch in random) / real,
        "buckets": sum(int(batch.max()) * len(batch) for batch in buckets) / real,
    }


def main() -> None:
    """Reads the options and prints the table."""
    parser = arguments(__doc__ or "")
    parser.add_argument(
        "--tokenizer", default="bundled:encoder", help="bundled name, folder or Hub id (bundled:encoder)"
    )
    parser.add_argument("--data", default=str(files("isogloss") / "data" / "parallel"))
    parser.add_argument("--split", default="test")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(
        bundled_folder(options.tokenizer) if options.tokenizer.startswith("bundled:") else options.tokenizer
    )
    lengths = lengths_of(options.data, options.split, tokenizer)
    table = Table(
        title=f"Positions over real tokens, {options.split} split, batch {options.batch_size}", title_justify="left"
    )
    for column in (
        "texts",
        "count",
        "mean tokens",
        "longest",
        "padded to 128",
        "random batches",
        "buckets",
        "128 / buckets",
    ):
        table.add_column(column, justify="left" if column == "texts" else "right")
    found = {}
    every = [length for items in lengths.values() for length in items]
    for name, items in (*lengths.items(), ("all languages mixed", every)):
        costs = found[name] = costs_of(items, options.batch_size, options.seed)
        table.add_row(
            name,
            str(len(items)),
            f"{np.mean(items):.1f}",
            str(max(items)),
            *(f"{costs[way]:.2f}" for way in ("fixed", "random", "buckets")),
            f"{costs['fixed'] / costs['buckets']:.2f}x",
        )
    Console(width=120).print(f"{machine()}\ntexts {options.data}\ntokenizer {options.tokenizer}")
    Console(width=120).print(table)
    write_json(options.json, {"cost": found})


if __name__ == "__main__":
    main()
