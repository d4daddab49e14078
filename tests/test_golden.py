"""The golden outputs of `adapters` and `peft`: an imported checkpoint computes what it computed there."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from isogloss.backbones import Backbone, load_backbone
from isogloss.formats import import_module
from isogloss.stack import Stack

_SHARED = Path(os.environ.get("ISOGLOSS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
_GOLDEN = _SHARED / "golden"
_TOLERANCE = 1e-4
_CASES = sorted(path.name for path in _GOLDEN.iterdir() if path.is_dir()) if _GOLDEN.is_dir() else []

pytestmark = pytest.mark.skipif(not _CASES, reason=f"the golden outputs are not in {_GOLDEN}")


def _modules_of(case: str) -> dict[str, list[str]]:
    if case.startswith("peft"):
        return {"plain": [], "module": ["module"]}
    return {"plain": [], "lang": ["lang"], "task": ["task"], "stack": ["lang", "task"]}


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    return {}


@pytest.mark.parametrize(
    ("case", "setting"), [(case, setting) for case in _CASES for setting in _modules_of(case)] or [("", "")]
)
def test_golden_case(case: str, setting: str, backbones: dict[str, Backbone]) -> None:
    folder = _GOLDEN / case
    if case not in backbones:
        backbones[case] = load_backbone(folder / "backbone", device="cpu", dtype="fp32")
    backbone = backbones[case]
    expected = load_file(folder / "expected.safetensors")
    ids, mask, decoder_ids = (
        expected["input_ids"],
        expected["attention_mask"],
        expected.get("decoder_input_ids"),
    )
    stack = Stack(backbone, [import_module(folder / name, backbone) for name in _modules_of(case)[setting]])

    wanted = expected[f"logits_{setting}"]
    with torch.no_grad():
        found = stack.logits(ids, mask, decoder_ids)
        text_states = stack.hidden(ids, mask)
    # PEFT shows its virtual positions first; ours are at text positions only.
    wanted = wanted[:, wanted.shape[1] - found.shape[1] :]
    kept = mask.bool() if decoder_ids is None else torch.ones_like(decoder_ids, dtype=torch.bool)
    assert (found - wanted).abs()[kept].max() < _TOLERANCE

    for key in (f"hidden_{setting}", f"encoder_{setting}"):
        if key in expected:
            assert (text_states - expected[key]).abs()[mask.bool()].max() < _TOLERANCE


@pytest.mark.parametrize("case", [case for case in _CASES if case.startswith("peft")] or [""])
def test_exported_to_peft_and_back(case: str, backbones: dict[str, Backbone], tmp_path: Path) -> None:
    from isogloss.formats import export_module

    folder = _GOLDEN / case
    backbone = backbones.get(case) or load_backbone(folder / "backbone", device="cpu", dtype="fp32")
    module = import_module(folder / "module", backbone)
    export_module(module, tmp_path / "out", backbone=backbone)
    again = import_module(tmp_path / "out", backbone)
    assert again.config == module.config
    for name, tensor in module.weight_tensors().items():
        assert torch.equal(tensor, again.weight_tensors()[name])
