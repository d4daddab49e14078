"""Label-word scores against plain full-logits computation with `transformers` alone, one row at a time."""

from pathlib import Path
from typing import Any

import pytest
import torch
from _heads_tools import KINDS, TEXTS, load, overfit, save, topic_examples
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.modules import create_module, parse_module
from isogloss.stack import Bank, Stack
from isogloss.tasks import Example, get_task
from isogloss.tasks.heads import make_head
from isogloss.tasks.heads._words import shared_beginnings

GERMAN = {
    "science/technology": "wissen",
    "travel": "reise",
    "politics": "politik",
    "sports": "sport",
    "health": "gesund",
    "entertainment": "film",
    "geography": "erde",
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    folder: Path = tmp_path_factory.mktemp("scores")
    return {kind: load(save(kind, folder / kind)) for kind in KINDS}


def examples() -> list[Example]:
    found = topic_examples()[:5]
    return [
        Example(id=item.id, language="deu_Latn" if number % 2 else "eng_Latn", text=item.text, label=item.label)
        for number, item in enumerate(found)
    ]


def log_probability(logits: Tensor, places: list[int], word: tuple[int, ...]) -> float:
    table = logits.log_softmax(-1)
    return sum(float(table[place, token]) for place, token in zip(places, word, strict=True))


def embedded(backbone: Backbone, ids: list[int]) -> Tensor:
    return backbone.embed(torch.tensor([ids], dtype=torch.long))[0]


def slow_decoder(backbone: Backbone, text: list[int], prompts: dict[str, Tensor], word: tuple[int, ...]) -> float:
    """[before] text [after] word, all logits from the model itself."""
    parts = [embedded(backbone, text), embedded(backbone, list(word[:-1]))]
    parts.insert(1, prompts.get("after", parts[0][:0]))
    parts.insert(0, prompts.get("before", parts[0][:0]))
    logits = backbone.model(inputs_embeds=torch.cat(parts).unsqueeze(0)).logits[0]
    begin = sum(len(part) for part in parts[:3]) - 1
    return log_probability(logits, list(range(begin, begin + len(word))), word)


@pytest.mark.parametrize("placements", [(), ("before",), ("after",), ("before", "after")])
@pytest.mark.parametrize("part", ["first", "all"])
@torch.no_grad()
def test_decoder_scores_equal_full_logits(
    part: str, placements: tuple[str, ...], backbones: dict[str, Backbone]
) -> None:
    backbone = backbones["decoder"]
    modules = [
        create_module(parse_module(f"prompt:3,placement={place},init=uniform"), backbone, seed=seed)
        for seed, place in enumerate(placements)
    ]
    prompts: dict[str, Any] = {
        place: module.weights("prompt")["vectors"] for place, module in zip(placements, modules, strict=True)
    }
    stack = Stack(backbone, modules)
    head = make_head(
        "verbaliser",
        get_task("topic"),
        backbone,
        part=part,
        by_language={"deu_Latn": GERMAN},
        length_normalised=False,
    )
    assert (head.ids.longest() > 1) == (part == "all")
    items = examples()
    batch = head.collate(head.encode(items, budget=stack.text_budget))
    found = head.word_scores(stack, batch)
    for row, item in enumerate(items):
        text = backbone.tokenizer(item.text, add_special_tokens=False)["input_ids"]
        for label, word in enumerate(head.ids.of(item.language)):
            assert float(found[row, label]) == pytest.approx(slow_decoder(backbone, text, prompts, word), abs=2e-4)
    total, count = head.loss(stack, batch)
    index = torch.arange(len(items))
    gold = torch.tensor([head.task.label_index(item.label) for item in items])
    assert count == len(items)
    assert float(total) == pytest.approx(-float(found[index, gold].sum()), rel=1e-5)
    predicted = torch.tensor([prediction.scores for prediction in head.predict(stack, batch)])
    assert torch.allclose(predicted, found.log_softmax(-1), atol=1e-4)


@pytest.mark.parametrize("placements", [(), ("after",)])
@torch.no_grad()
def test_a_word_that_begins_another_one_ends_with_the_end_token(
    placements: tuple[str, ...], backbones: dict[str, Backbone]
) -> None:
    """Without it `yes no` would score below `yes` in every text, as a product has the factors of its beginning."""
    backbone = backbones["decoder"]
    modules = [
        create_module(parse_module(f"prompt:3,placement={place},init=uniform"), backbone) for place in placements
    ]
    stack = Stack(backbone, modules)
    head = make_head("verbaliser", get_task("topic"), backbone, words={"travel": "yes", "sports": "yes no"})
    words = dict(zip(head.labels, head.ids.of("eng_Latn"), strict=True))
    assert words["sports"][: len(words["travel"])] == words["travel"]
    items = examples()
    batch = head.collate(head.encode(items, budget=stack.text_budget))
    found = head.word_scores(stack, batch)
    prompts = {place: module.weights("prompt")["vectors"] for place, module in zip(placements, modules, strict=True)}
    for row, item in enumerate(items):
        text = backbone.tokenizer(item.text, add_special_tokens=False)["input_ids"]
        for label, word in enumerate(words.values()):
            wanted = slow_decoder(backbone, text, prompts, (*word, *head.coder.eos))
            assert float(found[row, label]) == pytest.approx(wanted, abs=2e-4)
    gold = torch.tensor([head.task.label_index(item.label) for item in items])
    assert float(head.loss(stack, batch)[0]) == pytest.approx(-float(found[torch.arange(5), gold].sum()), rel=1e-5)
    tight = head.encode(items, budget=12)
    assert all(len(row.input_ids) + head.ids.longest() <= 12 for row in tight)


@pytest.mark.parametrize("placement", ["before", "after"])
@torch.no_grad()
def test_a_decoder_runs_each_text_once_for_all_its_label_words(placement: str, backbones: dict[str, Backbone]) -> None:
    backbone = backbones["decoder"]
    language = Bank([create_module(parse_module("adapter:4"), backbone, seed=seed) for seed in (1, 2)])
    prompt = create_module(parse_module(f"prompt:3,init=uniform,placement={placement}"), backbone, seed=3)
    with torch.no_grad():
        for parameter in language.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    stack = Stack(backbone, [language, prompt])
    head = make_head("verbaliser", get_task("topic"), backbone, by_language={"deu_Latn": GERMAN})
    items = examples()
    routes = {stack.slots[0].name: [number % 2 for number in range(len(items))]}
    batch = head.collate(head.encode(items, budget=stack.text_budget), routes)
    runs: list[tuple[int, ...]] = []
    handle = backbone.body.register_forward_pre_hook(
        lambda module, inputs, options: runs.append(tuple(options["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    found = head.word_scores(stack, batch)
    handle.remove()
    longest = max(int(batch.text.attention_mask.sum(1).max()), 1) + 3
    assert runs[0] == (len(items), longest)
    assert len(runs) > 1
    assert all(width < head.ids.longest() for _, width in runs[1:])
    with torch.enable_grad():  # the plain way: every text once for each beginning of its words
        plain = head.word_scores(stack, batch)
    assert torch.allclose(found, plain, atol=1e-4)
    assert float((found - found.mean(0)).abs().max()) > 1e-3


def test_s2_text_prompt_and_end_token(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["decoder"]
    head = make_head("verbaliser", get_task("topic"), backbone, part="first")
    (row,) = head.encode(topic_examples()[:1], budget=None)
    text = backbone.tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    assert row.input_ids == [*text, backbone.tokenizer.eos_token_id]


@pytest.mark.parametrize("normalised", [False, True])
@torch.no_grad()
def test_encoder_decoder_scores_equal_full_logits(normalised: bool, backbones: dict[str, Backbone]) -> None:
    backbone = backbones["encoder-decoder"]
    stack = Stack(backbone)
    head = make_head(
        "verbaliser",
        get_task("topic"),
        backbone,
        by_language={"deu_Latn": GERMAN},
        length_normalised=normalised,
    )
    items = examples()
    batch = head.collate(head.encode(items, budget=None))
    runs = []
    handle = backbone.encoder.register_forward_hook(lambda module, inputs, output: runs.append(len(output[0])))
    found = head.word_scores(stack, batch)
    handle.remove()
    assert runs == [len(items)]  # the encoder runs once, over the texts only
    for row, item in enumerate(items):
        text = torch.tensor([backbone.tokenizer(item.text)["input_ids"]])
        for label, word in enumerate(head.ids.of(item.language)):
            target = (*word, backbone.tokenizer.eos_token_id)
            start = torch.tensor([[backbone.decoder_start_id, *word]])
            logits = backbone.model(input_ids=text, decoder_input_ids=start).logits[0]
            slow = log_probability(logits, list(range(len(target))), target)
            assert float(found[row, label]) == pytest.approx(slow / (len(target) if normalised else 1), abs=2e-4)
    if not normalised:
        gold = torch.tensor([head.task.label_index(item.label) for item in items])
        total, _ = head.loss(stack, batch)
        assert float(total) == pytest.approx(-float(found[torch.arange(len(items)), gold].sum()), rel=1e-5)


@torch.no_grad()
def test_encoder_decoder_scores_with_modules_and_a_decoder_prompt(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["encoder-decoder"]
    modules = [
        create_module(parse_module(spec), backbone, seed=1)
        for spec in ("prompt:2,side=decoder", "adapter:4", "prompt:3")
    ]
    stack = Stack(backbone, modules)
    head = make_head("verbaliser", get_task("topic"), backbone)
    batch = head.collate(head.encode(topic_examples(), budget=None))
    found = head.word_scores(stack, batch)
    for label, word in enumerate(head.ids.default):
        target = torch.tensor([(*word, backbone.tokenizer.eos_token_id)] * len(found))
        start = torch.full((len(found), 1), backbone.decoder_start_id)
        logits = stack.logits(batch.text.input_ids, batch.text.attention_mask, torch.cat((start, target[:, :-1]), 1))
        slow = logits.log_softmax(-1).gather(2, target.unsqueeze(2)).sum((1, 2))
        assert torch.allclose(found[:, label], slow, atol=2e-4)


@torch.no_grad()
def test_encoder_mask_scores_equal_full_logits(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["encoder"]
    stack = Stack(backbone)
    coded = backbone.tokenizer
    head = make_head(
        "verbaliser",
        get_task("topic"),
        backbone,
        template="{text} : {mask} .",
        by_language={"deu_Latn": GERMAN},
    )
    items = examples()
    batch = head.collate(head.encode(items, budget=None))
    found = head.word_scores(stack, batch)
    for row, item in enumerate(items):
        left = coded(f"{item.text} : ", add_special_tokens=False)["input_ids"]
        right = coded(" .", add_special_tokens=False)["input_ids"]
        for label, word in enumerate(head.ids.of(item.language)):
            ids = [0, *left, *[coded.mask_token_id] * len(word), *right, 2]
            logits = backbone.model(input_ids=torch.tensor([ids])).logits[0]
            begin = 1 + len(left)
            slow = log_probability(logits, list(range(begin, begin + len(word))), word)
            assert float(found[row, label]) == pytest.approx(slow, abs=2e-4)
    gold = torch.tensor([head.task.label_index(item.label) for item in items])
    total, _ = head.loss(stack, batch)
    assert float(total) == pytest.approx(-float(found[torch.arange(len(items)), gold].sum()), rel=1e-5)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("spec", ["none", "prompt:3", "prompt:3,placement=after"])
@torch.no_grad()
def test_text_loss_is_that_of_the_text_that_generation_continues(
    kind: str, spec: str, backbones: dict[str, Backbone]
) -> None:
    """What is generated greedily is, token by token, the most likely under the states that the loss uses."""
    from isogloss.tasks.heads._states import continuation_states, target_states

    backbone = backbones[kind]
    stack = Stack(backbone, [create_module(parse_module(spec), backbone, seed=4)])
    head = make_head("text", get_task("topic"), backbone)
    batch = head.collate(head.encode(topic_examples(), budget=None))
    generated = stack.generate(
        batch.text.input_ids,
        batch.text.attention_mask,
        max_new_tokens=5,
        min_new_tokens=5,
        suppress_tokens=[2],
    )
    assert generated.shape == (8, 5)
    if kind == "decoder":
        states = continuation_states(stack, batch.text, generated[:, :-1])
    else:
        states = target_states(stack, batch.text, generated)
    everything = stack.label_logits(states.lm_states.flatten(0, 1), torch.arange(backbone.vocabulary_size))
    everything[:, 2] = float("-inf")
    assert torch.equal(everything.argmax(-1).view(8, 5), generated)


def test_what_words_begin_with_is_run_once() -> None:
    words = [(5,), (6, 7), (6, 7, 8), (6, 9), (4, 2)]
    kept, owners = shared_beginnings(words)
    assert sorted(kept) == [(4,), (6, 7)]
    for word, owner in zip(words, owners, strict=True):
        assert kept[owner][: len(word) - 1] == word[:-1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_of_length_times_vocabulary(kind: str, backbones: dict[str, Backbone]) -> None:
    """Tensors of the loss and the prediction, seen one by one."""
    from torch.utils._python_dispatch import TorchDispatchMode

    backbone = backbones[kind]
    vocabulary = backbone.vocabulary_size
    seen: list[tuple[int, ...]] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), values: Any = None) -> Any:
            out = function(*arguments, **(values or {}))
            is_logits = isinstance(out, Tensor) and out.dim() >= 2 and out.shape[-1] == vocabulary
            if is_logits and out.data_ptr() != backbone.head_weight.data_ptr():
                seen.append(tuple(out.shape))
            return out

    stack = Stack(backbone)
    head = make_head("verbaliser", get_task("topic"), backbone, part="first")
    batch = head.collate(head.encode(topic_examples(), budget=None))
    with Watch():
        head.loss(stack, batch)
        head.predict(stack, batch)
    # One state a text; an encoder-decoder's target has the end token too, behind each of the seven words.
    most = len(batch.rows) * (8 if kind == "encoder-decoder" else 1)
    assert seen and all(len(shape) == 2 and shape[0] <= most for shape in seen)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("decoder", "adapter:2"),
        ("encoder-decoder", "adapter:2"),
        ("encoder", "adapter:2"),
    ],
)
@pytest.mark.parametrize("part", ["first", "all"])
def test_modules_learn_through_label_words_on_a_frozen_model(
    kind: str, spec: str, part: str, backbones: dict[str, Backbone]
) -> None:
    backbone = backbones[kind]
    stack = Stack(backbone, [create_module(parse_module(spec), backbone, seed=0)])
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    head = make_head("verbaliser", get_task("topic"), backbone, part=part)
    first, last, _ = overfit(head, stack, topic_examples(), steps=30, lr=0.05)
    assert last < 0.9 * first
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.model.state_dict().items())


@pytest.mark.parametrize("part", ["first", "all"])
@pytest.mark.parametrize("placement", ["before", "after"])
def test_prompt_gradients_equal_those_of_full_logits(part: str, placement: str, backbones: dict[str, Backbone]) -> None:
    backbone = backbones["decoder"]
    module = create_module(parse_module(f"prompt:5,placement={placement},init=uniform"), backbone, seed=0)
    stack = Stack(backbone, [module])
    head = make_head("verbaliser", get_task("topic"), backbone, part=part)
    items = examples()
    head.loss(stack, head.collate(head.encode(items, budget=None)))[0].backward()
    (found,) = (parameter.grad for parameter in module.parameters())
    vectors = module.weights("prompt")["vectors"].detach().clone().requires_grad_()
    for item in items:
        text = embedded(backbone, backbone.tokenizer(item.text, add_special_tokens=False)["input_ids"])
        word = head.ids.default[head.task.label_index(item.label)]
        written = embedded(backbone, list(word[:-1]))
        parts = [vectors, text, written] if placement == "before" else [text, vectors, written]
        logits = backbone.model(inputs_embeds=torch.cat(parts).unsqueeze(0)).logits[0]
        (-logits[-len(word) :].log_softmax(-1)[torch.arange(len(word)), list(word)].sum()).backward()
    assert float(found.abs().max()) > 1e-3
    assert torch.allclose(found, vectors.grad, atol=1e-4, rtol=1e-3)
