"""What meta-training is given and must not trip over: a backbone that something else trained, starts of others, bad numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module, read_info
from isogloss.meta import MetaStage, learn_rule, learn_start, load_rule, memory, open_update, read_rule
from isogloss.meta import start as start_module
from isogloss.meta.objective import Objective
from isogloss.meta.stage import build_parts, check_memory
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack
from isogloss.tasks import Example
from isogloss.tasks.heads import Encoded, make_head
from isogloss.training.task_stage import TaskStage, train_task
from tests.test_meta_training import STAGE, TASK, backbone, examples, rule, same

__all__ = ["backbone"]


def first_tuning(backbone: Backbone, out: Path, rows: list[Example] | None = None, **changes: Any) -> Path:
    """A short plain fine-tuning."""
    stage = TaskStage(steps=2, batch_size=4, select="last", **{"train": "all", **changes})
    train_task(backbone, TASK, rows or examples("eng_Latn"), [], parse_module("none"), stage, out)
    return out


def test_what_a_training_before_it_left_does_not_reach_a_rule(backbone: Backbone, tmp_path: Path) -> None:
    """Gradients of the last step of a fine-tuning stood in the backbone, and the first inner step added them to its own."""
    stage = replace(STAGE, train="all", outer_steps=3, learning_rate=None)
    rule(backbone, tmp_path / "fresh", stage, "none")
    first_tuning(backbone, tmp_path / "tuned")
    assert all(parameter.grad is None for parameter in backbone.model.parameters())
    for parameter in backbone.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    rule(backbone, tmp_path / "after", stage, "none")
    first, second = (load_rule(tmp_path / name)[0].state_dict() for name in ("fresh", "after"))
    assert same(first, second)


def start(backbone: Backbone, out: Path, **options: Any) -> dict[str, Any]:
    """A short first-order start."""
    stage = replace(
        STAGE,
        method="fomaml",
        train="all",
        outer_steps=1,
        start_epochs=0.5,
        learning_rate=None,
        **options.pop("how", {}),
    )
    return learn_start(
        backbone, TASK, examples("eng_Latn"), examples("deu_Latn"), parse_module("none"), stage, out, **options
    )


def test_languages_that_a_given_start_has_seen_stay_seen(backbone: Backbone, tmp_path: Path) -> None:
    rows = [*examples("eng_Latn", 8), *examples("slk_Latn", 8)]
    mixed = first_tuning(backbone, tmp_path / "mixed", rows)
    with pytest.raises(
        IsoglossError, match="--start: the module was fine-tuned on eng_Latn, slk_Latn, not on eng_Latn"
    ):
        start(backbone, tmp_path / "out", start=mixed)
    helped = tmp_path / "helped"
    start(backbone, helped, data_name="first", auxiliary_split="dev")
    learned = learn_start(
        backbone,
        TASK,
        examples("eng_Latn"),
        examples("hin_Deva"),
        parse_module("none"),
        replace(STAGE, method="fomaml", train="all", outer_steps=1, learning_rate=None),
        tmp_path / "again",
        start=helped,
        data_name="second",
        auxiliary_split="dev",
    )
    training = read_info(learned["module"]).info.training
    assert training["seen"] == ["deu_Latn", "eng_Latn", "hin_Deva"]
    # The rows that it was fine-tuned on, and those of the outer steps.
    assert (training["data"], training["meta"]["data"]) == ("first", "second")
    assert open_update(learned["module"]).facts["data"] == "second"
    with pytest.raises(IsoglossError, match="--start: labels of deu_Latn took part in making the module"):
        learn_start(
            backbone,
            TASK,
            examples("eng_Latn"),
            examples("hin_Deva"),
            parse_module("none"),
            replace(STAGE, method="fomaml", train="all", learning_rate=None),
            tmp_path / "more",
            start=helped,
            targets=["deu_Latn"],
        )


def test_a_start_keeps_the_language_part_it_was_trained_over(backbone: Backbone, tmp_path: Path) -> None:
    plain = first_tuning(backbone, tmp_path / "plain")
    parts = []
    for code in ("eng_Latn", "deu_Latn"):
        part = create_module(parse_module("adapter:4"), backbone, seed=1)
        part.info.role, part.info.language = "language", code
        parts.append(part)
    with pytest.raises(
        IsoglossError, match="over a language part of method 'none', but --language-module gives adapter"
    ):
        start(backbone, tmp_path / "out", start=plain, language_modules=parts)


def test_a_fine_tuning_of_other_options_is_not_taken_over(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the fine-tuning in front and the first checkpoint of the outer steps, then started with another seed."""
    with monkeypatch.context() as patch:
        patch.setattr(start_module, "fit", lambda *given, **named: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            start(backbone, tmp_path / "out")
    start(backbone, tmp_path / "out", how={"seed": 7})
    start(backbone, tmp_path / "whole", how={"seed": 7})
    first, second = (load_module(tmp_path / name, backbone) for name in ("out", "whole"))
    assert same(first.head_state, second.head_state)


def objective(backbone: Backbone, spec: str) -> tuple[Objective, list[Encoded]]:
    """The loss of four rows under a pool that learns."""
    module = create_module(parse_module(spec), backbone, seed=1)
    head = make_head("linear", TASK, backbone, default_seed=1)
    stack = Stack(backbone, [module])
    return Objective(stack, head).eval(), head.encode(examples("eng_Latn", 4), budget=stack.text_budget)


def test_a_pool_is_told_the_languages_of_its_rows(backbone: Backbone) -> None:
    found, rows = objective(backbone, "pool:2x2,selection=oracle,languages=eng_Latn+deu_Latn")
    with torch.no_grad():
        english, german = (
            float(found([replace(row, language=code) for row in rows])) for code in ("eng_Latn", "deu_Latn")
        )
    assert english != german


def test_a_pools_own_loss_is_learned_from_and_not_heaped_up(backbone: Backbone) -> None:
    found, rows = objective(backbone, "pool:4x2,selection=top-hard,top=2")
    plain = float(found(rows).detach())
    found.train()
    found.head.eval()
    assert abs(float(found(rows).detach()) - plain) > 1e-3
    assert found.stack.take_module_loss() is None


def test_languages_without_rows_of_their_own_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    """Two items that both languages share: neither may query, and an episode had nothing to draw."""
    given = (examples("eng_Latn", 2), examples("deu_Latn", 2))
    with pytest.raises(
        IsoglossError, match=r"--auxiliary: German \(deu_Latn\) has 2 labelled rows, and none is left as a query"
    ):
        learn_rule(backbone, TASK, *given, parse_module("none"), STAGE, tmp_path / "out")
    with pytest.raises(IsoglossError, match="no labelled rows of the source"):
        learn_rule(backbone, TASK, [], given[1], parse_module("none"), STAGE, tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": -0.1},
        {"head_learning_rate": -0.1},
        {"outer_learning_rate": 0.0},
        {"outer_learning_rate": -1.0},
        {"clip": -1.0},
        {"seed": -1},
        {"query_size": 0},
        {"start_epochs": 0.0},
    ],
)
def test_numbers_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(IsoglossError, match=f"option {next(iter(change))}=.* must be"):
        MetaStage(**change)


