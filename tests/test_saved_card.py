"""Model cards of saved modules."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from isogloss.backbones import Backbone
from isogloss.formats import save_module
from isogloss.formats.card import language_tag
from isogloss.modules import ModuleConfig, TransferModule, create_module, parse_module


@pytest.fixture
def encoder(tiny: Callable[[str], Backbone]) -> Backbone:
    return tiny("xlmr")


def _module(config: ModuleConfig, backbone: Backbone) -> TransferModule:
    module = create_module(config, backbone, seed=3)
    module.info.role, module.info.language = "language", "slk_Latn"
    return module


def test_card_says_what_a_reader_needs(encoder: Backbone, tmp_path: Path) -> None:
    module = _module(parse_module("prompt:4,init=normal"), encoder)
    module.info.backbone = "FacebookAI/xlm-roberta-base"
    module.info.training = {
        "steps": 100,
        "seed": 42,
        "data": [{"name": "Wikipedia (Slovak)", "licence": "CC BY-SA 4.0"}, "notes|mine"],
    }
    module.info.scores = {"slk_Latn": {"perplexity": 12.345678}}
    save_module(module, tmp_path / "slovak-prompt")
    card = (tmp_path / "slovak-prompt" / "README.md").read_text(encoding="utf-8")
    match = re.match(r"---\n(.*?)\n---\n(.*)", card, flags=re.DOTALL)
    assert match
    matter, text = yaml.safe_load(match[1]), match[2]
    assert matter["base_model"] == "FacebookAI/xlm-roberta-base"
    assert matter["library_name"] == "isogloss"
    assert matter["language"] == ["sk"]
    assert {"isogloss", "prompt", "language-module"} <= set(matter["tags"])
    assert matter["datasets"] == ["Wikipedia (Slovak)", "notes|mine"]
    assert matter["metrics"] == ["perplexity"]
    assert re.search(r"^# Soft prompt: slk_Latn$", text, re.MULTILINE)
    assert "Slovak (`slk_Latn`)" in text
    assert re.search(r"^\* Data: Wikipedia \(Slovak\); licence: CC BY-SA 4\.0\.$", text, re.MULTILINE)
    assert re.search(r"^\* Data: notes\|mine; licence: not recorded\.$", text, re.MULTILINE)
    assert re.search(r"^\| steps \| 100 \|$", text, re.MULTILINE)
    assert re.search(r"^\| slk_Latn\.perplexity \| 12\.3457 \|$", text, re.MULTILINE)
    assert re.search(rf"^\| backbone fingerprint \| `{encoder.fingerprint}` \|$", text, re.MULTILINE)
    assert 'isogloss.load_module("slovak-prompt", backbone)' in text
    assert re.search(r"^isogloss train task .*--language-module slovak-prompt", text, re.MULTILINE)


def test_card_of_a_task_module(encoder: Backbone, tmp_path: Path) -> None:
    module = _module(parse_module("adapter:4"), encoder)
    module.info.role, module.info.task, module.info.language = "task", "topic", "eng_Latn"
    save_module(module, tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^# Bottleneck adapter: topic$", card, re.MULTILINE)
    assert "learned from English" in card
    assert re.search(r"^isogloss evaluate .*--task topic .*--modules m$", card, re.MULTILINE)
    assert "No scores were recorded." in card


@pytest.mark.parametrize(
    ("code", "tag"),
    [("slk_Latn", "sk"), ("srp_Latn", "sr-Latn"), ("quy_Latn", "quy"), ("tlh_Xxxx", "tlh-Xxxx")],
)
def test_language_tags(code: str, tag: str) -> None:
    assert language_tag(code) == tag
