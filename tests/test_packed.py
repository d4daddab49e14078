"""Backbones with 8-bit embeddings: small error, stable fingerprint, damage named."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.backbones import load_backbone
from isogloss.backbones.bundled import bundled_names
from isogloss.backbones.packed import PACKED, load_packed, pack, save_packed, unpack
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.storage import save_tensors
from tests.conftest import save_tiny


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-6, 1e4))
def test_the_error_is_below_half_a_level(seed: int, size: float) -> None:
    table = torch.randn(9, 5, generator=torch.Generator().manual_seed(seed)) * size
    state = {"embed": table, "body": torch.ones(3, 5)}
    back = unpack(pack(state, rows=9))
    level = table.abs().amax(dim=1, keepdim=True) / 127
    # Half a level of rounding, and the roundings to bf16 of the scale and of the product (2^-8 each).
    assert ((back["embed"].float() - table).abs() <= 0.5 * level + 2**-7 * table.abs().amax(1, keepdim=True)).all()
    assert torch.equal(back["body"], state["body"].to(torch.bfloat16))
    assert pack(state, rows=9)["embed.int8"].dtype == torch.int8


@pytest.mark.parametrize("name", ["eurobert", "llama", "mt5"])
def test_a_packed_folder_loads_and_computes_almost_the_same(name: str, tmp_path: Path) -> None:
    folder = save_tiny(name, tmp_path / "plain")
    plain = load_backbone(folder, device="cpu")
    weights = folder / "model.safetensors"
    state = {key: value for key, value in plain.model.state_dict().items() if key != "lm_head.weight"}
    if not plain.model.config.tie_word_embeddings:
        state = plain.model.state_dict()
    save_packed(folder, state, plain.vocabulary_size)
    assert (folder / PACKED).stat().st_size < 0.6 * weights.stat().st_size  # tiny tensors: headers count
    weights.unlink()
    packed = load_backbone(folder, device="cpu")
    assert packed.fingerprint == load_backbone(folder, device="cpu").fingerprint
    ids = torch.tensor([[5, 6, 7, 8, 2]])
    start = torch.tensor([[0, 5]]) if packed.kind == "encoder-decoder" else None
    logits = [Stack(model, []).logits(ids, torch.ones_like(ids), start) for model in (plain, packed)]
    assert (logits[0] - logits[1]).abs().mean() < 0.05 * logits[0].std()


def test_damage_is_named(tmp_path: Path) -> None:
    save_tensors(tmp_path / PACKED, {"embed.int8": torch.zeros(2, 2, dtype=torch.int8)})
    with pytest.raises(IsoglossError, match=r"embed\.scale"):
        load_packed(tmp_path)
    (tmp_path / PACKED).write_bytes(b"nothing")
    with pytest.raises(IsoglossError, match="damaged"):
        load_packed(tmp_path)


def test_the_bundled_backbones_load() -> None:
    for name in bundled_names():
        assert load_backbone(name).card["name"] == name
