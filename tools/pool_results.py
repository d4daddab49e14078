"""What a prompt pool is worth: backbones pre-trained with and without one on the same data and steps, scored; resumable.

    python tools/pool_results.py run                          # pre-trains and scores what is missing, all arms, seeds 1 2 3
    python tools/pool_results.py run --arms none pool --seeds 1
    python tools/pool_results.py run --ablate --arms --seeds 1 --tasks topic retrieval   # M, length, query, selection; small
    python tools/pool_results.py write                        # docs/results/pool.md from what is there

Backbones go to runs/pool/<arm>-<seed>, each finished score is one JSON file under docs/results/pool/, so a killed run goes on;
what was made with other options is made again.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from isogloss.backbones import load_backbone
from isogloss.formats import load_module
from isogloss.modules import parse_module
from isogloss.storage import read_json, write_json, write_text
from isogloss.tasks import available, check_leaks, get_task, read_split
from isogloss.training.evaluation import evaluate
from isogloss.training.language_groups import group_means, groups
from isogloss.training.pretrain import pretrain
from isogloss.training.progress import Progress
from isogloss.training.recipe import read_recipe
from isogloss.training.retrieval import evaluate_retrieval
from isogloss.training.task_stage import TaskStage, train_task

SHARED = Path(os.environ.get("ISOGLOSS_SHARED", "../shared")) / "data"
RECIPES = Path("recipes/pretrain/pool")
OUT = Path("docs/results/pool")
# Of the fine-tuning and scoring.
SETTINGS = ("epochs", "limit_train", "limit_test")
ARMS = ("none", "pool", "shared", "oracle")
# One choice changed at a time, against 64 prompts of 4, mean query, cosine, soft; at the smallest size, as there are many.
SMALL = {"hidden": 96, "layers": 2, "heads": 3, "ffn": 192}
ABLATIONS = {
    "small none": None,
    "small pool": "pool:64x4",
    "M=8": "pool:8x4",
    "M=256": "pool:256x4",
    "L=1": "pool:64x1",
    "L=16": "pool:64x16",
    "query=max": "pool:64x4,query=max",
    "query=mean-pass": "pool:64x4,query=mean-pass",
    "query=first-pass": "pool:64x4,query=first-pass",
    "similarity=scaled": "pool:64x4,similarity=scaled,temperature=1",
    "top-soft": "pool:64x4,selection=top-soft,top=4",
    "top-hard": "pool:64x1,selection=top-hard,top=4",
    "random": "pool:64x4,selection=random",
    "rate x 20": "pool:64x4",
}
# The pool's learning rate, times that of the weights.
POOL_RATES = {"rate x 20": 20.0}
TASKS: dict[str, dict[str, Any]] = {
    "topic": {"train": ("sib200", "train", "dev"), "test": ("sib200", "test")},
    "pos": {"train": ("ud-pos", "train", "dev"), "test": ("ud-pos", "test")},
    "ner": {"train": ("uner", "train", "dev"), "test": ("uner", "test")},
    "retrieval": {"test": ("tatoeba", "test")},
}
# Scored on SIB-200 and Tatoeba besides the languages of the recipes: none of them was pre-trained on, all scripts were.
UNSEEN = (
    "por_Latn", "ita_Latn", "nld_Latn", "swe_Latn", "dan_Latn", "ron_Latn", "hrv_Latn", "slv_Latn", "bul_Cyrl", "ukr_Cyrl",
    "bel_Cyrl", "mar_Deva", "npi_Deva", "pes_Arab", "urd_Arab", "azj_Latn", "ind_Latn", "zul_Latn",
)  # fmt: skip


def backbone_of(arm: str, seed: int, steps: int | None) -> Path:
    """Pre-trains an arm, or goes on with it, or finds it finished."""
    folder = Path("runs/pool") / f"{in_files(arm)}-{seed}"
    recipe = read_recipe(RECIPES / f"{arm if arm in ARMS else 'pool'}.yaml")
    # Vocabulary and first embeddings are those of one seed, as the arms and seeds do not differ in them.
    changes: dict[str, Any] = {"seed": seed, "text_seed": 1, "name": f"pool-{arm}-{seed}"}
    if arm in ABLATIONS:
        changes |= {"pool": ABLATIONS[arm], "pool_rate": POOL_RATES.get(arm, 1.0)}
        changes["model"] = recipe.model.model_copy(update=SMALL)
    if steps:
        changes["stages"] = [recipe.stages[0].model_copy(update={"steps": steps})]
    recipe = recipe.model_copy(update=changes)
    card, done = folder / "isogloss.json", False
    if card.is_file():
        done = read_json(card)["steps"] == recipe.steps
    if not done:
        pretrain(recipe, folder, overwrite=card.is_file(), checkpoint_seconds=120, progress=Progress(f"{arm} {seed}"))
    return folder


def score(folder: Path, task_name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Scores of one task, language by language, English labels only."""
    # SIB-200's test rows are sorted by class, so they are never cut.
    limit_test = None if task_name == "topic" else options.limit_test
    backbone = load_backbone(folder, dtype="fp32")
    plan = TASKS[task_name]
    data, split = plan["test"]
    data = SHARED / data
    task = get_task(task_name)
    there = available(data)
    wanted = [code for code in (*backbone.languages, *UNSEEN) if code in there]
    if task_name == "retrieval":
        found = evaluate_retrieval(
            backbone, {}, data, [code for code in wanted if code != "eng_Latn"], split=split, limit=limit_test
        )
        return {"metric": "accuracy", "scores": {code: row["accuracy"] for code, row in found["scores"].items()}}
    train_data, train_split, dev_split = plan["train"]
    train = read_split(SHARED / train_data, "eng_Latn", train_split, task)[: options.limit_train]
    dev = read_split(SHARED / train_data, "eng_Latn", dev_split, task)[:500]
    targets = []
    for code in wanted:
        try:
            check_leaks(train, read_split(data, code, split, task))
            targets.append(code)
        except Exception as problem:
            print(f"{task_name}: left out {code}: {problem}", flush=True)
    # Plain fine-tuning with the prompts kept active, as the paper does: backbone and pool learn.
    stage = TaskStage(epochs=options.epochs, batch_size=16, seed=seed, train="all")
    with tempfile.TemporaryDirectory() as scratch:
        module = Path(scratch) / "task"
        train_task(backbone, task, train, dev, parse_module("none"), stage, module, data_name=train_data)
        result = evaluate(backbone, load_module(module, backbone), {}, data, targets, split=split, limit=limit_test)
    primary = task.with_labels_from(train).primary if task.has_labels else task.primary
    return {"metric": primary, "scores": {code: row[primary] for code, row in result["scores"].items()}}


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    arms = [*options.arms, *(ABLATIONS if options.ablate else ())]
    for seed in options.seeds:
        for arm in arms:
            missing = [task for task in options.tasks if not is_done(arm, task, seed, options)]
            if not missing:
                continue
            folder = backbone_of(arm, seed, options.steps)
            card = read_json(folder / "isogloss.json")
            for task in missing:
                began = time.time()
                found = score(folder, task, seed, options)
                facts = {
                    "arm": arm,
                    "task": task,
                    "seed": seed,
                    **found,
                    "pool": card.get("pool", ""),
                    "parameters": card["parameters"],
                    "steps": card["steps"],
                    "tokens_seen": card["tokens_seen"],
                    "languages": card["languages"],
                    "text_tokens": card["text_tokens"],
                    "validation_loss": card["validation_loss"],
                    "seconds": round(time.time() - began, 1),
                    **{name: getattr(options, name) for name in SETTINGS},
                }
                write_json(record(arm, task, seed), facts)
                mean = statistics.mean(value for code, value in found["scores"].items() if code != "eng_Latn")
                print(f"{arm} {task} seed {seed}: zero-shot {mean:.1f}, {time.time() - began:.0f} s", flush=True)


