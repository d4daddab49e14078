"""A step's training on several processes: the same result as on one, under the same key, written once."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from isogloss.corpora import ObjectiveBatch
from isogloss.errors import IsoglossError
from isogloss.storage import load_tensors
from isogloss.study.desk import Desk
from isogloss.study.launched import is_launched, launch, launcher
from isogloss.study.plan import make_plan
from isogloss.study.reading import read_marked
from isogloss.study.runner import Result, run_plan
from isogloss.study.steps import Job, Plan
from isogloss.study.store import Store
from tests._cli_tools import isogloss, run, write_recipe, write_texts
from tests._study_tools import InlineEngine, contents, make_step

STUDY = """\
name: launched
grid:
  {{backbone: {root}/backbone, cell: LA+TA, language_adapter: "adapter:4", task_adapter: "adapter:4", task: topic, source: en}}
targets: [en]
tasks: {{topic: {{data: "bundled:parallel", limit_train: 31, limit_test: 12}}}}
language: {{text: {text}, stage: {{steps: 3, length: 24, batch_size: 3}}}}
stage: {{epochs: 2, batch_size: 5, accumulation: 2, head_options: {{dropout: 0}}}}
"""
TWO = "torchrun --standalone --nproc-per-node 2"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("launched")
    text = write_texts(root)
    assert run(["pretrain", str(write_recipe(root, text, "encoder")), "--out", str(root / "backbone")]) == 0
    (root / "study.yaml").write_text(STUDY.format(root=root, text=text))
    return root


def done(root: Path, cell: str, name: str, **options: Any) -> tuple[Plan, Store, Result]:
    plan = make_plan(*read_marked(root / "study.yaml", [f"grid.cell={cell}"]))
    store = Store(root / f"{cell}-{name}", create=True, name=name)
    result = run_plan(plan, store, InlineEngine(store), options={"cache": str(root / "cache"), **options})
    return plan, store, result


@pytest.mark.parametrize("cell", ["TA", pytest.param("LA+TA", marks=pytest.mark.slow)])
def test_two_processes_make_what_one_makes(world: Path, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan, alone, _ = done(world, cell, "alone")
    _, shared, result = done(world, cell, "shared", launch=TWO)
    assert not result.failed, result.failed
    assert result.done == len(plan.steps)
    assert contents(shared).keys() == contents(alone).keys()
    for key, step in plan.steps.items():
        if step.kind == "evaluation":
            continue
        one, two = (load_tensors(store.place(key) / "module" / "module.safetensors") for store in (alone, shared))
        assert one.keys() == two.keys()
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=1e-5, atol=1e-6, msg=name)
        assert shared.record(key)["steps"] == alone.record(key)["steps"] == (3 if step.kind == "language" else 8)
    assert not list((shared.folder / "work").iterdir())


def fake(program: str) -> str:
    """A launcher that is a Python program; what is launched comes after it."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


@pytest.mark.parametrize(
    ("said", "kind", "wanted"),
    [
        ({"user": "The data are bad; mend them."}, IsoglossError, "The data are bad; mend them."),
        ({"error": "OSError: [Errno 28] No space left on device"}, RuntimeError, "No space left on device"),
        ({"stopped": True}, IsoglossError, "the same command continues it"),
        ({}, RuntimeError, "ended with status 3 and no result"),
    ],
)
def test_what_processes_say_reaches_the_worker(
    tmp_path: Path, said: dict[str, Any], kind: type[Exception], wanted: str
) -> None:
    step, heard = make_step("one"), list[str]()
    program = f"print('{json.dumps({'doing': 'step 1'})}'); print('chatter'); print({json.dumps(said)!r}); exit(3)"
    desk = Desk(Store(tmp_path / "store", create=True), heard.append)
    with pytest.raises(kind, match=wanted):
        launch(Job(step.group, [step], {"launch": fake(program)}), desk)
    assert heard == ["step 1"]
    assert not desk.store.is_done(step.key)


def test_processes_end_with_their_worker(tmp_path: Path) -> None:
    # A launcher that hands on no stdin looks like a worker that is gone.
    program = (
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, *sys.argv[1:]], stdin=subprocess.DEVNULL))"
    )
    step = make_step("one")
    desk = Desk(Store(tmp_path / "store", create=True), lambda text: None)
    with pytest.raises(RuntimeError, match="the worker is gone"):
        launch(Job(step.group, [step], {"launch": fake(program)}), desk)


def test_what_is_launched_and_what_is_refused(tmp_path: Path, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, learned = make_step("one"), make_step("other"), make_step("learned", update="gates")
    options = {"launch": TWO}
    assert is_launched(Job(one.group, [one], options))
    assert not is_launched(Job(one.group, [one], {}))
    assert not is_launched(Job(one.group, [one, other], options))
    assert not is_launched(Job(one.group, [learned], options))
    assert launcher(TWO)[1:] == ["--standalone", "--nproc-per-node", "2"]
    for bad in ("no-such-launcher --processes 2", "", "torchrun 'open"):
        refused = isogloss(capsys, "study", "run", world / "study.yaml", "--launch", bad)
        assert refused.status == 2 and refused.err.startswith("error: --launch: ") and refused.err.count("\n") == 1
    refused = isogloss(capsys, "study", "run", world / "study.yaml", "--launch", TWO, "--engine", "ray")
    assert refused.status == 2 and "leave out --engine ray" in refused.err


def test_rows_of_a_batch_keep_their_labels() -> None:
    ids = torch.arange(15).view(5, 3)
    for decoder in (None, ids + 100):
        batch = ObjectiveBatch(ids, torch.ones_like(ids), decoder, torch.tensor([1, 3, 5, 9, 14]), torch.arange(5))
        states = ids if decoder is None else decoder
        found: dict[int, int] = {}
        for rank in (0, 1):
            rows = slice(rank, None, 2)
            part = batch[rows]
            assert torch.equal(part.input_ids, ids[rows])
            read = (part.input_ids if part.decoder_input_ids is None else part.decoder_input_ids).flatten()
            found.update(zip(part.labels.tolist(), read[part.label_positions].tolist(), strict=True))
        assert found == dict(enumerate(states.flatten()[batch.label_positions].tolist()))
