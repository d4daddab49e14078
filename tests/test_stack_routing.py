"""Rows are routed: a mixed batch gives the numbers of one language at a time, and gradients reach each member."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from _stack_tools import batch_of, close, make, texts
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import TransferModule
from isogloss.stack import Bank, Stack, StackOutput, TextBatch

Tiny = Callable[[str], Backbone]
_ROUTE = torch.tensor([2, 0, 1, 2, 0])


def _members(backbone: Backbone, spec: str, count: int, role: str) -> list[TransferModule]:
    return [make(backbone, spec, seed=10 * len(spec) + n, role=role, label=f"{role}{n}") for n in range(count)]


def _take(batch: TextBatch, rows: Tensor) -> TextBatch:
    decoder = batch.decoder_input_ids
    return TextBatch(
        batch.input_ids[rows], batch.attention_mask[rows], None if decoder is None else decoder[rows], routes=None
    )


def _same(mixed: StackOutput, single: StackOutput, rows: Tensor, batch: TextBatch) -> None:
    mask = batch.attention_mask[rows].bool()
    close(mixed.text_hidden[rows][mask], single.text_hidden[mask])
    close(mixed.last_hidden[rows], single.last_hidden)
    close(mixed.lm_last[rows], single.lm_last)
    states = mixed.lm_states[rows], single.lm_states
    close(*(states if batch.decoder_input_ids is not None else (states[0][mask], states[1][mask])))


_SPECS = [
    "prompt:3,init=uniform",
    "prompt:3,init=uniform,placement=after,fixed=1",
    "prompt:2,init=uniform,reparameterisation=mlp,hidden=4",
    "adapter:8,learned_scaling=true",
    "adapter:8,variant=par_bn,invertible=true",
    "invertible:2",
    "lora:2",
]


@pytest.mark.parametrize("spec", _SPECS)
@pytest.mark.parametrize("name", ["xlmr", "bert", "xglm", "bloom", "llama", "mt5"])
def test_a_mixed_batch_is_one_language_at_a_time(tiny: Tiny, name: str, spec: str) -> None:
    backbone = tiny(name)
    members = _members(backbone, spec, 3, "language")
    task = make(backbone, "adapter:8")
    batch = batch_of(backbone, texts(5, (6, 2, 4), ends=(2,)), left=True)
    mixed = Stack(backbone, [Bank(members), task]).run(replace(batch, routes={"language": _ROUTE}))
    singles = {}
    for number, member in enumerate(members):
        rows = (number == _ROUTE).nonzero().squeeze(1)
        singles[number] = (rows, Stack(backbone, [member, task]).run(_take(batch, rows)))
        _same(mixed, singles[number][1], rows, batch)

    # A route with one value only takes the plain product; it must not differ.
    uniform = Stack(backbone, [Bank(members), task]).run(replace(batch, routes={"language": torch.ones(5).long()}))
    _same(uniform, Stack(backbone, [members[1], task]).run(batch), torch.arange(5), batch)

    def value(output: StackOutput, rows: Tensor) -> Tensor:
        kept = (
            output.lm_states
            if batch.decoder_input_ids is not None
            else output.lm_states[batch.attention_mask[rows].bool()]
        )
        return kept.pow(2).sum() + output.lm_last.pow(2).sum()

    parameters = [p for member in members for p in member.parameters() if p.requires_grad]
    found = torch.autograd.grad(value(mixed, torch.arange(5)), parameters)
    wanted = torch.autograd.grad(sum(value(one, rows) for rows, one in singles.values()), parameters)  # type: ignore[arg-type]
    for one, other in zip(found, wanted, strict=True):
        assert float(other.abs().max()) > 0
        # Gradients of a random T5 are large, and its sums differ with the order of addition.
        close(one, other, 1e-3)


@pytest.mark.parametrize("name", ["xlmr", "llama", "mt5"])
def test_two_banks_and_the_head_at_chosen_positions(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    languages = _members(backbone, "adapter:8,invertible=true", 3, "language")
    tasks = _members(backbone, "prompt:2,init=uniform", 2, "task")
    routes = {"language": _ROUTE, "task": torch.tensor([0, 1, 1, 1, 0])}
    batch = batch_of(backbone, texts(5, (4,)))
    mixed = Stack(backbone, [Bank(languages), Bank(tasks)])
    output = mixed.run(replace(batch, routes=routes))
    positions = torch.tensor([17, 2, 9, 1])  # out of order, and not of every row
    for place, states in zip(positions.tolist(), output.at(positions), strict=True):
        row, column = divmod(place, 4)
        stack = Stack(backbone, [languages[int(_ROUTE[row])], tasks[int(routes["task"][row])]])
        alone = stack.run(_take(batch, torch.tensor([row])))
        close(states, alone.lm_states[0, column])
        close(mixed.label_logits(states.unsqueeze(0), torch.tensor([3, 4])), stack.label_logits(alone.at(torch.tensor([column])), torch.tensor([3, 4])))  # fmt: skip
    ids = (batch.input_ids, batch.attention_mask, batch.decoder_input_ids)
    close(
        mixed.logits(*ids, routes=routes).flatten(0, 1)[positions],
        mixed.label_logits(output.at(positions), torch.arange(120)),
    )
    found = mixed.hidden(*ids, routes=routes)
    close(found, output.text_hidden if output.decoder_hidden is None else output.decoder_hidden, 0.0)


def test_validating_without_gradients_does_not_stop_training(tiny: Tiny) -> None:
    backbone = tiny("xlmr")
    members = _members(backbone, "adapter:8", 2, "language")
    stack = Stack(backbone, [Bank(members)])
    batch = replace(batch_of(backbone, texts(2, (4,))), routes={"language": torch.tensor([0, 1])})
    with torch.no_grad():
        before = stack.run(batch).text_hidden
    stack.run(batch).text_hidden.pow(2).sum().backward()
    with torch.no_grad():
        for member in members:
            for parameter in member.parameters():
                assert parameter.grad is not None
                parameter.sub_(0.1 * parameter.grad)
        assert not torch.allclose(stack.run(batch).text_hidden, before, atol=1e-4)


def test_frozen_members_are_stacked_once_and_may_be_thawed(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny("xlmr")
    members = _members(backbone, "adapter:8", 2, "language")
    for member in members:
        member.requires_grad_(False)
    bank = Bank(members)
    stack = Stack(backbone, [bank])
    batch = replace(batch_of(backbone, texts(2, (4,))), routes={"language": torch.tensor([0, 1])})
    calls: list[int] = []
    real = torch.stack
    monkeypatch.setattr(torch, "stack", lambda *args, **options: calls.append(1) or real(*args, **options))
    stack.run(batch)
    first = len(calls)
    stack.run(batch)
    assert first > 0 and len(calls) == first
    with torch.no_grad():
        members[0].weight_tensors()["encoder_0_stream.up_bias"].add_(1.0)
    bank.forget_stacked()
    close(
        stack.run(batch).text_hidden[:1], Stack(backbone, [members[0]]).run(_take(batch, torch.tensor([0]))).text_hidden
    )
    members[0].requires_grad_(True)
    stack.run(batch).text_hidden.pow(2).sum().backward()
    assert all(p.grad is not None for p in members[0].parameters())
    assert all(p.grad is None for p in members[1].parameters())


def test_members_that_no_row_uses_get_no_gradient(tiny: Tiny) -> None:
    backbone = tiny("llama")
    members = _members(backbone, "prompt:2,init=uniform", 3, "language")
    stack = Stack(backbone, [Bank(members)])
    batch = replace(batch_of(backbone, texts(3, (4,))), routes={"language": torch.tensor([0, 2, 0])})
    stack.run(batch).text_hidden.pow(3).sum().backward()
    found = [bool(m.weight_tensors()["prompt.vectors"].grad.any()) for m in members]  # type: ignore[union-attr]
    assert found == [True, False, True]


def _bank_stack(backbone: Backbone) -> Stack:
    return Stack(backbone, [Bank(_members(backbone, "adapter:8", 2, "language"))])


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        (None, r"needs routes\['language'\]"),
        ({"lang": torch.tensor([0, 0])}, "no|'lang', but the stack's slots are language"),
        ({"language": torch.tensor([0, 2])}, "goes from 0 to 2, but the bank holds modules 0 to 1"),
        ({"language": torch.tensor([-1, 0])}, "goes from -1 to 0"),
        ({"language": torch.tensor([0, 1, 0])}, r"shape \(3,\), but the batch has 2 rows"),
    ],
)
def test_wrong_routes_are_refused(tiny: Tiny, routes: Any, says: str) -> None:
    backbone = tiny("xlmr")
    with pytest.raises(IsoglossError, match=says):
        _bank_stack(backbone).run(replace(batch_of(backbone, texts(2, (4,))), routes=routes))


def test_banks_hold_one_shape(tiny: Tiny) -> None:
    backbone = tiny("xlmr")
    one = make(backbone, "adapter:8")
    for spec in (
        "adapter:4",
        "adapter:8,nonlinearity=gelu",
        "adapter:8,scaling=2",
        "prompt:3",
        "adapter:8,leave_out=1",
    ):
        with pytest.raises(IsoglossError, match="one shape"):
            Bank([one, make(backbone, spec)])
    with pytest.raises(IsoglossError, match="one shape"):
        Bank([make(backbone, "prompt:3"), make(backbone, "prompt:3,placement=after")])
    assert len(Bank([make(backbone, "prompt:3,init=uniform"), make(backbone, "prompt:3")])) == 2
    with pytest.raises(IsoglossError, match="at least one"):
        Bank([])


def test_a_bank_of_one_needs_no_route(tiny: Tiny) -> None:
    backbone = tiny("bert")
    member = make(backbone, "adapter:8", role="language")
    batch = batch_of(backbone, texts(2, (4,)))
    close(Stack(backbone, [Bank([member])]).run(batch).text_hidden, Stack(backbone, [member]).run(batch).text_hidden)
