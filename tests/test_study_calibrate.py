"""What a study will cost: parameters are counted whatever the time allows, and what was not measured is said."""

from pathlib import Path

import pytest

from isogloss.study import costs
from isogloss.study.calibrate import Estimate, _without_text, estimate, labels
from isogloss.study.plan import make_plan
from isogloss.study.reading import read_marked
from isogloss.study.steps import Plan
from tests.test_study_plan import GOOD, write

READY = ("language.ready=bundled:modules", "grid.language_adapter=adapter", "grid.language_prompt=prompt")
UPDATES = """\
updates:
  gates: {method: gates, auxiliary: [de], stage: {outer_steps: 7, horizon: 5, batch_size: 4}}
  reptile: {method: reptile, auxiliary: [de], stage: {outer_steps: 9, batch_size: 4, start_epochs: 2}}
"""


def plan_of(folder: Path, *changes: str, text: str = GOOD) -> Plan:
    return make_plan(*read_marked(write(folder, text), changes))


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Estimate]:
    plan = plan_of(tmp_path_factory.mktemp("hurried"), "grid.cell=[head,TA,LA+TA]", *READY)
    return plan, estimate(plan, limit_seconds=0)


def test_parameters_are_counted_although_no_time_is_left(hurried: tuple[Plan, Estimate]) -> None:
    _, found = hurried
    counted = {name: (cost.trained, cost.stored, cost.measured) for name, cost in found.shapes.items()}
    assert counted == {
        "task topic head eng_Latn": (1_799, 1_799, True),
        "task topic TA adapter:8 eng_Latn": (68_487, 68_487, False),
        "task topic LA+TA adapter:8 eng_Latn": (68_487, 68_487, False),
    }
    (line,) = found.problems
    assert line.startswith("the time of 2 of 3 trainings, which is that of others alike: task topic TA adapter:8")


def test_every_step_has_its_time_and_the_plan_keeps_it(hurried: tuple[Plan, Estimate]) -> None:
    plan, found = hurried
    assert set(found.seconds) == set(found.stored) == set(plan.steps)
    assert plan.seconds == found.seconds and all(seconds > 0 for seconds in found.seconds.values())


def test_update_steps_are_measured(tmp_path: Path) -> None:
    text = GOOD.replace("[de, sk]", "[sk]") + UPDATES
    plan = plan_of(tmp_path, "grid.cell=TA", "grid.seed=1", "grid.update=[gates,reptile]", text=text)
    found = estimate(plan)
    gates, reptile = (found.shapes[f"update topic {name} adapter:8 eng_Latn"] for name in ("gates", "reptile"))
    assert (gates.steps, reptile.steps, reptile.stored) == (7, 9, 68_487)
    # A gate for each block, the embeddings' among them, and one for the head.
    assert 1 < gates.trained < 40 and gates.stored == gates.trained and reptile.trained == 68_487
    assert gates.measured and gates.step_seconds > 0 and reptile.first_steps > 10 and reptile.first_seconds > 0
    assert set(found.seconds) == set(plan.steps) and not found.problems


def test_what_cannot_be_measured_is_said_not_to_be_in_the_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(costs, "update_learner", full)
    text = GOOD.replace("[de, sk]", "[sk]") + UPDATES
    plan = plan_of(tmp_path, "grid.cell=TA", "grid.seed=1", "grid.update=[none,gates]", text=text)
    found = estimate(plan)
    assert any(line.startswith("update topic gates adapter:8 eng_Latn: ") for line in found.problems)
    assert "1 of 1 update steps, which the sums leave out" in found.problems


def test_labels_hold_what_varies(tmp_path: Path) -> None:
    changes = ("grid.backbone=[bundled:encoder,bundled:decoder]", "grid.cell=[TP,LP+TP,full]", "grid.length=[5,20]")
    more = ("grid.reparameterisation=[none,mlp]", "grid.shots=[4,null]", "grid.freeze=[true,false]", "grid.seed=1")
    plan = plan_of(tmp_path, *changes, *more, *READY)
    tasks = [step.key for step in plan.steps.values() if step.kind == "task"]
    names = labels(plan)
    # Two backbones and two numbers of shots: 2 cells of 2 lengths, 2 reparameterisations, frozen or not, and one full.
    assert len(tasks) == 2 * 2 * (2 * 2 * 2 * 2 + 1) == len({names[key] for key in tasks})


def test_the_words_that_a_prompt_starts_from_tell_no_shapes_apart_but_all_else_does(tmp_path: Path) -> None:
    changes = ("grid.cell=TP", "grid.reparameterisation=[none,mlp]", "grid.seed=1")
    plans = [plan_of(tmp_path, *changes, f"tasks.topic.init_text={words}") for words in ("A topic, in {name}", "Topic")]
    modules = [step.spec["module"] for plan in plans for step in plan.steps.values() if step.kind == "task"]
    assert len(set(modules)) == 4 and len({_without_text(module) for module in modules}) == 2
    assert "mlp" in " ".join(labels(plans[0]).values())
