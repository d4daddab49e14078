"""Running a plan: jobs to workers, results to the store, failures kept apart, the state written for whoever asks."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.study.engine import Engine
from isogloss.study.schedule import Schedule
from isogloss.study.steps import Job, Plan, Step
from isogloss.study.store import Store
from isogloss.training._interrupts import Interrupted

_EVERY = 1.0  # Seconds between two notes on the state of a run.
_PATIENCE = 60.0  # Seconds that workers get to write their checkpoints.


@dataclass
class Result:
    """What a run did.

    Attributes:
        done: Steps done in this run.
        found: Steps that were there before, or that another runner did.
        failed: Key of a step -> its `label` and the `error`.
        blocked: Key of a step -> its `label`, and the key of the failed step that it `needs`.
        seconds: Wall-clock time.
    """

    done: int = 0
    found: int = 0
    failed: dict[str, dict[str, str]] = field(default_factory=dict)
    blocked: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass
class _Hand:
    """A worker as the runner sees it."""

    idle: bool = False
    job: list[Step] = field(default_factory=list)
    backbone: str | None = None
    doing: str = "starting"
    since: float = field(default_factory=time.time)
    deaths: int = 0


def run_plan(
    plan: Plan,
    store: Store,
    engine: Engine,
    *,
    workers: int = 1,
    options: dict[str, Any] | None = None,
    command: str = "",
    tell: Callable[[str], None] = lambda text: None,
) -> Result:
    """Does everything of a plan that the store lacks.

    Args:
        plan: From `make_plan`.
        store: Where finished steps are kept; several runners may use one.
        engine: Where jobs run.
        workers: How many.
        options: For jobs: `cache`, ...
        command: For the records.
        tell: Gets a line for each thing that a person may want to know.

    Raises:
        IsoglossError: The disk is full, or workers cannot start.
        Interrupted: Ctrl-C or SIGTERM; trainings have left checkpoints.
    """
    return _Runner(plan, store, engine, workers, {**plan.options, **(options or {})}, command, tell).run()


class _Runner:
    def __init__(
        self,
        plan: Plan,
        store: Store,
        engine: Engine,
        workers: int,
        options: dict[str, Any],
        command: str,
        tell: Callable[[str], None],
    ) -> None:
        self.plan, self.store, self.engine, self.tell = plan, store, engine, tell
        self.options = {**options, "command": command, "commit": code_version()}
        self.hands = {number: _Hand() for number in range(workers)}
        self.attempts: dict[str, int] = {}
        self.result = Result()
        self.errors: dict[str, str] = {}
        self.began = time.time()
        self.told = 0.0
        self.stopping = False
        self.name = f"{socket.gethostname()}-{os.getpid()}-{int(self.began)}"

    def run(self) -> Result:
        store, plan = self.store, self.plan
        store.settle()
        with suppress(IsoglossError):  # No plan yet, or an unreadable one.
            # What was estimated for the same steps holds still; `status` takes it where nothing is finished.
            earlier = store.plan().seconds
            plan.seconds = {key: seconds for key, seconds in earlier.items() if key in plan.steps} | plan.seconds
        plan.save(store.plan_file)
        for key in store.failures():
            if key in plan.steps:
                store.forget_failure(key)
        found = store.done(plan.steps)
        self.schedule = Schedule(plan.steps, found)
        self.result.found = len(found)
        before = (
            {number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)}
            if _main_thread()
            else {}
        )
        try:
            if not self.schedule.is_over:
                wanted = min(len(self.hands), len({plan.steps[key].group for key in self.schedule.left}))
                self.hands = {number: self.hands[number] for number in range(wanted)}
                for number in self.hands:
                    self.engine.start(number)
            self._note(force=True)
            while not self.schedule.is_over and not self._stopped():
                self._hand_out()
                event = self.engine.wait(0.2)
                if event is not None:
                    self._hear(event.worker, event.what)
                self._note()
            if self.stopping:
                raise Interrupted("The study was stopped; run the same command again, it continues where it was.")
        finally:
            self.engine.close()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._note(force=True, over=True)
        self.result.seconds = time.time() - self.began
        self.result.failed = {
            key: {"label": plan.steps[key].label, "error": text}
            for key, text in self.errors.items()
            if key in self.schedule.failed
        }
        self.result.blocked = {
            key: {"label": plan.steps[key].label, "needs": cause} for key, cause in self.schedule.blocked.items()
        }
        return self.result

    def _asked(self, number: int, frame: Any) -> None:
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self.deadline = time.monotonic() + _PATIENCE
        self.engine.stop()

    def _stopped(self) -> bool:
        return self.stopping and (all(not hand.job for hand in self.hands.values()) or time.monotonic() > self.deadline)

    def _hand_out(self) -> None:
        if self.stopping:
            return
        for number, hand in self.hands.items():
            while hand.idle:
                steps = self.schedule.offer(hand.backbone)
                if steps is None:
                    break
                there = [step for step in steps if self.store.is_done(step.key)]
                for step in there:
                    self.result.found += 1
                    self.schedule.finish(step.key)
                todo = [step for step in steps if step not in there]
                if not todo:
                    continue
                job = Job(todo[0].group, todo, self._job_options(todo))
                hand.idle, hand.job, hand.since, hand.doing = False, todo, time.time(), ""
                hand.backbone = job.backbone or hand.backbone
                self.engine.submit(number, job)

    def _job_options(self, steps: Sequence[Step]) -> dict[str, Any]:
        options = {name: value for name, value in self.options.items() if name != "retries"}
        if steps[0].kind == "evaluation":
            # What the model was trained on says what it must not be scored on.
            key = steps[0].spec["task"]
            task = self.plan.steps[key]
            options["tasks"] = {key: task.to_json()}
            learned = [need for need in task.needs if self.plan.steps[need].kind == "update"]
            options["updates"] = {need: self.plan.steps[need].to_json() for need in learned}
        return options

    def _hear(self, number: int, what: dict[str, Any]) -> None:
        hand = self.hands[number]
        if "doing" in what:
            hand.doing = str(what["doing"])
            return
        steps, hand.job = hand.job, []
        if "fatal" in what:
            raise IsoglossError(str(what["fatal"]))
        if "died" in what:
            self._died(number, steps, str(what["died"]))
            return
        hand.idle = True
        if "busy" in what or "stopped" in what:
            self.schedule.put_back(steps, wait=True)
        for outcome in what.get("outcomes", ()):
            self._settle(self.plan.steps[outcome["key"]], outcome)
        if "outcomes" in what:
            again = [step for step in steps if step.key in self.schedule.running]
            self.schedule.put_back(again, wait=False)

    def _settle(self, step: Step, outcome: dict[str, Any]) -> None:
        if not outcome["error"]:
            self.result.done += 1
            self.schedule.finish(step.key)
            self.tell(f"{len(self.schedule.done)} of {len(self.plan.steps)}: {step.label} ({outcome['seconds']:.1f} s)")
            return
        tries = self.attempts[step.key] = self.attempts.get(step.key, 0) + 1
        if outcome["again"] and tries <= int(self.options.get("retries", 0)):
            self.tell(f"{step.label} is tried again: {outcome['error']}")
            return
        self._fail(step, outcome["error"], tries)

    def _fail(self, step: Step, error: str, tries: int) -> None:
        self.errors[step.key] = error
        self.store.fail(step.key, step.label, error, tries)
        self.schedule.fail(step.key)
        self.tell(f"{step.label} failed: {error}")

    def _died(self, number: int, steps: Sequence[Step], how: str) -> None:
        hand = self.hands[number]
        hand.idle, hand.backbone, hand.doing = False, None, "starting"
        if self.stopping:
            return
        if not steps:
            hand.deaths += 1
            if hand.deaths > 2:
                raise IsoglossError(
                    f"Workers end before they do anything ({how}); see the logs in '{self.store.folder / 'runs'}'."
                )
        for step in steps:
            tries = self.attempts[step.key] = self.attempts.get(step.key, 0) + 1
            if tries > int(self.options.get("retries", 0)):
                self._fail(
                    step,
                    f"Its worker ended ({how}), {tries} time{'s' if tries > 1 else ''}; was the memory used up?",
                    tries,
                )
        self.schedule.put_back([step for step in steps if step.key not in self.schedule.failed], wait=False)
        if steps:
            self.tell(f"A worker ended ({how}); another one takes over")
        self.engine.start(number)

    def _note(self, *, force: bool = False, over: bool = False) -> None:
        now = time.time()
        if not force and now - self.told < _EVERY:
            return
        self.told = now
        running = [
            {
                "worker": number,
                "label": Job(hand.job[0].group, hand.job, {}).label,
                "steps": len(hand.job),
                "since": hand.since,
                "doing": hand.doing,
            }
            for number, hand in self.hands.items()
            if hand.job
        ]
        self.store.tell(
            self.name,
            {
                "study": self.plan.name,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "engine": self.engine.name,
                "workers": len(self.hands),
                "started": self.began,
                "found": self.result.found,
                "done": self.result.done,
                "running": [] if over else running,
                "over": over,
                "command": self.options["command"],
            },
        )


def _main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def code_version() -> str:
    """The commit of the code that runs, marked when it has local changes; its version outside a checkout."""
    place = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        found = None
    if found is not None and found.returncode == 0:
        return found.stdout.strip()
    from isogloss import __version__

    return f"isogloss {__version__}, Python {sys.version.split()[0]}"
