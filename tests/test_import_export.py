"""Import and export with checkpoints made here; what they compute is written out by hand from the formulas.

Adapters: papers.md 1.2 and 5.1. LoRA: W + (alpha / r) B A. Prompts: the first L rows in front of the text.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import export_module, import_module, load_module, save_module
from isogloss.modules import BottleneckConfig, create_module, parse_module
from isogloss.stack import Stack

Tiny = Callable[[str], Backbone]
_IDS = torch.tensor([[5, 9, 33, 71, 8, 14], [90, 17, 4, 6, 55, 23]])
_MASK = torch.ones_like(_IDS)
_DECODER_IDS = torch.tensor([[0, 11, 12], [0, 40, 7]])


def _inputs(backbone: Backbone) -> dict[str, Any]:
    extra = {"decoder_input_ids": _DECODER_IDS} if backbone.kind == "encoder-decoder" else {}
    return {"input_ids": _IDS, "attention_mask": _MASK, **extra}


def _stack_logits(backbone: Backbone, *modules: Any) -> Tensor:
    with torch.no_grad():
        return Stack(backbone, list(modules)).logits(**_inputs(backbone))


def _model_logits(model: nn.Module, backbone: Backbone) -> Tensor:
    with torch.no_grad():
        return model(**_inputs(backbone)).logits  # type: ignore[no-any-return]


# AdapterHub: files and formulas.


def _tensors(where: list[str], bottleneck: int, *, name: str = "sk", width: int = 32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    shapes = {
        "adapter_down.0.weight": (bottleneck, width),
        "adapter_down.0.bias": (bottleneck,),
        "adapter_up.weight": (width, bottleneck),
        "adapter_up.bias": (width,),
    }
    return {
        f"{place}.adapters.{name}.{tensor}": 0.4 * torch.randn(shape, generator=generator)
        for place in where
        for tensor, shape in shapes.items()
    }


def _write(
    folder: Path, tensors: dict[str, Tensor], config: Any, *, pickled: bool = False, **facts: Any
) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"config": config, "name": "sk", **facts}))
    if pickled:
        torch.save(tensors, folder / "pytorch_adapter.bin")
    else:
        save_file(tensors, folder / "adapter.safetensors")
    return folder


def _branch(
    tensors: dict[str, Tensor], where: str, function: Callable[[Tensor], Tensor], name: str = "sk"
) -> Any:
    """U f(D x + b) + c of one adapter, straight from the file's tensors."""
    own = {
        key.removeprefix(f"{where}.adapters.{name}."): tensor
        for key, tensor in tensors.items()
        if key.startswith(where)
    }
    return lambda x: (
        function(x @ own["adapter_down.0.weight"].T + own["adapter_down.0.bias"]) @ own["adapter_up.weight"].T
        + own["adapter_up.bias"]
    )


def _bert_places(
    sublayers: tuple[str, ...] = ("output",), blocks: int = 2, prefix: str = "bert."
) -> list[str]:
    return [f"{prefix}encoder.layer.{block}.{sublayer}" for block in range(blocks) for sublayer in sublayers]


_PFEIFFER = {
    "mh_adapter": False,
    "output_adapter": True,
    "original_ln_before": True,
    "original_ln_after": True,
    "residual_before_ln": True,
    "non_linearity": "relu",
    "reduction_factor": 4,
}


def _patch_bert_seq(model: Any, tensors: dict[str, Tensor], blocks: range = range(2)) -> None:
    for block in blocks:
        layer = model.bert.encoder.layer[block].output
        branch = _branch(tensors, f"bert.encoder.layer.{block}.output", torch.relu)

        def forward(hidden: Tensor, x: Tensor, layer: Any = layer, branch: Any = branch) -> Tensor:
            f = layer.dense(hidden)
            return layer.LayerNorm(branch(layer.LayerNorm(f + x)) + f + x)  # type: ignore[no-any-return]

        layer.forward = forward


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("legacy", [False, True])
def test_seq_bn_on_bert(tiny: Tiny, tmp_path: Path, pickled: bool, legacy: bool) -> None:
    backbone = tiny("bert")
    tensors = _tensors(_bert_places(), 8)
    model = copy.deepcopy(backbone.model)
    _patch_bert_seq(model, tensors)
    written = tensors
    if legacy:
        written = {
            key.replace(".adapters.", ".layer_text_task_adapters."): tensor for key, tensor in tensors.items()
        }
    folder = _write(tmp_path / "a", written, _PFEIFFER, pickled=pickled, model_type="bert", hidden_size=32)
    module = import_module(folder, backbone)
    assert module.config == BottleneckConfig(reduction=4)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    torch.testing.assert_close(
        _stack_logits(backbone, module), _model_logits(model, backbone), atol=1e-5, rtol=1e-5
    )
    # What was imported is an ordinary module from here on.
    save_module(module, tmp_path / "ours")
    again = load_module(tmp_path / "ours", backbone)
    assert torch.equal(_stack_logits(backbone, again), _stack_logits(backbone, module))


