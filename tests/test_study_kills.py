"""kill -9 during real trainings: the store ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from isogloss.study.status import read_status
from isogloss.study.store import Store
from tests._study_tools import contents, finish_runner, start_runner, worker_pids
from tests.test_study_run import World

EXECUTE = "tests._study_checkpoints"
CHANGES = (
    "grid.cell=[LA+TA,full]",
    "grid.task=topic",
    "add=[{cell: full, update: gates, seed: 1}]",
    "stage={steps: 240, batch_size: 4}",
    "language.stage={steps: 160, length: 24, batch_size: 4}",
    "updates.gates.stage={outer_steps: 80, batch_size: 4, disjoint: false}",
    "retries=9",
)
KILLS = 4


def _until_it_trains(process: "subprocess.Popen[str]", folder: Path) -> bool:
    """Waits for a training that has taken a step; whether one came before the end."""
    while process.poll() is None:
        if (folder / "plan.json").exists():
            doing = [item["doing"] for item in read_status(Store(folder)).running]
            if any(text.startswith("step ") for text in doing):
                return True
        time.sleep(0.02)
    return False


def _finished(store: Store) -> dict[str, int]:
    """Finished steps and when their record was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (store.folder / "steps").glob("*/*/step.json")}


@pytest.mark.slow
def test_trainings_that_are_killed_end_as_if_they_were_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    monkeypatch.setenv("ISOGLOSS_CACHE", str(tmp_path / "cache"))
    plan, path = world.plan(*CHANGES), tmp_path / "plan.json"
    plan.save(path)
    assert finish_runner(start_runner(tmp_path / "whole", path, 1, EXECUTE)) == [len(plan.steps), 0, 0, 0]

    chance, folder = random.Random(5), tmp_path / "killed"
    kept: dict[str, int] = {}
    checkpoints = kills = 0
    process = start_runner(folder, path, 1, EXECUTE)
    while kills < KILLS and _until_it_trains(process, folder):
        time.sleep(chance.uniform(0.0, 0.7))
        kept |= _finished(Store(folder))
        checkpoints += any(item.is_file() for item in (folder / "work").glob("*/module/.checkpoint/**/*"))
        workers = worker_pids(process.pid)
        if kills % 2 and workers:
            os.kill(workers[0], signal.SIGKILL)
            while workers[0] in worker_pids(process.pid):
                time.sleep(0.02)
        else:
            process.kill()
            process.communicate(timeout=60)
            process = start_runner(folder, path, 1, EXECUTE)
        kills += 1
    finish_runner(process)
    assert kills == KILLS and checkpoints >= 1
    assert contents(Store(folder)) == contents(Store(tmp_path / "whole"))
    # Nothing that was finished was done again, and nothing is left lying about.
    assert {key: _finished(Store(folder))[key] for key in kept} == kept
    assert not list((folder / "work").iterdir()) and not list((folder / "staged").iterdir())
