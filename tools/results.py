"""The results of docs/results.md: transfer tables on the shared data with the bundled backbones, several seeds, resumable.

    python tools/results.py run --kind encoder --task topic            # trains and scores what is missing
    python tools/results.py write                                      # docs/results.md from what is there

Each finished piece is one JSON file under docs/results/, so a killed run continues.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from isogloss.backbones import load_backbone
from isogloss.formats import load_module
from isogloss.languages import resolve
from isogloss.modules import TransferModule, parse_module
from isogloss.storage import read_json, write_json, write_text
from isogloss.tasks import available, check_leaks, get_task, read_split
from isogloss.training.evaluation import evaluate
from isogloss.training.task_stage import TaskStage, train_task

SHARED = Path(os.environ.get("ISOGLOSS_SHARED", "../shared")) / "data"
OUT = Path("docs/results")
MODULES = Path("src/isogloss/data/modules")
# Language part -> method; task part -> spec. The seven cells of S1 (papers.md 1.1), "full" and "head" as baselines.
CELLS: dict[str, tuple[str | None, str]] = {
    "head": (None, "none"),
    "TA": (None, "adapter:8"),
    "TP": (None, "prompt:20"),
    "LA+TA": ("adapter", "adapter:8"),
    "LA+TP": ("adapter", "prompt:20"),
    "LP+TA": ("prompt", "adapter:8"),
    "LP+TP": ("prompt", "prompt:20"),
    "full": (None, "none"),
}
# Which data each task trains on and is tested on: (data set, training language, training split, test split).
TASKS: dict[str, dict[str, Any]] = {
    "topic": {"task": "topic", "train": ("sib200", "eng_Latn", "train"), "dev": "dev", "tests": [("sib200", "test")]},
    "pos": {"task": "pos", "train": ("ud-pos", "en_ewt", "train"), "dev": "dev", "tests": [("ud-pos", "test")]},
    "ner": {"task": "ner", "train": ("uner", "en_ewt", "train"), "dev": "dev", "tests": [("uner", "test")]},
    "nli": {"task": "nli", "train": ("xnli", "en", "dev"), "dev": None, "tests": [("xnli", "test")]},
    "qa": {"task": "qa", "train": ("tydiqa-goldp", "en", "train"), "dev": None, "tests": [("xquad", "test")]},
}


def language_modules(kind: str, method: str, backbone: Any, root: Path) -> dict[str, TransferModule]:
    """Bundled language modules, and further ones under `root`."""
    found = {}
    for base in (MODULES / kind / method, root / kind / method):
        for folder in sorted(base.glob("*/module.json")) if base.is_dir() else []:
            module = load_module(folder.parent, backbone)
            found[str(module.info.language)] = module
    return found


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    backbone = load_backbone(f"bundled:{options.kind}")
    plan = TASKS[options.task]
    data, source, split = plan["train"]
    source_code = resolve(source).code
    task = get_task(plan["task"])
    train = read_split(SHARED / data, source_code, split, task)[: options.limit_train]
    dev = read_split(SHARED / data, source_code, plan["dev"], task) if plan["dev"] else []
    if not dev:
        # No development split of its own: the last tenth of the training rows, by source text order.
        cut = len(train) - max(50, len(train) // 10)
        train, dev = train[:cut], train[cut:]
    extra = Path(options.modules)
    parts = {method: language_modules(options.kind, method, backbone, extra) for method in ("adapter", "prompt")}
    # The same targets for every cell: the bundled languages, and those that have further modules of both methods.
    further = {
        method: {path.parent.name for path in (extra / options.kind / method).glob("*/module.json")} for method in parts
    }
    covered = set(backbone.languages) | (further["adapter"] & further["prompt"])
    for cell in options.cells:
        for seed in options.seeds:
            target = OUT / f"{options.task}-{options.kind}-{cell.replace('+', '_')}-{seed}.json"
            if target.is_file():
                continue
            if cell == "base" or (cell == "head" and options.kind == "decoder"):
                continue
            method, spec = CELLS[cell]
            modules = parts[method] if method else {}
            full = cell == "full"
            stage = TaskStage(
                epochs=options.epochs,
                batch_size=16,
                seed=seed,
                train="all" if full else "modules",
                head=options.head or None,
            )
            began = time.time()
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "task"
                facts = train_task(
                    backbone,
                    task,
                    train,
                    dev,
                    parse_module(spec),
                    stage,
                    folder,
                    language_modules=[modules[source_code]] if modules else [],
                    data_name=data,
                )
                # Unfrozen training changed the backbone in place: the saved weights are laid over a fresh one.
                if full:
                    backbone = load_backbone(f"bundled:{options.kind}")
                task_module = load_module(folder, backbone)
                scores: dict[str, Any] = {}
                for test_data, test_split in plan["tests"]:
                    there = available(SHARED / test_data)
                    targets = [code for code in there if code in covered or code == source_code]
                    for code in list(targets):
                        try:
                            check_leaks(train, read_split(SHARED / test_data, code, test_split, task))
                        except Exception as problem:
                            print(f"left out {code}: {problem}", flush=True)
                            targets.remove(code)
                    found = evaluate(
                        backbone,
                        task_module,
                        modules,
                        SHARED / test_data,
                        targets,
                        split=test_split,
                        limit=options.limit_test,
                    )
                    scores[test_data] = found
            write_json(
                target,
                {
                    "task": options.task,
                    "kind": options.kind,
                    "cell": cell,
                    "seed": seed,
                    "fingerprint": backbone.fingerprint,
                    "train": [data, source_code, split, len(train)],
                    "epochs": options.epochs,
                    "dev": facts["metrics"],
                    "parameters": facts["parameters"],
                    "seconds": round(time.time() - began, 1),
                    "scores": scores,
                    "command": f"python tools/results.py run --kind {options.kind} --task {options.task} --cells {cell} --seeds {seed} --epochs {options.epochs:g}",
                },
            )
            means = {name: round(next(iter(found["mean"].values())), 1) for name, found in scores.items()}
            print(
                f"{options.task} {options.kind} {cell} seed {seed}: zero-shot {means}, {time.time() - began:.0f} s",
                flush=True,
            )


def spread(values: Iterable[float]) -> str:
    found = list(values)
    return f"{statistics.mean(found):.1f}" + (f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else "")


def write(options: argparse.Namespace) -> None:
    records = [read_json(path) for path in sorted(OUT.glob("*.json"))]
    lines = []
    for kind in ("encoder", "decoder", "encoder-decoder"):
        for task in TASKS:
            part = [record for record in records if record["kind"] == kind and record["task"] == task]
            if part:
                lines += [*table(kind, task, part), ""]
    write_text(OUT / "tables.md", "\n".join(lines) + "\n")
    print(f"{OUT / 'tables.md'}: {len(records)} runs")


def table(kind: str, task: str, records: list[dict[str, Any]]) -> list[str]:
    cells = [cell for cell in CELLS if any(record["cell"] == cell for record in records)]
    lines = [f"## {task}, bundled:{kind}", ""]
    first = records[0]
    for data, found in first["scores"].items():
        metric = next(iter(found["mean"]))
        codes = list(found["scores"])
        seeds = sorted({record["seed"] for record in records})
        lines += [
            f"Trained on {first['train'][0]} {first['train'][1]}/{first['train'][2]} ({first['train'][3]} rows, {first['epochs']:g} epochs); "
            f"tested on {data}; {metric}, mean ± standard deviation over seeds {', '.join(map(str, seeds))}. Backbone {first['fingerprint']}.",
            f"Command: `python tools/results.py run --kind {kind} --task {task} --seeds {' '.join(map(str, seeds))} --epochs {first['epochs']:g}`",
            "",
            "| language | n | " + " | ".join(cells) + " |",
            "|---|---|" + "---|" * len(cells),
        ]
        for code in codes:
            row = [
                spread(
                    record["scores"][data]["scores"][code][metric]
                    for record in records
                    if record["cell"] == cell and code in record["scores"][data]["scores"]
                )
                for cell in cells
            ]
            mark = " (source)" if code in found["source"] else ""
            lines.append(
                f"| {resolve(code).name} `{code}`{mark} | {found['scores'][code]['n']} | " + " | ".join(row) + " |"
            )
        means = [
            spread(record["scores"][data]["mean"][metric] for record in records if record["cell"] == cell)
            for cell in cells
        ]
        lines.append("| **mean, zero-shot** | | " + " | ".join(means) + " |")
        runs = [str(sum(record["cell"] == cell for record in records)) for cell in cells]
        lines.append("| runs (seeds) | | " + " | ".join(runs) + " |")
        counts = [str(next(record["parameters"] for record in records if record["cell"] == cell)) for cell in cells]
        lines.append("| trained parameters | | " + " | ".join(counts) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--kind", required=True, choices=["encoder", "decoder", "encoder-decoder"])
    runner.add_argument("--task", required=True, choices=list(TASKS))
    runner.add_argument("--cells", nargs="*", default=list(CELLS))
    runner.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    runner.add_argument("--epochs", type=float, default=10)
    runner.add_argument("--head", default="")
    runner.add_argument("--modules", default="runs/modules", help="further language modules, KIND/METHOD/LANGUAGE")
    runner.add_argument("--limit-train", type=int, default=None)
    runner.add_argument("--limit-test", type=int, default=None)
    runner.add_argument("--threads", type=int, default=1)
    commands.add_parser("write")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    {"run": run, "write": write}[options.command](options)


if __name__ == "__main__":
    main()