def test_named_config_and_left_out_block(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("bert")
    tensors = _tensors(_bert_places()[:1], 2)
    model = copy.deepcopy(backbone.model)
    _patch_bert_seq(model, tensors, range(1))
    module = import_module(
        _write(tmp_path / "a", tensors, _PFEIFFER | {"leave_out": [1], "reduction_factor": 16}), backbone
    )
    torch.testing.assert_close(
        _stack_logits(backbone, module), _model_logits(model, backbone), atol=1e-5, rtol=1e-5
    )
    both = import_module(_write(tmp_path / "b", _tensors(_bert_places(), 2), "pfeiffer"), backbone)
    assert both.config == BottleneckConfig(reduction=16)
    with pytest.raises(IsoglossError, match="lack 'encoder_1_stream"):
        import_module(_write(tmp_path / "c", tensors, "pfeiffer"), backbone)


def test_houlsby_on_bert(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("bert")
    tensors = _tensors(_bert_places(("attention.output", "output"), prefix=""), 4)
    model = copy.deepcopy(backbone.model)
    for block in range(2):
        for path in ("attention.output", "output"):
            layer = model.bert.encoder.layer[block].get_submodule(path)
            branch = _branch(tensors, f"encoder.layer.{block}.{path}", nn.functional.silu)

            def forward(hidden: Tensor, x: Tensor, layer: Any = layer, branch: Any = branch) -> Tensor:
                f = layer.dense(hidden)
                return layer.LayerNorm(f + branch(f) + x)  # type: ignore[no-any-return]

            layer.forward = forward
    folder = _write(
        tmp_path / "a", tensors, {"mh_adapter": True, "non_linearity": "swish", "reduction_factor": 8}
    )
    found = _stack_logits(backbone, import_module(folder, backbone))
    torch.testing.assert_close(found, _model_logits(model, backbone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("learned", [False, True])
def test_parallel_on_bert(tiny: Tiny, tmp_path: Path, learned: bool) -> None:
    backbone = tiny("bert")
    tensors = _tensors(_bert_places(), 16)
    scales = [1.7, 0.4] if learned else [4.0, 4.0]
    model = copy.deepcopy(backbone.model)
    for block in range(2):
        layer = model.bert.encoder.layer[block].output
        branch = _branch(tensors, f"bert.encoder.layer.{block}.output", torch.relu)

        def forward(
            hidden: Tensor, x: Tensor, layer: Any = layer, branch: Any = branch, s: float = scales[block]
        ) -> Tensor:
            return layer.LayerNorm(layer.dense(hidden) + s * branch(x) + x)  # type: ignore[no-any-return]

        layer.forward = forward
        if learned:
            tensors[f"bert.encoder.layer.{block}.output.adapters.sk.scaling"] = torch.tensor([scales[block]])
    folder = _write(tmp_path / "a", tensors, "scaled_par_bn" if learned else "par_bn")
    found = _stack_logits(backbone, import_module(folder, backbone))
    torch.testing.assert_close(found, _model_logits(model, backbone), atol=1e-5, rtol=1e-5)


def test_invertible_part_acts_after_the_embeddings(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("xlmr")
    tensors = _tensors(_bert_places(prefix="roberta."), 16)
    generator = torch.Generator().manual_seed(3)
    for net in "FG":
        for layer, shape in ((0, (8, 16)), (2, (16, 8))):
            base = f"roberta.invertible_adapters.sk.{net}.{layer}"
            tensors[f"{base}.weight"] = 0.3 * torch.randn(shape, generator=generator)
            tensors[f"{base}.bias"] = 0.3 * torch.randn(shape[:1], generator=generator)

    def network(net: str, x: Tensor) -> Tensor:
        base = f"roberta.invertible_adapters.sk.{net}"
        inner = torch.relu(x @ tensors[f"{base}.0.weight"].T + tensors[f"{base}.0.bias"])
        return inner @ tensors[f"{base}.2.weight"].T + tensors[f"{base}.2.bias"]

    model = copy.deepcopy(backbone.model)
    embeddings = model.roberta.embeddings
    plain = embeddings.forward

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        x1, x2 = plain(*args, **kwargs).split(16, dim=-1)
        y1 = x1 + network("F", x2)
        return torch.cat((y1, x2 + network("G", y1)), dim=-1)

    embeddings.forward = forward
    for block in range(2):
        layer = model.roberta.encoder.layer[block].output
        branch = _branch(tensors, f"roberta.encoder.layer.{block}.output", torch.relu)

        def output(hidden: Tensor, x: Tensor, layer: Any = layer, branch: Any = branch) -> Tensor:
            f = layer.dense(hidden)
            return layer.LayerNorm(branch(layer.LayerNorm(f + x)) + f + x)  # type: ignore[no-any-return]

        layer.forward = output
    config = _PFEIFFER | {"reduction_factor": 2, "inv_adapter": "nice", "inv_adapter_reduction_factor": 2}
    module = import_module(
        _write(tmp_path / "a", tensors, config, model_class="XLMRobertaForMaskedLM"), backbone
    )
    assert (module.info.role, module.info.language) == ("language", "slk_Latn")
    with torch.no_grad():
        found = Stack(backbone, [module]).hidden(_IDS, _MASK)
        wanted = model.roberta(input_ids=_IDS, attention_mask=_MASK).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    # Version 1 described the invertible part by a mapping.
    old = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}
    legacy = {
        key.replace("invertible_adapters", "invertible_lang_adapters"): tensor
        for key, tensor in tensors.items()
    }
    folder = _write(
        tmp_path / "b",
        legacy,
        _PFEIFFER | {"reduction_factor": 2, "invertible_adapter": old},
        type="text_lang",
    )
    for name, tensor in import_module(folder, backbone).weight_tensors().items():
        assert torch.equal(tensor, module.weight_tensors()[name])
    # A task adapter of version 1 may name an invertible part that it never had.
    bare = {key: tensor for key, tensor in tensors.items() if "invertible" not in key}
    task = import_module(_write(tmp_path / "c", bare, config, type="text_task"), backbone)
    assert task.info.role == "task"
    with pytest.raises(IsoglossError, match="invertible part"):
        import_module(_write(tmp_path / "d", bare, config), backbone)


def test_seq_bn_on_both_sides_of_mt5(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("mt5")
    places = [f"encoder.block.{n}.layer.1" for n in range(2)] + [
        f"decoder.block.{n}.layer.2" for n in range(2)
    ]
    tensors = _tensors(places, 8)
    model = copy.deepcopy(backbone.model)
    for place in places:
        layer = model.get_submodule(place)
        branch = _branch(tensors, place, torch.relu)

        def forward(x: Tensor, layer: Any = layer, branch: Any = branch) -> Tensor:
            f = layer.DenseReluDense(layer.layer_norm(x))
            return x + f + branch(f + x)  # type: ignore[no-any-return]

        layer.forward = forward
    module = import_module(_write(tmp_path / "a", tensors, _PFEIFFER, model_type="mt5"), backbone)
    torch.testing.assert_close(
        _stack_logits(backbone, module), _model_logits(model, backbone), atol=1e-4, rtol=1e-5
    )


def test_seq_bn_on_llama(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("llama")
    places = [f"model.layers.{n}.output_adapters" for n in range(2)]
    tensors = _tensors(places, 8)
    model = copy.deepcopy(backbone.model)
    for n, place in enumerate(places):
        branch = _branch(tensors, place, torch.relu)
        model.model.layers[n].register_forward_hook(
            lambda layer, inputs, out, branch=branch: out + branch(out)
        )
    module = import_module(_write(tmp_path / "a", tensors, _PFEIFFER), backbone)
    torch.testing.assert_close(
        _stack_logits(backbone, module), _model_logits(model, backbone), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"phm_layer": True}, "phm_layer"),
        ({"ln_before": True}, "ln_before"),
        ({"ln_after": True}, "ln_after"),
        ({"use_gating": True}, "use_gating"),
        ({"cross_adapter": True}, "cross_adapter"),
        ({"stochastic_depth": 0.1}, "stochastic_depth"),
        ({"inv_adapter": "glow"}, "glow"),
        ({"scaling": "channel"}, "scaling=channel"),
        ({"architecture": "lora"}, "architecture 'lora'"),
        ({"original_ln_before": False}, "original_ln_before"),
        ({"original_ln_after": False}, "original_ln_after"),
        ({"residual_before_ln": "post_add"}, "residual_before_ln"),
        ({"output_adapter": False}, "output_adapter"),
        ({"non_linearity": "sine"}, "sine"),
        ({"reduction_factor": {"0": 4, "default": 8}}, "reduction_factor"),
        ({"leave_out": [9]}, "block 9"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    tiny: Tiny, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    folder = _write(tmp_path / "a", _tensors(_bert_places(), 8), _PFEIFFER | config)
    with pytest.raises(IsoglossError, match=message):
        import_module(folder, tiny("bert"))


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"hidden_size": 768}, "width 768"), ({"model_type": "mt5"}, "type 'mt5'")],
)
def test_adapter_for_another_architecture_is_refused(
    tiny: Tiny, tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    folder = _write(tmp_path / "a", _tensors(_bert_places(), 8), _PFEIFFER, **facts)
    with pytest.raises(IsoglossError, match=message):
        import_module(folder, tiny("bert"))


def test_every_tensor_is_used_once(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("bert")
    tensors = _tensors(_bert_places(), 8)
    stray = {**tensors, "bert.encoder.layer.0.output.adapter_fusion_layer.x.query.weight": torch.zeros(2, 2)}
    with pytest.raises(IsoglossError, match="adapter_fusion_layer"):
        import_module(_write(tmp_path / "a", stray, _PFEIFFER), backbone)
    two = tensors | {key.replace(".sk.", ".cs."): tensor.clone() for key, tensor in tensors.items()}
    with pytest.raises(IsoglossError, match=r"several adapters \(cs, sk\)"):
        import_module(_write(tmp_path / "b", two, _PFEIFFER), backbone)
    deep = _tensors(_bert_places(blocks=3), 8)
    with pytest.raises(IsoglossError, match="encoder_2_stream"):
        import_module(_write(tmp_path / "c", deep, _PFEIFFER), backbone)
    uneven = tensors | {"bert.encoder.layer.1.output.adapters.sk.adapter_up.weight": torch.zeros(32, 5)}
    with pytest.raises(IsoglossError, match="shape"):
        import_module(_write(tmp_path / "d", uneven, _PFEIFFER), backbone)


def test_pickled_code_is_not_run(tiny: Tiny, tmp_path: Path) -> None:
    folder = _write(tmp_path / "a", {"x": torch.zeros(1)}, _PFEIFFER, pickled=True)

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"x": Evil()}, folder / "pytorch_adapter.bin")
    with pytest.raises(IsoglossError, match="more than tensors"):
        import_module(folder, tiny("bert"))
    assert not (tmp_path / "pwned").exists()
    (folder / "pytorch_adapter.bin").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(IsoglossError, match=r"pytorch_adapter\.bin"):
        import_module(folder, tiny("bert"))


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
        tensors[f"base_model.model.{path}.lora_A.weight"] = torch.randn(
            rank, layer.in_features, generator=generator
        )
        tensors[f"base_model.model.{path}.lora_B.weight"] = torch.randn(
            layer.out_features, rank, generator=generator
        )
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
    torch.testing.assert_close(
        _stack_logits(backbone, module), _model_logits(model, backbone), atol=2e-4, rtol=1e-4
    )


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
def test_peft_option_that_is_not_computed_is_refused(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any]
) -> None:
    tensors = _lora_file(["model.layers.0.self_attn.q_proj"], tiny("xglm"))
    folder = _write_peft(tmp_path / "a", tensors, _LORA | change)
    with pytest.raises(
        IsoglossError, match=str(next(iter(change.values()) if "peft_type" in change else iter(change)))
    ):
        import_module(folder, tiny("xglm"))


def test_lora_on_a_layer_without_a_role_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    tensors = _lora_file(["decoder.block.0.layer.1.EncDecAttention.q"], tiny("mt5"))
    known = set(tiny("mt5").sites.blocks["decoder"][0].linears.values())
    if tiny("mt5").model.decoder.block[0].layer[1].EncDecAttention.q in known:
        pytest.skip("this family names its cross-attention")
    with pytest.raises(IsoglossError, match="EncDecAttention"):
        import_module(_write_peft(tmp_path / "a", tensors, _LORA), tiny("mt5"))


def _prompted_logits(backbone: Backbone, rows: Tensor) -> Tensor:
    """The model on [prompt; text] embeddings; only text (or decoder) positions are kept."""
    embeddings = torch.cat((rows.expand(2, *rows.shape), backbone.embed(_IDS)), dim=1)
    mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
    extra = {"decoder_input_ids": _DECODER_IDS} if backbone.kind == "encoder-decoder" else {}
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
    torch.testing.assert_close(_stack_logits(backbone, module), wanted, atol=2e-4, rtol=1e-4)
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
    found, wanted = _stack_logits(backbone, module), _model_logits(model, backbone)
    wanted = wanted[:, wanted.shape[1] - found.shape[1] :]
    torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(found, _stack_logits(backbone), atol=1e-2)
    # Back again: the same numbers.
    torch.testing.assert_close(
        _stack_logits(backbone, import_module(folder, backbone)), found, atol=1e-5, rtol=1e-5
    )


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
        _stack_logits(backbone, module), _prompted_logits(backbone, rows[:5]), atol=2e-4, rtol=1e-4
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
