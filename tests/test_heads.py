"""Task heads: they learn, padding changes nothing, they are saved and built again, and misuse is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from _heads_tools import CASES, KINDS, TEXTS, gold, load, overfit, save

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import create_module, parse_module
from isogloss.stack import Bank, Stack
from isogloss.tasks import Example, get_task
from isogloss.tasks.heads import Prediction, default_head, head_from_json, make_head, truncation, words_without_state
from isogloss.tasks.metrics.spans import text_spans


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save(kind, tmp_path_factory.mktemp("heads") / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def backbones(folders: dict[str, Path]) -> dict[str, Backbone]:
    """Frozen, shared: nothing in a test may train them."""
    return {kind: load(folder) for kind, folder in folders.items()}


@pytest.fixture
def fresh(folders: dict[str, Path]) -> Iterator[Callable[[str], Backbone]]:
    """Unfrozen copies, for heads that have no weights of their own."""

    def get(kind: str) -> Backbone:
        backbone = load(folders[kind])
        backbone.unfreeze()
        return backbone

    yield get


WEIGHTED = [(task, kind) for task in ("topic", "nli", "choice", "ner", "pos") for kind in KINDS] + [
    ("qa", kind) for kind in KINDS
]


@pytest.mark.parametrize(("task", "kind"), WEIGHTED)
def test_a_linear_layer_on_a_frozen_model_overfits(task: str, kind: str, backbones: dict[str, Backbone]) -> None:
    examples = CASES[task]()
    name = "span" if task == "qa" else "linear"
    options = {} if task == "qa" else {"dropout": 0.0}
    head = make_head(name, get_task(task), backbones[kind], **options)
    before, after, decoded = overfit(head, Stack(backbones[kind]), examples, steps=150, lr=0.1)
    assert after < 0.25 * before and after < 0.25
    assert decoded == gold(examples)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalise", ["vocabulary", "labels"])
@pytest.mark.parametrize("part", ["first", "all"])
def test_label_words_overfit(kind: str, normalise: str, part: str, fresh: Callable[[str], Backbone]) -> None:
    backbone = fresh(kind)
    examples = CASES["topic"]()
    head = make_head("verbaliser", get_task("topic"), backbone, normalise=normalise, part=part)
    assert not list(head.parameters())
    before, after, decoded = overfit(head, Stack(backbone), examples, steps=40, lr=5e-3)
    assert after < 0.2 * before
    assert decoded == gold(examples)


GENERATED = [("decoder", task) for task in CASES] + [("encoder-decoder", task) for task in ("topic", "ner", "qa")]


@pytest.mark.parametrize(("kind", "task"), GENERATED)
def test_text_to_text_overfits_and_generates_the_answers(
    task: str, kind: str, fresh: Callable[[str], Backbone]
) -> None:
    backbone = fresh(kind)
    examples = CASES[task]()
    head = make_head("text", get_task(task), backbone)
    before, after, decoded = overfit(head, Stack(backbone), examples, steps=120 if kind == "decoder" else 80, lr=6e-3)
    assert after < 0.1 * before
    wanted = gold(examples)
    if task == "ner":
        wanted = [text_spans(item.tokens or (), item.tags or ()) for item in examples]
    assert [tuple(item) if task == "ner" else item for item in decoded] == [
        tuple(item) if task == "ner" else item for item in wanted
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", list(CASES))
def test_padding_and_routes_do_not_change_predictions(task: str, kind: str, backbones: dict[str, Backbone]) -> None:
    backbone = backbones[kind]
    examples = CASES[task]()
    specs = ["prompt:2", "prompt:2"]
    members = [create_module(parse_module(spec), backbone, seed=seed) for seed, spec in enumerate(specs)]
    for member in members:
        member.info.role = "language"
    stack = Stack(backbone, [Bank(members)])
    routes = [number % 2 for number in range(len(examples))]
    names = {"linear", "span", "verbaliser", "text"}
    for name in sorted(names):
        try:
            head = make_head(name, get_task(task), backbone)
        except IsoglossError:
            continue
        head.eval()
        rows = head.encode(examples, budget=stack.text_budget)
        assert [row.example for row in rows] == list(range(len(examples)))
        together = head.predict(stack, head.collate(rows, {"language": routes}))
        for number, row in enumerate(rows):
            (alone,) = head.predict(stack, head.collate([row], {"language": [routes[number]]}))
            assert alone.tags == together[number].tags
            assert alone.text == together[number].text
            assert alone.scores == pytest.approx(together[number].scores, abs=1e-4)
            assert [span[1:] for span in alone.spans[:3]] == [span[1:] for span in together[number].spans[:3]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", list(CASES))
def test_heads_are_rebuilt_from_json(task: str, kind: str, backbones: dict[str, Backbone]) -> None:
    backbone = backbones[kind]
    examples = CASES[task]()
    stack = Stack(backbone)
    for name in (None, "linear", "span", "verbaliser", "text"):
        try:
            head = make_head(name, get_task(task), backbone, max_length=100)
        except IsoglossError:
            continue
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.add_(torch.randn_like(parameter))
        head.eval()
        rows = head.encode(examples, budget=None)
        again = head_from_json(json.loads(json.dumps(head.to_json())), backbone)
        again.load_state_dict(head.state_dict())
        again.eval()
        assert again.to_json() == head.to_json()
        assert again.encode(examples, budget=None) == rows
        assert again.predict(stack, again.collate(rows)) == head.predict(stack, head.collate(rows))


def test_dropout_acts_in_training_only(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["encoder"]
    head = make_head("linear", get_task("topic"), backbone, dropout=0.5)
    batch = head.collate(head.encode(CASES["topic"](), budget=None))
    stack = Stack(backbone)
    head.train()
    assert float(head.loss(stack, batch)[0]) != float(head.loss(stack, batch)[0])
    head.eval()
    assert float(head.loss(stack, batch)[0]) == float(head.loss(stack, batch)[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", list(CASES))
def test_no_row_is_longer_than_its_budget_and_losses_are_counted(
    task: str, kind: str, backbones: dict[str, Backbone]
) -> None:
    backbone = backbones[kind]
    examples = CASES[task]()
    for name in ("linear", "span", "verbaliser", "text"):
        try:
            options = {"max_new_tokens": 3} if name == "text" else {}
            head = make_head(name, get_task(task), backbone, **options)
        except IsoglossError:
            continue
        full = head.encode(examples, budget=None)
        assert truncation(full).tokens == 0 and truncation(full).rows == len(full)
        longest = max(len(row.input_ids) for item in full for row in (item.alternatives or (item,)))
        if name == "span":
            continue
        budget = longest - 3
        if name == "verbaliser" and kind == "decoder":
            budget += head.ids.longest() - 1  # its words take positions behind the text
        cut = head.encode(examples, budget=budget)
        lengths = [len(row.input_ids) for item in cut for row in (item.alternatives or (item,))]
        assert max(lengths) <= budget
        report = truncation(cut)
        assert report.tokens < 200  # variants of one row are not counted again
        assert report.tokens > 0 and 0 < report.cut <= report.rows


def test_words_that_were_cut_off_are_predicted_as_the_fallback(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["encoder"]
    example = CASES["pos"]()[0]
    head = make_head("linear", get_task("pos"), backbone)
    rows = head.encode([example], budget=8)
    assert head.fallback == "NOUN"  # the most frequent tag of what was encoded
    lost = words_without_state([example], rows)
    assert lost > 0
    tags = head.decode([example], rows, head.predict(Stack(backbone), head.collate(rows)))[0]
    assert len(tags) == len(example.tokens or ())
    assert tags[-lost:] == ("NOUN",) * lost


def test_unlabelled_examples_predict_but_give_no_loss(backbones: dict[str, Backbone]) -> None:
    examples = [Example(id="0", language="eng_Latn", text=TEXTS[0])]
    for kind, backbone in backbones.items():
        head = make_head(default_head(get_task("topic"), kind), get_task("topic"), backbone)
        batch = head.collate(head.encode(examples, budget=None))
        assert len(head.predict(Stack(backbone), batch)) == 1
        with pytest.raises(IsoglossError, match="labelled"):
            head.loss(Stack(backbone), batch)


def test_the_published_generation_length_is_a_switch(fresh: Callable[[str], Backbone]) -> None:
    backbone = fresh("encoder-decoder")
    rows: list[Any] = []
    lengths = {}
    for name, options in {
        "ours": {},
        "published": {"published_generation": True},
        "given": {"max_new_tokens": 7},
    }.items():
        head = make_head("text", get_task("ner"), backbone, **options)
        rows = head.encode(CASES["ner"](), budget=None)
        lengths[name] = max(map(head.new_tokens, rows))
    assert lengths["published"] == 20 and lengths["given"] == 7
    assert lengths["ours"] >= max(len(row.target) for row in rows)


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_the_last_piece_of_a_long_question_can_count(fresh: Callable[[str], Backbone], kind: str) -> None:
    backbone, examples = fresh(kind), CASES["qa"]()[:1]
    whole = make_head("text", get_task("qa"), backbone, max_length=4096).encode(examples, budget=None)[0]
    limit = len(whole.input_ids) // 2
    head = make_head("text", get_task("qa"), backbone, max_length=limit, published_windows=True, max_new_tokens=4)
    rows = head.encode(examples, budget=None)
    assert len(rows) >= 3 and {row.example for row in rows} == {0} and not any(row.lost for row in rows)
    assert all(len(row.input_ids) <= limit for row in rows)
    if kind == "encoder-decoder":  # but for the end token of each piece, the pieces are the text
        assert [token for row in rows for token in row.input_ids[:-1]] == list(whole.input_ids[:-1])
        assert {row.target for row in rows} == {whole.target}
        cut = make_head("text", get_task("qa"), backbone, max_length=len(whole.input_ids) - 3)
        assert len(cut.encode(examples, budget=None)) == 1
    said = [Prediction(text=f"answer {number}") for number in range(len(rows))]
    assert head.decode(examples, rows, said) == [f"answer {len(rows) - 1}"]
    assert make_head("text", get_task("qa"), backbone, **head.options()).published_windows


REFUSALS = [
    ("span", "topic", "encoder", {}, "cannot serve.*linear or verbaliser"),
    ("linear", "qa", "encoder", {}, "cannot serve.*use span"),
    ("verbaliser", "ner", "decoder", {}, "cannot serve"),
    ("text", "topic", "encoder", {}, "is an encoder"),
    ("linear", "retrieval", "encoder", {}, "trains no head"),
    ("prompt", "topic", "encoder", {}, "There is no head"),
    ("linear", "topic", "encoder", {"poling": "mean"}, "did you mean pooling"),
    ("linear", "topic", "encoder", {"pooling": "last"}, "use first or mean"),
    ("linear", "topic", "decoder", {"pooling": "first"}, "use last or mean"),
    ("linear", "ner", "encoder", {"fallback": "X"}, "fallback"),
    ("linear", "classification", "encoder", {}, "label set"),
    ("verbaliser", "topic", "encoder", {"template": "{text}"}, "mask"),
    ("verbaliser", "topic", "decoder", {"part": "single"}, "one token"),
    ("verbaliser", "topic", "decoder", {"normalise": "no"}, "normalisation"),
    ("span", "qa", "encoder", {"stride": 0}, "stride"),
    ("span", "qa", "encoder", {"stride": "x"}, "'stride' .* must be of type int"),
    ("linear", "topic", "encoder", {"dropout": "x"}, "'dropout' .* must be of type float"),
    ("linear", "topic", "encoder", {"dropout": 2}, "between 0 and 1"),
    ("verbaliser", "topic", "decoder", {"words": "x"}, "'words' .* must be of type Mapping"),
    ("verbaliser", "topic", "decoder", {"by_language": {"xx": {}}}, "Unknown language 'xx'"),
    ("text", "topic", "decoder", {"template": "{label}"}, "--head-option template="),
]


@pytest.mark.parametrize(("name", "task", "kind", "options", "message"), REFUSALS)
def test_what_a_head_cannot_do_is_refused_in_a_sentence(
    name: str, task: str, kind: str, options: dict[str, Any], message: str, backbones: dict[str, Backbone]
) -> None:
    with pytest.raises(IsoglossError, match=message):
        make_head(name, get_task(task), backbones[kind], **options)


def test_a_budget_without_room_is_refused(backbones: dict[str, Backbone]) -> None:
    for kind, backbone in backbones.items():
        for task in ("topic", "nli", "qa"):
            head = make_head(None, get_task(task), backbone)
            with pytest.raises(IsoglossError, match="max_length"):
                head.encode(CASES[task](), budget=2), kind


def test_defaults_follow_the_kind() -> None:
    assert default_head(get_task("topic"), "encoder") == "linear"
    assert default_head(get_task("topic"), "decoder") == "verbaliser"
    assert default_head(get_task("topic"), "encoder-decoder") == "text"
    assert default_head(get_task("qa"), "encoder") == "span"
    with pytest.raises(IsoglossError, match="trains nothing"):
        default_head(get_task("retrieval"), "encoder")


def test_labels_of_a_generic_task_come_from_the_caller(backbones: dict[str, Backbone]) -> None:
    head = make_head("linear", get_task("classification"), backbones["encoder"], ["good", "bad"])
    assert head.labels == ("good", "bad")
