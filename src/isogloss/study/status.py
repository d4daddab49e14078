"""How a study stands, read from its store alone: cheap enough to ask every second, from any terminal."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.storage import read_json
from isogloss.study.steps import Plan
from isogloss.study.store import RECORD, Store

_SAMPLE = 40  # Finished steps of a kind whose times are looked at.
_SILENT = 30.0  # After so many seconds without a word a runner on another host counts as gone.


@dataclass
class Status:
    """What is done and what is not.

    Attributes:
        name: Of the study.
        steps: Kind -> {"done", "running", "failed", "blocked", "waiting"} counts.
        running: What workers do now: label, seconds, doing, host.
        failed: Key of a step -> its `label` and the `error`.
        runners: Runners that are alive.
        seconds_left: Estimate; None when nothing is known or nothing runs.
        at_least: Whether `seconds_left` leaves out steps of whose time nothing is known yet.
    """

    name: str
    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    running: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    runners: int = 0
    seconds_left: float | None = None
    at_least: bool = False

    @property
    def total(self) -> int:
        """Steps of the plan."""
        return sum(sum(counts.values()) for counts in self.steps.values())

    def count(self, state: str) -> int:
        """Steps in a state."""
        return sum(counts[state] for counts in self.steps.values())


def read_status(store: Store) -> Status:
    """Looks at a store.

    Raises:
        IsoglossError: No run has ever started on it.
    """
    if not store.plan_file.is_file():
        raise IsoglossError(f"The store '{store.folder}' has no plan yet; start the study by `isogloss study run`.")
    plan = store.plan()
    done = store.done(plan.steps)
    failures = {key: facts for key, facts in store.failures().items() if key in plan.steps and key not in done}
    alive = [run for run in store.runs() if _alive(run)]
    running = [
        {"label": item["label"], "doing": item["doing"], "seconds": time.time() - item["since"], "host": run["host"]}
        for run in alive
        for item in run["running"]
    ]
    blocked: set[str] = set()
    for key, step in plan.steps.items():  # each step comes after what it needs
        if key not in done and any(need in failures or need in blocked for need in step.needs):
            blocked.add(key)
    counts: dict[str, dict[str, int]] = {}
    for key, step in plan.steps.items():
        kind = counts.setdefault(step.kind, dict.fromkeys(("done", "failed", "blocked", "waiting"), 0))
        state = "done" if key in done else "failed" if key in failures else "blocked" if key in blocked else "waiting"
        kind[state] += 1
    return Status(
        plan.name,
        counts,
        running,
        {key: {"label": plan.steps[key].label, "error": facts["error"]} for key, facts in failures.items()},
        len(alive),
        *_left(plan, store, done, set(failures) | blocked, alive),
    )


def _alive(run: Mapping[str, Any]) -> bool:
    if run.get("over"):
        return False
    if run.get("host") == socket.gethostname():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(int(run["pid"]), 0)
            return True
        return False
    return time.time() - float(run.get("heartbeat", 0)) < _SILENT


def _left(
    plan: Plan, store: Store, done: set[str], hopeless: set[str], alive: list[dict[str, Any]]
) -> tuple[float | None, bool]:
    """Seconds, and whether they leave steps out.

    Mean seconds of finished steps of each kind (a sample of them), else what calibration estimated for the step.
    """
    workers = sum(int(run.get("workers", 1)) for run in alive)
    if not workers:
        return None, False
    shares: dict[str, int] = {}
    for step in plan.steps.values():
        shares[step.group] = shares.get(step.group, 0) + 1
    known: dict[str, list[float]] = {}
    for key, step in plan.steps.items():
        if key in done and len(known.setdefault(step.kind, [])) < _SAMPLE:
            with suppress(IsoglossError, KeyError):
                # Steps that are done together each tell the time of all of them.
                known[step.kind].append(float(read_json(store.place(key) / RECORD)["seconds"]) / shares[step.group])
    means = {kind: sum(times) / len(times) for kind, times in known.items() if times}
    times = [
        means.get(step.kind, plan.seconds.get(key))
        for key, step in plan.steps.items()
        if key not in done and key not in hopeless
    ]
    told = [seconds for seconds in times if seconds is not None]
    if times and not told:
        return None, False
    return sum(told) / workers, len(told) < len(times)