def in_files(arm: str) -> str:
    """How files call an arm."""
    return arm.replace("=", "").replace(" ", "-")


def record(arm: str, task: str, seed: int) -> Path:
    """The file of one score."""
    return OUT / f"{in_files(arm)}-{task}-{seed}.json"


def is_done(arm: str, task: str, seed: int, options: argparse.Namespace) -> bool:
    """Whether a score is there, made with these options."""
    place = record(arm, task, seed)
    if not place.is_file():
        return False
    found = read_json(place)
    steps = options.steps or read_recipe(RECIPES / "pool.yaml").steps
    wanted = {"steps": steps, **{name: getattr(options, name) for name in SETTINGS}}
    return all(found[name] == value for name, value in wanted.items())


def write(options: argparse.Namespace) -> None:
    records = [read_json(path) for path in sorted(OUT.glob("*.json"))]
    lines = [
        "# What a prompt pool is worth",
        "",
        "Written by `python tools/pool_results.py write`. Backbones by `recipes/pretrain/pool/*.yaml`: same data, steps, size; arms differ in the",
        "prompt only. Plain fine-tuning on English, best weights by English dev data; mean ± standard deviation over seeds.",
        "",
    ]
    for task in TASKS:
        for title, arms in (("", ARMS), (", one choice changed at a time, 2 layers of 96", ABLATIONS)):
            part = [item for item in records if item["task"] == task and item["arm"] in arms]
            if part:
                lines += [
                    *table(task + title, part, [arm for arm in arms if any(item["arm"] == arm for item in part)]),
                    "",
                ]
    write_text(OUT.parent / "pool.md", "\n".join(lines))
    print(f"{OUT.parent / 'pool.md'}: {len(records)} scores")


