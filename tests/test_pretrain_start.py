"""How pre-training starts: silent blocks over counted embeddings, their own learning rate, texts that count several times."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from isogloss.backbones import load_backbone
from isogloss.corpora import ParallelCorpus
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.training.architectures import fresh_model
from isogloss.training.first_embeddings import _counted, borrowed_embeddings
from isogloss.training.pretrain import pretrain, wrap_model
from isogloss.training.pretrain_stream import PretrainStream
from isogloss.training.recipe import OBJECTIVES, Recipe
from tests._corpora_tools import word_tokenizer
from tests._pool_tools import recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def _shape(kind: str, embeddings: str) -> Recipe:
    return Recipe(
        name="tiny",
        kind=kind,  # type: ignore[arg-type]
        languages=["eng"],
        text=["text"],  # type: ignore[list-item]
        model={"hidden": 16, "layers": 2, "heads": 2, "ffn": 32},  # type: ignore[arg-type]
        embeddings=embeddings,  # type: ignore[arg-type]
        objectives=[{"name": OBJECTIVES[kind][0], "weight": 1}],  # type: ignore[list-item]
        stages=[{"steps": 1, "length": 8, "batch": 2}],  # type: ignore[list-item]
    )


@pytest.mark.parametrize("kind", ["encoder", "decoder", "encoder-decoder"])
def test_blocks_over_counted_embeddings_start_silent(kind: str) -> None:
    tokenizer = word_tokenizer(kind)
    ids = torch.tensor([[5, 6, 7, 8]])
    for embeddings, silent in (("cooccurrence", True), ("random", False)):
        backbone = wrap_model("tiny", fresh_model(_shape(kind, embeddings), tokenizer), tokenizer)
        states = Stack(backbone, []).hidden(ids, torch.ones_like(ids))[0]
        table = backbone.embed(ids)[0].detach()
        # Only the last norm acts on them, which changes lengths.
        alike = torch.cosine_similarity(states.detach(), table, dim=-1).min()
        assert (alike > 0.9999) == silent


@pytest.mark.parametrize(("rate", "moved"), [(0.0, False), (0.5, True)])
def test_embeddings_learn_at_their_own_rate(world: Path, tmp_path: Path, rate: float, moved: bool) -> None:
    wanted = recipe(world, pool=None, embedding_rate=rate)
    before = fresh_model(wanted, load_tokenizer(world, tmp_path)).get_input_embeddings().weight.to(torch.bfloat16)
    pretrain(wanted, tmp_path / "out", cache_dir=world / "cache")
    after = load_backbone(tmp_path / "out").model.get_input_embeddings().weight.to(torch.bfloat16)
    assert (not torch.equal(before, after)) == moved


@pytest.mark.parametrize(("text_seed", "shared"), [(None, False), (7, True)])
def test_runs_that_differ_in_their_seed_share_what_is_learned_from_the_text(
    world: Path, tmp_path: Path, text_seed: int | None, shared: bool
) -> None:
    kept = [set(), set()]
    for number in (0, 1):
        wanted = recipe(world, pool=None, embeddings="cooccurrence", seed=number, text_seed=text_seed)
        pretrain(wanted, tmp_path / str(number), cache_dir=tmp_path / "cache")
        kept[number] = {
            *(tmp_path / "cache" / "tokenizers").glob("[!.]*"),
            *(tmp_path / "cache" / "embeddings").glob("*"),
        }
    assert len(kept[0]) == 2 and (kept[0] == kept[1]) == shared
    weights = [load_backbone(tmp_path / str(number)).model.state_dict() for number in (0, 1)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def load_tokenizer(world: Path, folder: Path) -> object:
    pretrain(
        recipe(world, pool=None, stages=[{"steps": 1, "length": 24, "batch": 4}]),
        folder / "first",
        cache_dir=world / "cache",
    )
    return load_backbone(folder / "first").tokenizer


def test_a_parallel_text_counts_several_times_in_the_same_groups(world: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(world, tmp_path)
    sources = [world / "parallel"]
    once = ParallelCorpus.open(sources, tokenizer, cache_dir=world / "cache")
    thrice = ParallelCorpus.open(sources, tokenizer, times=[3], cache_dir=world / "cache")
    assert {pair: 3 * count for pair, count in once.sizes.items()} == thrice.sizes
    groups = [batch.groups for batch in (next(once.iterate(batch_size=30)), next(thrice.iterate(batch_size=90)))]
    assert torch.equal(groups[0].sort().values.repeat_interleave(3), groups[1].sort().values)


def test_a_text_counts_several_times_in_the_tokens(world: Path, tmp_path: Path) -> None:
    facts = [
        pretrain(
            recipe(world, pool=None, text=[{"folder": str(world / "text"), "times": times}]),
            tmp_path / str(times),
            cache_dir=world / "cache",
        )["text_tokens"]
        for times in (1, 2)
    ]
    # Counting twice leaves shares of words as they are, and so the vocabulary.
    assert facts[1] == {code: pytest.approx(2 * count, rel=0.05) for code, count in facts[0].items()}


@pytest.fixture(scope="module")
def wide(world: Path) -> Path:
    """A backbone of 24 dimensions with a smaller vocabulary, to take embeddings from."""
    shape = {"hidden": 24, "layers": 1, "heads": 2, "ffn": 32, "max_length": 64}
    made = recipe(world, name="wide", model=shape, pool=None, tokenizer={"vocabulary": 400}, precision="fp32")
    pretrain(made, world / "wide", cache_dir=world / "cache")
    return world / "wide"


def test_embeddings_from_another_model(world: Path, wide: Path, tmp_path: Path) -> None:
    """Pieces that both know keep their place among one another; special tokens go by role, others are means."""
    source = load_backbone(wide, dtype="fp32")
    same = recipe(world, pool=None, model={"hidden": 24, "layers": 1, "heads": 2, "ffn": 32, "max_length": 64})
    for name in ("wide", "narrow"):
        made = same if name == "wide" else recipe(world, pool=None)
        target = wrap_model("x", fresh_model(made, _tokenizer(world)), _tokenizer(world))
        found = borrowed_embeddings(source, target)
        assert found.shape == (target.vocabulary_size, target.hidden_size)
        assert torch.equal(found, borrowed_embeddings(source, target))
        known, other = source.tokenizer.get_vocab(), target.tokenizer.get_vocab()
        shared = sorted(set(known) & set(other))
        unknown = sorted(set(other) - set(known))
        assert len(shared) > 100 and len(unknown) > 50
        table = source.model.get_input_embeddings().weight.detach().float()
        wanted, got = table[[known[p] for p in shared]], found[[other[p] for p in shared]]
        if name == "wide":
            ratio = wanted / got
            torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-3, atol=1e-3)
            piece = next(p for p in unknown if p.isalpha())
            ids = source.tokenizer(piece, add_special_tokens=False).input_ids
            torch.testing.assert_close(table[ids].mean(0) / found[other[piece]], ratio[0], rtol=1e-3, atol=1e-3)
        else:
            # Inner products are those of the best projection: what is lost is no more than the smallest directions hold.
            lost = torch.linalg.svdvals(table)[target.hidden_size :].square().sum().sqrt()
            scale = (wanted @ wanted.T).norm() / (got @ got.T).norm()
            assert float((wanted @ wanted.T - scale * (got @ got.T)).norm()) < float(lost * table.norm())


def test_a_recipe_takes_embeddings_from_a_model(world: Path, wide: Path, tmp_path: Path) -> None:
    facts = pretrain(recipe(world, pool=None, embeddings=f"from:{wide}"), tmp_path / "out", cache_dir=world / "cache")
    assert facts["steps"] == 6 and f"from:{wide}" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(IsoglossError, match="at least 48 dimensions"):
        shape = {"hidden": 48, "layers": 1, "heads": 2, "ffn": 32, "max_length": 64}
        pretrain(
            recipe(world, pool=None, model=shape, embeddings=f"from:{wide}"), tmp_path / "b", cache_dir=world / "cache"
        )


def test_a_start_of_another_kind_is_refused(world: Path, wide: Path, tmp_path: Path) -> None:
    shape: dict[str, Any] = {"kind": "decoder", "objectives": [{"name": "causal", "weight": 1}], "parallel": []}
    wanted = recipe(world, pool=None, start_from=str(wide), **shape)
    with pytest.raises(IsoglossError, match=r"'kind: decoder'.*is of kind encoder"):
        pretrain(wanted, tmp_path / "out", cache_dir=world / "cache")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["from:", "counts"])
def test_unknown_first_embeddings_are_refused(world: Path, value: str) -> None:
    with pytest.raises(ValueError, match="random, cooccurrence or from:NAME"):
        recipe(world, embeddings=value)


def _tokenizer(world: Path) -> Any:
    """That of the usual recipe; it is in the cache after the first time."""
    from isogloss.training.pretrain import _start, _text_files

    made = recipe(world, pool=None)
    files = {code: _text_files(made, code) for code in made.codes}
    return _start(made, files, world / "cache", lambda text: None)[0].tokenizer


def test_a_kept_vocabulary_takes_the_length_of_the_model(world: Path, tmp_path: Path) -> None:
    shape = {"hidden": 16, "layers": 1, "heads": 2, "ffn": 32}
    for length in (64, 48):
        changes = {"model": {**shape, "max_length": length}, "stages": [{"steps": 1, "length": 24, "batch": 2}]}
        # The pivot is a name like those under `languages`.
        pretrain(recipe(world, pivot="German", **changes), tmp_path / str(length), cache_dir=tmp_path / "cache")
        tokenizer = load_backbone(tmp_path / str(length), device="cpu").tokenizer
        assert tokenizer is not None and tokenizer.model_max_length == length
    assert len(list((tmp_path / "cache" / "tokenizers").glob("[!.]*"))) == 1


def test_a_pivot_without_aligned_text_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match=r"'pivot: fr', but it is not among 'languages'; name one of eng_Latn, "):
        pretrain(recipe(world, pivot="fr"), tmp_path / "out", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "out" / "isogloss.json").exists()


def test_other_aligned_text_of_the_same_size_is_noticed(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a resumed run, and by the cache of counted embeddings."""
    counted: list[ParallelCorpus] = []

    def count(stores: Any, parallel: ParallelCorpus, vocabulary: int, dim: int, **_: Any) -> torch.Tensor:
        counted.append(parallel)
        return torch.zeros(vocabulary, dim)

    monkeypatch.setattr("isogloss.training.first_embeddings.cooccurrence_embeddings", count)
    folder, backbone = tmp_path / "parallel", SimpleNamespace(vocabulary_size=9, hidden_size=2)
    shutil.copytree(world / "parallel", folder)
    plan = recipe(world, parallel=[str(folder)], embeddings="cooccurrence")
    corpora, streams = [], []
    for _ in range(2):
        corpora.append(ParallelCorpus.open(folder, word_tokenizer(), cache_dir=tmp_path / "cache"))
        streams.append(PretrainStream(plan, {}, corpora[-1], None))
        for _ in range(2):
            _counted(backbone, [], corpora[-1], plan, tmp_path / "cache", print)  # type: ignore[arg-type]
        path = folder / "deu_Latn.jsonl"
        path.write_text(path.read_text(encoding="utf-8").replace('"text": "', '"text": "x'), encoding="utf-8")
    assert corpora[0].sizes == corpora[1].sizes and counted == corpora
    state = json.loads(json.dumps(streams[0].state_dict()))
    streams[0].load_state_dict(state)
    with pytest.raises(IsoglossError, match="other aligned text"):
        streams[1].load_state_dict(state)
    streams[1].load_state_dict({name: value for name, value in state.items() if name != "parallel"})
