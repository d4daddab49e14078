"""Soft prompts as modules: first values, fixed rows, reparameterisation."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from _stack_tools import batch_of, close, make, texts
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack

Tiny = Callable[[str], Backbone]


class _Words:
    """A tokenizer of letters: a=10, b=11 ...; EOS 2 closes a text."""

    all_special_ids = (0, 1, 2)
    eos_token_id = 2

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        ids = [ord(letter) - ord("a") + 10 for letter in text if letter.isalpha()]
        return {"input_ids": [*ids, 2] if add_special_tokens else ids}


@pytest.fixture
def worded(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    backbone = tiny("xglm")
    monkeypatch.setattr(backbone, "tokenizer", _Words())
    return backbone


def test_every_initialisation(worded: Backbone) -> None:
    def vectors(spec: str, **extra: Any) -> Tensor:
        return create_module(parse_module(spec), worded, **extra).weight_tensors()["prompt.vectors"].detach()

    table = worded.embed(torch.arange(120).unsqueeze(0))[0]
    # S1: the text with its end token, repeated to fill; XGLM's embeddings as the model scales them.
    close(vectors("prompt:7,text=abc"), table[[10, 11, 12, 2, 10, 11, 12]], 0.0)
    close(vectors("prompt:2,text=abc"), table[[10, 11]], 0.0)
    sampled = vectors("prompt:40", seed=3)
    distances = torch.cdist(sampled, table)
    chosen = distances.argmin(1)
    assert (
        float(distances.min(1).values.max()) < 1e-2
        and not set(chosen.tolist()) & {0, 1, 2}
        and len(set(chosen.tolist())) > 20
    )
    close(vectors("prompt:40", seed=3), sampled, 0.0)
    assert not torch.equal(vectors("prompt:40", seed=4), sampled)
    labelled = vectors("prompt:4,init=labels", labels=["ab", "c"])
    close(labelled[:2], torch.stack((table[[10, 11]].mean(0), table[12])))
    assert float(torch.cdist(labelled[2:], table).min(1).values.max()) < 1e-2
    uniform = vectors("prompt:60,init=uniform")
    assert uniform.min() >= -0.5 and uniform.max() <= 0.5 and uniform.std() == pytest.approx(12**-0.5, rel=0.05)
    normal = vectors("prompt:60,init=normal")
    assert float(normal.std()) == pytest.approx(float(table.std()), rel=0.1)
    other = torch.randn(3, 32)
    close(vectors("prompt:3", vectors=other), other, 0.0)


def test_initialisations_that_cannot_work(worded: Backbone, tiny: Tiny) -> None:
    for spec, extra, says in [
        ("prompt:3,init=labels", {}, "needs the labels"),
        ("prompt:3", {"vectors": torch.ones(2, 32)}, r"shape \(2, 32\)"),
        ("prompt:3,side=encoder", {}, "only decoder"),
    ]:
        with pytest.raises(IsoglossError, match=says):
            create_module(parse_module(spec), worded, **extra)  # type: ignore[arg-type]
    with pytest.raises(IsoglossError, match="needs a tokenizer"):
        make(tiny("bert"), "prompt:3,text=abc")
    with pytest.raises(IsoglossError, match="only stand before"):
        make(tiny("mt5"), "prompt:3,side=decoder,placement=after,init=uniform")
    bare = SimpleNamespace(**{n: getattr(worded, n) for n in ("hidden_size", "name", "sites", "kind", "max_length")})
    bare.tokenizer = lambda text, **_: {"input_ids": []}
    with pytest.raises(IsoglossError, match="has no tokens"):
        create_module(parse_module('prompt:3,text=" "'), bare)  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["none", "mlp"])
def test_fixed_rows_stay(tiny: Tiny, network: str) -> None:
    backbone = tiny("llama")
    module = make(backbone, f"prompt:5,init=uniform,fixed=2,reparameterisation={network},hidden=4")
    module.requires_grad_(False)
    module.requires_grad_(True)  # thawing a module must not thaw what its config keeps
    before = {name: tensor.detach().clone() for name, tensor in module.weight_tensors().items()}
    fed = module.vectors(module.weights("prompt"))  # type: ignore[operator]
    close(fed[:2], before["prompt.fixed"], 0.0)
    optimiser = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    stack = Stack(backbone, [module])
    for _ in range(2):
        optimiser.zero_grad()
        stack.run(batch_of(backbone, texts(2, (4,)))).text_hidden.square().mean().backward()
        optimiser.step()
    after = module.weight_tensors()
    assert torch.equal(after["prompt.fixed"], before["prompt.fixed"])
    assert (after["prompt.vectors"] != before["prompt.vectors"]).any(1).all()
    folded = module.folded()
    assert not folded.weight_tensors()["prompt.fixed"].requires_grad
    close(folded.vectors(folded.weights("prompt"))[:2], before["prompt.fixed"], 0.0)  # type: ignore[operator]


@pytest.mark.parametrize(
    "options",
    ["reparameterisation=mlp,hidden=6", "reparameterisation=mlp,residual=true,layer_norm=false", "reparameterisation=lstm,hidden=5"],
)  # fmt: skip
def test_the_reparameterisation_folds_away(tiny: Tiny, options: str) -> None:
    backbone = tiny("xlmr")
    module = make(backbone, f"prompt:4,init=uniform,{options}")
    module.head_state = {"weight": torch.ones(1)}
    folded = module.folded()
    assert [*folded.weight_tensors()] == ["prompt.vectors"] and len(list(folded.parameters())) == 1
    assert folded.info is module.info and folded.head_state is module.head_state
    assert parse_module("prompt:4,init=uniform").__class__ is folded.config.__class__
    batch = batch_of(backbone, texts(2, (5, 3)))
    close(Stack(backbone, [folded]).run(batch).text_hidden, Stack(backbone, [module]).run(batch).text_hidden)
    Stack(backbone, [module]).run(batch).text_hidden.pow(3).sum().backward()
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert folded.folded() is folded


def test_the_mlp_is_that_of_the_paper(tiny: Tiny) -> None:
    # papers.md 2.2: LayerNorm(W2 relu(W1 P + b1) + b2), no residual, the norm's affine part frozen.
    module = make(tiny("xglm"), "prompt:4,init=uniform,reparameterisation=mlp,hidden=6")
    net: Any = module.network
    p = module.weight_tensors()["prompt.vectors"]
    inner = torch.relu(p @ net.inner.weight.T + net.inner.bias) @ net.outer.weight.T + net.outer.bias
    wanted = (inner - inner.mean(-1, keepdim=True)) / (inner.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    close(module.weights("prompt")["vectors"], wanted)
    assert not any(parameter.requires_grad for parameter in net.norm.parameters())
