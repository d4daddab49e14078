"""AdapterHub import with checkpoints made here; what they compute is written out by hand (papers.md 1.2, 5.1)."""

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
from isogloss.formats import import_module, load_module, save_module
from isogloss.modules import BottleneckConfig
from isogloss.stack import Stack
from tests._exchange_tools import IDS, MASK, model_logits, stack_logits

Tiny = Callable[[str], Backbone]

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


def _write(folder: Path, tensors: dict[str, Tensor], config: Any, *, pickled: bool = False, **facts: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"config": config, "name": "sk", **facts}))
    if pickled:
        torch.save(tensors, folder / "pytorch_adapter.bin")
    else:
        save_file(tensors, folder / "adapter.safetensors")
    return folder


def _branch(tensors: dict[str, Tensor], where: str, function: Callable[[Tensor], Tensor], name: str = "sk") -> Any:
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


def _bert_places(sublayers: tuple[str, ...] = ("output",), blocks: int = 2, prefix: str = "bert.") -> list[str]:
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
        written = {key.replace(".adapters.", ".layer_text_task_adapters."): tensor for key, tensor in tensors.items()}
    folder = _write(tmp_path / "a", written, _PFEIFFER, pickled=pickled, model_type="bert", hidden_size=32)
    module = import_module(folder, backbone)
    assert module.config == BottleneckConfig(reduction=4)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    torch.testing.assert_close(stack_logits(backbone, module), model_logits(model, backbone), atol=1e-5, rtol=1e-5)
    # What was imported is an ordinary module from here on.
    save_module(module, tmp_path / "ours")
    again = load_module(tmp_path / "ours", backbone)
    assert torch.equal(stack_logits(backbone, again), stack_logits(backbone, module))


def test_named_config_and_left_out_block(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("bert")
    tensors = _tensors(_bert_places()[:1], 2)
    model = copy.deepcopy(backbone.model)
    _patch_bert_seq(model, tensors, range(1))
    module = import_module(
        _write(tmp_path / "a", tensors, _PFEIFFER | {"leave_out": [1], "reduction_factor": 16}), backbone
    )
    torch.testing.assert_close(stack_logits(backbone, module), model_logits(model, backbone), atol=1e-5, rtol=1e-5)
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
    folder = _write(tmp_path / "a", tensors, {"mh_adapter": True, "non_linearity": "swish", "reduction_factor": 8})
    found = stack_logits(backbone, import_module(folder, backbone))
    torch.testing.assert_close(found, model_logits(model, backbone), atol=1e-5, rtol=1e-5)


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
    found = stack_logits(backbone, import_module(folder, backbone))
    torch.testing.assert_close(found, model_logits(model, backbone), atol=1e-5, rtol=1e-5)


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
    module = import_module(_write(tmp_path / "a", tensors, config, model_class="XLMRobertaForMaskedLM"), backbone)
    assert (module.info.role, module.info.language) == ("language", "slk_Latn")
    with torch.no_grad():
        found = Stack(backbone, [module]).hidden(IDS, MASK)
        wanted = model.roberta(input_ids=IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    if hasattr(module.config, "invertible_inverse"):
        # With a head of `transformers` the library does not map back before the vocabulary matrix.
        logits = stack_logits(backbone, module)
        torch.testing.assert_close(logits, model_logits(model, backbone), atol=1e-5, rtol=1e-5)
    # Version 1 described the invertible part by a mapping.
    old = {"block_type": "nice", "non_linearity": "relu", "reduction_factor": 2}
    legacy = {key.replace("invertible_adapters", "invertible_lang_adapters"): tensor for key, tensor in tensors.items()}
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
    places = [f"encoder.block.{n}.layer.1" for n in range(2)] + [f"decoder.block.{n}.layer.2" for n in range(2)]
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
    torch.testing.assert_close(stack_logits(backbone, module), model_logits(model, backbone), atol=1e-4, rtol=1e-5)


def test_seq_bn_on_llama(tiny: Tiny, tmp_path: Path) -> None:
    backbone = tiny("llama")
    places = [f"model.layers.{n}.output_adapters" for n in range(2)]
    tensors = _tensors(places, 8)
    model = copy.deepcopy(backbone.model)
    for n, place in enumerate(places):
        branch = _branch(tensors, place, torch.relu)
        model.model.layers[n].register_forward_hook(lambda layer, inputs, out, branch=branch: out + branch(out))
    module = import_module(_write(tmp_path / "a", tensors, _PFEIFFER), backbone)
    torch.testing.assert_close(stack_logits(backbone, module), model_logits(model, backbone), atol=1e-5, rtol=1e-5)


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
