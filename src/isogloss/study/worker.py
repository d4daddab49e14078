"""A worker: a process that does jobs, one after the other, with one backbone in memory.

It is told what to do by lines of JSON on stdin and answers by lines on stdout. When stdin ends, the runner is gone, and the
worker goes too, whatever it is doing: what it had not finished stays as a checkpoint.
"""

import argparse
import errno
import importlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from isogloss.errors import IsoglossError
from isogloss.study.steps import Job, Step
from isogloss.study.store import Store
from isogloss.training._interrupts import Interrupted

EXECUTE = "isogloss.study.execute"
Answer = dict[str, Any]


def job_to_json(job: Job) -> dict[str, Any]:
    """Plain data for the wire."""
    return {"group": job.group, "steps": [step.to_json() for step in job.steps], "options": dict(job.options)}


def job_from_json(values: Mapping[str, Any]) -> Job:
    """The job that `job_to_json` described."""
    return Job(values["group"], [Step.from_json(item) for item in values["steps"]], values["options"])


class Worker:
    """Does jobs and says what became of them; the same for processes and for Ray actors.

    Args:
        store: Folder of the store.
        tell: Called with what the worker is doing now.
        execute: Module with `Desk(store, tell)` and `execute(job, desk)`.
    """

    def __init__(self, store: str, tell: Callable[[str], None], execute: str = EXECUTE) -> None:
        self._module = importlib.import_module(execute)
        self.desk: Any = self._module.Desk(Store(store), tell)

    def do(self, job: Job) -> Answer:
        """Does one job if nobody else is at it.

        Returns:
            `{"outcomes": [...]}`, `{"busy": true}`, `{"stopped": true}` (a checkpoint was kept) or `{"fatal": sentence}`.
        """
        try:
            with self.desk.store.claim_job(job) as ours:
                if not ours:
                    return {"busy": True}
                self.desk.store.settle_group(job.group)
                return {"outcomes": [vars(outcome) for outcome in self._module.execute(job, self.desk)]}
        except Interrupted:
            return {"stopped": True}
        except Exception as problem:
            if disk_is_full(problem):
                return {
                    "fatal": f"The disk of the store '{self.desk.store.folder}' is full; free some space and run the study again."
                }
            return {"outcomes": [_failed(step.key, problem) for step in job.steps]}


def _failed(key: str, problem: Exception) -> Answer:
    user = isinstance(problem, IsoglossError)
    text = str(problem) if user else f"{type(problem).__name__}: {' '.join(str(problem).split())}"
    return {"key": key, "error": text, "again": not user, "seconds": 0.0}


def disk_is_full(problem: BaseException | None) -> bool:
    """Whether this is why something failed; then nothing else will work either."""
    while problem is not None:
        if getattr(problem, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(problem):
            return True
        problem = problem.__cause__
    return False


def main() -> None:
    """Runs a worker process: `python -m isogloss.study.worker STORE`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--execute", default=EXECUTE)
    options = parser.parse_args()
    # Libraries print; what they print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Ctrl-C reaches the whole process group. Between jobs it is the runner's to answer; a training puts its own handler
    # here, writes a checkpoint and stops.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    waiting: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(waiting,), daemon=True).start()
    lock = threading.Lock()

    def say(what: Mapping[str, Any]) -> None:
        _say(answers, lock, what)

    try:
        if options.execute == EXECUTE:
            from isogloss.cli._quiet import quiet

            quiet()
            import torch

            torch.set_num_threads(options.threads)
        worker = Worker(options.store, lambda text: say({"doing": text}), options.execute)
    except Exception as problem:
        say({"fatal": f"A worker cannot start: {problem}"})
        return
    say({"ready": True})
    while True:
        say(worker.do(job_from_json(waiting.get())))


def _listen(waiting: "queue.Queue[dict[str, Any]]") -> None:
    for line in sys.stdin:
        waiting.put(json.loads(line))
    os._exit(0)


def _say(stream: TextIO, lock: threading.Lock, what: Mapping[str, Any]) -> None:
    with lock:
        try:
            stream.write(json.dumps(what) + "\n")
            stream.flush()
        except BrokenPipeError:
            os._exit(0)


if __name__ == "__main__":
    main()
