"""A trained prompt after the text: the short way gives the numbers and gradients of the long one."""

from collections.abc import Callable

import pytest
import torch
from _stack_tools import batch_of, close, make, texts
from conftest import DECODERS

from isogloss.backbones import Backbone
from isogloss.stack import Bank, Stack, StackOutput, TextBatch
from isogloss.stack import stack as stack_module
from isogloss.stack.suffix import suffix_pays

Tiny = Callable[[str], Backbone]


def _gradients(stack: Stack, batch: TextBatch) -> tuple[StackOutput, list[torch.Tensor]]:
    output = stack.run(batch)
    weight = torch.linspace(-1, 1, output.last_hidden.shape[1])
    kept = output.text_hidden[batch.attention_mask.bool()]
    ((output.last_hidden * weight).sum() + 0.5 * (kept * weight).sum()).backward()  # type: ignore[no-untyped-call]
    trained = [p for p in stack.members.parameters() if p.requires_grad]
    found = [p.grad.clone() for p in trained if p.grad is not None]
    assert len(found) == len(trained)
    stack.zero_grad()
    return output, found


def _both_ways(
    stack: Stack, batch: TextBatch, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[StackOutput, list[torch.Tensor]]]:
    assert suffix_pays(stack, batch)
    short = _gradients(stack, batch)
    with monkeypatch.context() as context:
        context.setattr(stack_module, "suffix_pays", lambda *_: False)
        return [short, _gradients(stack, batch)]


def _same(stack: Stack, batch: TextBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    (short, mine), (long, wanted) = _both_ways(stack, batch, monkeypatch)
    real = batch.attention_mask.bool()
    close(short.text_hidden[real], long.text_hidden[real], 1e-4)
    close(short.last_hidden, long.last_hidden, 1e-4)
    for found, other in zip(mine, wanted, strict=True):
        assert float(other.abs().max()) > 1e-3
        close(found, other, 1e-4)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", [name for name in DECODERS if name != "gemma2"])  # no prefix cache there
def test_it_is_the_long_way(tiny: Tiny, name: str, left: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny(name)
    module = make(backbone, "prompt:3,init=uniform,placement=after,reparameterisation=mlp,hidden=8")
    end = backbone.eos_ids[0]
    rows = [*texts(2, (7, 3), ends=(end,)), *texts(2, (5, 1), seed=4)]
    _same(Stack(backbone, [module]), batch_of(backbone, rows, left=left), monkeypatch)


@pytest.mark.parametrize("name", ["xglm", "bloom", "llama"])
def test_it_runs_with_frozen_adapters_and_banks(tiny: Tiny, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny(name)
    adapters = [make(backbone, "adapter:4,invertible=true", seed=i, role="language", label=f"l{i}") for i in range(2)]
    prompts = [make(backbone, "prompt:3,init=uniform,placement=after", seed=5 + i) for i in range(3)]
    for adapter in adapters:
        adapter.requires_grad_(False)
    stack = Stack(backbone, [Bank(adapters), Bank(prompts)])
    routes = {"language": torch.tensor([0, 1, 1, 0]), "task": torch.tensor([2, 0, 1, 1])}
    rows = texts(4, (6, 2, 5), ends=(backbone.eos_ids[0],))
    _same(stack, batch_of(backbone, rows, routes=routes), monkeypatch)


def test_only_where_nothing_else_is_trained(tiny: Tiny) -> None:
    backbone = tiny("xglm")
    batch = batch_of(backbone, texts(3, (5, 3)))
    behind = make(backbone, "prompt:3,init=uniform,placement=after")
    front = make(backbone, "prompt:3,init=uniform", role="language", label="slk")
    adapter = make(backbone, "adapter:4", role="language", label="slk")
    assert suffix_pays(Stack(backbone, [behind]), batch)
    assert not suffix_pays(Stack(backbone, [adapter, behind]), batch)
    assert not suffix_pays(Stack(backbone, [front, behind]), batch)
    assert suffix_pays(Stack(backbone, [adapter.requires_grad_(False), behind]), batch)
    assert not suffix_pays(Stack(backbone, [behind]), batch_of(backbone, [[10, 11], [backbone.eos_ids[0]]]))
    with torch.no_grad():
        assert not suffix_pays(Stack(backbone, [behind]), batch)
    try:
        backbone.unfreeze()
        assert not suffix_pays(Stack(backbone, [behind]), batch)
    finally:
        backbone.freeze()
    assert not suffix_pays(Stack(backbone, [behind.requires_grad_(False)]), batch)
