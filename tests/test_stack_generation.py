"""Generation feeds what training and scoring feed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from _stack_tools import batch_of, close, hook_count, make, pad, texts
from torch import Tensor

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Bank, Stack

Tiny = Callable[[str], Backbone]
_NEW = 5
_CELLS = {
    "LP+TP": ["prompt:3,init=uniform", "prompt:2,init=uniform"],
    "LP+TA": ["prompt:3,init=uniform", "adapter:8"],
    "LA+TP": ["adapter:8,invertible=true", "prompt:2,init=uniform"],
    "LA+TA+lora": ["adapter:8", "adapter:4,variant=par_bn", "lora:2"],
}


def _cell(backbone: Backbone, cell: str, **options: Any) -> Stack:
    first, *rest = _CELLS[cell]
    # On the random encoder-decoders strong modules drown the text, and every row would say the same.
    noise = 0.1 if backbone.kind == "encoder-decoder" else 0.3
    modules = [make(backbone, first, seed=1, role="language", noise=noise)]
    modules += [make(backbone, spec, seed=2 + n, noise=noise) for n, spec in enumerate(rest)]
    return Stack(backbone, modules, **options)


def _greedy_by_forward(stack: Stack, row: list[int], count: int) -> list[int]:
    """The same tokens, one full teacher-forced forward each."""
    backbone, found = stack.backbone, []
    for _ in range(count):
        if backbone.kind == "decoder":
            ids, mask = pad([row + found])
            logits = stack.logits(ids, mask)[0, -1]
        else:
            ids, mask = pad([row])
            logits = stack.logits(ids, mask, torch.tensor([[backbone.decoder_start_id, *found]]))[0, -1]
        found.append(int(logits.argmax()))
        if found[-1] in backbone.eos_ids:
            break
    return found


def _cut(row: Tensor, ends: tuple[int, ...]) -> list[int]:
    tokens = row.tolist()
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    return tokens  # type: ignore[no-any-return]


@pytest.mark.parametrize("cell", list(_CELLS))
@pytest.mark.parametrize("name", ["xglm", "bloom", "llama", "gemma", "gemma2", "mt5", "umt5"])
def test_generated_tokens_are_those_of_the_forward(tiny: Tiny, name: str, cell: str) -> None:
    backbone = tiny(name)
    if name == "gemma2" and "par_bn" in str(_CELLS[cell]):
        pytest.skip("Gemma 2 names no parallel site")
    stack = _cell(backbone, cell)
    rows = texts(3, (6, 2, 4))
    wanted = []
    for row in rows:
        with torch.no_grad():
            wanted.append(_greedy_by_forward(stack, row, _NEW))
    for left in (True, False):
        ids, mask = pad(rows, left=left)
        found = stack.generate(ids, mask, max_new_tokens=_NEW)
        assert [_cut(row, backbone.eos_ids) for row in found] == wanted
    assert len({tuple(row) for row in wanted}) > 1, "a test in which every row gives the same would see little"
    alone = [_cut(stack.generate(*pad([row]), max_new_tokens=_NEW)[0], backbone.eos_ids) for row in rows]
    assert alone == wanted


@pytest.mark.parametrize("name", ["llama", "mt5"])
def test_a_checkpoint_s_own_way_to_generate_is_not_taken_over(tiny: Tiny, tmp_path: Path, name: str) -> None:
    plain = tiny(name)
    folder = tmp_path / "own"
    shutil.copytree(plain.name, folder)
    rows = pad(texts(3, (6, 2, 4)))
    wanted = Stack(plain).generate(*rows, max_new_tokens=_NEW)
    path = folder / "generation_config.json"
    own = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**own, "suppress_tokens": [int(wanted[0, 0])], "num_beams": 3}))
    loaded = load_backbone(folder)
    assert torch.equal(Stack(loaded).generate(*rows, max_new_tokens=_NEW), wanted)
    assert loaded.model.generation_config.eos_token_id == plain.model.generation_config.eos_token_id


def test_a_decoder_side_prompt_in_generation(tiny: Tiny) -> None:
    backbone = tiny("mt5")
    modules = [make(backbone, "prompt:3,init=uniform,side=decoder", role="language", seed=1, noise=1.0), make(backbone, "adapter:8,invertible=true")]  # fmt: skip
    stack = Stack(backbone, modules)
    rows = texts(3, (6, 2, 4))
    with torch.no_grad():
        wanted = [_greedy_by_forward(stack, row, _NEW) for row in rows]
        without = [_greedy_by_forward(Stack(backbone, modules[1:]), row, _NEW) for row in rows]
    assert wanted != without
    found = stack.generate(*pad(rows, left=True), max_new_tokens=_NEW)
    assert [_cut(row, backbone.eos_ids) for row in found] == wanted
    bank = Bank([make(backbone, "prompt:3,init=uniform,side=decoder", seed=n, noise=1.0) for n in (1, 2)])
    routed = Stack(backbone, [bank]).generate(*pad(rows), routes={"task": torch.tensor([1, 0, 1])}, max_new_tokens=_NEW)
    for number, which in enumerate((1, 0, 1)):
        single = Stack(backbone, [bank.members[which]])  # type: ignore[list-item]
        with torch.no_grad():
            assert _cut(routed[number], backbone.eos_ids) == _greedy_by_forward(single, rows[number], _NEW)
    with pytest.raises(IsoglossError, match="greedily only"):
        stack.generate(*pad(rows), max_new_tokens=2, num_beams=2)


@pytest.mark.parametrize("name", ["xglm", "bloom", "llama", "mt5"])
def test_a_routed_bank_with_beams(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    language = [make(backbone, "prompt:3,init=uniform", seed=n, role="language") for n in range(2)]
    task = [make(backbone, "adapter:8,invertible=true", seed=n) for n in range(2)]
    lora = [make(backbone, "lora:2", seed=n) for n in range(2)]
    route = torch.tensor([1, 0, 1])
    rows = texts(3, (5, 3, 4))
    mixed = Stack(backbone, [Bank(language), Bank(task), Bank(lora)])
    ids, mask = pad(rows)
    routes = {"language": route, "task": 1 - route, "task_2": route}
    for beams in (1, 3):
        options = {"max_new_tokens": 4, "num_beams": beams}
        found = mixed.generate(ids, mask, routes=routes, **options)
        for number, row in enumerate(rows):
            which = int(route[number])
            stack = Stack(backbone, [language[which], task[1 - which], lora[which]])
            wanted = stack.generate(*pad([row]), **options)[0]
            assert _cut(found[number], backbone.eos_ids) == _cut(wanted, backbone.eos_ids)


@pytest.mark.parametrize("name", ["llama", "bloom", "xglm"])
def test_a_prompt_behind_the_text_generates_what_it_scores(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    stack = Stack(backbone, [make(backbone, "prompt:3,init=uniform,placement=after")])
    rows = texts(3, (6, 2, 4))
    batch = batch_of(backbone, rows)
    best = stack.label_logits(stack.run(batch).lm_last, torch.arange(120)).argmax(-1)
    found = stack.generate(batch.input_ids, batch.attention_mask, max_new_tokens=1)
    assert torch.equal(found[:, 0], best)


# -- the published LP+TP mismatch (papers.md 1.5a) --------------------------------------------------------------------


def _fed(stack: Stack, run: Callable[[], Any]) -> Tensor:
    """The embeddings that reach the text side's body in one call."""
    backbone = stack.backbone
    body = backbone.encoder if backbone.kind == "encoder-decoder" else backbone.body
    seen: list[Tensor] = []
    handle = body.register_forward_pre_hook(
        lambda module, args, options: seen.append(options["inputs_embeds"].detach().clone()), with_kwargs=True
    )
    try:
        run()
    finally:
        handle.remove()
    return seen[0]


