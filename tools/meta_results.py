"""The meta-learning part of docs/results.md: update rules and starts on the shared data, several seeds, resumable.

    python tools/meta_results.py run --task topic                       # learns, trains and scores what is missing
    python tools/meta_results.py run --task topic --fast adapter --methods plain gates
    python tools/meta_results.py write                                  # docs/results/meta/tables.md

Each run is one JSON file under docs/results/meta/ (--out), so a killed run continues; what was made by another command or on
another backbone is made again. All methods of a seed see the same source rows, fine-tune for the same number of steps and are
scored on the same targets; starts go on from plain fine-tuning by further steps. Nothing is chosen on a target, and
auxiliary languages are scored nowhere: how much is frozen is chosen on their dev rows.
"""

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from isogloss.backbones import Backbone, load_backbone
from isogloss.formats import load_module
from isogloss.languages import resolve
from isogloss.meta import STARTS, MetaStage, learn_rule, learn_start, open_update, read_rule
from isogloss.modules import parse_module
from isogloss.storage import read_json, write_json, write_text
from isogloss.tasks import Example, available, check_leaks, get_task, read_split
from isogloss.training.evaluation import evaluate
from isogloss.training.task_stage import TaskStage, train_task

SHARED = Path(os.environ.get("ISOGLOSS_SHARED", "../shared")) / "data"
RULES = ("meta-sgd", "gates", "step-gates", "lstm-gates", "recurrent")
METHODS = ("plain", "freeze", "random", *RULES, "auxiliary", "fomaml", "reptile", "xmaml")
# With a single inner step Reptile would be fine-tuning on the auxiliaries.
REPTILE_STEPS = 3
# What a command says of itself, where it is given.
OPTIONS = (
    "outer_steps", "horizon", "inner_steps", "start_steps", "epochs", "limit_train", "limit_test", "learning_rate", "outer_learning_rate",
)  # fmt: skip
# What moves: the whole backbone, or an adapter under it.
FAST = {"all": ("none", "all"), "adapter": ("adapter:8", "modules")}


@dataclass(frozen=True)
class Plan:
    """Where the rows of one task come from.

    Attributes:
        task: Name of the task.
        data: Data set.
        source: Training language and split.
        auxiliary: Languages of the meta-training and their split.
        dev: Split of the auxiliary languages that chooses how many blocks are frozen; None takes later rows.
        test: Split that is scored.
        limit_train: Rows of the source at most, so that a run takes about a minute.
        limit_test: Rows of a target at most, the first ones; SIB-200's test rows (204) are sorted by class, so never fewer.
        epochs: Of the final fine-tuning.
    """

    task: str
    data: str
    source: tuple[str, str]
    auxiliary: tuple[tuple[str, ...], str]
    dev: str | None
    test: str = "test"
    limit_train: int = 700
    limit_test: int = 400
    epochs: float = 5.0


# XNLI and PAWS-X have no training rows here: their English development rows train, as the auxiliaries' do in X-MAML (papers.md
# 4.4). Rows behind `limit_train` choose how much is frozen, where there is no split of its own for that.
PLANS = {
    "topic": Plan("topic", "sib200", ("eng_Latn", "train"), (("deu_Latn", "hin_Deva"), "train"), "dev"),
    "nli": Plan("nli", "xnli", ("en", "dev"), (("de", "hi"), "dev"), None, limit_train=1600, epochs=3.0),
    "paraphrase": Plan("paraphrase", "pawsx", ("en", "dev"), (("de",), "dev"), None, limit_train=1400, epochs=3.0),
    "pos": Plan(
        "pos", "ud-pos", ("en_ewt", "train"), (("fr_gsd", "te_mtg"), "train"), "dev", limit_train=800, epochs=3.0
    ),
}


@dataclass(frozen=True)
class Rows:
    """What every method of a task is given.

    Attributes:
        train: Source rows.
        auxiliary: Rows of the auxiliary languages.
        dev: Further auxiliary rows, for what is chosen on them (hard freezing).
        targets: Codes that are scored, all of them zero-shot.
    """

    train: list[Example]
    auxiliary: list[Example]
    dev: list[Example]
    targets: list[str]


