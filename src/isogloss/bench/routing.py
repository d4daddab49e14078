"""Scoring sentences of 16 languages, each with its own language module and one task module: mixed or one by one.

mixed        One stack with a bank of 16 modules; batches hold any languages, sorted by length.
one by one   A stack for each language in the same process; batches hold one language.
processes    What the S1 scripts do: a process for each language, each loading the backbone. An estimate: the processor seconds of one
             process that imports isogloss and loads the backbone from disk, times 16, plus `one by one`.

Adapters: 12 blocks of XLM-R base's shape, `adapter:2` as language and `adapter:16` as task module. Prompts: 6 blocks of
XGLM-564M's shape, `prompt:50` as language and `prompt:10` as task module. Random weights, and a small vocabulary, as
only the seven label words are scored. The scores of both ways are compared before anything is timed.
"""

import os
import subprocess
import sys
import tempfile
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.bench.result import Options, Result
from isogloss.bench.shapes import as_backbone, padded, sentences, xglm, xlmr
from isogloss.bench.timing import claims, interleaved, result_of, timed
from isogloss.errors import IsoglossError
from isogloss.modules import TransferModule, create_module, parse_module
from isogloss.stack import Bank, Stack, TextBatch

LANGUAGES = 16
BATCH = 16
LABEL_WORDS = torch.arange(10, 17)
VOCABULARY = 32000
_ROWS = (1, 8)


def build(kind: str, options: Options) -> tuple[Backbone, list[TransferModule], TransferModule]:
    """A backbone, 16 language modules and a task module."""
    size = {} if options.quick else {"vocab_size": VOCABULARY}
    if kind == "adapters":
        model, specs = xlmr(quick=options.quick, seed=options.seed, **size), ("adapter:2", "adapter:16")
    else:
        blocks = {} if options.quick else {"num_layers": 6}
        model = xglm(quick=options.quick, seed=options.seed, **size, **blocks)
        specs = ("prompt:50,init=uniform", "prompt:10,init=uniform")
    backbone = as_backbone(model.eval())
    modules = [create_module(parse_module(specs[0]), backbone, seed=number) for number in range(LANGUAGES)]
    for number, module in enumerate(modules):
        module.info.role, module.info.language = "language", f"l{number}"
    task = create_module(parse_module(specs[1]), backbone, seed=99)
    for module in (*modules, task):
        module.requires_grad_(False)
    return backbone, modules, task


@torch.no_grad()
def scores(stack: Stack, texts: list[list[int]], route: list[int] | None) -> Tensor:
    """Logits of the label words [n, 7], in the order of the texts; batches are sorted by length."""
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found = torch.empty(len(texts), len(LABEL_WORDS))
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        ids, mask = padded([texts[number] for number in some])
        routes = None if route is None else {"language": torch.tensor([route[number] for number in some])}
        output = stack.run(TextBatch(ids, mask, routes=routes))
        found[some] = stack.label_logits(output.lm_last, LABEL_WORDS)
    return found


def start_up(model: Any) -> float:
    """Processor seconds of one process that imports isogloss and loads the backbone; the files are in the system's cache."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        code = f"import isogloss.stack; from isogloss.backbones import load_backbone; load_backbone({folder!r})"
        before = os.times()
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system


def measure(options: Options) -> Result:
    """Both kinds of modules, with one sentence a language and with eight."""
    result = Result()
    for kind in ("prompts", "adapters"):
        found, loading = _measure_kind(kind, options)
        result.tables += found.tables
        result.numbers[kind] = found.numbers
        estimates = {
            rows: (LANGUAGES * loading + found.numbers["times"][f"one by one, {rows} each"]["cpu_seconds_per_step"])
            / found.numbers["times"][f"mixed, {rows} each"]["cpu_seconds_per_step"]
            for rows in _ROWS
        }
        found.numbers |= {"start_up": loading, "processes_over_mixed": estimates}
        result.notes.append(
            f"{kind}: one process starts and loads in {loading:.1f} CPU s; estimated processes / mixed: "
            + ", ".join(f"{value:.0f}x with {rows} each" for rows, value in estimates.items())
            + "."
        )
    return result


def _measure_kind(kind: str, options: Options) -> tuple[Result, float]:
    backbone, modules, task = build(kind, options)
    mixed = Stack(backbone, [Bank(modules), task])
    single = [Stack(backbone, [module, task]) for module in modules]
    sides = {}
    generator = torch.Generator().manual_seed(options.seed)
    for rows in _ROWS:
        texts = sentences(rows * LANGUAGES, generator, backbone.vocabulary_size)
        route = [number // rows for number in range(len(texts))]

        def run_mixed(_: int, texts: Any = texts, route: Any = route) -> Tensor:
            return scores(mixed, texts, route)

        def run_single(_: int, texts: Any = texts, rows: int = rows) -> Tensor:
            parts = [texts[number * rows : (number + 1) * rows] for number in range(LANGUAGES)]
            return torch.cat([scores(single[number], part, None) for number, part in enumerate(parts)])

        difference = float((run_mixed(0) - run_single(0)).abs().max())
        if difference > 1e-3:
            raise IsoglossError(f"{kind}: mixed and one by one differ by {difference}, so nothing is compared.")
        sides[f"mixed, {rows} each"] = timed(run_mixed)
        sides[f"one by one, {rows} each"] = timed(run_single)
    series = interleaved(sides, options)
    found = claims(
        series,
        [
            (
                f"one by one / mixed, {rows} each",
                f"one by one, {rows} each",
                f"mixed, {rows} each",
                None,
            )
            for rows in _ROWS
        ],
    )
    title = f"{kind}: all {LANGUAGES} languages (one step = all sentences)"
    return result_of(title, series, found), start_up(backbone.model)