@pytest.mark.parametrize("name", ["mt5", "xglm"])
def test_training_and_generation_feed_the_same_sequence(tiny: Tiny, name: str) -> None:
    backbone = tiny(name)
    batch = batch_of(backbone, texts(2, (6,)))

    def feeds(**options: Any) -> dict[str, Tensor]:
        stack = _cell(backbone, "LP+TP", **options)
        stack._prefix_pays = lambda rows, batch_size: False  # type: ignore[method-assign]
        found = {"scoring": _fed(stack, lambda: stack.run(batch))}
        found["generation"] = _fed(
            stack, lambda: stack.generate(batch.input_ids, batch.attention_mask, max_new_tokens=1)
        )
        stack.train()
        found["training"] = _fed(stack, lambda: stack.run(batch))
        stack.eval()
        return found

    plain, doubled = feeds(), feeds(double_language_prompt=True)
    assert plain["scoring"].shape[1] == 3 + 2 + 6
    for kind in ("generation", "training"):
        close(plain[kind], plain["scoring"], 0.0)
    # The quirk, when asked for: [L][L][T][x] in training only.
    for kind in ("generation", "scoring"):
        close(doubled[kind], plain["scoring"], 0.0)
    language, rest = plain["scoring"][:, :3], plain["scoring"]
    close(doubled["training"], torch.cat((language, rest), 1), 0.0)


def test_an_encoder_cannot_generate(tiny: Tiny) -> None:
    with pytest.raises(IsoglossError, match="cannot generate"):
        Stack(tiny("bert")).generate(*pad([[5, 6]]), max_new_tokens=2)


def test_generation_takes_no_gradient_and_leaves_no_hook(tiny: Tiny) -> None:
    backbone = tiny("llama")
    stack = _cell(backbone, "LA+TP")
    before = hook_count(backbone.model)
    found = stack.generate(*pad(texts(2, (4,))), max_new_tokens=3)
    assert not found.requires_grad and hook_count(backbone.model) == before
    with pytest.raises((ValueError, TypeError)):
        stack.generate(*pad(texts(2, (4,))), max_new_tokens=3, nonsense=True)
    assert hook_count(backbone.model) == before
