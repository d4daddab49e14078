"""Where pre-training text is from, and what is said of each language while it is read."""

import io
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from isogloss.corpora import ObjectiveBatch
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.training.language_losses import LanguageLosses
from isogloss.training.language_stage import LanguageStage, check_backbone
from isogloss.training.pretrain import _text_files, pretrain, step_loss
from isogloss.training.pretrain_stream import PretrainStep
from isogloss.training.progress import Progress
from isogloss.training.recipe import read_recipe
from tests._pool_tools import LANGUAGES, recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def documents(world: Path, code: str) -> list[str]:
    return (world / "text" / f"{code}.txt").read_text(encoding="utf-8").split("\n\n")


@pytest.fixture
def hub(world: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """A Hub that holds the world's text under two-letter codes; what was asked of it."""
    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, config: str, *, split: str, streaming: bool) -> Iterator[dict[str, Any]]:
        asked.append((name, config))
        texts = {"20.en": "eng_Latn", "20.de": "deu_Latn"}
        if config not in texts:
            raise FileNotFoundError(f"BuilderConfig '{config}' not found")
        return iter([{"text": text} for text in documents(world, texts[config])])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_hub_text_is_read_once_and_trains_what_the_same_folder_does(
    world: Path, hub: list[tuple[str, str]], tmp_path: Path
) -> None:
    shape: dict[str, Any] = {"languages": ["en", "de"], "parallel": [], "pool": None, "precision": "fp32"}
    shape["objectives"] = [{"name": "masked", "weight": 1}]
    source = {"folder": "hub:some/wiki:20.{iso639_1}", "documents": 30}
    for _ in range(2):
        facts = pretrain(
            recipe(world, **shape, text=[source]), tmp_path / "hub", cache_dir=tmp_path / "cache", overwrite=True
        )
    assert hub == [("some/wiki", "20.en"), ("some/wiki", "20.de")]
    folder = tmp_path / "text"
    folder.mkdir()
    for code in ("eng_Latn", "deu_Latn"):
        rows = [json.dumps({"text": text}) for text in documents(world, code)[:30]]
        (folder / f"{code}.jsonl").write_text("\n".join(rows) + "\n")
    same = pretrain(recipe(world, **shape, text=[str(folder)]), tmp_path / "folder", cache_dir=tmp_path / "other-cache")
    assert same["text_tokens"] == facts["text_tokens"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("hub", "folder")]
    assert weights[0] == weights[1]


def test_a_language_that_the_hub_lacks_is_said(world: Path, hub: list[tuple[str, str]], tmp_path: Path) -> None:
    wanted = recipe(world, languages=["en", "sk"], parallel=[], pool=None, text=["hub:some/wiki:20.{iso639_1}"])
    with pytest.raises(IsoglossError, match=r"'hub:some/wiki:20.sk' cannot be read: BuilderConfig '20.sk' not found"):
        pretrain(wanted, tmp_path / "out", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("languages: [en, sk, English]\ntext: [t]", "names eng_Latn twice under 'languages'; leave 'en' out once"),
        ("languages: [en]\ntext: [{folder: t, time: 2}]", "did you mean 'times'"),
        ("languages: [en]\ntext: [{folder: t, times: 0}]", "greater than or equal to 1"),
        ("languages: [en]\ntext: [{folder: t, documents: 9}]", "'text.0.documents': .*for hub: text only"),
        ("languages: [en]\ntext: [t]\nparallel: [{folder: t, documents: 9}]", "documents is for hub: text only"),
        ("languages: [en]\ntext: [t]\nparallel: ['hub:a/b']", "'parallel': .*read from folders, not from the hub"),
    ],
)
def test_wrong_recipes(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"name: x\nkind: encoder\n{lines}\nobjectives: [{{name: masked, weight: 1}}]\n"
        "stages: [{steps: 1, length: 8, batch: 1}]\n"
    )
    with pytest.raises(IsoglossError, match=said):
        read_recipe(path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("  - {name: masekd, weight: 1}", "line 8, has a wrong value for 'objectives.1.name'"),
        ("  - {name: masked, weight: 0}", "line 8, has a wrong value for 'objectives.1.weight'"),
        ("  - {name: masked, wieght: 1}", "line 8, has the unknown key 'objectives.1.wieght'; did you mean 'weight'"),
        ("  - {name: masked}", "line 8, has a wrong value for 'objectives.1.weight': field required"),
        ("1: 2", "line 8, has a wrong value for '1'"),
        ("text: [more]", "line 8, is not YAML: the key 'text' stands there twice"),
        ("  - {name: masked, weight: 1, name: causal}", "line 8, is not YAML: the key 'name' stands there twice"),
    ],
)
def test_a_wrong_recipe_names_its_line(tmp_path: Path, lines: str, said: str) -> None:
    """That of the item, not of the first line with such a key."""
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: x\nkind: encoder\nlanguages: [en]\ntext: [t]\nstages: [{steps: 1, length: 8, batch: 1}]\n"
        f"objectives:\n  - {{name: masked, weight: 1}}\n{lines}\n"
    )
    with pytest.raises(IsoglossError, match=said):
        read_recipe(path)


def test_norwegian_is_a_language(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: x\nkind: encoder\nlanguages: [en, no]\ntext: [t]\nobjectives: [{name: masked, weight: 1}]\n"
        "stages: [{steps: 1, length: 8, batch: 1}]\n"
    )
    assert read_recipe(path).codes == ["eng_Latn", "nob_Latn"]


