"""Positions that a model computes in one epoch: length buckets, random batches padded to their longest row, padding to 128.

Counts only, nothing is timed. Texts are those of the bundled parallel data set, tokens those of the bundled encoder. A cost
is positions over real tokens: 1 would be no padding at all.
"""

from importlib.resources import files

import numpy as np

from isogloss.backbones.bundled import bundled_folder
from isogloss.bench.result import Options, Result, Table
from isogloss.tasks import available, get_task, read_split
from isogloss.training.buckets import TokenBudgetBatches

FIXED = 128
_BATCH = 32


def lengths_of(split: str) -> dict[str, list[int]]:
    """Language -> tokens of each text, special tokens included."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bundled_folder("bundled:encoder"))
    data = str(files("isogloss") / "data" / "parallel")
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


def measure(options: Options) -> Result:
    """Counts for each language and for all of them mixed."""
    lengths = lengths_of("test")
    every = [length for items in lengths.values() for length in items]
    rows, found = [], {}
    for name, items in (*lengths.items(), ("all mixed", every)):
        costs = found[name] = costs_of(items, _BATCH, options.seed)
        rows.append(
            (
                name,
                str(len(items)),
                f"{np.mean(items):.1f}",
                *(f"{costs[way]:.2f}" for way in ("fixed", "random", "buckets")),
                f"{costs['fixed'] / costs['buckets']:.2f}x",
            )
        )
    columns = ("texts", "count", "tokens", "padded to 128", "random", "buckets", "128 / buckets")
    return Result([Table(f"Positions over real tokens, batch {_BATCH}", columns, rows)], {"cost": found})
