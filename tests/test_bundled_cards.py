"""Cards of bundled backbones: what their facts say, with the scores that were measured."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from isogloss.backbones.bundled import bundled_folder, bundled_names
from isogloss.errors import IsoglossError
from isogloss.storage import read_json
from isogloss.training.pretrain_card import model_card
from isogloss.training.recipe import Recipe

SCORE = {"task": "topics", "metric": "accuracy", "score": 61.5, "command": "isogloss evaluate"}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = Path(__file__).parents[1] / "tools" / "bundle_backbone.py"
    spec = importlib.util.spec_from_file_location("bundle_backbone", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", bundled_names())
def test_cards_say_what_the_facts_do(name: str) -> None:
    folder = bundled_folder(name)
    facts = read_json(folder / "isogloss.json")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card == model_card(Recipe(**facts["recipe"]), facts)
    assert ("## Scores" in card) == bool(facts.get("scores"))


def test_scores_change_a_card_and_no_weights(tool: ModuleType, tmp_path: Path) -> None:
    for name in ("isogloss.json", "README.md"):
        shutil.copy2(bundled_folder("bundled:encoder") / name, tmp_path / name)
    (tmp_path / "scores.json").write_text(json.dumps([SCORE]))
    before = read_json(tmp_path / "isogloss.json")
    tool.change_card(tmp_path, scores=tool.read_scores(tmp_path / "scores.json"))
    assert read_json(tmp_path / "isogloss.json") == {**before, "scores": [SCORE]}
    tool.change_card(tmp_path, notes=["Losses are of another text."])
    assert read_json(tmp_path / "isogloss.json")["scores"] == [SCORE]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| topics | accuracy | 61.5 | `isogloss evaluate` |" in card and "66.2" not in card
    assert card.rstrip().endswith("Losses are of another text.")


@pytest.mark.parametrize("content", [SCORE, [{**SCORE, "score": "61"}], [{"task": "topics"}], ["topics"]])
def test_other_scores_are_refused(tool: ModuleType, tmp_path: Path, content: object) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(content))
    with pytest.raises(IsoglossError, match=r"expected a list of entries with command, metric, score, task"):
        tool.read_scores(tmp_path / "scores.json")