@pytest.mark.parametrize(
    ("kind", "objective", "use"),
    [
        ("encoder", "causal", "masked"),
        ("decoder", "masked", "causal or prefix"),
        ("decoder", "spans", "causal or prefix"),
    ],
)
def test_a_language_module_with_an_objective_of_another_kind_is_refused(kind: str, objective: str, use: str) -> None:
    backbone: Any = types.SimpleNamespace(name="small", kind=kind, tokenizer=object())
    with pytest.raises(IsoglossError, match=f"'{objective}' teaches no model of kind {kind}, .*; use {use}"):
        check_backbone(backbone, LanguageStage(objective=objective))
    check_backbone(backbone, LanguageStage(objective=use.split()[0]))


@pytest.mark.parametrize(
    ("kind", "objective", "said"),
    [
        ("encoder", "causal", "causal teaches no model of kind encoder; use masked, translation, contrast"),
        ("encoder", "prefix", "prefix teaches no model of kind encoder"),
        ("encoder", "spans", "spans teaches no model of kind encoder"),
        ("decoder", "masked", "masked teaches no model of kind decoder; use causal, prefix, contrast"),
        ("decoder", "translation", "translation teaches no model of kind decoder"),
        ("encoder-decoder", "masked", "kind encoder-decoder; use spans, prefix, contrast"),
        ("encoder-decoder", "causal", "causal teaches no model of kind encoder-decoder"),
    ],
)
def test_an_objective_of_another_kind_of_model_is_refused(tmp_path: Path, kind: str, objective: str, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"name: x\nkind: {kind}\nlanguages: [en]\ntext: [t]\nstages: [{{steps: 1, length: 8, batch: 1}}]\n"
        f"objectives: [{{name: contrast, weight: 1}}, {{name: {objective}, weight: 1}}]\n"
    )
    with pytest.raises(IsoglossError, match=rf"line 6, has a wrong value for 'objectives': .*{said}"):
        read_recipe(path)


@pytest.mark.parametrize("key", ["text", "parallel"])
def test_a_folder_that_is_not_there_is_said(world: Path, tmp_path: Path, key: str) -> None:
    """Though another has text in every language."""
    wanted = recipe(world, pool=None, **{key: [str(world / key), str(tmp_path / "glosary")]})
    with pytest.raises(IsoglossError, match=rf"glosary' under '{key}' in the recipe of tiny does not exist"):
        pretrain(wanted, tmp_path / "out", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_a_pattern_with_another_name_is_refused(world: Path, tmp_path: Path) -> None:
    wanted = recipe(world, parallel=[], pool=None, text=["hub:some/wiki:20.{language}"])
    with pytest.raises(IsoglossError, match=r"'hub:some/wiki:20.\{language\}' has something else in braces"):
        pretrain(wanted, tmp_path / "out", cache_dir=tmp_path / "cache")


def test_progress_shows_each_language(world: Path, tmp_path: Path) -> None:
    stream = io.StringIO()
    pretrain(
        recipe(world, pool=None),
        tmp_path / "out",
        cache_dir=world / "cache",
        progress=Progress("tiny", every_seconds=0.0, stream=stream),
    )
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("  ")]
    assert lines
    assert re.fullmatch(r"  eng_Latn \d+\.\d\d  deu_Latn \d+\.\d\d.*", lines[-1])


def test_losses_by_language_are_those_of_their_rows(tiny: Any) -> None:
    backbone = tiny("xlmr")
    stack = Stack(backbone)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 100, (4, 12), generator=generator)
    places = torch.tensor([0, 3, 13, 20, 25, 30, 47])
    batch = ObjectiveBatch(ids, torch.ones_like(ids), None, places, ids.flatten()[places])
    codes = ["eng_Latn", "deu_Latn", "deu_Latn", "eng_Latn"]
    losses = LanguageLosses(["eng_Latn", "deu_Latn", "slk_Latn"])
    item = recipe(Path(), objectives=[{"name": "masked", "weight": 1}]).objectives[0]
    total = step_loss(stack, PretrainStep(item, batch, codes), losses).total
    logits = stack.logits(batch.input_ids, batch.attention_mask).flatten(0, 1)[batch.label_positions]
    each = F.cross_entropy(logits, batch.labels, reduction="none")
    rows = batch.label_positions // batch.input_ids.shape[1]
    found = losses.means()
    assert list(found) == ["eng_Latn", "deu_Latn"]  # nothing is said of a language that was not seen
    for code, loss in found.items():
        own = torch.tensor([codes[row] == code for row in rows.tolist()])
        assert loss == pytest.approx(float(each[own].mean()), abs=1e-4)
    assert float(total) == pytest.approx(float(each.sum()), rel=1e-5)


def test_old_losses_fade() -> None:
    losses = LanguageLosses(["eng_Latn"])
    rows = torch.zeros(5, dtype=torch.long)
    for value in (9.0, *[1.0] * 1000):
        losses.add(torch.full((5,), value), rows, ["eng_Latn"])
    assert losses.means()["eng_Latn"] == pytest.approx(1.0, abs=0.01)


def test_what_is_held_out_is_of_a_text_that_counts_once(world: Path, tmp_path: Path) -> None:
    often = {"folder": str(tmp_path), "times": 3}
    for code in LANGUAGES:
        (tmp_path / f"{code}.txt").write_text("a word of a glossary\n", encoding="utf-8")
    for text in ([str(world / "text"), often], [often, str(world / "text")]):
        files = _text_files(recipe(world, text=text), "eng_Latn")
        assert [path.parent.name for path in files] == [tmp_path.name] * 3 + ["text"]
