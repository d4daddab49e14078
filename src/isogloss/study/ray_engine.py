"""The same plan on a Ray cluster: each worker is an actor, wherever the cluster puts it.

The store must be a folder that all machines of the cluster see under one path. Needs the extra `ray`.
"""

import logging
import os
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.study.engine import Event
from isogloss.study.steps import Job
from isogloss.study.worker import EXECUTE, job_from_json, job_to_json


class _Actor:
    """A worker inside a Ray process."""

    def __init__(self, store: str, threads: int, execute: str) -> None:
        from isogloss.study.worker import Worker

        if execute == EXECUTE:
            import torch

            from isogloss.cli._quiet import quiet

            quiet()
            torch.set_num_threads(threads)
        self.worker = Worker(store, lambda text: None, execute)

    def pid(self) -> int:
        """Process number, also the sign that it is ready."""
        return os.getpid()

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Does a job."""
        return self.worker.do(job_from_json(job))


class RayEngine:
    """Workers as Ray actors.

    Args:
        store: Folder of the store, on a file system that the whole cluster shares.
        threads: CPUs of each worker.
        address: Of the cluster; `RAY_ADDRESS` or a new one on this machine when None.
        gpus: Give each worker a GPU.
        execute: Module that does jobs.

    Raises:
        IsoglossError: Ray is not installed, or the cluster cannot be reached.
    """

    name = "ray"

    def __init__(
        self, store: Path, *, threads: int = 1, address: str | None = None, gpus: bool = False, execute: str = EXECUTE
    ) -> None:
        try:
            import ray
        except ImportError as problem:
            raise IsoglossError("--engine ray needs Ray; install it by `pip install 'isogloss[ray]'`.") from problem
        self._ray: Any = ray
        self.store, self.threads, self.execute = store.absolute(), threads, execute
        self._own = not ray.is_initialized()
        if self._own:
            try:
                ray.init(
                    address=address or os.environ.get("RAY_ADDRESS"),
                    log_to_driver=False,
                    include_dashboard=False if address is None and "RAY_ADDRESS" not in os.environ else None,
                    logging_level=logging.ERROR,
                    runtime_env={"env_vars": _environment(threads)},
                )
            except (ConnectionError, ValueError, RuntimeError) as problem:
                raise IsoglossError(
                    f"--ray-address: the Ray cluster cannot be reached ({problem}); check its address."
                ) from problem
        self._actor = ray.remote(_Actor).options(num_cpus=threads, num_gpus=1 if gpus else 0, max_restarts=0)
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}

    def start(self, worker: int) -> None:
        """Asks the cluster for an actor."""
        self._actors[worker] = self._actor.remote(str(self.store), self.threads, self.execute)
        self._waiting[self._actors[worker].pid.remote()] = worker

    def submit(self, worker: int, job: Job) -> None:
        """Gives a job to an actor."""
        self._waiting[self._actors[worker].do.remote(job_to_json(job))] = worker

    def wait(self, seconds: float) -> Event | None:
        """The next answer, or the news that an actor is gone."""
        ready, _ = self._ray.wait(list(self._waiting), num_returns=1, timeout=seconds) if self._waiting else ([], [])
        if not ready:
            return None
        worker = self._waiting.pop(ready[0])
        try:
            answer = self._ray.get(ready[0])
        except self._ray.exceptions.RayError as problem:
            return Event(worker, {"died": str(problem).strip().splitlines()[0]})
        return Event(worker, answer if isinstance(answer, dict) else {"ready": True})

    def stop(self) -> None:
        """Ends the actors; a training continues from its last checkpoint at the next run."""
        for actor in self._actors.values():
            self._ray.kill(actor)

    def close(self) -> None:
        """Gives the actors back to the cluster, and ends a cluster that was made for this run."""
        self.stop()
        if self._own:
            self._ray.shutdown()


def _environment(threads: int) -> dict[str, str]:
    """What workers need of this process's environment."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("ISOGLOSS_", "HF_")) or name == "PYTHONPATH"
    }
    return {**kept, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
