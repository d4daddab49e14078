"""Prompts among the text: assembled against lists, and the prefix that is run once against the assembled path."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from _stack_tools import batch_of, close, make, pad, texts
from conftest import ENCODER_DECODERS
from hypothesis import given
from hypothesis import strategies as st

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.modules import create_module, parse_module
from isogloss.stack import Bank, Stack, TextBatch
from isogloss.stack.assembly import PlacedPrompt, assemble

Tiny = Callable[[str], Backbone]


_ENDS = {"xlmr": (0, 2), "llama": (1, 2), "mt5": (None, 1), "xglm": (0, 2), "bert": (None, None), "modernbert": (1, 2)}


def _by_hand(backbone: Backbone, row: list[int], prompts: list[tuple[str, torch.Tensor]], first: Any, end: Any) -> Any:
    """The assembled sequence of one text, by python lists of vectors, and where the text stands in it."""
    words = [(number, backbone.embed(torch.tensor([[token]]))[0, 0]) for number, token in enumerate(row)]
    head = [words.pop(0)] if first is not None and row[0] == first else []
    tail = [words.pop()] if end is not None and row[-1] == end else []

    def placed(where: str) -> list[tuple[int, torch.Tensor]]:
        return [(-1, vector) for place, vectors in prompts if place == where for vector in vectors]

    sequence = placed("before") + head + placed("after-bos") + words + placed("after") + tail
    order = [number for number, _ in sequence]
    return torch.stack([vector for _, vector in sequence]).unsqueeze(0), [order.index(n) for n in range(len(row))], tail


@pytest.mark.parametrize("places", [("before",), ("after",), ("after-bos",), ("after", "before", "after", "after-bos")])
@pytest.mark.parametrize("name", list(_ENDS))
def test_prompts_stand_where_they_should(tiny: Tiny, name: str, places: tuple[str, ...]) -> None:
    backbone = tiny(name)
    first, end = _ENDS[name]
    modules = [make(backbone, f"prompt:{2 + n},placement={p},init=uniform", seed=n) for n, p in enumerate(places)]
    stack = Stack(backbone, modules)
    rows = [[*([first] if first is not None else []), *row] for row in texts(2, (6, 3))]
    rows = [row + ([end] if end is not None else []) for row in rows] + texts(1, (4,), seed=9)
    prompts = [(p, m.weight_tensors()["prompt.vectors"].detach()) for p, m in zip(places, modules, strict=True)]
    results = []
    for left in (False, True):
        batch = batch_of(backbone, rows, left=left)
        with torch.no_grad():
            output = stack.run(batch)
        results.append(output)
        for number, row in enumerate(rows):
            sequence, where, tail = _by_hand(backbone, row, prompts, first, end)
            body = backbone.encoder if backbone.kind == "encoder-decoder" else backbone.body
            with torch.no_grad():
                wanted = body(inputs_embeds=sequence).last_hidden_state[0]
            close(output.text_hidden[number][batch.attention_mask[number].bool()], wanted[where])
            close(output.last_hidden[number], wanted[-2 if tail else -1])
            if tail:
                assert where[-1] == sequence.shape[1] - 1
    close(results[0].last_hidden, results[1].last_hidden)


@given(st.data())
def test_assembly_against_lists(data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 3))
    width = data.draw(st.integers(1, 6))
    rows = [data.draw(st.lists(st.integers(0, 6), min_size=0, max_size=width)) for _ in range(batch)]
    sides = [data.draw(st.booleans()) for _ in range(batch)]
    places = data.draw(st.lists(st.sampled_from(["before", "after-bos", "after"]), max_size=4))
    sizes = [data.draw(st.integers(1, 3)) for _ in places]
    per_row = [data.draw(st.booleans()) for _ in places]
    pad_left = data.draw(st.booleans())
    first_ids, end_ids = data.draw(
        st.sampled_from([((), ()), ((1,), (2,)), ((1, 2), (2, 3)), ((1,), (1,)), ((), (2,))])
    )
    if not any(rows) and not places:
        return
    parts = [pad([row], left=side, fill=2, width=width) for row, side in zip(rows, sides, strict=True)]
    ids, mask = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    # Every vector carries its own name: text tokens 100 * row + column, prompts -(100 * number + vector) (+ row / 10).
    columns = torch.arange(width).expand(batch, width)
    names = (100 * (torch.arange(batch).unsqueeze(1) + 1) + columns).float().unsqueeze(-1)
    prompts, lists = [], []
    for number, (place, size) in enumerate(zip(places, sizes, strict=True)):
        base = -(100.0 * (number + 1) + torch.arange(size)).view(size, 1)
        vectors = base.unsqueeze(0) - 0.1 * torch.arange(batch).view(batch, 1, 1) if per_row[number] else base
        prompts.append(PlacedPrompt(vectors, place))
        lists.append(vectors.expand(batch, size, 1)[..., 0].tolist())
    found = assemble(names, ids, mask, prompts, first_ids=first_ids, end_ids=end_ids, pad_left=pad_left)

    wanted, ends = [], []
    for b in range(batch):
        words = [float(names[b, c, 0]) for c in range(width) if mask[b, c]]
        tail = [words.pop()] if words and rows[b][-1] in end_ids else []
        head = [words.pop(0)] if words and rows[b][0] in first_ids else []
        by_place = {
            w: [v for p, part in zip(places, lists, strict=True) if p == w for v in part[b]]
            for w in ("before", "after-bos", "after")
        }
        body = by_place["before"] + head + by_place["after-bos"] + words + by_place["after"]
        wanted.append(body + tail)
        ends.append(max(0, len(body) - 1))
    longest = max(map(len, wanted))
    assert found.embeddings.shape == (batch, longest, 1)
    for b in range(batch):
        offset = longest - len(wanted[b]) if pad_left else 0
        blank = [0.0] * (longest - len(wanted[b]))
        full = blank + wanted[b] if pad_left else wanted[b] + blank
        assert found.embeddings[b, :, 0].tolist() == torch.tensor(full).tolist()
        assert found.attention_mask[b].tolist() == [int(offset <= c < offset + len(wanted[b])) for c in range(longest)]
        if wanted[b]:
            assert int(found.last_positions[b]) == ends[b] + offset
        for c in range(width):
            if mask[b, c]:
                assert float(found.embeddings[b, found.text_positions[b, c], 0]) == float(names[b, c, 0])


def test_several_prompts_stand_in_order_or_are_averaged(tiny: Tiny) -> None:
    backbone = tiny("xlmr")
    first, second = (make(backbone, "prompt:3,init=uniform", seed=n) for n in (1, 2))
    batch = batch_of(backbone, texts(2, (5, 3)))
    one, two = (m.weight_tensors()["prompt.vectors"].detach() for m in (first, second))
    with torch.no_grad():
        joined = create_module(parse_module("prompt:6"), backbone, vectors=torch.cat((one, two)))
        mean = create_module(parse_module("prompt:3"), backbone, vectors=(one + two) / 2)
        close(Stack(backbone, [first, second]).run(batch).text_hidden, Stack(backbone, [joined]).run(batch).text_hidden)
        averaged = Stack(backbone, [first, second], prompt_fusion="average")
        assert averaged.prompt_length() == 3
        close(averaged.run(batch).text_hidden, Stack(backbone, [mean]).run(batch).text_hidden)
        swapped = Stack(backbone, [second, first]).run(batch).text_hidden
        assert not torch.allclose(swapped, Stack(backbone, [joined]).run(batch).text_hidden, atol=1e-3)
    with pytest.raises(IsoglossError, match="equally long"):
        Stack(backbone, [first, make(backbone, "prompt:2,init=uniform")], prompt_fusion="average")
    with pytest.raises(IsoglossError, match="concatenate or average"):
        Stack(backbone, [first], prompt_fusion="sum")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_a_decoder_side_prompt(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    encoder_prompt = make(backbone, "prompt:2,init=uniform")
    decoder_prompt = make(backbone, "prompt:3,init=uniform,side=decoder", seed=4)
    stack = Stack(backbone, [encoder_prompt, decoder_prompt])
    rows = texts(2, (5, 5))
    batch = batch_of(backbone, rows)
    assert batch.decoder_input_ids is not None
    found = stack.logits(batch.input_ids, batch.attention_mask, batch.decoder_input_ids)
    front, middle = (m.weight_tensors()["prompt.vectors"].detach() for m in (encoder_prompt, decoder_prompt))
    with torch.no_grad():
        wanted = backbone.model(
            inputs_embeds=torch.cat((front.expand(2, -1, -1), backbone.embed(batch.input_ids)), 1),
            decoder_inputs_embeds=torch.cat((middle.expand(2, -1, -1), backbone.embed(batch.decoder_input_ids)), 1),
        ).logits[:, 3:]
    close(found, wanted)
    found.square().sum().backward()
    for module in (encoder_prompt, decoder_prompt):
        gradient = module.weight_tensors()["prompt.vectors"].grad
        assert gradient is not None and (gradient.abs().amax(1) > 0).all()
    assert stack.prompt_length() == 2 and stack.prompt_length("decoder") == 3


@pytest.mark.parametrize("name", ["xlmr", "llama", "bloom", "mt5"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_every_prompt_row_is_alive(tiny: Tiny, name: str, place: str) -> None:
    backbone = tiny(name)
    prompt = make(backbone, f"prompt:5,placement={place},init=uniform")
    stack = Stack(backbone, [prompt])
    output = stack.run(batch_of(backbone, texts(2, (5, 4), ends=(2,))))
    hidden = output.last_hidden if backbone.kind == "decoder" else output.lm_states.flatten(0, 1)
    stack.lm_loss(hidden, torch.full((hidden.shape[0],), 7)).backward()
    gradient = prompt.weight_tensors()["prompt.vectors"].grad
    assert gradient is not None and (gradient.abs().amax(1) > 0).all()


def test_the_room_that_prompts_leave(tiny: Tiny) -> None:
    backbone = tiny("xlmr")
    assert backbone.max_length == 64  # 66 rows, of which positions start at 2
    stack = Stack(backbone, [make(backbone, "prompt:10"), make(backbone, "prompt:4,placement=after")])
    assert stack.text_budget == 50
    longest = batch_of(backbone, texts(2, (50,)))
    assert torch.isfinite(stack.run(longest).text_hidden).all()
    with pytest.raises(IsoglossError, match=r"65 positions .* cut texts to 50 tokens"):
        stack.run(batch_of(backbone, texts(2, (51,))))
    with pytest.raises(IsoglossError, match="shorten them"):
        Stack(backbone, [make(backbone, "prompt:31", seed=n) for n in (1, 2)])
    with pytest.raises(IsoglossError, match="takes 64 tokens in all"):
        make(backbone, "prompt:64")
    assert Stack(tiny("mt5"), [make(tiny("mt5"), "prompt:300,init=uniform")]).text_budget is None
    doubled = Stack(backbone, [make(backbone, "prompt:10", role="language")], double_language_prompt=True)
    assert doubled.text_budget == 44


# -- the prefix that is run once -------------------------------------------------------------------------------------


def _assembled(stack: Stack) -> Stack:
    stack._prefix_pays = lambda rows, batch_size: False  # type: ignore[method-assign]
    return stack


def _compare_paths(backbone: Backbone, modules: list[Any], batch: TextBatch) -> None:
    parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
    results = []
    for stack in (Stack(backbone, modules), _assembled(Stack(backbone, modules))):
        rows = stack.rows(batch)
        results.append((stack._prefix_pays(rows, batch.input_ids.shape[0]), stack.run(batch)))
    (pays, quick), (_, slow) = results
    assert pays
    mask = batch.attention_mask.bool()
    close(quick.text_hidden[mask], slow.text_hidden[mask])
    close(quick.last_hidden, slow.last_hidden)
    close(quick.lm_last, slow.lm_last)
    gradients = []
    for output in (quick, slow):
        value = output.lm_states[mask].pow(3).sum() + output.lm_last.pow(2).sum()
        gradients.append(torch.autograd.grad(value, parameters))
    for one, other in zip(*gradients, strict=True):
        assert float(other.abs().max()) > 0
        close(one, other, 1e-4)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("name", ["xglm", "bloom", "llama", "qwen2", "gemma"])
def test_the_prefix_path_is_the_assembled_path(tiny: Tiny, name: str, left: bool) -> None:
    backbone = tiny(name)
    target = "qkv" if name == "bloom" else "q+v"
    modules = [
        make(backbone, "prompt:3,init=uniform,reparameterisation=mlp,hidden=8,train_norm=true", seed=1),
        make(backbone, "prompt:2,init=uniform", seed=2),
        make(backbone, "adapter:8,invertible=true", seed=3),
        make(backbone, f"lora:2,targets={target}", seed=4),
    ]
    _compare_paths(backbone, modules, batch_of(backbone, texts(3, (6, 2, 4)), left=left))


@pytest.mark.parametrize("name", ["xglm", "bloom", "llama"])
def test_the_prefix_path_with_routed_banks(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    language = Bank([make(backbone, "prompt:3,init=uniform", seed=n, role="language", label=f"l{n}") for n in range(3)])
    task = Bank([make(backbone, "adapter:8", seed=n, label=f"t{n}") for n in range(2)])
    routes = {"language": torch.tensor([2, 0, 2, 0, 1, 2, 1]), "task": torch.tensor([0, 1, 0, 1, 1, 0, 1])}
    batch = batch_of(backbone, texts(7, (6, 2, 4)), left=True, routes=routes)
    _compare_paths(backbone, [language, task], batch)


@pytest.mark.parametrize("name", ["llama", "bloom"])
def test_the_prefix_path_on_empty_texts(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    prompt = make(backbone, "prompt:3,init=uniform")
    ids, mask = pad([[2], [20, 21, 2], []])
    with torch.no_grad():
        quick = Stack(backbone, [prompt]).run(TextBatch(ids, mask))
        slow = _assembled(Stack(backbone, [prompt])).run(TextBatch(ids, mask))
    close(quick.last_hidden, slow.last_hidden)


def test_the_prefix_path_under_sliding_windows(tmp_path: Path) -> None:
    config = transformers.MistralConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=64, sliding_window=4, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.MistralForCausalLM(config).save_pretrained(tmp_path / "m")
    backbone = load_backbone(tmp_path / "m", device="cpu")
    _compare_paths(backbone, [make(backbone, "prompt:3,init=uniform")], batch_of(backbone, texts(3, (9, 2, 6))))


def test_the_prefix_is_run_at_batch_one(tiny: Tiny) -> None:
    backbone = tiny("llama")
    stack = Stack(backbone, [make(backbone, "prompt:6,init=uniform")])
    seen: list[tuple[int, ...]] = []
    handle = backbone.sites.blocks["decoder"][0].block.register_forward_pre_hook(
        lambda module, inputs: seen.append(tuple(inputs[0].shape[:2]))
    )
    try:
        stack.run(batch_of(backbone, texts(4, (5,))))
    finally:
        handle.remove()
    assert seen == [(1, 6), (4, 5)]
