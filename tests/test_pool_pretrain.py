"""Pre-training with a pool: it trains, is saved with the backbone, comes back, and resumes to the same bits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isogloss.backbones import Backbone, load_backbone
from isogloss.corpora import BlockView
from isogloss.errors import IsoglossError
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack, TextBatch
from isogloss.storage import load_tensors
from isogloss.training import pretrain as pretraining
from isogloss.training.pretrain import pretrain
from isogloss.training.recipe import read_recipe
from tests._pool_tools import LANGUAGES, recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world: Path) -> Path:
    pretrain(recipe(world), world / "with-pool", cache_dir=world / "cache")
    return world / "with-pool"


def ids(backbone: Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    found = backbone.tokenizer(["abcd efgh abab", "ijkl mnop"], padding=True, return_tensors="pt")
    return found["input_ids"], found["attention_mask"]


def test_the_backbone_carries_its_pool(trained: Path) -> None:
    backbone = load_backbone(trained, device="cpu")
    assert backbone.pool == "pool:4x2"
    assert backbone.pool_tensors is not None and not any(p.requires_grad for p in backbone.pool_tensors.values())
    stack = Stack(backbone, [create_module(parse_module("adapter:4"), backbone)])
    assert [slot.name for slot in stack.slots] == ["backbone", "task"]
    assert stack.notation == "pool:backbone > adapter:task"
    with_pool = Stack(backbone).hidden(*ids(backbone))
    bare = Stack(backbone, backbone_pool=False).hidden(*ids(backbone))
    assert not torch.allclose(with_pool[0], bare[0], atol=1e-3)
    # Plain transformers loads the folder, and computes what the bare stack does.
    import transformers

    model, report = transformers.AutoModelForMaskedLM.from_pretrained(
        trained, dtype=torch.float32, output_loading_info=True
    )
    assert not report["unexpected_keys"] and not report["missing_keys"]
    rows, mask = ids(backbone)
    plain = model.base_model(input_ids=rows, attention_mask=mask).last_hidden_state
    real = mask.bool()
    torch.testing.assert_close(plain[real], bare[real], atol=1e-5, rtol=1e-4)


def test_the_pool_has_learned(world: Path, trained: Path) -> None:
    start, backbones = {}, load_backbone(trained, device="cpu")
    fresh = create_module(parse_module("pool:4x2"), backbones, seed=42)
    start = dict(fresh.groups["pool"].items())
    for name, tensor in load_tensors(trained / "pool.safetensors").items():
        assert tensor.shape == start[name].shape
    again = load_backbone(trained, device="cpu")
    assert again.fingerprint == backbones.fingerprint
    with torch.no_grad():
        assert again.pool_tensors is not None
        again.pool_tensors["prompts"].add_(1.0)
    from isogloss.backbones import fingerprint

    assert fingerprint(again.model, again.config) != again.fingerprint


def test_the_pool_learns_at_its_own_rate(world: Path, tmp_path: Path, trained: Path) -> None:
    pretrain(recipe(world, pool_rate=30.0), tmp_path / "fast", cache_dir=world / "cache")
    start = create_module(parse_module("pool:4x2"), load_backbone(trained, device="cpu"), seed=42).weights("pool")
    slow, fast = (
        float((load_tensors(place / "pool.safetensors")["prompts"].float() - start["prompts"].detach()).norm())
        for place in (trained, tmp_path / "fast")
    )
    assert fast > 5 * slow > 0


@pytest.mark.parametrize("spec", ["pool:4x2,selection=top-hard,top=2,query=mean-pass", "pool:1x2,selection=oracle"])
def test_a_killed_run_resumes_to_the_same_weights(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    wanted = recipe(world, pool=spec)
    pretrain(wanted, tmp_path / "whole", cache_dir=world / "cache")
    calls = 0
    step_loss = pretraining.step_loss

    def dying(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RuntimeError("killed")
        return step_loss(*arguments)

    monkeypatch.setattr(pretraining, "step_loss", dying)
    with pytest.raises(RuntimeError, match="killed"):
        pretrain(wanted, tmp_path / "killed", cache_dir=world / "cache", checkpoint_seconds=0.0)
    monkeypatch.undo()
    pretrain(wanted, tmp_path / "killed", cache_dir=world / "cache")
    for file in ("model.safetensors", "pool.safetensors"):
        whole, killed = load_tensors(tmp_path / "whole" / file), load_tensors(tmp_path / "killed" / file)
        assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_another_pool_is_another_run(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "validation_losses", lambda *a: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        pretrain(recipe(world), tmp_path / "run", cache_dir=world / "cache", checkpoint_seconds=0.0)
    monkeypatch.undo()
    with pytest.raises(IsoglossError, match=r"another|other"):
        pretrain(recipe(world, pool="pool:8x2"), tmp_path / "run", cache_dir=world / "cache")


def test_the_oracle_learns_the_recipes_languages(world: Path, tmp_path: Path) -> None:
    pretrain(recipe(world, pool="pool:1x2,selection=oracle"), tmp_path / "oracle", cache_dir=world / "cache")
    backbone = load_backbone(tmp_path / "oracle", device="cpu")
    config = Stack(backbone).slots[0].single.config
    assert config.languages == LANGUAGES  # type: ignore[attr-defined]
    rows, mask = ids(backbone)
    stack = Stack(backbone)
    told = stack.language_routes(["deu_Latn", "ces_Latn"])
    assert not torch.allclose(
        stack.run(TextBatch(rows, mask, routes=told)).text_hidden,
        stack.run(TextBatch(rows, mask)).text_hidden,
        atol=1e-3,
    )


@pytest.mark.parametrize(("kind", "objective"), [("decoder", "causal"), ("encoder-decoder", "spans")])
def test_other_kinds(world: Path, tmp_path: Path, kind: str, objective: str) -> None:
    wanted = recipe(
        world,
        kind=kind,
        parallel=[],
        objectives=[{"name": objective, "weight": 1}],
        tokenizer={"vocabulary": 500, "sentinels": 20 if kind != "decoder" else 0},
    )
    facts = pretrain(wanted, tmp_path / "out", cache_dir=world / "cache")
    assert facts["pool"] == "pool:4x2" and len(facts["validation_loss"]) == 3
    assert load_backbone(tmp_path / "out", device="cpu").pool_tensors is not None


def test_continuing_keeps_the_pool(world: Path, trained: Path, tmp_path: Path) -> None:
    pretrain(recipe(world, pool=None, start_from=str(trained)), tmp_path / "more", cache_dir=world / "cache")
    before, after = (load_tensors(folder / "pool.safetensors")["key"] for folder in (trained, tmp_path / "more"))
    assert before.shape == after.shape and not torch.equal(before, after)
    card = (tmp_path / "more" / "README.md").read_text(encoding="utf-8")
    assert f"continued from `{trained}`" in card and "first embeddings" not in card
    with pytest.raises(IsoglossError, match="already"):
        pretrain(recipe(world, start_from=str(trained)), tmp_path / "two", cache_dir=world / "cache")


def test_held_out_text_that_the_vocabulary_lacks_has_no_loss(world: Path, trained: Path) -> None:
    """As of mBERT, continued on a script that it does not know; it was a division by zero when all training was done."""
    stack = Stack(load_backbone(trained, device="cpu"))
    unknown = stack.backbone.tokenizer.unk_token_id

    class Store:
        def __init__(self, token: int) -> None:
            self.token = token

        def blocks(self, length: int) -> BlockView:
            return BlockView(np.full(4 * length, self.token), length)

    held: Any = {"amh_Ethi": Store(unknown), "eng_Latn": Store(400)}
    assert set(pretraining.validation_losses(stack, held, recipe(world))) == {"eng_Latn"}


def test_bad_recipes(world: Path, tmp_path: Path, tiny: Callable[[str], Backbone]) -> None:
    text = (
        "name: x\nkind: encoder\nlanguages: [eng_Latn]\ntext: [t]\nobjectives: [{name: masked, weight: 1}]\n"
        "stages: [{steps: 1, length: 16, batch: 1}]\npool: %s\n"
    )
    for spec, said in (
        ("pool:4", "KEYSxLENGTH"),
        ("adapter:16", "not a prompt pool"),
        ("pol:4x2", "names the method 'pol'"),
    ):
        (tmp_path / "r.yaml").write_text(text % spec)
        with pytest.raises(IsoglossError, match=f"wrong value for 'pool'.*{said}"):
            read_recipe(tmp_path / "r.yaml")
    with pytest.raises(IsoglossError, match="shorter rows"):
        pretrain(recipe(world, pool="pool:4x50"), tmp_path / "long", cache_dir=world / "cache")
    (tmp_path / "broken").mkdir()


def test_a_lost_pool_file_is_said(trained: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy" / "pool.safetensors").unlink()
    with pytest.raises(IsoglossError, match=r"pool\.safetensors is missing"):
        load_backbone(tmp_path / "copy", device="cpu")


def test_the_recipes_of_the_comparison_differ_in_their_prompt_only() -> None:
    folder = Path(__file__).parent.parent / "recipes" / "pretrain" / "pool"
    found = {name: read_recipe(folder / f"{name}.yaml").model_dump() for name in ("none", "pool", "shared", "oracle")}
    rest = [{key: value for key, value in item.items() if key not in ("name", "pool")} for item in found.values()]
    assert all(item == rest[0] for item in rest)
    pools = {name: item["pool"] for name, item in found.items()}
    assert len(set(pools.values())) == 4 and pools["none"] is None
    large = read_recipe(folder / "xlm-r-base.yaml")
    assert large.start_from == "FacebookAI/xlm-roberta-base" and large.stages[0].length + 4 <= 512