def rows_of(plan: Plan, covered: Sequence[str]) -> Rows:
    task = get_task(plan.task)
    data = SHARED / plan.data
    train = read_split(data, plan.source[0], plan.source[1], task)[: plan.limit_train]
    helpers, dev = [], []
    for language in plan.auxiliary[0]:
        found = read_split(data, language, plan.auxiliary[1], task)
        helpers += found[: plan.limit_train]
        later = read_split(data, language, plan.dev, task) if plan.dev else found[plan.limit_train :]
        dev += later[:300]
    seen = {example.language for example in (*train, *helpers)}
    targets = [code for code in available(data) if code in covered and code not in seen]
    usable = []
    for code in targets:
        try:
            check_leaks(train, read_split(data, code, plan.test, task))
            check_leaks(helpers, read_split(data, code, plan.test, task))
        except Exception as problem:
            print(f"left out {code}: {problem}", flush=True)
        else:
            usable.append(code)
    return Rows(train, helpers, dev, usable)


class Runner:
    """Learns and fine-tunes one (task, fast weights, seed)."""

    def __init__(
        self, options: argparse.Namespace, plan: Plan, backbone: Backbone, rows: Rows, seed: int, scratch: Path
    ) -> None:
        self.options, self.plan, self.backbone, self.rows = options, plan, backbone, rows
        self.seed, self.scratch, self.mean = seed, scratch, 1.0
        self.task = get_task(plan.task)
        self.spec, self.train_what = FAST[options.fast]
        self.task = self.task.with_labels_from(self.rows.train) if self.task.has_labels else self.task

    def plain(self) -> Path:
        """Plain fine-tuning of this seed, made once: a result, and what starts go on from."""
        folder = self.scratch / "tuned-plain"
        return folder if (folder / "module.json").is_file() else self.tune("plain", None)

    def tune(self, name: str, update: str | None) -> Path:
        folder = self.scratch / f"tuned-{name}"
        stage = TaskStage(
            epochs=self.plan.epochs,
            batch_size=16,
            seed=self.seed,
            select="last",
            train=self.train_what,  # type: ignore[arg-type]
            learning_rate=self.options.learning_rate,
        )
        train_task(
            self.backbone,
            self.task,
            self.rows.train,
            [],
            parse_module(self.spec),
            stage,
            folder,
            data_name=self.plan.data,
            split=self.plan.source[1],
            update=None if update is None else open_update(update),
            overwrite=True,
        )
        return folder

    def learn(self, method: str) -> tuple[Path, dict[str, Any]]:
        folder = self.scratch / f"learned-{method}"
        stage = MetaStage(
            method=method,
            outer_steps=self.options.outer_steps,
            horizon=self.options.horizon,
            inner_steps=self.options.inner_steps,
            batch_size=16,
            train=self.train_what,  # type: ignore[arg-type]
            seed=self.seed,
            learning_rate=None if method in STARTS else self.options.learning_rate,
            outer_learning_rate=None if method in STARTS else self.options.outer_learning_rate,
        )
        more: dict[str, Any] = {}
        if method in STARTS:
            # As many rows as the authors' batch of 32, cut in half; far fewer outer steps than a rule needs.
            steps = REPTILE_STEPS if method == "reptile" else 1
            stage = replace(stage, outer_steps=self.options.start_steps, inner_steps=steps)
            more["start"] = self.plain()
        call = learn_start if method in STARTS else learn_rule
        facts = call(
            self.backbone,
            self.task,
            self.rows.train,
            self.rows.auxiliary,
            parse_module(self.spec),
            stage,
            folder,
            targets=self.rows.targets,
            data_name=self.plan.data,
            split=self.plan.source[1],
            auxiliary_split=self.plan.auxiliary[1],
            overwrite=True,
            **more,
        )
        return folder, facts

    def score(self, folder: Path) -> dict[str, Any]:
        module = load_module(folder, self.backbone)
        found = evaluate(
            self.backbone,
            module,
            {},
            SHARED / self.plan.data,
            self.rows.targets,
            split=self.plan.test,
            limit=self.plan.limit_test,
        )
        assert found["mean_over"] == self.rows.targets, "a language that was seen is among the targets"
        return found

    def dev_score(self, folder: Path) -> float:
        from isogloss.tasks import evaluate_predictions
        from isogloss.training.evaluation import make_predictor

        module = load_module(folder, self.backbone)
        codes = sorted({example.language for example in self.rows.dev})
        predictor = make_predictor(self.backbone, module, {}, codes)
        answers = predictor.predict(self.rows.dev)[0]
        return float(evaluate_predictions(self.task, self.rows.dev, answers)[self.task.primary])

    def prepare(self, method: str) -> None:
        """Makes what a method goes on from, so that its seconds are its own whatever else this call has made."""
        if method in STARTS:
            self.plain()
        elif method == "random":
            self.mean = self.mean_of_learned_gates()

    def result(self, method: str) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if method == "plain":
            folder = self.plain()
        elif method == "freeze":
            tried = {}
            for blocks in self.freezings():
                found = self.tune(f"bottom-{blocks}", f"bottom:{blocks}")
                tried[blocks] = (self.dev_score(found), found)
            best = max(tried, key=lambda blocks: tried[blocks][0])
            folder = tried[best][1]
            facts = {"frozen": best, "dev": {str(blocks): score for blocks, (score, _) in tried.items()}}
        elif method == "random":
            folder = self.tune(method, f"random:{self.mean:.4f}:{self.seed}")
            facts = {"mean": self.mean}
        elif method in STARTS:
            folder, facts = self.learn(method)
        else:
            rule, facts = self.learn(method)
            folder = self.tune(method, str(rule))
            record = read_rule(rule)
            facts["gates_by_part"], facts["groups"] = record.gates, record.groups
            facts["mean_gate"] = record.mean_gate
        facts.pop("rule", None)
        facts.pop("module", None)
        return {"facts": facts, "scores": self.score(folder)}

    def freezings(self) -> list[int]:
        blocks = sum(len(self.backbone.sites.blocks[side]) for side in self.backbone.sites.sides)
        if self.train_what == "modules":
            return list(range(1, blocks))
        return sorted({0, blocks // 4, blocks // 2, 3 * blocks // 4})

    def mean_of_learned_gates(self) -> float:
        """Of the static gates of this seed, which are learned for it if they are not there yet."""
        place = place_of(self.options, "gates", self.seed)
        if is_done(self.options, "gates", self.seed, self.backbone.fingerprint):
            return float(read_json(place)["facts"]["mean_gate"])
        rule, _ = self.learn("gates")
        return read_rule(rule).mean_gate


def place_of(options: argparse.Namespace, method: str, seed: int) -> Path:
    return Path(options.out) / f"{options.task}-{options.fast}-{method}-{seed}.json"


def is_done(options: argparse.Namespace, method: str, seed: int, fingerprint: str) -> bool:
    """Whether a run is there, made by this command on this backbone."""
    place = place_of(options, method, seed)
    if not place.is_file():
        return False
    found = read_json(place)
    return bool(found["command"] == command_of(options, method, seed) and found["fingerprint"] == fingerprint)


def run(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    plan = PLANS[options.task]
    for name in ("limit_train", "limit_test", "epochs"):
        if getattr(options, name) is not None:
            plan = replace(plan, **{name: getattr(options, name)})
    backbone = load_backbone(options.backbone)
    rows = rows_of(plan, backbone.languages)
    for seed in options.seeds:
        missing = [method for method in options.methods if not is_done(options, method, seed, backbone.fingerprint)]
        if not missing:
            continue
        # Random gates need the mean of the learned ones.
        missing.sort(key=lambda method: method == "random")
        with tempfile.TemporaryDirectory() as scratch:
            runner = Runner(options, plan, backbone, rows, seed, Path(scratch))
            for method in missing:
                runner.prepare(method)
                began = time.time()
                found = runner.result(method)
                seconds = round(time.time() - began, 1)
                write_json(
                    place_of(options, method, seed),
                    {
                        "task": options.task,
                        "fast": options.fast,
                        "method": method,
                        "seed": seed,
                        "backbone": options.backbone,
                        "fingerprint": backbone.fingerprint,
                        "data": plan.data,
                        "train": [*plan.source, len(rows.train)],
                        "auxiliary": [list(plan.auxiliary[0]), plan.auxiliary[1], len(rows.auxiliary)],
                        "epochs": plan.epochs,
                        "targets": rows.targets,
                        "seconds": seconds,
                        "command": command_of(options, method, seed),
                        **found,
                    },
                )
                mean = next(iter(found["scores"]["mean"].values()))
                print(
                    f"{options.task} {options.fast} {method} seed {seed}: zero-shot {mean:.1f}, {seconds:.0f} s",
                    flush=True,
                )


def command_of(options: argparse.Namespace, method: str, seed: int) -> str:
    given = {name.replace("_", "-"): getattr(options, name) for name in OPTIONS if getattr(options, name) is not None}
    rest = " ".join(f"--{name} {value:g}" for name, value in given.items())
    return (
        f"python tools/meta_results.py run --task {options.task} --fast {options.fast} --backbone {options.backbone} "
        f"--methods {method} --seeds {seed} {rest}"
    )


def spread(values: Iterable[float]) -> str:
    found = list(values)
    if not found:
        return ""
    return f"{statistics.mean(found):.1f}" + (f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else "")


def write(options: argparse.Namespace) -> None:
    out = Path(options.out)
    # What was run with other options stands in folders of its own.
    folders = [out, *sorted(path for path in out.iterdir() if path.is_dir())]
    lines: list[str] = []
    count = 0
    plain: list[dict[str, Any]] = []
    for folder in folders:
        records = [read_json(path) for path in sorted(folder.glob("*-*.json"))]
        count += len(records)
        plain = [record for record in (*records, *plain) if record["method"] == "plain"]
        for task in PLANS:
            for fast in FAST:
                part = [record for record in records if (record["task"], record["fast"]) == (task, fast)]
                if part:
                    title = "" if folder == out else f" ({folder.name})"
                    lines += [*table(part, plain, title), "", *gates_table(part), ""]
    write_text(out / "tables.md", "\n".join(lines) + "\n")
    print(f"{out / 'tables.md'}: {count} runs")


def table(records: list[dict[str, Any]], plain_runs: list[dict[str, Any]], title: str) -> list[str]:
    first = records[0]
    task, metric = first["task"], next(iter(first["scores"]["mean"]))
    methods = [method for method in METHODS if any(record["method"] == method for record in records)]
    seeds = sorted({record["seed"] for record in records})
    helpers = " and ".join(resolve_name(code, first["data"]) for code in first["auxiliary"][0])
    moved = (
        "the whole backbone" if first["fast"] == "all" else f"an adapter ({FAST['adapter'][0]}) on a frozen backbone"
    )
    stamps = sorted({record["fingerprint"] for record in records})
    rows = max(found["n"] for record in records for found in record["scores"]["scores"].values())
    commands = sorted({re.sub(r"--methods \S+ --seeds \S+ ", "", record["command"]) for record in records})
    lines = [
        f"### {task}, {moved}{title}",
        "",
        f"{first['backbone']} (fingerprint {', '.join(stamps)}); trained on {first['data']} "
        f"{first['train'][0]}/{first['train'][1]} ({first['train'][2]} rows, {first['epochs']:g} epochs); auxiliary {helpers} "
        f"({first['auxiliary'][1]}, {first['auxiliary'][2]} rows); {metric} on the first {rows} test rows "
        f"of a language, mean ± standard deviation over seeds "
        f"{', '.join(map(str, seeds))}; zero-shot languages only.",
        "",
        *(f"    {command}" for command in commands),
        "",
        "| language | " + " | ".join(methods) + " |",
        "|---|" + "---|" * len(methods),
    ]

    def of(method: str) -> list[dict[str, Any]]:
        return [record for record in records if record["method"] == method]

    for code in first["targets"]:
        cells = [
            spread(record["scores"]["scores"][code][metric] for record in of(method) if code in record["targets"])
            for method in methods
        ]
        lines.append(f"| {resolve(code).name} `{code}` | " + " | ".join(cells) + " |")
    means = [spread(record["scores"]["mean"][metric] for record in of(method)) for method in methods]
    lines.append("| **mean** | " + " | ".join(means) + " |")
    alike = ("task", "fast", "train", "epochs", "targets", "fingerprint")
    plain = {
        record["seed"]: record["scores"]["mean"][metric]
        for record in plain_runs
        if all(record[name] == first[name] for name in alike)
    }
    gains = [
        spread(
            record["scores"]["mean"][metric] - plain[record["seed"]] for record in of(method) if record["seed"] in plain
        )
        for method in methods
    ]
    lines.append("| gain over plain, same seed | " + " | ".join(gains) + " |")
    lines.append("| runs | " + " | ".join(str(len(of(method))) for method in methods) + " |")
    lines.append(
        "| seconds a run (starts: after plain) | "
        + " | ".join(spread(record["seconds"] for record in of(method)) for method in methods)
        + " |"
    )
    return lines


def gates_table(records: list[dict[str, Any]]) -> list[str]:
    """Mean learned gates by depth, over seeds."""
    learned = [record for record in records if "gates_by_part" in record["facts"]]
    if not learned:
        return []
    groups = learned[0]["facts"]["groups"]
    methods = [method for method in RULES if any(record["method"] == method for record in learned)]
    lines = [
        "| learned gate (mean over fine-tuning and seeds) | " + " | ".join(methods) + " |",
        "|---|" + "---|" * len(methods),
    ]
    for place, group in enumerate(groups):
        cells = []
        for method in methods:
            values = [
                statistics.mean(row[place] for row in record["facts"]["gates_by_part"])
                for record in learned
                if record["method"] == method
            ]
            cells.append(
                f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")
            )
        lines.append(f"| {group} | " + " | ".join(cells) + " |")
    return lines


def resolve_name(code: str, data: str) -> str:
    codes = {folder: found for found, folder in available(SHARED / data).items()} if (SHARED / data).is_dir() else {}
    return resolve(codes.get(code, code)).name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("--task", required=True, choices=list(PLANS))
    runner.add_argument("--fast", default="all", choices=list(FAST))
    runner.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    runner.add_argument("--seeds", nargs="*", type=int, default=[1, 2, 3])
    runner.add_argument("--backbone", default="bundled:encoder")
    runner.add_argument("--outer-steps", type=int, default=100, help="of rules")
    runner.add_argument("--start-steps", type=int, default=40, help="outer steps of starts")
    runner.add_argument("--horizon", type=int, default=50)
    runner.add_argument("--inner-steps", type=int, default=1)
    runner.add_argument("--epochs", type=float, default=None)
    runner.add_argument(
        "--learning-rate", type=float, default=None, help="of fine-tuning, and of the base step of rules"
    )
    runner.add_argument("--outer-learning-rate", type=float, default=None, help="of rules")
    runner.add_argument("--limit-train", type=int, default=None)
    runner.add_argument("--limit-test", type=int, default=None, help="the first rows; sib200 is sorted by class")
    runner.add_argument("--threads", type=int, default=1)
    writer = commands.add_parser("write")
    for part in (runner, writer):
        part.add_argument("--out", default="docs/results/meta", help="folder of the runs and tables")
    options = parser.parse_args()
    Path(options.out).mkdir(parents=True, exist_ok=True)
    {"run": run, "write": write}[options.command](options)


if __name__ == "__main__":
    main()
