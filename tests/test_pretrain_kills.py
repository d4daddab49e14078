"""`isogloss pretrain` killed again and again, at moments drawn by chance: the weights are those of a run left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from isogloss.storage import read_json
from tests._pool_tools import recipe, write_world

pytestmark = pytest.mark.slow

STEPS = 240
REPOSITORY = Path(__file__).parents[1]
Moment = Callable[[], bool]


def start(world: Path, run: Path) -> "subprocess.Popen[bytes]":
    """The command as a user gives it, on one thread and with a cache of its own, saving after every step."""
    words = ["pretrain", world / "recipe.yaml", "--out", run / "out", "--checkpoint-minutes", 0, "--threads", 1]
    environment = dict(os.environ, OMP_NUM_THREADS="1", ISOGLOSS_CACHE=str(run / "cache"), CUDA_VISIBLE_DEVICES="")
    code = "import sys; from isogloss.cli import main; sys.exit(main())"
    run.mkdir(exist_ok=True)
    with (run / "log").open("wb") as log:  # of this start only
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)], env=environment, cwd=REPOSITORY, stdout=log, stderr=log
        )


def log_of(run: Path) -> str:
    return (run / "log").read_text(encoding="utf-8")


def saved_steps(run: Path) -> int:
    """Steps of the newest checkpoint."""
    return max((int(path.name[5:]) for path in (run / "out" / ".checkpoint").glob("step-*")), default=0)


def moments(run: Path, draw: random.Random) -> Iterator[tuple[str, Moment, float]]:
    """What is waited for, and the seconds after it until the kill."""
    yield "tokenizer", lambda: ": tokenizer of" in log_of(run), draw.uniform(0, 0.2)
    yield "tokenising", lambda: any((run / "cache" / "tokens").glob(".*.tmp")), 0.0
    for name in ("step", "checkpoint", "step", "checkpoint"):
        goal = saved_steps(run) + draw.randint(3, 30)
        if name == "step":
            yield name, lambda goal=goal: saved_steps(run) >= goal, draw.uniform(0, 0.05)  # type: ignore[misc]
        else:  # while one is written, under the name that it has until it is whole
            yield (
                name,
                lambda goal=goal: (  # type: ignore[misc]
                    saved_steps(run) >= goal and any((run / "out" / ".checkpoint").glob(".step-*.tmp"))
                ),
                draw.uniform(0, 0.004),
            )


def kill_at(process: "subprocess.Popen[bytes]", run: Path, moment: Moment, after: float) -> None:
    deadline = time.monotonic() + 180
    try:
        while not moment():
            assert process.poll() is None, log_of(run)
            assert time.monotonic() < deadline, log_of(run)
            time.sleep(0.0005)
        time.sleep(after)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL, log_of(run)


def finish(process: "subprocess.Popen[bytes]", run: Path) -> None:
    assert process.wait(timeout=300) == 0, log_of(run)
    assert not list((run / "out").glob(".checkpoint*"))


@pytest.mark.parametrize("pool", [None, "pool:4x2,selection=top-hard,top=2,dropout=0.1"])
def test_killed_at_random_it_ends_with_the_same_weights(tmp_path: Path, pool: str | None) -> None:
    world = write_world(tmp_path / "world")
    stages = [{"steps": 40, "length": 16, "batch": 6}, {"steps": STEPS - 40, "length": 24, "batch": 4}]
    model = {"hidden": 16, "layers": 1, "heads": 2, "ffn": 32, "max_length": 64, "dropout": 0.1}
    wanted = recipe(world, pool=pool, stages=stages, model=model, embeddings="cooccurrence").model_dump()
    (world / "recipe.yaml").write_text(yaml.safe_dump(wanted), encoding="utf-8")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(world, whole), whole)

    reached = []
    for _, moment, after in moments(killed, random.Random(7)):
        kill_at(start(world, killed), killed, moment, after)
        reached.append(saved_steps(killed))
    assert reached[:2] == [0, 0] and reached[2:] == sorted(set(reached[2:])) and 0 < reached[2] < reached[-1] < STEPS
    finish(start(world, killed), killed)

    names = sorted(path.name for path in (whole / "out").iterdir())
    assert ("pool.safetensors" in names) == (pool is not None)
    assert sorted(path.name for path in (killed / "out").iterdir()) == names
    for name in {*names} - {"isogloss.json", "README.md"}:
        assert (whole / "out" / name).read_bytes() == (killed / "out" / name).read_bytes(), name
    facts = [read_json(run / "out" / "isogloss.json") for run in (whole, killed)]
    for one in facts:
        del one["seconds"], one["finished"]
    assert facts[0] == facts[1] and facts[0]["steps"] == STEPS
