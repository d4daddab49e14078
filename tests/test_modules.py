"""What modules compute, against forwards written out by hand; how they start; how many weights they have."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from _stack_tools import batch_of, close, make, texts
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from isogloss.backbones import Backbone
from isogloss.backbones.families import family_of
from isogloss.backbones.sites import resolve_sites
from isogloss.errors import IsoglossError
from isogloss.modules import TransferModule, create_module, parse_module
from isogloss.modules.invertible import couple, new_coupling, uncouple
from isogloss.stack import Stack

Tiny = Callable[[str], Backbone]


def _bottleneck(module: TransferModule, group: str, x: Tensor, nonlinearity: Any, factor: float = 1.0) -> Tensor:
    w = module.groups[group]
    return factor * F.linear(nonlinearity(F.linear(x, w["down_weight"], w["down_bias"])), w["up_weight"], w["up_bias"])


def _bert(backbone: Backbone, ids: Tensor, block_output: Any, attention_adapter: Any = None) -> Tensor:
    """BERT by its pieces; `block_output(number, layer, f, x)` ends a block."""
    x = backbone.model.bert.embeddings(ids)
    for number, layer in enumerate(backbone.model.bert.encoder.layer):
        attention = layer.attention.output.dense(layer.attention.self(x)[0])
        if attention_adapter is not None:
            attention = attention_adapter(number, attention)
        x = layer.attention.output.LayerNorm(attention + x)
        f = layer.output.dense(layer.intermediate(x))
        x = block_output(number, layer, f, x)
    return x  # type: ignore[no-any-return]


def _run(backbone: Backbone, ids: Tensor, *modules: Any) -> Tensor:
    return Stack(backbone, modules).hidden(ids, torch.ones_like(ids))


@pytest.fixture
def ids() -> Tensor:
    return torch.tensor(texts(2, (6,)))


def test_adapters_on_post_norm_blocks(tiny: Tiny, ids: Tensor) -> None:
    # papers.md 5.1: z = LN(f + x); y = LN(U relu(D z) + f + x); a second one continues on that stream.
    backbone = tiny("bert")
    one, two = make(backbone, "adapter:8", seed=1), make(backbone, "adapter:4,nonlinearity=gelu", seed=2)

    def single(number: int, layer: Any, f: Tensor, x: Tensor) -> Tensor:
        norm = layer.output.LayerNorm
        return norm(_bottleneck(one, f"encoder_{number}_stream", norm(f + x), torch.relu) + f + x)  # type: ignore[no-any-return]

    def double(number: int, layer: Any, f: Tensor, x: Tensor) -> Tensor:
        norm = layer.output.LayerNorm
        s = f + x
        s = s + _bottleneck(one, f"encoder_{number}_stream", norm(s), torch.relu)
        s = s + _bottleneck(two, f"encoder_{number}_stream", norm(s), F.gelu)
        return norm(s)  # type: ignore[no-any-return]

    close(_run(backbone, ids, one), _bert(backbone, ids, single))
    close(_run(backbone, ids, one, two), _bert(backbone, ids, double))
    assert not torch.allclose(_run(backbone, ids, one, two), _run(backbone, ids, two, one), atol=1e-3)


def test_houlsby_and_parallel_adapters(tiny: Tiny, ids: Tensor) -> None:
    backbone = tiny("bert")
    houlsby, parallel = make(backbone, "adapter:8,variant=double_seq_bn"), make(backbone, "adapter:2,variant=par_bn")

    def sublayer(place: str) -> Any:
        return lambda number, y: y + _bottleneck(houlsby, f"encoder_{number}_{place}", y, F.silu)

    def houlsby_end(number: int, layer: Any, f: Tensor, x: Tensor) -> Tensor:
        return layer.output.LayerNorm(sublayer("ffn")(number, f) + x)  # type: ignore[no-any-return]

    def parallel_end(number: int, layer: Any, f: Tensor, x: Tensor) -> Tensor:
        side = _bottleneck(parallel, f"encoder_{number}_parallel", x, torch.relu, 4.0)
        return layer.output.LayerNorm(f + side + x)  # type: ignore[no-any-return]

    close(_run(backbone, ids, houlsby), _bert(backbone, ids, houlsby_end, sublayer("attention")))
    close(_run(backbone, ids, parallel), _bert(backbone, ids, parallel_end))


def _t5_encoder(backbone: Backbone, ids: Tensor, end: Any) -> Tensor:
    """The mT5 encoder by its pieces; `end(number, f, x)` ends a block (papers.md 1.2)."""
    x, bias = backbone.embed(ids), None
    for number, block in enumerate(backbone.encoder.block):  # type: ignore[union-attr, arg-type]
        outputs = block.layer[0](x, attention_mask=None, position_bias=bias)  # type: ignore[union-attr, index]
        x, bias = outputs[0], outputs[1]
        ffn = block.layer[1]  # type: ignore[union-attr, index]
        x = end(number, ffn.DenseReluDense(ffn.layer_norm(x)), x)
    return backbone.encoder.final_layer_norm(x)  # type: ignore[no-any-return, operator]


def test_adapters_on_pre_norm_blocks(tiny: Tiny, ids: Tensor) -> None:
    backbone = tiny("mt5")
    one, two = make(backbone, "adapter:8", seed=1), make(backbone, "adapter:16", seed=2)
    houlsby = make(backbone, "adapter:8,variant=double_seq_bn")

    def single(number: int, f: Tensor, x: Tensor) -> Tensor:
        return x + f + _bottleneck(one, f"encoder_{number}_stream", f + x, torch.relu)

    def double(number: int, f: Tensor, x: Tensor) -> Tensor:
        h1 = f + _bottleneck(one, f"encoder_{number}_stream", f + x, torch.relu)
        h2 = h1 + _bottleneck(two, f"encoder_{number}_stream", h1 + x, torch.relu)
        return x + h2

    close(_run(backbone, ids, one), _t5_encoder(backbone, ids, single))
    close(_run(backbone, ids, one, two), _t5_encoder(backbone, ids, double))
    wanted = _t5_encoder(backbone, ids, lambda n, f, x: x + f + _bottleneck(houlsby, f"encoder_{n}_ffn", f, F.silu))
    with torch.no_grad():
        for number in range(2):
            for name in ("up_weight", "up_bias"):
                houlsby.groups[f"encoder_{number}_attention"][name].zero_()  # type: ignore[index, operator]
    close(_run(backbone, ids, houlsby), wanted)


@pytest.mark.parametrize("name", list(TINY))
def test_adapters_reach_every_block_and_nothing_else(tiny: Tiny, name: str) -> None:
    """On every architecture: `s + A(s)` at each block's end, seen through a wrapped block list."""
    backbone = tiny(name)
    module = make(backbone, "adapter:8")
    batch = batch_of(backbone, texts(2, (6,)))
    found = Stack(backbone, [module]).logits(batch.input_ids, batch.attention_mask, batch.decoder_input_ids)
    if backbone.family.norm == "post":
        pytest.skip("post-norm blocks are written out by hand above")

    twin = copy.deepcopy(backbone.model)
    for side, path in backbone.family.blocks.items():
        for number, block in enumerate(twin.get_submodule(path)):
            plain = block.forward

            def wrapped(
                *args: Any, _plain: Any = plain, _group: str = f"{side}_{number}_stream", **options: Any
            ) -> Any:
                out = _plain(*args, **options)
                states = out[0] if isinstance(out, tuple) else out
                states = states + _bottleneck(module, _group, states, torch.relu)
                return (states, *out[1:]) if isinstance(out, tuple) else states

            block.forward = wrapped
    extra = {} if batch.decoder_input_ids is None else {"decoder_input_ids": batch.decoder_input_ids}
    wanted = twin(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False, **extra).logits \
        if backbone.kind != "encoder" else twin(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits  # fmt: skip
    close(found, wanted)
    found.square().mean().backward()
    for parameter in module.parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0


def test_blocks_left_out_and_sides(tiny: Tiny, ids: Tensor) -> None:
    backbone = tiny("mt5")
    module = make(backbone, "adapter:8,leave_out=0+3")
    assert list(module.groups) == ["encoder_1_stream", "decoder_0_stream"]
    assert list(make(backbone, "adapter:8,sides=decoder").groups) == ["decoder_0_stream", "decoder_1_stream"]
    wanted = _t5_encoder(
        backbone, ids, lambda n, f, x: x + f + (_bottleneck(module, "encoder_1_stream", f + x, torch.relu) if n else 0)
    )
    close(_run(backbone, ids, module), wanted)
    with pytest.raises(IsoglossError, match=r"leaves out block 4, .* 0 to 3"):
        make(backbone, "adapter:8,leave_out=4")
    with pytest.raises(IsoglossError, match=r"'decoder'.* only encoder"):
        make(tiny("bert"), "adapter:8,sides=decoder")


def test_scaling_fixed_and_learned(tiny: Tiny, ids: Tensor) -> None:
    backbone = tiny("llama")
    plain, fixed = make(backbone, "adapter:8"), make(backbone, "adapter:8,scaling=0.5")
    learned = make(backbone, "adapter:8,learned_scaling=true", noise=0)
    with torch.no_grad():
        for group in learned.groups:
            for name, tensor in plain.groups[group].items():  # type: ignore[operator]
                learned.groups[group][name].copy_(tensor)  # type: ignore[index]
    assert all(learned.groups[g]["scale"].item() == 1.0 for g in learned.groups)  # type: ignore[index]
    close(_run(backbone, ids, learned), _run(backbone, ids, plain))
    with torch.no_grad():
        for group in learned.groups:
            learned.groups[group]["scale"].fill_(0.5)  # type: ignore[index]
    close(_run(backbone, ids, learned), _run(backbone, ids, fixed))
    _run(backbone, ids, learned).square().mean().backward()
    assert all(float(learned.groups[g]["scale"].grad.abs()) > 0 for g in learned.groups)  # type: ignore[index]


@pytest.mark.parametrize("variant", ["seq_bn", "double_seq_bn", "par_bn"])
@pytest.mark.parametrize("name", ["bert", "xglm", "bloom", "modernbert", "mt5", "llama"])
def test_a_zero_up_projection_changes_nothing(tiny: Tiny, name: str, variant: str) -> None:
    backbone = tiny(name)
    module = make(backbone, f"adapter:4,variant={variant},invertible=true")
    with torch.no_grad():
        for key, tensor in module.weight_tensors().items():
            if "up_" in key:
                tensor.zero_()
    batch = batch_of(backbone, texts(2, (5, 3)))
    args = (batch.input_ids, batch.attention_mask, batch.decoder_input_ids)
    mask = torch.ones_like(args[2]).bool() if args[2] is not None else batch.attention_mask.bool()
    close(Stack(backbone, [module]).logits(*args)[mask], Stack(backbone).logits(*args)[mask])


def test_sublayers_that_a_family_does_not_name(tiny: Tiny) -> None:
    with pytest.raises(IsoglossError, match="use variant=seq_bn"):
        Stack(tiny("gemma2"), [make(tiny("gemma2"), "adapter:8,variant=double_seq_bn")])
    with pytest.raises(IsoglossError, match="use variant=seq_bn"):
        Stack(tiny("phi3"), [make(tiny("phi3"), "adapter:8,variant=par_bn")])


# -- invertible ------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 4), st.booleans())
def test_the_coupling_is_inverted_exactly(seed: int, half: int, reduction: int, per_row: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = {k: t.detach().double() * 30 for k, t in new_coupling(2 * half, reduction, generator).items()}
    if per_row:
        weights = {name: torch.stack((tensor, 2 * tensor)) for name, tensor in weights.items()}
    x = torch.randn(2, 3, 2 * half, generator=generator, dtype=torch.float64)
    y = couple(x, weights)
    assert torch.allclose(uncouple(y, weights), x, atol=1e-9, rtol=1e-9)
    if not per_row:
        first, second = x.chunk(2, -1)

        def net(n: str, v: Tensor) -> Tensor:
            inner = torch.relu(v @ weights[f"{n}_down_weight"].T + weights[f"{n}_down_bias"])
            return inner @ weights[f"{n}_up_weight"].T + weights[f"{n}_up_bias"]

        y1 = first + net("f", second)
        assert torch.allclose(y, torch.cat((y1, second + net("g", y1)), -1))


@pytest.mark.parametrize("spec", ["invertible:2", "adapter:8,invertible=true,leave_out=0+1"])
@pytest.mark.parametrize("name", ["bert", "llama", "bloom"])
def test_couplings_act_at_the_embeddings_and_before_the_head(tiny: Tiny, name: str, spec: str, ids: Tensor) -> None:
    backbone = tiny(name)
    one, two = make(backbone, spec, seed=1), make(backbone, spec, seed=2)
    weights = [m.weights("invertible") for m in (one, two)]
    twin = copy.deepcopy(backbone.model)
    site = {"bert": "bert.embeddings", "llama": "model.embed_tokens", "bloom": "transformer.word_embeddings_layernorm"}
    twin.get_submodule(site[name]).register_forward_hook(
        lambda module, inputs, out: couple(couple(out, weights[0]), weights[1])
    )
    states = twin.base_model(input_ids=ids).last_hidden_state
    # As AdapterHub: in front of the vocabulary matrix, behind the head's own transform.
    ready = twin.cls.predictions.transform(states) if name == "bert" else states
    wanted = twin.get_output_embeddings()(uncouple(uncouple(ready, weights[1]), weights[0]))
    stack = Stack(backbone, [one, two])
    close(stack.logits(ids, torch.ones_like(ids)), wanted)
    close(stack.label_logits(stack.run(batch_of(backbone, ids.tolist())).lm_last, torch.arange(120)), wanted[:, -1])


def test_an_odd_width_has_no_halves() -> None:
    with pytest.raises(IsoglossError, match="must be even, but it is 7"):
        new_coupling(7, 2, torch.Generator())


# -- LoRA ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "targets"),
    [("bert", "q+v+up"), ("llama", "q+k+v+o+gate+up+down"), ("bloom", "qkv+o+down"), ("mt5", "q+v+up"), ("modernbert", ""), ("phi3", "")],
)  # fmt: skip
def test_lora_is_the_merged_weight(tiny: Tiny, name: str, targets: str) -> None:
    backbone = tiny(name)
    module = make(backbone, f"lora:3,alpha=6{',targets=' + targets if targets else ''}")
    batch = batch_of(backbone, texts(2, (6,)))
    found = Stack(backbone, [module]).logits(batch.input_ids, batch.attention_mask, batch.decoder_input_ids)
    twin = copy.deepcopy(backbone.model)
    sites = resolve_sites(twin, backbone.family)
    with torch.no_grad():
        for group in module.groups:
            side, block, role = group.split("_", 2)
            w = module.groups[group]
            sites.blocks[side][int(block)].linears[role].weight.add_(6 / 3 * w["b"] @ w["a"])  # type: ignore[index]
    extra = {} if batch.decoder_input_ids is None else {"decoder_input_ids": batch.decoder_input_ids}
    wanted = twin(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **extra).logits
    close(found, wanted)


def test_lora_starts_from_the_plain_model_and_refuses_unknown_targets(tiny: Tiny, ids: Tensor) -> None:
    backbone = tiny("xglm")
    close(_run(backbone, ids, make(backbone, "lora:4", noise=0)), _run(backbone, ids), 0.0)
    with pytest.raises(IsoglossError, match=r"'qkv' is not a linear layer .* q, k, v"):
        make(backbone, "lora:4,targets=qkv")
    with pytest.raises(IsoglossError, match="sides"):
        make(backbone, "lora:4,sides=encoder")


# -- counts of the papers --------------------------------------------------------------------------------------------


def _on_meta(config: Any, model_class: Any) -> Backbone:
    with torch.device("meta"):
        model = model_class(config)
    family = family_of(config.model_type)
    assert family is not None
    return Backbone("meta", model, None, family, resolve_sites(model, family), "0" * 16)


def _trained(backbone: Backbone, spec: str) -> int:
    module = create_module(parse_module(spec), backbone)
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_parameter_counts_of_the_papers() -> None:
    mt0 = _on_meta(
        transformers.MT5Config(vocab_size=64, d_model=768, d_kv=64, d_ff=64, num_layers=12, num_heads=12),
        transformers.MT5ForConditionalGeneration,
    )
    assert _trained(mt0, "adapter:16") == 1_789_056  # papers.md 1.8
    assert _trained(mt0, "prompt:50,init=uniform") == 38_400
    xlmr = _on_meta(
        transformers.XLMRobertaConfig(vocab_size=64, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=64),
        transformers.XLMRobertaForMaskedLM,
    )  # fmt: skip
    assert _trained(xlmr, "adapter:2") == 7_091_712  # 5.2
    assert _trained(xlmr, "invertible:2") == 296_064  # 5.1
    assert _trained(xlmr, "adapter:2,invertible=true") == 7_091_712 + 296_064
    for width, plain, with_mlp in ((1024, 5_120, 410_824), (1536, 7_680, 616_136), (2048, 10_240, 821_448)):  # 2.6
        xglm = _on_meta(
            transformers.XGLMConfig(vocab_size=64, d_model=width, num_layers=1, attention_heads=16, ffn_dim=64),
            transformers.XGLMForCausalLM,
        )
        assert _trained(xglm, "prompt:5,init=uniform") == plain
        assert _trained(xglm, "prompt:5,init=uniform,reparameterisation=mlp,hidden=200") == plain + with_mlp


def test_values_at_the_start(tiny: Tiny) -> None:
    backbone = tiny("mt5")
    adapter = create_module(parse_module("adapter:1"), backbone, seed=1)
    for name, tensor in adapter.weight_tensors().items():
        if name.endswith("bias"):
            assert not tensor.any()
        else:
            assert float(tensor.std()) == pytest.approx(0.02, rel=0.15)
    again, other = (create_module(parse_module("adapter:1"), backbone, seed=s) for s in (1, 2))
    for name, tensor in adapter.weight_tensors().items():
        assert torch.equal(again.weight_tensors()[name], tensor)
    assert not torch.equal(
        other.weight_tensors()["encoder_0_stream.up_weight"], adapter.weight_tensors()["encoder_0_stream.up_weight"]
    )
    parallel = create_module(parse_module("adapter:2,variant=par_bn"), backbone)
    assert all(not t.any() for n, t in parallel.weight_tensors().items() if "up_" in n)


def test_dropout_only_in_training(tiny: Tiny, ids: Tensor) -> None:
    backbone = tiny("llama")
    module, lora = make(backbone, "adapter:8,dropout=0.5"), make(backbone, "lora:4,dropout=0.5")
    for part in (module, lora):
        stack = Stack(backbone, [part])
        still = stack.hidden(ids, torch.ones_like(ids))
        close(stack.hidden(ids, torch.ones_like(ids)), still, 0.0)
        stack.train()
        assert not torch.equal(stack.hidden(ids, torch.ones_like(ids)), still)
        stack.eval()


@pytest.mark.parametrize("spec", ["adapter:16,invertible=true,invertible_reduction=0", "lora:8,dropout=2"])
def test_values_that_no_module_can_have_are_refused_before_it_is_made(spec: str) -> None:
    with pytest.raises(IsoglossError, match="must be"):
        parse_module(spec)
