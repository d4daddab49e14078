"""The pools of a study in its report: the same numbers as `isogloss pool show`, each pool once, and where they come from."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from isogloss.backbones import load_backbone
from isogloss.formats import load_module, save_module
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack
from isogloss.study.plan import make_plan
from isogloss.study.pools import pool_attention
from isogloss.study.reading import read_marked
from isogloss.study.runner import run_plan
from isogloss.study.steps import Plan
from isogloss.study.store import Store
from isogloss.tasks import get_task, read_split
from isogloss.training.pool_usage import pool_usage
from isogloss.training.pretrain import pretrain
from tests._cli_tools import succeed
from tests._pool_tools import recipe, write_world
from tests._study_tools import InlineEngine

STUDY = """\
name: pools
grid:
  backbone: {backbone}
  cell: [TC, head]
  task_custom: "pool:3x2"
  pool: [none, {shared}]
  task: topic
  source: en
  seed: [1, 2]
exclude:
  - {{cell: TC, pool: {shared}}}
  - {{cell: head, pool: none}}
  - {{cell: head, seed: 2}}
targets: [en, de, cs]
tasks:
  topic: {{data: "bundled:parallel", limit_train: 20, limit_test: 8}}
stage: {{steps: 2, batch_size: 4}}
store: {store}
"""
CODES = ["eng_Latn", "deu_Latn", "ces_Latn"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, Store]:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("pools")
    world = write_world(root / "world")
    pretrain(recipe(world, parallel=[], objectives=[{"name": "masked", "weight": 1}]), root / "b", cache_dir=root / "c")
    backbone = load_backbone(root / "b", device="cpu")
    shared = create_module(parse_module("pool:5x2"), backbone, seed=1)
    shared.info.role = "shared"
    save_module(shared, root / "shared")
    file = root / "study.yaml"
    file.write_text(STUDY.format(backbone=root / "b", shared=root / "shared", store=root / "store"))
    plan = make_plan(*read_marked(file, ()))
    store = Store(root / "store", create=True, name="pools")
    result = run_plan(plan, store, InlineEngine(store), options={"cache": str(root / "c")}, command="test")
    assert not result.failed, result.failed
    return file, plan, store


def test_every_pool_once_and_as_measured_by_hand(finished: tuple[Path, Plan, Store]) -> None:
    file, plan, store = finished
    found, lacking = pool_attention(store, plan, 4)
    assert not lacking
    # The backbone's, the task pool of the first seed, and the one that serves every language.
    assert sorted(len(pool.attention[0]) for pool in found) == [3, 4, 5]
    backbone = load_backbone(file.parent / "b", device="cpu")
    task = get_task("topic")
    texts = {
        code: [row.content() for row in read_split("bundled:parallel", code, "test", task, limit=4)] for code in CODES
    }
    for pool in found:
        assert list(pool.languages) == CODES and "At most 4 texts" in pool.source and "bundled:parallel" in pool.source
        keys = len(pool.attention[0])
        if keys == 4:
            stack, wanted, step = Stack(backbone), "backbone", ""
        else:
            first = next(point["step"] for point in plan.points if point["factors"]["cell"] == "TC")
            folder = file.parent / "shared" if keys == 5 else store.place(first) / "module"
            stack = Stack(backbone, [load_module(folder, backbone)])
            wanted, step = stack.slots[-1].name, "" if keys == 5 else first
        assert pool.step == step
        np.testing.assert_allclose(pool.attention, pool_usage(stack, texts, slot=wanted).attention, rtol=1e-6)


def test_the_report_shows_them(
    finished: tuple[Path, Plan, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _, _ = finished
    succeed(capsys, "study", "report", file, "--out", tmp_path / "r", "--pool-texts", 4)
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert page.count("Languages clustered by their attention") >= 3 and "At most 4 texts a language" in page
    figures = [path.name for path in (tmp_path / "r" / "figures").iterdir()]
    assert len([name for name in figures if re.fullmatch(r"pool-(tree-)?\d\.svg", name)]) == 6
    succeed(capsys, "study", "report", file, "--out", tmp_path / "none", "--pool-texts", 0)
    assert "clustered by their attention" not in (tmp_path / "none" / "report.html").read_text(encoding="utf-8")


def test_a_pool_that_cannot_be_measured_is_said(
    finished: tuple[Path, Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    from isogloss.errors import IsoglossError
    from isogloss.study import pools

    def fail(*arguments: object, **named: object) -> None:
        raise IsoglossError("It cannot be measured.")

    monkeypatch.setattr(pools, "pool_usage", fail)
    found, lacking = pool_attention(finished[2], finished[1], 4)
    assert not found and len(lacking) == 3 and {reason for _, reason in lacking} == {"It cannot be measured."}
