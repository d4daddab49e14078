"""A pool over a frozen backbone: learned from text of several languages, used under a task, measured."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module, read_info
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack, TextBatch, retrieval
from isogloss.tasks import Example, get_task
from isogloss.training.evaluation import load_parts, make_predictor
from isogloss.training.language_stage import EVERY, LanguageStage
from isogloss.training.pool_usage import pool_usage
from isogloss.training.pretrain import pretrain
from isogloss.training.retrieval import evaluate_retrieval, sentence_vectors
from isogloss.training.shared_stage import train_shared
from isogloss.training.task_stage import TaskStage, train_task
from tests._pool_tools import LANGUAGES, recipe, write_world

STAGE = LanguageStage(steps=4, length=24, batch_size=4, learning_rate=0.02, validation_documents=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def backbones(world: Path) -> Callable[[str], Backbone]:
    loaded: dict[str, Backbone] = {}

    def get(kind: str) -> Backbone:
        if kind not in loaded:
            name = {"encoder": "masked", "decoder": "causal", "encoder-decoder": "spans"}[kind]
            changes = {
                "kind": kind,
                "pool": None,
                "parallel": [],
                "objectives": [{"name": name, "weight": 1}],
                "tokenizer": {"vocabulary": 500, "sentinels": 20 if kind == "encoder-decoder" else 0},
                "stages": [{"steps": 2, "length": 24, "batch": 4}],
            }
            pretrain(recipe(world, **changes), world / kind, cache_dir=world / "cache")
            loaded[kind] = load_backbone(world / kind, device="cpu")
        return loaded[kind]

    return get


def texts_of(world: Path) -> dict[str, list[Path]]:
    return {code: [world / "text" / f"{code}.txt"] for code in LANGUAGES}


def examples(count: int = 12) -> list[Example]:
    return [
        Example(
            id=str(n),
            language=LANGUAGES[n % 2],
            text=f"{'abcd' if n % 2 else 'ijkl'} {n} mnop",
            label=("travel", "sports")[n % 2],
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_pool_then_adapter(world: Path, backbones: Callable[[str], Backbone], tmp_path: Path, kind: str) -> None:
    """`pool > adapter:8` end to end, and batches that mix languages answer as single ones do."""
    backbone = backbones(kind)
    before = {name: p.clone() for name, p in backbone.model.named_parameters()}
    facts = train_shared(
        backbone, texts_of(world), parse_module("pool:4x2"), STAGE, tmp_path / "pool", cache_dir=world / "cache"
    )
    assert set(facts["metrics"]) == set(LANGUAGES) and facts["notation"] == "pool:shared"
    assert all(torch.equal(before[name], p) for name, p in backbone.model.named_parameters())
    assert read_info(tmp_path / "pool").info.training["languages"] == list(LANGUAGES)
    pool = load_module(tmp_path / "pool", backbone)
    task = get_task("topic").with_labels_from(examples())
    stage = TaskStage(steps=2, batch_size=4, learning_rate=0.01, head="linear" if kind == "encoder" else "verbaliser")
    done = train_task(
        backbone,
        task,
        examples(),
        examples(4),
        parse_module("adapter:8"),
        stage,
        tmp_path / "task",
        language_modules=[pool],
    )
    assert done["notation"] == "pool:shared > adapter:topic"
    module, languages = load_parts([tmp_path / "pool", tmp_path / "task"], backbone)
    assert module is not None and list(languages) == ["*"]
    predictor = make_predictor(backbone, module, languages, LANGUAGES[:2])
    _, _, together = predictor.predict(examples(6))
    for number, example in enumerate(examples(6)):
        alone = predictor.predict([example])[2][0]
        assert together[number].scores == pytest.approx(alone.scores, abs=1e-4)
    with pytest.raises(IsoglossError, match="give that very one"):
        make_predictor(backbone, module, {}, LANGUAGES[:2])


def test_a_pool_trains_as_a_task_module(backbones: Callable[[str], Backbone], tmp_path: Path) -> None:
    backbone = backbones("encoder")
    task = get_task("topic").with_labels_from(examples())
    spec = "pool:4x2,selection=top-hard,top=2"
    train_task(backbone, task, examples(), [], parse_module(spec), TaskStage(steps=2, batch_size=4), tmp_path / "task")
    module, _ = load_parts([tmp_path / "task"], backbone)
    assert module is not None
    assert len(make_predictor(backbone, module, {}, LANGUAGES).predict(examples(3))[0]) == 3


def test_a_stopped_shared_stage_goes_on(world: Path, backbones: Callable[[str], Backbone], tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="already holds"):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "notes.txt").write_text("mine")
        train_shared(backbones("encoder"), texts_of(world), parse_module("pool:4x2"), STAGE, tmp_path / "full")
    with pytest.raises(IsoglossError, match="must be something"):
        train_shared(backbones("encoder"), texts_of(world), parse_module("none"), STAGE, tmp_path / "out")
    with pytest.raises(IsoglossError, match="no text"):
        train_shared(backbones("encoder"), {}, parse_module("pool:4x2"), STAGE, tmp_path / "out")


@pytest.mark.parametrize("pull", [0.0, 1.0])
def test_only_the_pull_loss_moves_the_keys_of_hard_selection(
    world: Path, backbones: Callable[[str], Backbone], tmp_path: Path, pull: float
) -> None:
    backbone = backbones("encoder")
    config = parse_module(f"pool:4x2,selection=top-hard,top=2,pull={pull}")
    train_shared(backbone, texts_of(world), config, STAGE, tmp_path / "pool", cache_dir=world / "cache")
    before, after = create_module(config, backbone, seed=STAGE.seed), load_module(tmp_path / "pool", backbone)
    same = {name: torch.equal(before.weights("pool")[name], after.weights("pool")[name]) for name in ("key", "prompts")}
    assert same == {"key": pull == 0, "prompts": False}


def test_usage_against_one_text_at_a_time(world: Path, backbones: Callable[[str], Backbone], tmp_path: Path) -> None:
    backbone = backbones("encoder")
    train_shared(
        backbone,
        texts_of(world),
        parse_module("pool:8x2,temperature=0.02"),
        STAGE,
        tmp_path / "pool",
        cache_dir=world / "cache",
    )
    stack = Stack(backbone, [load_module(tmp_path / "pool", backbone)])
    texts = {code: files[0].read_text().split("\n\n")[:7] for code, files in texts_of(world).items()}
    usage = pool_usage(stack, texts, tokens_per_batch=64)
    assert usage.languages == LANGUAGES and usage.texts == (7, 7, 7) and usage.keys == 8
    for place, lines in enumerate(texts.values()):
        rows = []
        for line in lines:
            ids = torch.tensor([backbone.tokenizer(line)["input_ids"]])
            rows.append(retrieval.attention(stack, TextBatch(ids, torch.ones_like(ids)))["shared"][0].double())
        mean = sum(rows) / len(rows)
        torch.testing.assert_close(
            torch.tensor(usage.attention[place], dtype=torch.float64), mean, atol=1e-6, rtol=1e-5
        )
        assert usage.entropy[place] == pytest.approx(
            sum(-sum(p * math.log(p) for p in row.tolist() if p) for row in rows) / 7, abs=1e-5
        )
        assert usage.spread[place] >= usage.entropy[place] - 1e-9
    dead = [key for key in range(8) if all(row[key] < 0.01 / 8 for row in usage.attention)]
    assert list(usage.dead) == dead
    with pytest.raises(IsoglossError, match="has no prompt pool"):
        pool_usage(Stack(backbone), texts)


def test_retrieval_tells_the_oracle_each_sides_language(
    world: Path, backbones: Callable[[str], Backbone], tmp_path: Path
) -> None:
    backbone = backbones("encoder")
    config = parse_module("pool:1x2,selection=oracle")
    train_shared(backbone, texts_of(world), config, STAGE, tmp_path / "pool", cache_dir=world / "cache")
    _, languages = load_parts([tmp_path / "pool"], backbone)
    texts = ["abcd efgh", "ijkl mnop", "qrst uvwx abcd"]
    (tmp_path / "data" / "deu").mkdir(parents=True)
    rows = [json.dumps({"idx": number, "deu": text, "eng": text}) for number, text in enumerate(texts)]
    (tmp_path / "data" / "deu" / "test.jsonl").write_text("\n".join(rows))
    found = evaluate_retrieval(backbone, languages, tmp_path / "data", ["deu_Latn"])
    stack = Stack(backbone, [languages[EVERY]])
    vectors = {
        code: torch.nn.functional.normalize(sentence_vectors(stack, texts, languages=[code] * 3), dim=1)
        for code in ("deu_Latn", "eng_Latn")
    }
    assert not torch.allclose(vectors["deu_Latn"], vectors["eng_Latn"], atol=1e-4)
    best = (vectors["deu_Latn"] @ vectors["eng_Latn"].T).argmax(1)
    assert found["scores"]["deu_Latn"]["to_english"] == pytest.approx(
        100 * float((best == torch.arange(3)).float().mean())
    )
