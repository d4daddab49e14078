"""Where jobs run: an engine starts workers, hands them jobs and reports what they say."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from isogloss.study.steps import Job
from isogloss.study.worker import EXECUTE, job_to_json


@dataclass(frozen=True)
class Event:
    """Something that a worker said, or that it is gone.

    Attributes:
        worker: Its number.
        what: `ready`, `doing` (text), `outcomes`, `busy`, `stopped`, `fatal` (sentence) or `died` (how).
    """

    worker: int
    what: dict[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """What the runner needs of an engine."""

    name: str

    def start(self, worker: int) -> None:
        """Starts a worker, or starts it again."""

    def submit(self, worker: int, job: Job) -> None:
        """Gives a job to an idle worker."""

    def wait(self, seconds: float) -> Event | None:
        """The next event; None when there is none within the time."""

    def stop(self) -> None:
        """Asks trainings to write a checkpoint and stop."""

    def close(self) -> None:
        """Ends all workers."""


class LocalEngine:
    """Worker processes on this machine.

    Args:
        store: Folder of the store.
        threads: CPU threads of each worker.
        logs: Folder for what workers write on stderr.
        devices: GPU numbers, shared out in turn; none for CPUs.
        execute: Module that does jobs.
    """

    name = "local"

    def __init__(
        self, store: Path, *, threads: int = 1, logs: Path, devices: Sequence[int] = (), execute: str = EXECUTE
    ) -> None:
        self.store, self.threads, self.logs, self.devices, self.execute = store, threads, logs, devices, execute
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._events: queue.Queue[Event] = queue.Queue()

    def start(self, worker: int) -> None:
        """Starts a worker process."""
        environment = dict(os.environ, OMP_NUM_THREADS=str(self.threads), TOKENIZERS_PARALLELISM="false")
        if self.devices:
            environment["CUDA_VISIBLE_DEVICES"] = str(self.devices[worker % len(self.devices)])
        self.logs.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "isogloss.study.worker", str(self.store)]
        command += ["--threads", str(self.threads), "--execute", self.execute]
        with (self.logs / f"worker-{worker}.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True
            )
        self._processes[worker] = process
        threading.Thread(target=self._listen, args=(worker, process), daemon=True).start()

    def pid(self, worker: int) -> int:
        """Process number of a worker."""
        return self._processes[worker].pid

    def submit(self, worker: int, job: Job) -> None:
        """Sends a job; that a worker has died meanwhile shows as its `died` event."""
        stream: IO[str] | None = self._processes[worker].stdin
        try:
            assert stream is not None
            stream.write(json.dumps(job_to_json(job)) + "\n")
            stream.flush()
        except (BrokenPipeError, OSError):
            return

    def wait(self, seconds: float) -> Event | None:
        """The next event."""
        try:
            return self._events.get(timeout=seconds)
        except queue.Empty:
            return None

    def stop(self) -> None:
        """Sends SIGTERM, which a training answers with a checkpoint."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()

    def close(self) -> None:
        """Closes the workers' stdin, at which they end; kills what does not."""
        for process in self._processes.values():
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
        for process in self._processes.values():
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _listen(self, worker: int, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            # A worker that is killed while it writes leaves a piece of a line; without the news of its end the run would hang.
            with suppress(json.JSONDecodeError):
                self._events.put(Event(worker, json.loads(line)))
        code = process.wait()
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        self._events.put(Event(worker, {"died": how}))
