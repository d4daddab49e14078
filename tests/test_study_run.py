"""Studies on a tiny backbone: every kind of step for real, scores as by hand, nothing done twice."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from isogloss.backbones import load_backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module, read_info
from isogloss.modules import create_module, parse_module
from isogloss.report.study_data import StudyData
from isogloss.storage import load_tensors, read_json
from isogloss.study import scoring
from isogloss.study.collect import collect
from isogloss.study.plan import make_plan
from isogloss.study.reading import read_marked
from isogloss.study.runner import Result, run_plan
from isogloss.study.steps import Plan
from isogloss.study.store import Store
from isogloss.tasks import few_shot, get_task, read_split
from isogloss.tasks.heads.linear_classification import LinearClassification
from isogloss.training.evaluation import evaluate, make_predictor
from isogloss.training.seed_stage import can_share, train_task_seeds
from isogloss.training.task_stage import TaskStage, train_task
from tests._cli_tools import isogloss, run, succeed, write_recipe, write_texts
from tests._study_tools import InlineEngine, contents

STUDY = """\
name: tiny
description: Everything once.
groups: {{ours: [en, sk]}}
grid:
  backbone: {backbone}
  cell: [head, LA+TA, LP+TP, full]
  language_adapter: adapter:4
  language_prompt: prompt:3
  task_adapter: adapter:4
  task_prompt: prompt:3
  length: [2, 3]
  task: [topic, ner]
  source: en
  seed: [1, 2]
exclude:
  - {{task: ner, cell: [head, LP+TP, full]}}
add:
  - {{cell: full, task: topic, update: gates, seed: 1}}
targets: [ours]
tasks:
  topic: {{data: "bundled:parallel", limit_train: 30, limit_test: 12, metric: macro_f1}}
  ner: {{data: "bundled:parallel", dev: null, limit_train: 30, limit_test: 12}}
language:
  text: {text}
  stage: {{steps: 2, length: 24, batch_size: 4}}
stage: {{steps: 2, batch_size: 4}}
updates:
  gates: {{method: gates, auxiliary: [de], stage: {{outer_steps: 2, batch_size: 4, disjoint: false}}}}
