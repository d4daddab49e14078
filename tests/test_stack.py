"""A stack's forward: the plain backbone, prompts assembled, the prefix run once, the LM head."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _stack_tools import batch_of, close, hook_count, make, pad, texts
from conftest import DECODERS, ENCODERS, TINY
from torch.nn import functional as F

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.modules import create_module, parse_module
from isogloss.stack import Bank, Stack, TextBatch

Tiny = Callable[[str], Backbone]


def _own_logits(backbone: Backbone, row: list[int], decoder: Any = None) -> torch.Tensor:
    ids = torch.tensor([row])
    extra = {} if decoder is None else {"decoder_input_ids": decoder.unsqueeze(0)}
    with torch.no_grad():
        return backbone.model(input_ids=ids, attention_mask=torch.ones_like(ids), **extra).logits[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", list(TINY))
def test_without_modules_it_is_the_backbone(tiny: Tiny, name: str, left: bool) -> None:
    backbone = tiny(name)
    rows = texts(3, (7, 3, 5))
    batch = batch_of(backbone, rows, left=left)
    stack = Stack(backbone)
    with torch.no_grad():
        found = stack.logits(batch.input_ids, batch.attention_mask, batch.decoder_input_ids)
        output = stack.run(batch)
    for number, row in enumerate(rows):
        decoder = None if batch.decoder_input_ids is None else batch.decoder_input_ids[number]
        wanted = _own_logits(backbone, row, decoder)
        kept = found[number] if decoder is not None else found[number][batch.attention_mask[number].bool()]
        close(kept, wanted)
    if backbone.kind == "decoder":
        for number, row in enumerate(rows):
            close(stack.label_logits(output.lm_last, torch.arange(120))[number], _own_logits(backbone, row)[-1])


@pytest.mark.parametrize("name", list(TINY))
def test_the_head_in_pieces_is_the_full_head(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    prompt = make(backbone, "prompt:3,init=uniform")
    stack = Stack(backbone, [prompt])
    batch = batch_of(backbone, texts(3, (6, 4, 5)))
    full = stack.logits(batch.input_ids, batch.attention_mask, batch.decoder_input_ids).flatten(0, 1)
    positions = torch.tensor([0, 2, 3, 7, 9])
    labels = torch.tensor([11, 5, 0, 119, 60])
    wanted = F.cross_entropy(full[positions], labels, reduction="sum")
    gradients = torch.autograd.grad(wanted, list(prompt.parameters()))
    hidden = stack.run(batch).at(positions)
    found = stack.lm_loss(hidden, labels)
    close(found, wanted)
    for one, other in zip(torch.autograd.grad(found, list(prompt.parameters())), gradients, strict=True):
        assert float(one.abs().max()) > 0
        close(one, other)
    hidden = stack.run(batch).at(positions)
    close(stack.label_logits(hidden, torch.tensor([5, 5, 100])), full[positions][:, [5, 5, 100]])
    close(stack.vocabulary_logsumexp(hidden), full[positions].logsumexp(-1))
    best = full[positions].argmax(-1)
    assert stack.correct(hidden, best).all() and not stack.correct(hidden, (best + 1) % 120).any()
    assert all(weight.grad is None for weight in backbone.model.parameters())


# -- hooks, modes and lent weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "bloom", "llama", "mt5"])
def test_no_hook_stays(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    modules = [
        make(backbone, "prompt:2,init=uniform"),
        make(backbone, "adapter:8,invertible=true"),
        make(backbone, "adapter:8,variant=par_bn"),
        make(backbone, "lora:2"),
    ]
    stack = Stack(backbone, modules)
    before = hook_count(backbone.model)
    batch = batch_of(backbone, texts(2, (4, 3)))
    stack.run(batch)
    if backbone.kind != "encoder":
        stack.generate(batch.input_ids, batch.attention_mask, max_new_tokens=2)
    assert hook_count(backbone.model) == before

    class StopError(Exception):
        pass

    def stop(*_: Any) -> None:
        raise StopError

    side = backbone.sites.sides[-1]
    handle = backbone.sites.blocks[side][-1].block.register_forward_hook(stop)
    with pytest.raises(StopError):
        stack.run(batch)
    if backbone.kind != "encoder":
        with pytest.raises(StopError):
            stack.generate(batch.input_ids, batch.attention_mask, max_new_tokens=2)
    handle.remove()
    assert hook_count(backbone.model) == before
    close(Stack(backbone).run(batch).text_hidden, Stack(tiny(name)).run(batch).text_hidden)


def test_the_mode_of_another_stack_does_not_leak(tiny: Tiny) -> None:
    backbone = tiny("bert")
    drops = [part for part in backbone.model.modules() if isinstance(part, torch.nn.Dropout)]
    module = make(backbone, "adapter:8,dropout=0.5")
    mine, other = Stack(backbone, [module]), Stack(backbone, [module])
    batch = batch_of(backbone, texts(2, (5, 4)))
    wanted = mine.run(batch).text_hidden
    try:
        for drop in drops:
            drop.p = 0.5
        other.train()
        close(mine.run(batch).text_hidden, wanted, 0.0)
        assert not torch.equal(other.run(batch).text_hidden, wanted)
        Stack(backbone, [module])  # building one in the middle of a training does not end its dropout
        assert not torch.equal(other.run(batch).text_hidden, wanted)
    finally:
        other.eval()
        for drop in drops:
            drop.p = 0.0


@pytest.mark.parametrize("name", ["xlmr", "llama", "mt5", "modernbert"])
def test_changed_backbone_weights_act_in_the_whole_model_and_go_again(tiny: Tiny, tmp_path: Path, name: str) -> None:
    from conftest import save_tiny

    backbone = tiny(name)
    changed = load_backbone(save_tiny(name, tmp_path / "copy"), device="cpu")
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    carrier = make(backbone, "none")
    carrier.backbone_state = {key: p.detach().clone() for key, p in changed.model.named_parameters()}
    prompt = make(backbone, "prompt:3,init=uniform")
    there = create_module(parse_module("prompt:3"), changed, vectors=prompt.weight_tensors()["prompt.vectors"].detach())
    mine, wanted = Stack(backbone, [prompt, carrier]), Stack(changed, [there])
    batch = batch_of(backbone, texts(3, (6, 3, 4)))
    before = {key: p.detach().clone() for key, p in backbone.model.named_parameters()}
    parameters = dict(backbone.model.named_parameters())
    labels, positions = torch.tensor([4, 9, 33]), torch.tensor([0, 1, 2])

    close(mine.logits(*_ids(batch)), wanted.logits(*_ids(batch)))
    gradients = []
    for stack, module in ((mine, prompt), (wanted, there)):
        hidden = stack.run(batch).at(positions)
        close(stack.label_logits(hidden, labels), wanted.label_logits(hidden, labels))
        close(stack.vocabulary_logsumexp(hidden), wanted.vocabulary_logsumexp(hidden))
        # The backward runs when the weights have long gone back.
        gradients.append(torch.autograd.grad(stack.lm_loss(hidden, labels), list(module.parameters())))
    close(gradients[0][0], gradients[1][0])
    if backbone.kind != "encoder":
        ids = (batch.input_ids[:, :2], batch.attention_mask[:, :2])
        assert torch.equal(mine.generate(*ids, max_new_tokens=5), wanted.generate(*ids, max_new_tokens=5))

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = backbone.sites.blocks[backbone.sites.sides[0]][-1].block.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        mine.run(batch)
    handle.remove()
    for key, parameter in backbone.model.named_parameters():
        assert parameter is parameters[key] and torch.equal(parameter, before[key])


def _ids(batch: TextBatch) -> tuple[Any, ...]:
    return batch.input_ids, batch.attention_mask, batch.decoder_input_ids


def test_changed_weights_that_do_not_fit(tiny: Tiny) -> None:
    backbone = tiny("bert")
    one, two = make(backbone, "none"), make(backbone, "none")
    one.backbone_state = {"nowhere.weight": torch.ones(2)}
    with pytest.raises(IsoglossError, match=r"nowhere\.weight"):
        Stack(backbone, [one])
    two.backbone_state = dict(one.backbone_state)
    with pytest.raises(IsoglossError, match="only one can"):
        Stack(backbone, [one, two])


def test_a_module_of_another_backbone_is_refused(tiny: Tiny) -> None:
    module = make(tiny("xlmr"), "adapter:8")
    with pytest.raises(IsoglossError, match="was made for"):
        Stack(tiny("bert"), [module])


def test_an_encoder_decoder_needs_decoder_ids_for_logits(tiny: Tiny) -> None:
    ids, mask = pad([[5, 6]])
    with pytest.raises(IsoglossError, match="decoder_input_ids"):
        Stack(tiny("mt5")).logits(ids, mask)
    assert Stack(tiny("mt5")).hidden(ids, mask).shape == (1, 2, 32)


def test_names_and_notation(tiny: Tiny) -> None:
    backbone = tiny("bert")
    bank = Bank([make(backbone, "prompt:2", seed=n, role="language", label=f"l{n}") for n in range(2)])
    stack = Stack(backbone, [bank, make(backbone, "adapter:8"), make(backbone, "lora:2", label="ner")])
    assert [slot.name for slot in stack.slots] == ["language", "task", "task_2"]
    assert stack.notation == "prompt:{l0,l1} > adapter:topic > lora:ner"
    assert all(not p.requires_grad for p in backbone.model.parameters())
    assert len(stack.parameters_to_train()) == sum(len(list(m.parameters())) for m in stack.members)


def test_token_types_follow_the_text(tiny: Tiny) -> None:
    backbone = tiny("bert")
    prompt = make(backbone, "prompt:2,init=uniform")
    ids, mask = pad(texts(2, (6, 4)), left=True)
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]]) * mask
    with torch.no_grad():
        found = Stack(backbone, [prompt]).run(TextBatch(ids, mask, token_type_ids=types))
    vectors = prompt.weight_tensors()["prompt.vectors"].detach()
    for row in range(2):
        kept = mask[row].bool()
        embeddings = torch.cat((vectors, backbone.embed(ids[row][kept]))).unsqueeze(0)
        segments = torch.cat((torch.zeros(2, dtype=torch.long), types[row][kept])).unsqueeze(0)
        with torch.no_grad():
            wanted = backbone.body(inputs_embeds=embeddings, token_type_ids=segments).last_hidden_state[0, 2:]
        close(found.text_hidden[row][kept], wanted)


def test_mean_pooling(tiny: Tiny) -> None:
    assert set(ENCODERS) | set(DECODERS) < set(TINY)
    backbone = tiny("xlmr")
    rows = texts(2, (5, 2))
    output = Stack(backbone).run(batch_of(backbone, rows, left=True))
    for number, row in enumerate(rows):
        single = Stack(backbone).run(batch_of(backbone, [row]))
        close(output.pooled_mean()[number], single.text_hidden[0].mean(0))