def table(title: str, records: list[dict[str, Any]], arms: list[str]) -> list[str]:
    first = records[0]
    codes = [code for code in first["scores"] if all(code in item["scores"] for item in records)]
    targets = [code for code in codes if code != "eng_Latn"]
    sorted_in = groups(targets, seen=first["languages"], text=first["text_tokens"])
    first_arm = {
        item["seed"]: statistics.mean(item["scores"][code] for code in targets)
        for item in records
        if item["arm"] == arms[0]
    }
    rows: dict[str, dict[str, list[float]]] = {arm: {} for arm in arms}
    for item in records:
        own = rows[item["arm"]]
        scores = {code: item["scores"][code] for code in codes}
        values = {
            **({"English": scores["eng_Latn"]} if "eng_Latn" in scores else {}),
            "zero-shot mean": statistics.mean(scores[code] for code in targets),
            **group_means(scores, sorted_in),
            "validation loss": statistics.mean(item["validation_loss"].values()),
        }
        if (start := first_arm.get(item["seed"])) is not None:
            values[f"zero-shot against {arms[0]}, same seed"] = values["zero-shot mean"] - start
        for name, value in values.items():
            own.setdefault(name, []).append(value)
    names = list(dict.fromkeys(name for own in rows.values() for name in own))
    lines = [
        f"## {title} ({first['metric']})",
        "",
        "    python tools/pool_results.py run "
        + ("--ablate " if arms[0] in ABLATIONS else "")
        + f"--steps {first['steps']} --epochs {first['epochs']:g} --limit-train {first['limit_train']}"
        + (f" --limit-test {first['limit_test']}" if first["limit_test"] else ""),
        "",
        f"{len(targets)} target languages; groups: "
        + "; ".join(f"{name}: {', '.join(members)}" for name, members in sorted_in.items())
        + ".",
        "",
        "| arm | seeds | " + " | ".join(names) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for arm, own in rows.items():
        seeds = max(len(values) for values in own.values())
        cells = [spread(own.get(name, []), 3 if name == "validation loss" else 1) for name in names]
        lines.append(f"| {arm} | {seeds} | " + " | ".join(cells) + " |")
    return lines


def spread(values: list[float], digits: int) -> str:
    if not values:
        return "–"
    own = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{own}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--arms", nargs="*", default=list(ARMS), choices=[*ARMS, *ABLATIONS])
    runner.add_argument("--ablate", action="store_true", help="the ablations besides the arms")
    runner.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    runner.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    runner.add_argument("--steps", type=int, default=None, help="other than the recipes'")
    runner.add_argument("--epochs", type=float, default=10)
    runner.add_argument("--limit-train", type=int, default=3000)
    runner.add_argument("--limit-test", type=int, default=None, help="first rows of a language; not of sorted ones")
    runner.add_argument("--threads", type=int, default=1)
    commands.add_parser("write")
    options = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    {"run": run, "write": write}[options.command](options)


if __name__ == "__main__":
    main()
