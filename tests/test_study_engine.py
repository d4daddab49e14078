"""The engine: nothing finished is lost or done twice, whoever is killed and whenever; failures stay where they are."""

import json
import os
import random
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from isogloss.errors import IsoglossError
from isogloss.study.engine import LocalEngine
from isogloss.study.runner import Result, run_plan
from isogloss.study.schedule import Schedule
from isogloss.study.status import read_status
from isogloss.study.steps import Job, Plan
from isogloss.study.store import Store
from isogloss.study.worker import Worker
from tests._study_tools import (
    contents,
    diamond_plan,
    finish_runner,
    make_step,
    read_ledger,
    start_runner,
    worker_pids,
)

WIDTH = 3


def run(plan: Plan, folder: Path, workers: int = 2) -> tuple[Result, Store]:
    store = Store(folder, create=True, name="test")
    engine = LocalEngine(store.folder, logs=store.folder / "runs", execute="tests._study_tools")
    return run_plan(plan, store, engine, workers=workers), store


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run leaves."""
    plan = diamond_plan(WIDTH, sleep=0.06)
    result, store = run(plan, tmp_path_factory.mktemp("whole") / "store")
    assert (result.done, result.found, result.failed) == (len(plan.steps), 0, {})
    assert not list((store.folder / "work").iterdir()) and not list((store.folder / "staged").iterdir())
    return contents(store)


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    plan = diamond_plan(1)
    run(plan, tmp_path / "store")
    before = read_ledger(tmp_path / "store")
    result, store = run(plan, tmp_path / "store")
    assert (result.done, result.found) == (0, len(plan.steps))
    assert read_ledger(tmp_path / "store") == before
    assert read_status(store).count("done") == len(plan.steps)


def test_a_failed_step_stops_only_what_needs_it(tmp_path: Path) -> None:
    plan = diamond_plan(2, left="user", right1="crash")
    result, store = run(plan, tmp_path / "store")
    assert {item["label"]: item["error"] for item in result.failed.values()} == {
        "left": "The data are bad; mend them.",
        "right1": "RuntimeError: something broke",
    }
    assert {item["label"] for item in result.blocked.values()} == {
        *(f"left{n}" for n in range(2)),
        *(f"left{n}-score{s}" for n in range(2) for s in range(3)),
        *(f"right1-score{s}" for s in range(3)),
    }
    assert result.done == 1 + 1 + 3
    status = read_status(store)
    assert (status.count("done"), status.count("failed"), status.count("blocked"), status.count("waiting")) == (
        5,
        2,
        11,
        0,
    )
    assert status.failed == result.failed
    # What was at fault was mended: the next run tries it again, and does only what is missing.
    mended = diamond_plan(2)
    for step in mended.steps.values():
        assert step.key in plan.steps or not step.label.startswith("right0")
    again, _ = run(mended, tmp_path / "store")
    assert not again.failed and again.done == len(mended.steps) - 5


def _half_done(folder: Path) -> tuple[Plan, Store]:
    """Two models of three, one of them scored on two test sets in a minute; a runner with two workers is alive."""
    plan = Plan("half", "")
    store = Store(folder, create=True)
    models = [make_step(f"model{number}") for number in range(3)]
    scores = [make_step(f"{one.label} on {number}", (one.key,), one.label) for one in models for number in range(2)]
    for step in (*models, *(replace(step, kind="evaluation") for step in scores)):
        plan.steps[step.key] = step
    for step, seconds in ((models[0], 100), (models[1], 300)):
        store.place(step.key).mkdir(parents=True)
        (store.place(step.key) / "step.json").write_text(json.dumps({"seconds": seconds}))
    plan.save(store.plan_file)
    store.tell("me", {"host": socket.gethostname(), "pid": os.getpid(), "workers": 2, "running": []})
    return plan, store


def test_the_time_left_is_told_as_far_as_it_is_known(tmp_path: Path) -> None:
    plan, store = _half_done(tmp_path / "store")
    status = read_status(store)
    # One model more, as long as the two before; of scoring nothing is known.
    assert (status.seconds_left, status.at_least) == (200 / 2, True)
    plan.seconds = {key: 10.0 for key, step in plan.steps.items() if step.kind == "evaluation"}
    plan.save(store.plan_file)
    status = read_status(store)
    assert (status.seconds_left, status.at_least) == ((200 + 6 * 10) / 2, False)
    # Scores of a model are made together, and each tells how long all of them took.
    for key in [key for key, step in plan.steps.items() if step.group == "model0" and step.kind == "evaluation"]:
        store.place(key).mkdir(parents=True)
        (store.place(key) / "step.json").write_text('{"seconds": 60}')
    status = read_status(store)
    assert (status.seconds_left, status.at_least) == ((200 + 4 * 30) / 2, False)


def test_a_run_keeps_what_was_estimated_before_it(tmp_path: Path) -> None:
    plan = diamond_plan(1)
    store = Store(tmp_path / "store", create=True)
    first, second, *_ = plan.steps
    replace(plan, seconds={first: 3.0, second: 4.0, "gone": 5.0}).save(store.plan_file)
    plan.seconds = {second: 9.0}
    run(plan, tmp_path / "store")
    assert store.plan().seconds == {first: 3.0, second: 9.0}


def test_failures_of_the_same_name_are_all_counted(tmp_path: Path) -> None:
    plan = diamond_plan(1, left="user", right="user")
    plan.steps = {key: replace(step, label="same") for key, step in plan.steps.items()}
    result, store = run(plan, tmp_path / "store")
    assert (len(result.failed), len(result.blocked)) == (2, len(plan.steps) - 2)
    assert len(read_status(store).failed) == 2


def test_crashes_are_tried_again(tmp_path: Path) -> None:
    plan = diamond_plan(1, left="crash-once", right="die-once")
    result, _ = run(plan, tmp_path / "store")
    assert not result.failed and result.done == len(plan.steps)


def test_a_worker_that_always_dies_fails_its_step_only(tmp_path: Path) -> None:
    result, _ = run(diamond_plan(1, left="die"), tmp_path / "store")
    (failure,) = result.failed.values()
    assert failure["label"] == "left" and "killed by signal 9" in failure["error"]
    assert result.done == 5


def test_a_full_disk_is_one_sentence_and_the_store_stays(tmp_path: Path) -> None:
    plan = diamond_plan(2, right1="full")
    with pytest.raises(IsoglossError, match=r"disk of the store .* is full; free some space"):
        run(plan, tmp_path / "store", workers=1)
    store = Store(tmp_path / "store")
    done = store.done(plan.steps)
    assert done and all((store.place(key) / "step.json").is_file() for key in done)


def test_scores_of_a_group_come_together(tmp_path: Path) -> None:
    plan = diamond_plan(1)
    schedule = Schedule(plan.steps, ())
    first = schedule.offer(None)
    assert first is not None and [step.label for step in first] == ["left"]
    schedule.finish(first[0].key)
    labels = []
    while (steps := schedule.offer(None)) is not None:
        labels.append([step.label for step in steps])
        for step in steps:
            schedule.finish(step.key)
    assert ["left0-score0", "left0-score1", "left0-score2"] in labels
    assert schedule.is_over


def test_a_group_with_a_failed_part_does_the_rest() -> None:
    plan = Plan("parts", "")
    model, good, bad = make_step("model"), make_step("good"), make_step("bad")
    scores = [make_step(f"on {part.label}", (model.key, part.key), "scores") for part in (good, bad)]
    for step in (model, good, bad, *scores):
        plan.steps[step.key] = step
    schedule = Schedule(plan.steps, ())
    offered = [schedule.offer(None) for _ in range(3)]
    schedule.finish(model.key)
    schedule.finish(good.key)
    assert all(offered) and schedule.offer(None) is None  # the group waits for the part that may yet come
    schedule.fail(bad.key)
    steps = schedule.offer(None)
    assert steps is not None and [step.label for step in steps] == ["on good"]
    schedule.finish(steps[0].key)
    assert schedule.is_over and set(schedule.blocked) == {scores[1].key}


def _kill_at_random(plan: Plan, store: Path, seed: int) -> str:
    """Kills the runner or one of its workers once, at a random moment."""
    chance = random.Random(seed)
    path = store.parent / f"{store.name}.json"
    plan.save(path)
    process = start_runner(store, path)
    while process.poll() is None and not worker_pids(process.pid):
        time.sleep(0.01)
    time.sleep(chance.uniform(0.0, 1.2))
    victim = chance.choice(["runner", "worker"])
    if process.poll() is None:
        pids = worker_pids(process.pid)
        target = process.pid if victim == "runner" or not pids else chance.choice(pids)
        os.kill(target, signal.SIGKILL)
        victim = "runner" if target == process.pid else "worker"
    process.communicate(timeout=60)
    return victim


def _check_after_kill(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    plan = diamond_plan(WIDTH, sleep=0.06)
    store = tmp_path / f"store{seed}"
    victim = _kill_at_random(plan, store, seed)
    done = read_ledger(store)
    finish_runner(start_runner(store, tmp_path / f"store{seed}.json"))
    assert contents(Store(store)) == whole, (seed, victim)
    # A step may be made again only if its first maker was killed between making and keeping it.
    twice = [key for key, count in Counter(read_ledger(store)).items() if count > 1]
    assert len(twice) <= 3 and set(twice) <= set(done), (seed, victim, twice)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_a_random_moment(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    _check_after_kill(tmp_path, whole, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 30))
def test_killed_at_twenty_random_moments(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    _check_after_kill(tmp_path, whole, seed)


def test_a_worker_killed_while_it_writes_is_missed(tmp_path: Path) -> None:
    """Long answers go through the pipe in pieces; half a line must not keep the news of the end back."""

    class Killed:
        stdout = ('{"doing": "x"}\n', '{"outcomes": [{"ke')

        def wait(self) -> int:
            return -9

    engine = LocalEngine(tmp_path, logs=tmp_path)
    listening = threading.Thread(target=engine._listen, args=(0, Killed()))
    listening.start()
    listening.join()
    events = [engine.wait(0.01) for _ in range(2)]
    assert [one and one.what for one in events] == [{"doing": "x"}, {"died": "killed by signal 9"}]


def test_two_runners_share_the_work(tmp_path: Path, whole: dict[str, bytes]) -> None:
    plan = diamond_plan(WIDTH, sleep=0.06)
    path = tmp_path / "plan.json"
    plan.save(path)
    both = [start_runner(tmp_path / "store", path, workers=1) for _ in range(2)]
    counts = [finish_runner(process) for process in both]
    assert sum(done for done, _, _, _ in counts) == len(plan.steps)
    assert Counter(read_ledger(tmp_path / "store")) == Counter(list(plan.steps))
    assert contents(Store(tmp_path / "store")) == whole


def test_publishing_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    steps = [make_step(f"s{number}", group="together") for number in range(3)]
    for step in steps:
        folder = store.folder / "staged" / "together" / step.key
        folder.mkdir(parents=True)
        (folder / "step.json").write_text("{}")
    half = store.folder / "staged" / ".together.abc.tmp"
    half.mkdir()
    store.settle()
    assert store.done(step.key for step in steps) == {step.key for step in steps}
    assert not list((store.folder / "staged").iterdir())


def test_what_a_kill_left_of_finished_steps_goes_at_the_next_start(tmp_path: Path) -> None:
    plan = diamond_plan(1)
    _, store = run(plan, tmp_path / "store")
    finished, unfinished = next(iter(plan.steps)), make_step("other").key
    for key in (finished, unfinished):
        (store.work(key) / "module").mkdir(parents=True)
    run(plan, tmp_path / "store")
    assert [item.name for item in (store.folder / "work").iterdir()] == [unfinished]


def test_a_step_has_one_lock_whatever_its_group(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    seeds = [make_step(f"seed{number}", group="seeds-shape", sleep=0.4) for number in range(2)]
    alone = [replace(step, group=step.key) for step in seeds]
    together = Job("seeds-shape", seeds, {})
    one, other = (Worker(str(store.folder), lambda text: None, "tests._study_tools") for _ in range(2))
    for first, second in ((together, Job(alone[1].key, alone[1:], {})), (Job(alone[0].key, alone[:1], {}), together)):
        for step in seeds:
            shutil.rmtree(store.place(step.key), ignore_errors=True)
        thread = threading.Thread(target=one.do, args=(first,))
        thread.start()
        while not store.work(seeds[0].key).exists():
            time.sleep(0.01)
        assert other.do(second) == {"busy": True}
        thread.join()
        assert store.is_done(seeds[0].key)
    assert "outcomes" in other.do(together) and store.is_done(seeds[1].key)


def test_a_claim_ends_with_its_process(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=True)
    with store.claim("group") as first, Store(tmp_path / "store").claim("group") as second:
        assert first and not second
    child = os.fork()
    if child == 0:
        with store.claim("group"):
            (tmp_path / "held").touch()
            time.sleep(60)
        os._exit(0)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with store.claim("group") as held:
        assert not held
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with store.claim("group") as held:
        assert held


def test_stores_that_cannot_be_used(tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(IsoglossError, match="format 99, but 1 is the newest known"):
        Store(newer, create=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(IsoglossError, match="holds something that is no study's store"):
        Store(other, create=True)
    assert (other / "thesis.txt").read_text() == "mine"
    with pytest.raises(IsoglossError, match=r"no store in .* start the study"):
        Store(tmp_path / "absent")
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"format": 99, "steps": []}))
    with pytest.raises(IsoglossError, match="format 99"):
        Plan.load(plan)
