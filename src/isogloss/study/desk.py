"""A worker's desk: what it keeps between jobs, where steps are built, what they read and what is written about them."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module
from isogloss.formats.saved import isogloss_version
from isogloss.modules import TransferModule
from isogloss.storage import write_json, write_text
from isogloss.study.steps import FORMAT, Job, Step
from isogloss.study.store import CURVE, MODULE, RECORD, Store
from isogloss.tasks import Example, Task, get_task, read
from isogloss.training._processes import writes
from isogloss.training.progress import Progress

_READS = 256
_LEAST_DEV = 50


@dataclass
class Outcome:
    """What became of a step: nothing to say when it is finished.

    Attributes:
        key: Its key.
        error: Why it failed.
        again: Whether another try may help.
        seconds: How long the job took, shared among its steps.
    """

    key: str
    error: str = ""
    again: bool = False
    seconds: float = 0.0


@dataclass
class Desk:
    """What a worker keeps from job to job: the store, one backbone, and data that were read lately."""

    store: Store
    tell: Callable[[str], None] = lambda text: None
    name: str = ""
    loaded: Backbone | None = None
    reads: dict[Any, list[Example]] = field(default_factory=dict)

    def backbone(self, name: str) -> Backbone:
        """The backbone; another one than before takes its place."""
        if self.loaded is None or self.name != name:
            self.loaded = None
            self.tell(f"loading {name}")
            self.loaded, self.name = load_backbone(name), name
        return self.loaded

    def let_go(self) -> None:
        """Gives up the backbone: its memory is needed elsewhere."""
        self.loaded, self.name = None, ""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def examples(self, data: str, code: str, split: str, task: Task, limit: int | None, bad_rows: str) -> list[Example]:
        """Labelled rows; read once as long as they are in use."""
        key = (data, code, split, str(task), limit, bad_rows)
        if key not in self.reads:
            while len(self.reads) >= _READS:
                self.reads.pop(next(iter(self.reads)))
            self.reads[key] = read(data, code, split, task, limit=limit, bad_rows=bad_rows).examples  # type: ignore[arg-type]
        return self.reads[key]


Made = list[tuple[Step, Path]]


def write_record(step: Step, job: Job, began: float, out: Path, facts: Mapping[str, Any]) -> None:
    """Writes what the step says about itself; last, as a folder with it is complete."""
    write_json(
        out / RECORD,
        {
            "format": FORMAT,
            "key": step.key,
            "kind": step.kind,
            "label": step.label,
            "spec": step.spec,
            "needs": list(step.needs),
            **facts,
            "seconds": round(time.monotonic() - began, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": job.options.get("command", ""),
            "commit": job.options.get("commit", ""),
            "isogloss": isogloss_version(),
        },
    )


def room(step: Step, desk: Desk) -> tuple[Path, bool]:
    """The folder in which a step builds, and whether what stands there is complete already."""
    out = desk.store.work(step.key) / "out"
    if (out / RECORD).is_file():
        return out, True
    shutil.rmtree(out, ignore_errors=True)
    # A finished module without its record: what the record says is lost, so it is trained again.
    if any((desk.store.work(step.key) / MODULE / name).is_file() for name in ("module.json", "rule.json")):
        shutil.rmtree(desk.store.work(step.key) / MODULE)
    return out, False


def progress_of(step: Step, desk: Desk) -> Progress:
    """Where a training tells how far it is."""
    return _Told(step.label, desk.tell)


class _Told(Progress):
    """Tells the runner how far a training is, about once a second."""

    def __init__(self, title: str, tell: Callable[[str], None]) -> None:
        super().__init__(title)
        self._tell, self._last = tell, 0.0

    def begin(self, step: int, steps: int) -> None:
        self._steps = steps

    def update(self, step: int, loss: float, tokens: int) -> None:
        if time.monotonic() - self._last >= 1.0:
            self._last = time.monotonic()
            self._tell(f"step {step} of {self._steps}, loss {loss:.3f}")

    def note(self, text: str) -> None:
        """Nothing: nobody watches a worker."""

    def end(self) -> None:
        """Nothing."""


def keep_training(step: Step, job: Job, desk: Desk, out: Path, began: float, made: Mapping[str, Any]) -> None:
    """Gathers what a training made: its module, its curve, its record; of several processes the main one does."""
    if not writes():
        return
    out.mkdir(parents=True, exist_ok=True)
    (desk.store.work(step.key) / MODULE).replace(out / MODULE)
    history = made.get("history", [])
    write_text(out / CURVE, _curve(history))
    facts = {key: made[key] for key in ("notation", "steps", "parameters", "metrics") if key in made}
    facts["stored_bytes"] = sum(item.stat().st_size for item in (out / MODULE).glob("*.safetensors"))
    write_record(step, job, began, out, facts)


def _curve(history: Sequence[Mapping[str, float]]) -> str:
    losses = [[entry["step"], round(entry["loss"], 5)] for entry in history if "loss" in entry]
    values = [[entry["step"], round(entry["value"], 5)] for entry in history if "value" in entry]
    return json.dumps({"loss": losses, "dev": values}, separators=(",", ":")) + "\n"


def asked_task(spec: Mapping[str, Any]) -> Task:
    """The task that a spec asks for."""
    task = dict(spec["task"])
    return get_task(task["name"], task.get("fields"), task.get("labels"), task.get("label_map"))


def training_rows(step: Step, desk: Desk) -> tuple[Task, list[Example], list[Example]]:
    """Training and dev rows of a task step; without a dev split the last tenth of each source is held out."""
    spec, inputs = step.spec, step.inputs
    task = asked_task(spec)
    train: list[Example] = []
    dev: list[Example] = []
    for code in spec["train"]:
        where = inputs["data"][code]
        rows = desk.examples(where, code, inputs["train"], task, spec["limit"], spec["bad_rows"])
        if inputs["dev"] is None:
            held = max(_LEAST_DEV, len(rows) // 10) if len(rows) > 2 * _LEAST_DEV else len(rows) // 10
            train += rows[: len(rows) - held]
            dev += rows[len(rows) - held :]
        else:
            train += rows
            dev += desk.examples(where, code, inputs["dev"], task, None, spec["bad_rows"])
    return task, train, dev


def auxiliary_rows(step: Step, desk: Desk, task: Task) -> list[Example]:
    """Rows that the queries of an update rule were drawn from."""
    spec = step.spec
    return [
        row
        for code in spec["auxiliary"]
        for row in desk.examples(
            step.inputs["auxiliary"][code], code, spec["auxiliary_split"], task, spec["limit"], spec["bad_rows"]
        )
    ]


def language_part(key: str, inputs: Mapping[str, Any], desk: Desk, backbone: Backbone) -> TransferModule:
    """A language module: of another step, or one that was there already."""
    folder = inputs["ready"].get(key) or desk.store.place(key) / MODULE
    module = load_module(folder, backbone)
    if key.startswith("ready:") and not module.digest.startswith(key.removeprefix("ready:")):
        raise IsoglossError(
            f"The language module in '{folder}' has changed since the study was planned; plan it again."
        )
    return module


def shared_modules(step: Step, desk: Desk, backbone: Backbone) -> list[TransferModule]:
    """The module that serves every language, if the step has one."""
    return [load_module(step.inputs["pool"], backbone)] if "pool" in step.inputs else []