"""


class World:
    def __init__(self, root: Path) -> None:
        torch.set_num_threads(1)
        self.root, self.text = root, write_texts(root)
        self.backbone = root / "backbone"
        assert run(["pretrain", str(write_recipe(root, self.text, "encoder")), "--out", str(self.backbone)]) == 0
        self.file = root / "study.yaml"
        self.file.write_text(STUDY.format(backbone=self.backbone, text=self.text))

    def plan(self, *changes: str) -> Plan:
        study, marks = read_marked(self.file, changes)
        return make_plan(study, marks)

    def run(self, plan: Plan, name: str) -> tuple[Result, Store, InlineEngine]:
        store = Store(self.root / name, create=True, name="tiny")
        engine = InlineEngine(store)
        result = run_plan(plan, store, engine, options={"cache": str(self.root / "cache")}, command="test")
        return result, store, engine


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def finished(world: World) -> tuple[Plan, Store, InlineEngine]:
    plan = world.plan()
    result, store, engine = world.run(plan, "store")
    assert not result.failed, result.failed
    assert result.done == len(plan.steps)
    return plan, store, engine


def test_shared_steps_are_planned_once(world: World) -> None:
    plan = world.plan()
    # Four language modules (two languages, two methods) serve all; the length of a prompt multiplies only the prompt cell.
    assert plan.counts() == {"language": 4, "task": 2 + 2 + 2 * 2 + 2 + 1 + 2, "update": 1, "evaluation": 2 * 13}
    assert len(plan.points) == 13
    assert len({point["step"] for point in plan.points}) == 13
    places = {key: number for number, key in enumerate(plan.steps)}
    assert all(places[need] < places[key] for key, step in plan.steps.items() for need in step.needs)


def test_one_job_scores_all_languages_of_a_model(finished: tuple[Plan, Store, InlineEngine]) -> None:
    _, _, engine = finished
    jobs = [job for job in engine.jobs if job.steps[0].kind == "evaluation"]
    assert len(jobs) == 13
    assert {tuple(sorted(step.spec["language"] for step in job.steps)) for job in jobs} == {("eng_Latn", "slk_Latn")}


def test_scores_are_those_of_evaluate(world: World, finished: tuple[Plan, Store, InlineEngine]) -> None:
    plan, store, _ = finished
    backbone = load_backbone(world.backbone, device="cpu")
    for point in plan.points:
        task = load_module(store.place(point["step"]) / "module", backbone)
        parts = {
            plan.steps[need].spec["language"]: load_module(store.place(need) / "module", backbone)
            for _, _, key in point["evaluations"]
            for need in plan.steps[key].needs
            if plan.steps[need].kind == "language"
        }
        expected = evaluate(backbone, task, parts, "bundled:parallel", ["eng_Latn", "slk_Latn"], limit=12)["scores"]
        for code, _, key in point["evaluations"]:
            found = read_json(store.place(key) / "scores.json")
            assert found["metrics"] == pytest.approx(expected[code])


def test_a_report_is_of_the_file_as_it_is_given(
    world: World, finished: tuple[Plan, Store, InlineEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    """And not of whatever plan ran last on the store."""
    _, store, _ = finished
    changes = ["--set", "grid.seed=[2]", "--set", "grid.cell=[head]", "--set", "grid.task=[topic]"]
    changes += ["--set", "add=[]", "--set", f"store={store.folder}"]
    out = world.root / "one-seed"
    assert succeed(capsys, "study", "report", world.file, *changes, "--out", out, "--json").json["scores"] == 2
    rows = (out / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3 and all("head" in row for row in rows[1:])
    data = collect(store)
    assert data.groups == {"ours": ["eng_Latn", "slk_Latn"]}
    assert data.backbones == {str(world.backbone): load_backbone(world.backbone, device="cpu").fingerprint}


def test_a_report_can_be_written_again(
    world: World, finished: tuple[Plan, Store, InlineEngine], capsys: pytest.CaptureFixture[str]
) -> None:
    """In the store always; elsewhere only where that was asked for."""
    _, store, _ = finished
    command = ("study", "report", world.file, "--set", f"store={store.folder}", "--set", "grid.task=[topic]")
    command += ("--set", "grid.cell=[head]", "--set", "add=[]", "--pool-texts", "0")
    for _ in range(2):
        succeed(capsys, *command)
        assert (store.folder / "report" / "report.html").is_file()
        (store.folder / "report" / "report.html").unlink()
    out = world.root / "again"
    succeed(capsys, *command, "--out", out)
    refused = isogloss(capsys, *command, "--out", out)
    assert refused.status == 2 and "--overwrite" in refused.err
    succeed(capsys, *command, "--out", out, "--overwrite")


def test_parts_give_the_metric_back(finished: tuple[Plan, Store, InlineEngine]) -> None:
    _, store, _ = finished
    data = collect(store)
    for score in data.scores:
        assert (
            score.parts is not None
            and score.items is not None
            and len(score.parts) == len(score.items) == score.n == 12
        )
        if score.task == "ner":
            right, guessed, gold = (sum(part[place] for part in score.parts) for place in range(3))
            assert score.value == pytest.approx(200 * right / (guessed + gold) if guessed + gold else 0.0)
        else:
            assert score.metric == "macro_f1"
            assert score.value == pytest.approx(_macro_f1(score.parts))  # type: ignore[arg-type]


def _macro_f1(parts: list[list[float]]) -> float:
    found = []
    for label in {gold for _, gold in parts} | {guess for guess, _ in parts if guess >= 0}:
        right = sum(guess == gold == label for guess, gold in parts)
        total = sum(guess == label for guess, _ in parts) + sum(gold == label for _, gold in parts)
        found.append(2 * right / total)
    return 100 * sum(found) / len(found)


def test_what_a_report_gets(finished: tuple[Plan, Store, InlineEngine]) -> None:
    plan, store, _ = finished
    data: StudyData = collect(store, command="isogloss study report", commit="abc")
    assert len(data.scores) == 26 and not data.missing
    assert {(score.language, score.seen) for score in data.scores} == {("eng_Latn", True), ("slk_Latn", False)}
    first = next(score for score in data.scores if score.factors["cell"] == "LP+TP")
    assert first.factors["length"] in (2, 3) and first.factors["language_module"] == "prompt:3"
    assert first.trained_parameters > 0 and first.stored_bytes > 0 and first.command == "test" and first.commit
    assert {curve.kind for curve in data.curves} == {"loss", "dev"}
    assert [gate.step for gate in data.gates] == [key for key, step in plan.steps.items() if step.kind == "update"]
    (shares,) = data.shares.values()
    assert set(shares) == {"eng_Latn", "slk_Latn"} and sum(shares.values()) == pytest.approx(1.0)  # type: ignore[arg-type]


def test_the_same_study_again_does_nothing_and_a_longer_one_only_what_is_new(
    world: World, finished: tuple[Plan, Store, InlineEngine]
) -> None:
    plan, store, _ = finished
    before = contents(store)
    again, _, engine = world.run(world.plan(), "store")
    assert (again.done, again.found, engine.jobs) == (0, len(plan.steps), [])
    longer = world.plan("grid.seed=[1,2,3]", "grid.task=topic", "grid.cell=LA+TA")
    more, _, engine = world.run(longer, "store")
    assert [job.steps[0].kind for job in engine.jobs] == ["task", "evaluation"] and more.done == 3
    after = contents(store)
    assert all(after[path] == content for path, content in before.items())


@pytest.mark.parametrize("spec", ["none", "adapter:4", "prompt:3,reparameterisation=mlp,hidden=8"])
@pytest.mark.parametrize("name", ["topic", "ner"])
def test_seeds_together_are_seeds_apart(world: World, tmp_path: Path, spec: str, name: str) -> None:
    backbone = load_backbone(world.backbone, device="cpu")
    task, config = get_task(name), parse_module(spec)
    train = read_split("bundled:parallel", "eng_Latn", "train", task, limit=30)
    dev = read_split("bundled:parallel", "eng_Latn", "dev", task, limit=12)
    stages = [TaskStage(epochs=2, batch_size=8, learning_rate=0.01, seed=seed, select="loss") for seed in (1, 2, 3)]
    apart = [tmp_path / f"apart{stage.seed}" for stage in stages]
    for stage, out in zip(stages, apart, strict=True):
        train_task(backbone, task, train, dev, config, stage, out)
    outs = [tmp_path / f"together{stage.seed}" for stage in stages]
    made = train_task_seeds(backbone, task, train, dev, config, stages, outs, tmp_path / "common")
    assert [found["steps"] for found in made] == [8, 8, 8]
    for one, other in zip(apart, outs, strict=True):
        expected, found = load_tensors(one / "module.safetensors"), load_tensors(other / "module.safetensors")
        assert expected.keys() == found.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, atol=2e-5, rtol=1e-4)
        facts = [read_json(place / "module.json") for place in (one, other)]
        assert facts[0]["training"]["best_step"] == facts[1]["training"]["best_step"]
        assert facts[0]["training"]["parameters"] == facts[1]["training"]["parameters"]


def test_seeds_together_draw_from_several_languages(world: World, tmp_path: Path) -> None:
    """Each draw meets the languages in its own order, and every row still has the module of its own language."""
    backbone = load_backbone(world.backbone, device="cpu")
    task, config = get_task("topic"), parse_module("adapter:4")
    languages = []
    for seed, code in enumerate(("eng_Latn", "slk_Latn")):
        module = create_module(parse_module("prompt:3,init=uniform"), backbone, seed=seed)
        module.info.role, module.info.language = "language", code
        languages.append(module.requires_grad_(False))
    train = [row for code in ("en", "sk") for row in read_split("bundled:parallel", code, "dev", task)]
    stages = [TaskStage(steps=3, batch_size=8, shots=2, learning_rate=0.01, seed=seed) for seed in (1, 2, 3)]
    firsts = {few_shot(task, train, [], 2, seed=stage.seed).train[0].language for stage in stages}
    assert len(firsts) == 2  # or nothing is tested here
    outs = [tmp_path / f"together{stage.seed}" for stage in stages]
    train_task_seeds(backbone, task, train, [], config, stages, outs, tmp_path / "common", language_modules=languages)
    for stage, out in zip(stages, outs, strict=True):
        apart = tmp_path / f"apart{stage.seed}"
        train_task(backbone, task, train, [], config, stage, apart, language_modules=languages)
        expected, found = load_tensors(apart / "module.safetensors"), load_tensors(out / "module.safetensors")
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, atol=2e-5, rtol=1e-4)


def test_seeds_are_apart_where_a_pool_takes_part(world: World, tmp_path: Path) -> None:
    """A pool has routes and a loss of its own, and one of the backbone would be there twice."""
    assert can_share("encoder", parse_module("adapter:4"), TaskStage())
    assert not can_share("encoder", parse_module("pool:4x2,selection=top-hard,top=2"), TaskStage())
    pooled = dataclasses.replace(load_backbone(world.backbone, device="cpu"), pool="pool:4x2")
    rows = read_split("bundled:parallel", "eng_Latn", "train", get_task("topic"), limit=8)
    stages = [TaskStage(steps=1, seed=seed) for seed in (1, 2)]
    outs = [tmp_path / "1", tmp_path / "2"]
    with pytest.raises(IsoglossError, match="one at a time"):
        train_task_seeds(pooled, get_task("topic"), rows, [], parse_module("none"), stages, outs, tmp_path / "common")
    for pool, shared in (("", 2), ("pool:4x2", 0)):
        card = world.backbone / "isogloss.json"
        kept = card.read_text()
        try:
            card.write_text(json.dumps({**json.loads(kept), "pool": pool}))
            plan = world.plan("seeds_together=true", "grid.cell=head", "grid.task=topic", "add=[]", "exclude=[]")
        finally:
            card.write_text(kept)
        groups = [step.group for step in plan.steps.values() if step.kind == "task"]
        assert sum(group.startswith("seeds-") for group in groups) == shared


def test_a_study_with_seeds_together_scores_the_same(world: World, finished: tuple[Plan, Store, InlineEngine]) -> None:
    _, store, _ = finished
    plan = world.plan(
        "seeds_together=true", "grid.cell=LP+TP", "grid.task=topic", "grid.length=2", "add=[]", "exclude=[]"
    )
    result, other, engine = world.run(plan, "seeds")
    assert not result.failed
    assert [len(job.steps) for job in engine.jobs if job.steps[0].kind == "task"] == [2]
    assert not list((other.folder / "work").iterdir())
    for key, step in plan.steps.items():
        if step.kind == "evaluation":  # the same keys, so that either way of running finds the other's steps
            assert read_json(other.place(key) / "scores.json") == read_json(store.place(key) / "scores.json")


def test_a_seed_that_diverges_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds of one pass have one sum of losses, so one that is no number hides all the others."""
    plan = world.plan("seeds_together=true", "grid.cell=head", "grid.task=topic", "add=[]", "exclude=[]")
    plain = LinearClassification.loss

    def broken(head: Any, stack: Any, batch: Any) -> Any:
        total, count = plain(head, stack, batch)
        return total * (float("nan") if head.seed == 2 else 1.0), count

    monkeypatch.setattr(LinearClassification, "loss", broken)
    result, store, engine = world.run(plan, "diverged")
    assert [len(job.steps) for job in engine.jobs if job.steps[0].kind == "task"] == [2]
    tasks = {step.spec["seed"]: step for step in plan.steps.values() if step.kind == "task"}
    assert store.is_done(tasks[1].key) and not store.is_done(tasks[2].key)
    assert "became nan" in result.failed[tasks[2].key]["error"]
    scored = [step for step in plan.steps.values() if step.kind == "evaluation" and tasks[1].key in step.needs]
    assert scored and all(store.is_done(step.key) for step in scored)