def test_a_clip_of_0_does_not_clip(backbone: Backbone, tmp_path: Path) -> None:
    """As in fine-tuning; it made every inner gradient 0, so that no gate could learn anything."""
    for name, clip in (("zero", 0.0), ("none", None)):
        rule(backbone, tmp_path / name, replace(STAGE, outer_steps=2, clip=clip))
    first, second = (load_rule(tmp_path / name)[0].state_dict() for name in ("zero", "none"))
    assert same(first, second) and read_rule(tmp_path / "zero").clip is None


def test_the_rate_of_adafactor_is_not_taken_for_other_steps(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {**backbone.card, "training": {"adapter": {"optimiser": "adafactor", "learning_rate": 0.5}}}
    other = replace(backbone, card=card)  # type: ignore[type-var]
    with pytest.raises(IsoglossError, match=r"is adafactor, .*; give --base adam and --lr"):
        rule(other, tmp_path / "out", replace(STAGE, learning_rate=None))
    rule(other, tmp_path / "out", replace(STAGE, base="adam", outer_steps=1))


def test_memory_that_only_caches_files_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container that has read its data, all but nothing of the limit looked free."""
    for name, text in (
        ("max", "1000000\n"),
        ("current", "900000\n"),
        ("stat", "anon 100000\nactive_file 200000\ninactive_file 600000\n"),
    ):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_memory(torch.device("cpu")) == 900_000


def test_memory_that_pytorch_keeps_on_a_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"mem_get_info": (100, 1000), "memory_reserved": 700, "memory_allocated": 200}
    for name, value in sizes.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert memory.free_memory(torch.device("cuda")) == 600


def test_prompt_vectors_count_as_tokens(backbone: Backbone) -> None:
    rows = []

    def needed(spec: str) -> int:
        module = create_module(parse_module(spec), backbone, seed=1)
        head = make_head("linear", TASK, backbone, default_seed=1)
        parts = build_parts(backbone, module, head, STAGE)
        rows[:] = head.encode(examples("eng_Latn", 4), budget=20)
        return check_memory(parts, STAGE, rows, second_order=False, copies=1).activations

    few, many = needed("prompt:1"), needed("prompt:21")
    longest = max(row.length for row in rows)
    assert many / few == pytest.approx((longest + 21) / (longest + 1), rel=0.01)


@pytest.mark.parametrize("method", ["gates", "meta-sgd"])
def test_the_gates_on_record_are_those_of_the_rule(backbone: Backbone, tmp_path: Path, method: str) -> None:
    """They were means over the whole of the learning, so that a control of the same mean had another one."""
    rule(backbone, tmp_path / "rule", replace(STAGE, method=method, outer_steps=8, outer_learning_rate=1.0))
    learned, record = load_rule(tmp_path / "rule")
    values = learned.gates(None, 0.0, {})[0]
    assert len(record.gates) == STAGE.horizon
    for row in record.gates:
        assert row == pytest.approx(values.tolist(), abs=1e-5)
    assert record.mean_gate == pytest.approx(float(values.mean()), abs=1e-5)


def test_several_processes_are_refused(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(IsoglossError, match="runs in one process"):
        rule(backbone, tmp_path / "out")
