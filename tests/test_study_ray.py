"""The Ray engine on a local cluster of several processes. Run with: pytest -m slow tests/test_study_ray.py."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from isogloss.study.ray_engine import RayEngine
from isogloss.study.runner import run_plan
from isogloss.study.store import Store
from tests._study_tools import REPOSITORY, InlineEngine, contents, diamond_plan, read_ledger

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_a_worker_killed_in_mid_run(tmp_path: Path, cluster: None) -> None:
    plan = diamond_plan(3, sleep=0.2)
    store = Store(tmp_path / "store", create=True)
    engine = RayEngine(store.folder, execute="tests._study_tools")
    killed: list[int] = []

    def kill() -> None:
        while len(read_ledger(store.folder)) < 3:
            time.sleep(0.01)
        # The process that began a job last is in the middle of it.
        killed.append(int((store.folder / "pids").read_text().split()[-1]))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    result = run_plan(plan, store, engine, workers=2)
    assert killed and not result.failed
    assert result.done + result.found == len(plan.steps)

    # The same store as without Ray and without a kill.
    from isogloss.study.engine import LocalEngine

    other = Store(tmp_path / "other", create=True)
    run_plan(
        plan, other, LocalEngine(other.folder, logs=other.folder / "runs", execute="tests._study_tools"), workers=2
    )
    assert contents(store) == contents(other)
    assert all(count <= 2 for count in Counter(read_ledger(store.folder)).values())


def test_steps_for_real(tmp_path: Path, cluster: None) -> None:
    from tests.test_study_run import World

    world = World(tmp_path)
    plan = world.plan("grid.cell=[head,LA+TA]", "grid.task=topic", "add=[]", "grid.seed=1", "exclude=[]")
    store = Store(tmp_path / "ray", create=True)
    result = run_plan(plan, store, RayEngine(store.folder), workers=2, options={"cache": str(tmp_path / "cache")})
    assert not result.failed and result.done == len(plan.steps)
    other = Store(tmp_path / "inline", create=True)
    run_plan(plan, other, InlineEngine(other), options={"cache": str(tmp_path / "cache")})
    assert contents(store).keys() == contents(other).keys()
    assert contents(store) == contents(other)
