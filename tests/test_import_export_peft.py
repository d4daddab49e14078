"""PEFT and S1 checkpoints made here, in and out, and which format a folder holds.

LoRA: W + (alpha / r) B A. Prompts: the first L rows in front of the text.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import export_module, import_module, save_module
from isogloss.modules import create_module, parse_module
from tests._exchange_tools import DECODER_IDS, IDS, model_logits, stack_logits

Tiny = Callable[[str], Backbone]

# PEFT.


def _write_peft(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def _lora_file(paths: list[str], backbone: Backbone, rank: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)
    tensors = {}
    for path in paths:
        layer = backbone.model.get_submodule(path)
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(rank, layer.in_features, generator=generator)
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(layer.out_features, rank, generator=generator)
    return tensors


_LORA = {
    "peft_type": "LORA",
    "r": 3,
    "lora_alpha": 6,
    "bias": "none",
    "init_lora_weights": True,
    "use_dora": False,
}


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("xglm", [f"model.layers.{n}.self_attn.{p}_proj" for n in range(2) for p in "qv"]),
        ("bloom", ["transformer.h.1.self_attention.query_key_value"]),
        ("mt5", [f"encoder.block.{n}.layer.1.DenseReluDense.wo" for n in range(2)]),
    ],
)
def test_lora_import_adds_scaled_b_a(tiny: Tiny, tmp_path: Path, name: str, paths: list[str]) -> None:
    backbone = tiny(name)
    tensors = _lora_file(paths, backbone)
    model = copy.deepcopy(backbone.model)
    with torch.no_grad():
        for path in paths:
            a, b = (tensors[f"base_model.model.{path}.lora_{m}.weight"] for m in "AB")
            model.get_submodule(path).weight += 6 / 3 * b @ a
    module = import_module(_write_peft(tmp_path / "a", tensors, _LORA), backbone)
    torch.testing.assert_close(stack_logits(backbone, module), model_logits(model, backbone), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q": 2}},
        {"alpha_pattern": {"q": 2}},
        {"fan_in_fan_out": True},
        {"something_new": 1},
        {"init_lora_weights": "pissa"},
        {"lora_alpha": 0},
        {"peft_type": "IA3"},
    ],
)
def test_peft_option_that_is_not_computed_is_refused(tiny: Tiny, tmp_path: Path, change: dict[str, Any]) -> None:
    tensors = _lora_file(["model.layers.0.self_attn.q_proj"], tiny("xglm"))
    folder = _write_peft(tmp_path / "a", tensors, _LORA | change)
    with pytest.raises(
        IsoglossError, match=str(next(iter(change.values()) if "peft_type" in change else iter(change)))
    ):
        import_module(folder, tiny("xglm"))


def test_lora_on_a_layer_without_a_role_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    tensors = _lora_file(["lm_head"], tiny("mt5"))
    with pytest.raises(IsoglossError, match="lm_head"):
        import_module(_write_peft(tmp_path / "a", tensors, _LORA), tiny("mt5"))


@pytest.mark.parametrize("targets", [["q", "v"], "all-linear"])
def test_lora_as_peft_itself_targets_an_encoder_decoder(tiny: Tiny, tmp_path: Path, targets: list[str] | str) -> None:
    peft = pytest.importorskip("peft")
    backbone = tiny("mt5")
    wrapped = peft.get_peft_model(copy.deepcopy(backbone.model), peft.LoraConfig(r=3, target_modules=targets))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(len(name)))
    wrapped.save_pretrained(tmp_path / "peft")
    module = import_module(tmp_path / "peft", backbone)
    assert any("crossq" in group for group in module.groups)
    wrapped.eval()
    torch.testing.assert_close(stack_logits(backbone, module), model_logits(wrapped, backbone), atol=2e-4, rtol=1e-4)


def _prompted_logits(backbone: Backbone, rows: Tensor) -> Tensor:
    """The model on [prompt; text] embeddings; only text (or decoder) positions are kept."""
    embeddings = torch.cat((rows.expand(2, *rows.shape), backbone.embed(IDS)), dim=1)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
    extra = {"decoder_input_ids": DECODER_IDS} if backbone.kind == "encoder-decoder" else {}
    with torch.no_grad():
        logits = backbone.model(inputs_embeds=embeddings, attention_mask=mask, **extra).logits
    return logits if extra else logits[:, rows.shape[0] :]  # type: ignore[no-any-return]


@pytest.mark.parametrize(("name", "copies"), [("xglm", 1), ("bloom", 1), ("mt5", 2)])
def test_prompt_import_reads_the_first_rows(tiny: Tiny, tmp_path: Path, name: str, copies: int) -> None:
    backbone = tiny(name)
    rows = torch.randn(copies * 4, 32, generator=torch.Generator().manual_seed(5))
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "num_transformer_submodules": copies}
    module = import_module(_write_peft(tmp_path / "a", {"prompt_embeddings": rows}, config), backbone)
    wanted = _prompted_logits(backbone, rows[:4])
    torch.testing.assert_close(stack_logits(backbone, module), wanted, atol=2e-4, rtol=1e-4)
    short = _write_peft(tmp_path / "b", {"prompt_embeddings": rows[:-1]}, config)
    with pytest.raises(IsoglossError, match="has shape"):
        import_module(short, backbone)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("xglm", "prompt:4,init=normal"),
        ("bloom", "prompt:3,init=uniform,reparameterisation=mlp,hidden=5,fixed=1"),
        ("mt5", "prompt:4,init=normal"),
        ("bert", "prompt:4,init=normal"),
        ("llama", "lora:3,alpha=5,targets=q+up"),
        ("bloom", "lora:2"),
        ("mt5", "lora:3,targets=q+down"),
        ("mt5", "lora:3,sides=decoder"),
        ("xlmr", "lora:3,targets=q+o"),
    ],
)
def test_peft_loads_what_we_export(tiny: Tiny, tmp_path: Path, name: str, spec: str) -> None:
    peft = pytest.importorskip("peft")
    backbone = tiny(name)
    module = create_module(parse_module(spec), backbone, seed=2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    folder = export_module(module, tmp_path / "out", backbone=backbone)
    model = peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder).eval()
    found, wanted = stack_logits(backbone, module), model_logits(model, backbone)
    wanted = wanted[:, wanted.shape[1] - found.shape[1] :]
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(found, stack_logits(backbone), atol=1e-2)
    # Back again: the same numbers.
    torch.testing.assert_close(stack_logits(backbone, import_module(folder, backbone)), found, atol=1e-5, rtol=1e-5)


def test_what_peft_cannot_say_is_not_exported(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("mt5")
    cases = {
        "prompt:4,init=normal,placement=after": "placement=after",
        "prompt:4,init=normal,side=decoder": "decoder side",
        "adapter:4": "no format for the method 'adapter'",
    }
    for spec, message in cases.items():
        with pytest.raises(IsoglossError, match=message):
            export_module(create_module(parse_module(spec), backbone), tmp_path / "out", backbone=backbone)
    prompt = create_module(parse_module("prompt:4,init=normal"), backbone)
    with pytest.raises(IsoglossError, match="format 'gguf'"):
        export_module(prompt, tmp_path / "out", "gguf", backbone=backbone)
    with pytest.raises(IsoglossError, match="its own backbone"):
        export_module(prompt, tmp_path / "out", backbone=tiny("umt5"))
    assert not (tmp_path / "out").exists()
    export_module(prompt, tmp_path / "out", backbone=backbone)
    with pytest.raises(IsoglossError, match="already holds"):
        export_module(prompt, tmp_path / "out", backbone=backbone)


# The S1 authors' files, and recognition.


@pytest.mark.parametrize("file", ["prompt.bin", "prompt.safetensors"])
@pytest.mark.parametrize("with_config", [False, True])
def test_s1_prompt_counts_its_first_half(tiny: Tiny, tmp_path: Path, file: str, with_config: bool) -> None:
    backbone = tiny("mt5")
    rows = torch.randn(10, 32, generator=torch.Generator().manual_seed(9))
    folder = tmp_path / "slovak_prompt_100k"
    folder.mkdir()
    if file.endswith(".bin"):
        torch.save({"prompt_embeddings": rows}, folder / file)
    else:
        save_file({"prompt_embeddings": rows}, folder / file)
    if with_config:
        config = {
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": 5,
            "num_transformer_submodules": 2,
            "fusion": "none",
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))
    module = import_module(folder, backbone)
    assert (module.info.role, module.info.language) == ("language", "slk_Latn")
    torch.testing.assert_close(
        stack_logits(backbone, module), _prompted_logits(backbone, rows[:5]), atol=2e-4, rtol=1e-4
    )
    same = import_module(folder / file, backbone, task="nli", language="en")
    assert (same.info.role, same.info.task, same.info.language) == ("task", "nli", "eng_Latn")
    with pytest.raises(IsoglossError, match="of kind decoder"):
        import_module(folder / file, tiny("xglm"))


def test_s1_prompt_must_have_both_halves(tiny: Tiny, tmp_path: Path) -> None:
    save_file({"prompt_embeddings": torch.zeros(9, 32)}, tmp_path / "p.safetensors")
    with pytest.raises(IsoglossError, match="has shape"):
        import_module(tmp_path, tiny("mt5"))
    save_file({"prompts": torch.zeros(8, 32)}, tmp_path / "p.safetensors")
    with pytest.raises(IsoglossError, match="'prompt_embeddings'"):
        import_module(tmp_path, tiny("mt5"))


def test_unknown_folders_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="no folder"):
        import_module(tmp_path / "nowhere", tiny("bert"))
    with pytest.raises(IsoglossError, match="not recognised"):
        import_module(tmp_path, tiny("bert"))
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(IsoglossError, match="JSON object"):
        import_module(tmp_path, tiny("bert"))


def test_own_format_is_recognised_too(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("bert")
    module = create_module(parse_module("adapter:4"), backbone)
    save_module(module, tmp_path / "m")
    again = import_module(tmp_path / "m", backbone, language="Slovak")
    assert again.config == module.config
    assert (again.info.role, again.info.language) == ("language", "slk_Latn")
