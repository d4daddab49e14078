"""Loading backbones: the families table, discovery and refusal, fingerprints, precision."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from _stack_tools import batch_of, close, make, texts
from conftest import TINY, save_tiny

from isogloss.backbones import FAMILIES, Backbone, fingerprint, load_backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Stack
from isogloss.storage import load_tensors, save_tensors

Tiny = Callable[[str], Backbone]


def _save(config: Any, model_class: Any, folder: Path) -> Path:
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    return folder


def test_the_table_is_sound() -> None:
    types = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(types) == len(set(types))
    for family in FAMILIES:
        assert set(family.blocks) == ({"encoder", "decoder"} if family.kind == "encoder-decoder" else {family.kind})
        assert (family.norm == "post") == (family.last_norm is not None)
        if family.prefix_cache:
            assert family.kind == "decoder"


@pytest.mark.parametrize("name", list(TINY))
def test_every_architecture_is_found(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    config_name = TINY[name][0]
    assert backbone.config.__class__.__name__ == config_name
    assert backbone.hidden_size == 32 and backbone.vocabulary_size == 120 and backbone.tokenizer is None
    for side in backbone.sites.sides:
        assert len(backbone.sites.blocks[side]) == 2
        for site in backbone.sites.blocks[side]:
            assert site.linears and (site.last_norm is not None) == (backbone.family.norm == "post")
    assert not backbone.model.training and not any(p.requires_grad for p in backbone.model.parameters())
    assert backbone.family.name.startswith("discovered") == (name == "phi3")
    backbone.unfreeze()
    assert all(p.requires_grad for p in backbone.model.parameters())
    backbone.freeze()
    assert not any(p.requires_grad for p in backbone.model.parameters())


def test_where_the_ends_and_limits_are(tiny: Tiny) -> None:
    assert tiny("bert").max_length == 64 and tiny("xlmr").max_length == 64
    assert tiny("bloom").max_length is None and tiny("mt5").max_length is None
    assert tiny("xlmr").eos_ids == (2,) and tiny("mt5").eos_ids == (1,)
    assert tiny("mt5").decoder_start_id == 0
    assert tiny("gemma2").logit_softcap == 30.0 and tiny("gemma").logit_softcap is None


# -- discovery and refusal -------------------------------------------------------------------------------------------


def test_a_head_that_does_more_is_refused(tmp_path: Path) -> None:
    # Granite divides its logits by a constant: pre-norm and well shaped, but scores would be wrong.
    config = transformers.GraniteConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, logits_scaling=4.0, pad_token_id=0,
    )  # fmt: skip
    folder = _save(config, transformers.GraniteForCausalLM, tmp_path / "granite")
    with pytest.raises(IsoglossError, match=r"'granite'.*LM head computes more"):
        load_backbone(folder, device="cpu")
    config.logits_scaling = 1.0
    plain = load_backbone(_save(config, transformers.GraniteForCausalLM, tmp_path / "plain"), device="cpu")
    assert plain.kind == "decoder" and plain.family.name.startswith("discovered")


@pytest.mark.parametrize(
    ("config", "model", "says"),
    [
        (
            transformers.BartConfig(vocab_size=120, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64),
            transformers.BartForConditionalGeneration,
            "'bart' is not in the families table",
        ),
        (
            transformers.ElectraConfig(vocab_size=120, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64),
            transformers.ElectraForMaskedLM,
            "'electra' has no norm beside its blocks",
        ),
    ],
)  # fmt: skip
def test_other_shapes_are_refused(tmp_path: Path, config: Any, model: Any, says: str) -> None:
    with pytest.raises(IsoglossError, match=says):
        load_backbone(_save(config, model, tmp_path / "m"), device="cpu")


def test_names_that_are_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        IsoglossError, match=r"No backbone can be loaded as 'no/such/thing'.*bundled:encoder"
    ) as problem:
        load_backbone("no/such/thing")
    assert "\n" not in str(problem.value)
    with pytest.raises(IsoglossError, match="No backbone can be loaded as 'nobody/nothing'") as problem:
        load_backbone("nobody/nothing")
    assert "\n" not in str(problem.value)
    with pytest.raises(IsoglossError, match="no bundled backbone 'bundled:giant'"):
        load_backbone("bundled:giant")
    with pytest.raises(IsoglossError, match="does not hold a model"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text("{not json")
    with pytest.raises(IsoglossError, match="does not hold a model"):
        load_backbone(tmp_path)
    with pytest.raises(IsoglossError, match="precision 'fp8' is unknown; use one of fp32, bf16, fp16"):
        load_backbone(save_tiny("bert", tmp_path / "b"), dtype="fp8")


@pytest.mark.parametrize("damage", ["truncated", "gone", "garbage"])
def test_damaged_weights(tmp_path: Path, damage: str) -> None:
    folder = save_tiny("bert", tmp_path / "m")
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    if damage == "gone":
        weights.unlink()
    else:
        weights.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"x" * 400)
    with pytest.raises(IsoglossError, match="does not hold a model that transformers can load"):
        load_backbone(folder, device="cpu")


def test_a_checkpoint_without_its_head(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path / "m")
    tensors = load_tensors(folder / "model.safetensors")
    del tensors["cls.predictions.transform.dense.weight"]
    save_tensors(folder / "model.safetensors", tensors, {"format": "pt"})
    with pytest.raises(IsoglossError, match=r"no values for 1 weights .*'cls\.predictions\.transform\.dense\.weight'"):
        load_backbone(folder, device="cpu")


# -- fingerprints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["xlmr", "mt5"])
def test_the_fingerprint_is_of_the_weights(tmp_path: Path, name: str) -> None:
    folder = save_tiny(name, tmp_path / "m")
    full = load_backbone(folder, device="cpu", dtype="fp32")
    assert full.fingerprint == load_backbone(folder, device="cpu", dtype=torch.bfloat16).fingerprint
    moved = folder.rename(tmp_path / "elsewhere")
    assert full.fingerprint == load_backbone(moved, device="cpu").fingerprint
    assert len(full.fingerprint) == 16 and int(full.fingerprint, 16) >= 0
    seen = {full.fingerprint}
    for parameter in full.model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 0.5
        seen.add(fingerprint(full.model, full.config))
    assert len(seen) == 1 + len(list(full.model.parameters()))
    full.config.layer_norm_epsilon = 1.0
    assert fingerprint(full.model, full.config) not in seen


def test_a_module_of_a_changed_backbone_is_refused(tmp_path: Path) -> None:
    folder = save_tiny("bert", tmp_path / "m")
    one, two = load_backbone(folder, device="cpu"), load_backbone(folder, device="cpu")
    module = make(one, "adapter:8")
    Stack(two, [module])
    with torch.no_grad():
        next(two.model.parameters()).add_(1.0)
    two.fingerprint = fingerprint(two.model, two.config)
    with pytest.raises(IsoglossError, match="load the backbone that it was made for"):
        Stack(two, [module])


# -- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mt5", "umt5"])
def test_fp16_is_refused_where_it_overflows(tmp_path: Path, name: str) -> None:
    folder = save_tiny(name, tmp_path / "m")
    for dtype in ("fp16", torch.float16):
        with pytest.raises(IsoglossError, match="overflows to NaN in fp16; use bf16 or fp32"):
            load_backbone(folder, dtype=dtype, device="cpu")
    assert load_backbone(save_tiny("xglm", tmp_path / "x"), dtype="fp16", device="cpu").dtype is torch.float16


@pytest.mark.parametrize("name", ["xlmr", "modernbert", "xglm", "bloom", "llama", "mt5"])
def test_a_bf16_backbone_with_fp32_modules(tiny: Tiny, tmp_path: Path, name: str) -> None:
    folder = save_tiny(name, tmp_path / "m")
    half = load_backbone(folder, dtype="bf16", device="cpu")
    specs = ["prompt:3,init=uniform", "adapter:8,invertible=true,learned_scaling=true", "lora:2"]
    modules = [make(half, spec, noise=0.1) for spec in specs]
    assert all(p.dtype is torch.float32 for module in modules for p in module.parameters())
    full = load_backbone(folder, dtype="fp32", device="cpu")
    batch = batch_of(half, texts(3, (5, 3)))
    args = (batch.input_ids, batch.attention_mask, batch.decoder_input_ids)
    found, wanted = Stack(half, modules).logits(*args), Stack(full, modules).logits(*args)
    mask = torch.ones_like(args[2]).bool() if args[2] is not None else args[1].bool()
    assert found.dtype is torch.float32
    correlation = torch.corrcoef(torch.stack((found[mask].flatten(), wanted[mask].flatten())))[0, 1]
    assert float(correlation) > 0.98
    stack = Stack(half, modules)
    output = stack.run(batch)
    assert output.text_hidden.dtype is torch.bfloat16
    loss = stack.lm_loss(output.at(torch.tensor([0, 1])), torch.tensor([5, 6]))
    assert loss.dtype is torch.float32
    loss.backward()
    for module in modules:
        for parameter in module.parameters():
            assert parameter.grad is not None and parameter.grad.dtype is torch.float32
            assert torch.isfinite(parameter.grad).all()
    if half.kind != "encoder":
        assert stack.generate(batch.input_ids, batch.attention_mask, max_new_tokens=2).shape[0] == 3


def test_embeddings_are_what_the_model_feeds(tiny: Tiny) -> None:
    for name in ("xglm", "gemma", "umt5", "bloom"):
        backbone = tiny(name)
        ids = torch.tensor(texts(2, (5,)))
        extra = {"decoder_input_ids": ids} if backbone.kind == "encoder-decoder" else {}
        with torch.no_grad():
            close(backbone.model(inputs_embeds=backbone.embed(ids), **extra).logits, backbone.model(input_ids=ids, **extra).logits)  # fmt: skip