def test_each_language_seed_is_scored_with_its_own_modules(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model where its source takes a ready module, but the targets' modules are not one."""
    small = ("grid.cell=LA+TA", "grid.task=topic", "grid.seed=1", "add=[]", "exclude=[]")
    plan = world.plan(*small)
    _, store, _ = world.run(plan, "ready")
    english = next(key for key, step in plan.steps.items() if step.kind == "language" and "eng" in step.label)
    ready = world.root / "ready-modules"
    shutil.copytree(store.place(english) / "module", ready / "adapter" / "eng_Latn")
    used: dict[str, set[str]] = {}

    def recorded(backbone: Any, module: Any, parts: Any, codes: Any) -> Any:
        for code in codes:
            used.setdefault(code, set()).add(parts[code].digest)
        return make_predictor(backbone, module, parts, codes)

    monkeypatch.setattr(scoring, "make_predictor", recorded)
    plan = world.plan(*small, "grid.language_seed=[1,2]", f"language.ready={ready}")
    assert plan.counts() == {"language": 2, "task": 1, "evaluation": 3}
    result, store, engine = world.run(plan, "language-seeds")
    assert not result.failed and [len(job.steps) for job in engine.jobs][-1] == 3
    slovak = {
        read_info(store.place(key) / "module").digest for key, step in plan.steps.items() if step.kind == "language"
    }
    assert used["slk_Latn"] == slovak and len(slovak) == 2 and len(used["eng_Latn"]) == 1


def test_a_leak_between_training_and_test_is_refused(world: World) -> None:
    plan = world.plan(
        "grid={backbone: " + str(world.backbone) + ", cell: head, task: topic, source: en}",
        "add=[]",
        "exclude=[]",
        "tasks.topic.test={data: bundled:parallel, split: dev}",
    )
    result, store, _ = world.run(plan, "leaky")
    assert (
        len(result.failed) == 2
        and "in the training data and in the test data" in next(iter(result.failed.values()))["error"]
    )
    assert store.done(plan.steps) == {plan.points[0]["step"]}


def test_records_name_step_seed_command_and_commit(finished: tuple[Plan, Store, InlineEngine]) -> None:
    plan, store, _ = finished
    for key in plan.steps:
        record = store.record(key)
        assert record["key"] == key and record["command"] == "test" and record["commit"] and record["finished"]
        json.dumps(record)
