"""One training on several processes, which an ordinary launcher (`torchrun`, `accelerate launch`) starts for a worker.

Every batch is shared out over the processes (`FitConfig.split_batches`), so the step stays the same step under the same
key. The main process alone writes; the worker puts what it wrote into the store. The processes hold on to the worker's
pipe: when the worker dies they end too, and the main one's lock keeps the next run from starting before that.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.storage import read_json, write_json
from isogloss.study.desk import Desk, room
from isogloss.study.steps import Job
from isogloss.study.store import Store
from isogloss.study.worker import job_from_json, job_to_json
from isogloss.training._interrupts import Interrupted, stop_on_signals

_PATIENCE = 60.0  # Seconds in which processes of an earlier, killed worker must have ended.


def launcher(command: str) -> list[str]:
    """The words of `--launch`, the program by its path.

    Raises:
        IsoglossError: There is no such program.
    """
    try:
        words = shlex.split(command)
    except ValueError as problem:
        raise IsoglossError(f"--launch: '{command}' is no command line ({problem}).") from problem
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    program = shutil.which(words[0], path=beside) if words else None
    if program is None:
        raise IsoglossError(
            f"--launch: the program of '{command}' is not found; expected a launcher such as 'torchrun --nproc-per-node 2'."
        )
    return [program, *words[1:]]


def is_launched(job: Job) -> bool:
    """Whether a launcher trains this job: one language or task module, without an update rule and without other seeds."""
    step = job.steps[0]
    trained = step.kind in ("language", "task") and not step.spec.get("update")
    return bool(job.options.get("launch")) and trained and len(job.steps) == 1


def launch(job: Job, desk: Desk) -> None:
    """Builds the folder of a step's result by several processes, so that the worker finds it finished.

    Args:
        job: One training, with `launch` among its options.
        desk: The worker's; its backbone makes room for the processes'.

    Raises:
        IsoglossError: What the processes could not do, and a person must mend.
        RuntimeError: A process ended otherwise.
        Interrupted: The training was stopped and has left a checkpoint.
    """
    step = job.steps[0]
    if room(step, desk)[1]:
        return
    desk.let_go()
    file = desk.store.work(step.key) / "job.json"
    write_json(file, job_to_json(job))
    command = [*launcher(job.options["launch"]), "-m", __name__, str(desk.store.folder), str(file)]
    # A session of their own: Ctrl-C reaches the processes through the worker, once, as a request for a checkpoint.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    found: dict[str, Any] = {}

    def stop(text: str) -> None:
        if not found.get("asked"):
            found["asked"] = True
            process.terminate()

    try:
        with stop_on_signals(stop):
            for line in process.stdout:
                said = _read(line)
                if "doing" in said:
                    desk.tell(said["doing"])
                else:
                    found = {**said, **found}
            status = process.wait()
    except KeyboardInterrupt as problem:
        raise Interrupted("The training was stopped; the same command continues it.") from problem
    finally:
        with suppress(OSError):
            process.stdin.close()
        process.wait()
    if "user" in found:
        raise IsoglossError(found["user"])
    if "error" in found:
        raise RuntimeError(found["error"])
    if found.get("stopped") or found.get("asked"):
        raise Interrupted("The training was stopped; the same command continues it.")
    if status or not room(step, desk)[1]:
        raise RuntimeError(
            f"'{job.options['launch']}' ended with status {status} and no result; its worker's log in 'runs' tells more"
        )


def _read(line: str) -> dict[str, Any]:
    """What a process said; what a launcher printed goes to the worker's log."""
    try:
        said = json.loads(line)
    except ValueError:
        said = None
    if isinstance(said, dict):
        return said
    print(line, end="", file=sys.stderr)
    return {}


def main() -> None:
    """One of the processes: `torchrun ... -m isogloss.study.launched STORE JOB.json`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("job", type=Path)
    options = parser.parse_args()
    answers = os.dup(1)
    os.dup2(2, 1)

    def say(what: Mapping[str, Any]) -> None:
        # One write, so that lines of several processes stay whole.
        with suppress(OSError):
            os.write(answers, (json.dumps(what) + "\n").encode())

    threading.Thread(target=_end_with_the_worker, args=(say,), daemon=True).start()
    status = 1
    try:
        _train(options.store, job_from_json(read_json(options.job)), say)
        status = 0
    except Interrupted:
        say({"stopped": True})
    except IsoglossError as problem:
        say({"user": str(problem)})
    except Exception as problem:
        say({"error": f"{type(problem).__name__}: {' '.join(str(problem).split())}"})
    # The threads of a process group now and then abort a process that ends in the ordinary way.
    os._exit(status)


def _train(store: str, job: Job, say: Any) -> None:
    import torch
    from accelerate import PartialState

    from isogloss.cli._quiet import quiet
    from isogloss.study.trainings import train_languages, train_tasks
    from isogloss.training._processes import leave_processes

    quiet()
    state = PartialState(cpu=not torch.cuda.is_available())
    torch.set_num_threads(max(1, int(job.options.get("threads", 1)) // state.num_processes))
    desk = Desk(Store(store), (lambda text: say({"doing": text})) if state.is_main_process else lambda text: None)
    held = desk.store.claim(f"{job.steps[0].key}-launched", _PATIENCE) if state.is_main_process else nullcontext(True)
    with held as ours:
        if not ours:
            raise RuntimeError("processes of an earlier run still train this step")
        train = train_languages if job.steps[0].kind == "language" else train_tasks
        train(job.steps, job, desk)
        state.wait_for_everyone()
    leave_processes()


def _end_with_the_worker(say: Any) -> None:
    sys.stdin.read()
    say({"error": "the worker is gone, or the launcher does not hand its stdin on"})
    os._exit(1)


if __name__ == "__main__":
    main()
