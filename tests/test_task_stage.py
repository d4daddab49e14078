"""What training does with dropout, and what it records: dev scores are those of the saved weights."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import _heads_tools as tools
import pytest
import torch

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module, read_info
from isogloss.languages import resolve
from isogloss.modules import TransferModule, create_module, parse_module
from isogloss.tasks import Example, evaluate_predictions, get_task
from isogloss.training import language_stage, task_stage
from isogloss.training.evaluation import load_parts, make_predictor
from isogloss.training.language_stage import LanguageStage, train_language
from isogloss.training.task_stage import TaskStage, train_task

TOPIC = get_task("topic")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return tools.load(tools.save("encoder", tmp_path_factory.mktemp("encoder")))


def test_dev_scores_are_those_of_the_saved_module(backbone: Backbone, tmp_path: Path) -> None:
    examples = tools.topic_examples()
    # With nine of ten inputs of the layer dropped, an answer given in training mode is a matter of luck.
    stage = TaskStage(steps=40, learning_rate=1e-2, head_options={"dropout": 0.9}, select="loss")
    found = train_task(backbone, TOPIC, examples, examples, parse_module("adapter:4"), stage, tmp_path / "topic")
    module, languages = load_parts([tmp_path / "topic"], backbone)
    assert module is not None
    predictor = make_predictor(backbone, module, languages, ["eng_Latn"])
    assert found["metrics"] == evaluate_predictions(TOPIC, examples, predictor.predict(examples)[0])
    assert read_info(tmp_path / "topic").info.scores["dev"] == found["metrics"]


def test_answers_while_training_go_on_are_those_of_evaluation_mode(backbone: Backbone, tmp_path: Path) -> None:
    examples = tools.topic_examples()
    stage = TaskStage(steps=2, head_options={"dropout": 0.9}, select="last")
    train_task(backbone, TOPIC, examples, [], parse_module("adapter:4,dropout=0.9"), stage, tmp_path / "topic")
    module, languages = load_parts([tmp_path / "topic"], backbone)
    assert module is not None
    predictor = make_predictor(backbone, module, languages, ["eng_Latn"])
    predictor.head.train()
    module.train()
    _, _, first = predictor.predict(examples)
    _, _, second = predictor.predict(examples)
    assert [item.scores for item in first] == [item.scores for item in second]


def _trained(backbone: Backbone, spec: str, out: Path, **changes: Any) -> bytes:
    stage = TaskStage(steps=3, learning_rate=1e-2, head_options={"dropout": 0.0}, select="last", **changes)
    train_task(backbone, TOPIC, tools.topic_examples(), [], parse_module(spec), stage, out)
    return (out / "module.safetensors").read_bytes()


@pytest.mark.parametrize("spec", ["adapter:4", "lora:2"])
def test_dropout_of_a_module_acts_while_it_is_trained(backbone: Backbone, tmp_path: Path, spec: str) -> None:
    weights = [_trained(backbone, spec + option, tmp_path / str(n)) for n, option in enumerate(("", ",dropout=0.5"))]
    assert weights[0] != weights[1]


def test_dropout_of_the_backbone_acts_only_when_it_learns_too(tmp_path: Path) -> None:
    folder = tools.save("encoder", tmp_path / "encoder")
    weights = {}
    for dropout in (0.0, 0.5):
        backbone = tools.load(folder)
        for part in backbone.model.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = dropout
        for train in ("modules", "all"):
            weights[train, dropout] = _trained(backbone, "adapter:4", tmp_path / f"{train}{dropout}", train=train)
    assert weights["modules", 0.0] == weights["modules", 0.5]
    assert weights["all", 0.0] != weights["all", 0.5]


def test_dropout_of_a_language_module_acts_while_it_is_trained(backbone: Backbone, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tools.TEXTS * 5), encoding="utf-8")
    weights = []
    for number, spec in enumerate(("adapter:4", "adapter:4,dropout=0.5")):
        stage = LanguageStage(steps=2, length=16, batch_size=4, validation_documents=2)
        out = tmp_path / str(number)
        train_language(backbone, resolve("en"), [text], parse_module(spec), stage, out, cache_dir=tmp_path / "cache")
        weights.append((out / "module.safetensors").read_bytes())
    assert weights[0] != weights[1]


def test_a_language_stage_accumulates_batches(backbone: Backbone, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tools.TEXTS * 5), encoding="utf-8")
    tokens = []
    for batches in (1, 3):
        stage = LanguageStage(steps=2, length=16, batch_size=4, accumulation=batches, validation_documents=2)
        out = tmp_path / str(batches)
        train_language(
            backbone, resolve("en"), [text], parse_module("adapter:4"), stage, out, cache_dir=tmp_path / "cache"
        )
        tokens.append(read_info(out).info.training["tokens"])
    assert tokens[1] == 3 * tokens[0]


def test_the_backbone_has_a_rate_of_its_own(tmp_path: Path) -> None:
    """At a rate of 0 it stays as it was, while the adapter beside it learns."""
    moved = {}
    for rate in (0.0, 0.01):
        backbone = tools.load(tools.save("encoder", tmp_path / f"backbone-{rate}"))
        before = {name: weight.clone() for name, weight in backbone.model.named_parameters()}
        stage = TaskStage(
            steps=2, learning_rate=1e-2, weight_decay=0.0, backbone_learning_rate=rate, train="all", select="last"
        )
        rows = tools.topic_examples()
        train_task(backbone, TOPIC, rows, [], parse_module("adapter:4"), stage, tmp_path / f"m{rate}")
        module = load_module(tmp_path / f"m{rate}", backbone)
        assert module.backbone_state
        moved[rate] = any(not torch.equal(module.backbone_state[name], before[name]) for name in before)
        fresh = create_module(parse_module("adapter:4"), backbone, seed=stage.seed)
        start, end = dict(fresh.named_parameters()), dict(module.named_parameters())
        assert any(not torch.equal(start[name], end[name]) for name in start)
    assert moved == {0.0: False, 0.01: True}


def _unsaved(monkeypatch: pytest.MonkeyPatch, module: Any, train: Callable[..., Any]) -> None:
    """Runs a training that is killed when all but the result is written, so that its checkpoints stay."""

    def killed(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(module, "save_output", killed)
        train()


def test_a_task_stage_continues_with_the_same_settings_and_data_only(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tools.topic_examples()

    def train(
        examples: list[Example] = rows, dev: list[Example] = rows, module: TransferModule | None = None, **changes: Any
    ) -> dict[str, Any]:
        stage = TaskStage(**{"steps": 2, "batch_size": 4, **changes})
        modules = [] if module is None else [module]
        config = parse_module("prompt:2")
        return train_task(backbone, TOPIC, examples, dev, config, stage, tmp_path / "out", language_modules=modules)

    def language(name: str) -> TransferModule:
        module = create_module(parse_module("prompt:2"), backbone).requires_grad_(False)
        module.info.role, module.info.language, module.digest = "language", "eng_Latn", name
        return module

    _unsaved(monkeypatch, task_stage, lambda: train(module=language("one")))
    other = [replace(row, label="travel") for row in rows]
    for changes in (
        {"batch_size": 2},
        {"tokens_per_batch": 100},
        {"prompt_fusion": "average"},
        {"examples": other},
        {"dev": other},
        {"module": language("two")},
    ):
        with pytest.raises(IsoglossError, match="other settings or data"):
            train(**{"module": language("one"), **changes})  # type: ignore[arg-type]
    assert train(module=language("one"))["steps"] == 2


def test_a_language_stage_continues_with_the_same_settings_only(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(tools.TEXTS * 5), encoding="utf-8")

    def train(**changes: Any) -> dict[str, Any]:
        stage = LanguageStage(**{"steps": 2, "length": 16, "batch_size": 4, "validation_documents": 2, **changes})
        spec, out = parse_module("adapter:4"), tmp_path / "out"
        return train_language(backbone, resolve("en"), [text], spec, stage, out, cache_dir=tmp_path / "cache")

    _unsaved(monkeypatch, language_stage, train)
    for changes in ({"batch_size": 2}, {"rate": 0.5}):
        with pytest.raises(IsoglossError, match="other settings or data"):
            train(**changes)
    # Checkpoints of versions that did not compare them are continued as before.
    state = next((tmp_path / "out" / ".checkpoint").glob("step-*")) / "state.json"
    older = json.loads(state.read_text())
    older.pop("settings")
    state.write_text(json.dumps(older))
    assert train(licence="CC0")["steps"] == 2


def test_held_out_text_of_unknown_tokens_has_no_loss(backbone: Backbone, tmp_path: Path) -> None:
    """A word of another script is one unknown token in BERT's vocabularies; the module is saved all the same."""
    text = tmp_path / "text.txt"
    text.write_text("\n".join([*tools.TEXTS * 5, "<unk>" * 60]), encoding="utf-8")
    stage = LanguageStage(steps=1, length=16, batch_size=4, validation_documents=1)
    train_language(
        backbone, resolve("en"), [text], parse_module("adapter:4"), stage, tmp_path / "out", cache_dir=tmp_path / "c"
    )
    found = read_info(tmp_path / "out").info.scores["held_out"]
    assert found["tokens"] == 0 and math.isnan(found["loss"])
