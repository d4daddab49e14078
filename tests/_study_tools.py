"""A study of steps that only write files, so that an engine can be tested without models; and how stores are compared."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.study.steps import Job, Plan, Step, step_key
from isogloss.study.store import Store

REPOSITORY = Path(__file__).resolve().parent.parent


# -- what a worker imports as its executor ---------------------------------------------------------------------------


@dataclass
class Desk:
    store: Store
    tell: Any


@dataclass
class Outcome:
    key: str
    error: str = ""
    again: bool = False
    seconds: float = 0.1


def execute(job: Job, desk: Desk) -> list[Outcome]:
    """Writes what the spec says, and notes in a ledger that it was done."""
    made, found = [], []
    with (desk.store.folder / "pids").open("a") as stream:
        stream.write(f"{os.getpid()}\n")
    for step in job.steps:
        kind = step.spec.get("fail")
        if kind == "user":
            found.append(Outcome(step.key, "The data are bad; mend them."))
            continue
        tries = desk.store.work(step.key) / "tries"
        tries.parent.mkdir(parents=True, exist_ok=True)
        count = len(tries.read_text()) if tries.exists() else 0
        with tries.open("a") as stream:
            stream.write("x")
        if kind == "crash" or (kind == "crash-once" and not count):
            raise RuntimeError("something broke")
        if kind == "die" or (kind == "die-once" and not count):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "full":
            raise OSError(28, "No space left on device")
        below = [json.loads((desk.store.place(need) / "made.json").read_text()) for need in step.needs]
        out = desk.store.work(step.key) / "out"
        out.mkdir(parents=True, exist_ok=True)
        for number in range(3):
            time.sleep(step.spec.get("sleep", 0.0) / 3)
            (out / f"part{number}.txt").write_text(f"{step.key} {number}\n")
        (out / "made.json").write_text(json.dumps({"spec": dict(step.spec), "below": below}))
        record = {"seconds": time.time(), "label": step.label}
        (out / "step.json").write_text(json.dumps(record))
        made.append((step, out))
        found.append(Outcome(step.key))
    with (desk.store.folder / "ledger").open("a") as stream:
        stream.write("".join(f"{step.key}\n" for step, _ in made))
    desk.store.publish(job.group, made)
    return found


# -- plans ---------------------------------------------------------------------------------------------------------------


def make_step(name: str, needs: tuple[str, ...] = (), group: str = "", **spec: Any) -> Step:
    content = {"name": name, "needs": list(needs), **spec}
    key = step_key("task", content)
    return Step(key, "task", name, group or key, needs, content, {"backbone": "none"})


def diamond_plan(width: int = 4, sleep: float = 0.0, **broken: str) -> Plan:
    """Two steps below, `width` above each of them, and a group of scores above every one of those."""
    plan = Plan("diamond", "", options={"retries": 1})
    for name in ("left", "right"):
        bottom = make_step(name, sleep=sleep, **({"fail": broken[name]} if name in broken else {}))
        plan.steps[bottom.key] = bottom
        for number in range(width):
            label = f"{name}{number}"
            middle = make_step(
                label, (bottom.key,), sleep=sleep, **({"fail": broken[label]} if label in broken else {})
            )
            plan.steps[middle.key] = middle
            for score in range(3):
                top = make_step(f"{label}-score{score}", (middle.key,), f"scores-{middle.key}", sleep=sleep / 3)
                plan.steps[top.key] = top
    return plan


# -- stores --------------------------------------------------------------------------------------------------------------

_TIME = re.compile(r'"(seconds|finished|command|commit)": ?("[^"]*"|[\d.e+-]+)')
_CARD = re.compile(r"\| seconds \| [\d.]+ \||\b[\d.,]+ s\b|\b[\d.]+ seconds\b|seconds: [\d.]+")


def contents(store: Store) -> dict[str, bytes]:
    """Every file of the finished steps by its path, without times."""
    found = {}
    root = store.folder / "steps"
    for path in sorted(root.rglob("*")):
        if path.is_dir():
            continue
        raw = path.read_bytes()
        if path.suffix in (".json", ".md"):
            text = _TIME.sub(r'"\1": 0', raw.decode())
            raw = _CARD.sub("TIME", text).encode()
        found[path.relative_to(root).as_posix()] = raw
    return found


RUNNER = """
import sys
from pathlib import Path
from isogloss.study.engine import LocalEngine
from isogloss.study.runner import run_plan
from isogloss.study.steps import Plan
from isogloss.study.store import Store
store = Store(sys.argv[1], create=True, name="test")
engine = LocalEngine(store.folder, logs=store.folder / "runs", execute=sys.argv[3])
result = run_plan(Plan.load(Path(sys.argv[2])), store, engine, workers=int(sys.argv[4]))
print(result.done, result.found, len(result.failed), len(result.blocked))
"""


def start_runner(
    store: Path, plan: Path, workers: int = 2, execute: str = "tests._study_tools"
) -> "subprocess.Popen[str]":
    """A runner as a process of its own."""
    found = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "src")))
    environment = dict(os.environ, PYTHONPATH=found, OMP_NUM_THREADS="1")
    command = [sys.executable, "-c", RUNNER, str(store), str(plan), execute, str(workers)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_runner(process: "subprocess.Popen[str]", seconds: float = 120) -> list[int]:
    """Done, found, failed, blocked."""
    out, err = process.communicate(timeout=seconds)
    if process.returncode:
        raise IsoglossError(err.strip().splitlines()[-1] if err.strip() else f"exit {process.returncode}")
    return [int(item) for item in out.split()]


def worker_pids(runner: int) -> list[int]:
    """Worker processes of a runner, from /proc."""
    found = []
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            fields = (place / "stat").read_text().rsplit(")", 1)[1].split()
            words = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(fields[1]) == runner and b"isogloss.study.worker" in words:
            found.append(int(place.name))
    return found


def read_ledger(store: Path) -> list[str]:
    path = store / "ledger"
    return path.read_text().split() if path.exists() else []


class InlineEngine:
    """Does jobs in this very process, at once."""

    name = "inline"

    def __init__(self, store: Store) -> None:
        from isogloss.study.worker import Worker

        self.worker = Worker(str(store.folder), lambda text: None)
        self.jobs: list[Job] = []
        self.events: list[Any] = []

    def start(self, worker: int) -> None:
        from isogloss.study.engine import Event

        self.events.append(Event(worker, {"ready": True}))

    def submit(self, worker: int, job: Job) -> None:
        from isogloss.study.engine import Event

        self.jobs.append(job)
        self.events.append(Event(worker, self.worker.do(job)))

    def wait(self, seconds: float) -> Any:
        return self.events.pop(0) if self.events else None

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass
