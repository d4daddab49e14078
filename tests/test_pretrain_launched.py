"""Training commands on the processes of a launcher: a device each, one step between them, one result printed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml

from isogloss.cli._inputs import training_device
from isogloss.errors import IsoglossError
from isogloss.storage import load_tensors
from isogloss.training import _processes
from isogloss.training.pretrain import pretrain
from tests._cli_tools import isogloss
from tests._pool_tools import recipe, write_world

REPOSITORY = Path(__file__).parents[1]
SECOND = torch.device("cuda:1")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two on GPUs."""

    class State:
        _shared_state: ClassVar = {"there": True}
        is_main_process, device = False, SECOND

        def __init__(self, cpu: bool = False) -> None:
            assert not cpu

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_processes, "PartialState", State)


def test_a_process_alone_takes_the_first_device_and_makes_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(_processes, "PartialState", None)
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert _processes.launched_device() == torch.device(name)
    assert [training_device(name) for name in (None, "cuda:1")] == [None, "cuda:1"]


def test_each_process_takes_a_device_of_its_own(second: None) -> None:
    assert _processes.launched_device() == SECOND and not _processes.writes()
    assert [training_device(name) for name in (None, "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(IsoglossError, match="--device cuda:0: each process of a launcher"):
        training_device("cuda:0")


@pytest.mark.parametrize(
    ("command", "file", "more"),
    [
        ("train language", "train_language", ["--language", "en", "--text", "{text}/eng_Latn.txt"]),
        ("train task", "train_task", ["--task", "topic", "--data", "bundled:parallel", "--source", "en"]),
        ("pool train", "pool", ["--text", "{text}", "--module", "pool:4x2"]),
    ],
)
def test_training_commands_load_the_backbone_there(
    world: Path,
    tmp_path: Path,
    second: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    file: str,
    more: list[str],
) -> None:
    asked = []

    def opened(name: str, dtype: str | None, device: str | None) -> Any:
        asked.append(device)
        raise IsoglossError("seen")

    monkeypatch.setattr(f"isogloss.cli.{file}.open_backbone", opened)
    words = [word.format(text=world / "text") for word in more]
    result = isogloss(capsys, *command.split(), "--backbone", "bundled:encoder", *words, "--out", tmp_path / "out")
    assert result.err.strip().endswith("seen.") and asked == ["cuda:1"], result.err


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_that_accumulates(world: Path, tmp_path: Path) -> None:
    shape = {"pool": None, "stages": [{"steps": 2, "length": 16, "batch": 4}, {"steps": 2, "length": 24, "batch": 4}]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe(world, **shape).model_dump()), encoding="utf-8")
    program = tmp_path / "program.py"
    # gloo's threads now and then abort a process that ends in the ordinary way.
    program.write_text(
        "import os, sys\nfrom isogloss.cli.app import run\nstatus = run(sys.argv[1:])\nsys.stdout.flush()\nos._exit(status)\n"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    launched = subprocess.run(
        [*launcher, str(program), "pretrain", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "two"), "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=REPOSITORY,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "ISOGLOSS_CACHE": str(world / "cache"),
            "ACCELERATE_MIXED_PRECISION": "fp16",  # the recipe says what is computed in
        },
    )
    assert launched.returncode == 0, launched.stderr[-4000:]
    (line,) = launched.stdout.splitlines()
    assert json.loads(line)["steps"] == 4
    assert launched.stderr.count("tokenising") == 1
    pretrain(recipe(world, **shape, accumulation=2), tmp_path / "one", cache_dir=world / "cache")
    one, two = (load_tensors(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name].float(), value.float(), atol=2e-3, rtol=1e-2)
    assert json.loads(line)["final_loss"] == pytest.approx(facts_of(tmp_path / "one")["final_loss"], abs=1e-3)


def facts_of(folder: Path) -> Any:
    return json.loads((folder / "isogloss.json").read_text(encoding="utf-8"))
