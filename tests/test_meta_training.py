"""Meta-training as a whole: what comes out, what it leaves untouched, resuming, and fine-tuning with the result."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module
from isogloss.meta import MetaStage, learn_rule, learn_start, load_rule, open_update, read_rule
from isogloss.meta.episodes import Episodes, LanguageDraws, disjoint_halves, share_out
from isogloss.meta.memory import Shape, estimate, refuse_too_large
from isogloss.modules import parse_module
from isogloss.tasks import Example, get_task
from isogloss.training import fit as fit_module
from isogloss.training.evaluation import evaluate
from isogloss.training.task_stage import TaskStage, train_task
from tests import _heads_tools as tools

LANGUAGES = ("eng_Latn", "deu_Latn", "hin_Deva", "slk_Latn")
LABELS = tuple(dict.fromkeys(tools.TOPICS))
TASK = get_task("topic", labels=LABELS)
STAGE = MetaStage(outer_steps=6, horizon=4, batch_size=4, train="modules", learning_rate=1e-3, checkpoint_seconds=1e9)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.set_num_threads(1)
    return tools.load(tools.save("encoder", tmp_path_factory.mktemp("meta") / "encoder"))


def examples(language: str, count: int = 24, *, own: bool = False) -> list[Example]:
    """Rows that share their items over languages, unless `own`."""
    return [
        Example(
            id=f"{language if own else 'item'}-{number}",
            language=language,
            text=tools.TEXTS[number % 8] + f" {number}",
            label=tools.TOPICS[number % 8],
        )
        for number in range(count)
    ]


def rule(
    backbone: Backbone, out: Path, stage: MetaStage = STAGE, spec: str = "adapter:4", **options: Any
) -> dict[str, Any]:
    helpers = [*examples("deu_Latn"), *examples("hin_Deva")]
    return learn_rule(backbone, TASK, examples("eng_Latn"), helpers, parse_module(spec), stage, out, **options)


def tuned(backbone: Backbone, out: Path, update: str | None, **changes: Any) -> dict[str, torch.Tensor]:
    """Weights of a task module after a short training."""
    stage = TaskStage(steps=5, batch_size=4, select="last", **{"train": "modules", "learning_rate": 1e-3, **changes})
    spec = "none" if stage.train == "all" else "adapter:4"
    train_task(
        backbone,
        TASK,
        examples("eng_Latn"),
        [],
        parse_module(spec),
        stage,
        out,
        update=None if update is None else open_update(update),
    )
    found = load_module(out, backbone)
    return {**found.weight_tensors(), **found.head_state, **(found.backbone_state or {})}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("train", ["modules", "all"])
@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_open_gates_are_plain_fine_tuning_to_the_bit(
    backbone: Backbone, tmp_path: Path, train: str, optimiser: str
) -> None:
    plain = tuned(backbone, tmp_path / "plain", None, train=train, optimiser=optimiser)
    opened = tuned(backbone, tmp_path / "open", "all-open", train=train, optimiser=optimiser)
    assert same(plain, opened)


@pytest.mark.parametrize("train", ["modules", "all"])
def test_shut_gates_leave_every_weight_as_it_was(backbone: Backbone, tmp_path: Path, train: str) -> None:
    shut = tuned(backbone, tmp_path / "shut", "all-shut", train=train)
    fresh = tuned(backbone, tmp_path / "fresh", None, train=train, learning_rate=0.0, head_learning_rate=0.0)
    moved = tuned(backbone, tmp_path / "moved", None, train=train)
    assert same(shut, fresh) and not same(shut, moved)


def test_a_rule_of_open_gates_fine_tunes_as_none(backbone: Backbone, tmp_path: Path) -> None:
    """The same through a saved rule whose gates are 1 to the last bit (Meta-SGD before learning)."""
    rule(backbone, tmp_path / "rule", replace(STAGE, method="meta-sgd", outer_steps=1, outer_learning_rate=1e-30))
    opened = tuned(backbone, tmp_path / "open", str(tmp_path / "rule"))
    assert same(opened, tuned(backbone, tmp_path / "plain", None))


def test_a_rule_brings_the_clipping_it_was_learned_with(backbone: Backbone, tmp_path: Path) -> None:
    """With SGD, as Adam's steps hardly know the size of gradients; gates are 1, so that nothing else differs."""
    stage = replace(STAGE, method="meta-sgd", base="sgd", outer_steps=1, outer_learning_rate=1e-30)
    plain = {
        clip: tuned(backbone, tmp_path / f"plain-{clip}", None, optimiser="sgd", clip=clip)
        for clip in (None, 0.0, 0.01)
    }
    assert not same(plain[0.0], plain[0.01]) and not same(plain[None], plain[0.01])
    for clip in (None, 0.01):
        rule(backbone, tmp_path / f"rule-{clip}", replace(stage, clip=clip))
        ruled = tuned(backbone, tmp_path / f"ruled-{clip}", str(tmp_path / f"rule-{clip}"))
        assert same(ruled, plain[clip or 0.0])
    own = tuned(backbone, tmp_path / "own", str(tmp_path / "rule-None"), clip=0.01)
    assert same(own, plain[0.01])
    with pytest.raises(IsoglossError, match="clip=-1"):
        TaskStage(clip=-1)


def test_bottom_freezing_moves_only_what_is_above(backbone: Backbone, tmp_path: Path) -> None:
    before = {name: item.clone() for name, item in backbone.model.named_parameters()}
    after = tuned(backbone, tmp_path / "bottom", "bottom:1", train="all")
    changed = {name for name, item in before.items() if not torch.equal(item, after[name])}
    assert any(name.startswith("roberta.encoder.layer.1.") for name in changed)
    assert not any(name.startswith(("roberta.encoder.layer.0.", "roberta.embeddings.")) for name in changed)


@pytest.mark.parametrize("method", ["gates", "step-gates", "lstm-gates", "recurrent", "meta-sgd"])
def test_every_rule_is_learned_saved_and_used(backbone: Backbone, tmp_path: Path, method: str) -> None:
    before = {name: item.clone() for name, item in backbone.model.named_parameters()}
    result = rule(backbone, tmp_path / "rule", replace(STAGE, method=method, train="all", inner_steps=2), "none")
    assert all(torch.equal(item, before[name]) for name, item in backbone.model.named_parameters())
    assert not any(item.requires_grad for item in backbone.model.parameters())
    learned, record = load_rule(tmp_path / "rule")
    assert record.groups == ["embedding", "encoder 0", "encoder 1", "top", "head"] == list(result["gates"])
    assert record.seen == ["deu_Latn", "eng_Latn", "hin_Deva"] and record.fingerprint == backbone.fingerprint
    fresh = type(learned)(record.groups, record.layers, **record.options)
    assert any(not torch.equal(new, old) for new, old in zip(learned.parameters(), fresh.parameters(), strict=True))
    assert "hin_Deva" in (tmp_path / "rule" / "README.md").read_text()
    assert not (tmp_path / "rule" / ".checkpoint").exists()
    gated = tuned(backbone, tmp_path / "gated", str(tmp_path / "rule"), train="all")
    plain = tuned(backbone, tmp_path / "plain", None, train="all")
    assert not same(gated, plain) and all(item.isfinite().all() for item in gated.values())
    training = load_module(tmp_path / "gated", backbone).info.training
    assert training["seen"] == record.seen and training["update"]["method"] == method


@pytest.mark.parametrize("order", ["first", "second"])
def test_rules_that_shut_what_does_not_transfer(backbone: Backbone, tmp_path: Path, order: str) -> None:
    """Auxiliary labels turned against the source's: every step on the source hurts, so gates must fall."""
    turned = [
        replace(item, label=LABELS[(LABELS.index(str(item.label)) + 1) % len(LABELS)]) for item in examples("deu_Latn")
    ]
    stage = replace(
        STAGE, outer_steps=12, outer_learning_rate=0.3, learning_rate=2e-2, order=order, inner_steps=2, disjoint=False
    )
    result = learn_rule(
        backbone, TASK, examples("eng_Latn"), turned, parse_module("adapter:4"), stage, tmp_path / "rule"
    )
    learned, _ = load_rule(tmp_path / "rule")
    final = learned.gates(None, 1.0, {})[0]
    assert float(final.mean()) < 0.8 and result["steps"] == 12


def stopped_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Makes the next fit die after a checkpoint of this step, as a killed process would."""
    plain = fit_module._Loop.train_step

    def train_step(self: Any) -> None:
        if self.now.step == step:
            self.save()
            raise RuntimeError("killed")
        plain(self)

    monkeypatch.setattr(fit_module._Loop, "train_step", train_step)


@pytest.mark.parametrize(("method", "base"), [("gates", "adam"), ("recurrent", "momentum"), ("lstm-gates", "sgd")])
def test_a_killed_meta_training_ends_with_the_same_rule(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, base: str
) -> None:
    stage = replace(STAGE, method=method, base=base, inner_steps=2, horizon=6, order="second", train="all")  # type: ignore[arg-type]
    whole = rule(backbone, tmp_path / "whole", stage, "none")
    with monkeypatch.context() as patch:
        stopped_at(patch, 4)
        with pytest.raises(RuntimeError, match="killed"):
            rule(backbone, tmp_path / "again", stage, "none")
    again = rule(backbone, tmp_path / "again", stage, "none")
    first, second = load_rule(tmp_path / "whole")[0].state_dict(), load_rule(tmp_path / "again")[0].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert again["gates"] == whole["gates"] and again["steps"] == whole["steps"]


@pytest.mark.parametrize("method", ["xmaml", "fomaml", "reptile", "auxiliary"])
def test_a_killed_start_ends_with_the_same_weights(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    stage = replace(STAGE, method=method, train="all", outer_steps=4, start_epochs=0.5, learning_rate=None)
    helpers = [*examples("deu_Latn"), *examples("hin_Deva")]

    def run(out: Path) -> dict[str, Any]:
        return learn_start(backbone, TASK, examples("eng_Latn"), helpers, parse_module("none"), stage, out)

    run(tmp_path / "whole")
    # The plain fine-tuning in front is a fit of its own (3 steps), so only the meta-training dies here.
    with monkeypatch.context() as patch:
        stopped_at(patch, 3)
        with pytest.raises(RuntimeError, match="killed"):
            run(tmp_path / "again")
    run(tmp_path / "again")
    first, second = load_module(tmp_path / "whole", backbone), load_module(tmp_path / "again", backbone)
    assert first.backbone_state and second.backbone_state
    assert same(first.backbone_state | first.head_state, second.backbone_state | second.head_state)
    own = dict(backbone.model.named_parameters())
    assert any(not torch.equal(item, own[name]) for name, item in first.backbone_state.items())


def test_a_start_is_evaluated_and_fine_tuned_on_few_examples(backbone: Backbone, tmp_path: Path) -> None:
    stage = replace(STAGE, method="xmaml", outer_steps=2, start_epochs=0.5, learning_rate=None)
    helpers = examples("deu_Latn")
    learn_start(
        backbone,
        TASK,
        examples("eng_Latn"),
        helpers,
        parse_module("adapter:4"),
        stage,
        tmp_path / "start",
        data_name="made-up",
    )
    data = write_data(tmp_path / "data")
    module = load_module(tmp_path / "start", backbone)
    result = evaluate(backbone, module, {}, data, ["deu_Latn", "eng_Latn", "slk_Latn"])
    assert result["mean_over"] == ["slk_Latn"] and result["seen"] == ["deu_Latn", "eng_Latn"]
    few = TaskStage(steps=2, batch_size=4, select="last", learning_rate=1e-30)
    train_task(
        backbone,
        TASK,
        examples("slk_Latn", 7),
        [],
        parse_module("adapter:4"),
        few,
        tmp_path / "few",
        update=open_update(str(tmp_path / "start")),
    )
    after = load_module(tmp_path / "few", backbone)
    for name, item in module.weight_tensors().items():
        torch.testing.assert_close(after.weight_tensors()[name], item)
    # The head is not fresh either: without a rate of its own it goes by that of the module.
    for name, item in module.head_state.items():
        torch.testing.assert_close(after.head_state[name], item)
    assert after.info.training["seen"] == ["deu_Latn", "eng_Latn", "slk_Latn"]


def write_data(root: Path) -> Path:
    for code in LANGUAGES:
        for split in ("train", "dev", "test"):
            place = root / code / f"{split}.jsonl"
            place.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                {
                    "index_id": f"{split}-{number}",
                    "text": f"{tools.TEXTS[number % 8]} {split} {number}",
                    "category": tools.TOPICS[number % 8],
                }
                for number in range(16)
            ]
            place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def test_queries_never_hold_translations_of_support_rows() -> None:
    source, helpers = examples("eng_Latn", 30), examples("deu_Latn", 30)
    support, query = disjoint_halves(source, helpers)
    assert not {item.id for item in support} & {item.id for item in query}
    assert len(support) + len(query) == 30 and len(query) == 10
    own = examples("deu_Latn", 30, own=True)
    assert disjoint_halves(source, own) == (source, own)


def encoded(language: str, count: int = 10) -> list[Any]:
    from isogloss.tasks.heads import Encoded

    return [
        Encoded(number, list(range(number % 5 + 3)), language=language, labels=(number,)) for number in range(count)
    ]


def test_episodes_cross_languages_and_continue_where_they_were() -> None:
    def new() -> Episodes:
        rows = {"deu_Latn": encoded("deu_Latn"), "hin_Deva": encoded("hin_Deva")}
        return Episodes({"eng_Latn": encoded("eng_Latn")}, rows, steps=2, support_size=3, query_size=2, seed=5)

    source, drawn = new(), []
    states = []
    for _ in range(8):
        states.append(source.state_dict())
        drawn.append(next(source.window(1)))
    assert {item.support_language for item in drawn} == {"eng_Latn"}
    assert {item.query_language for item in drawn} == {"deu_Latn", "hin_Deva"}
    assert all(len(item.support) == 2 and len(item.query) == 2 for item in drawn)
    assert all(row.language == item.query_language for item in drawn for row in item.query)
    later = new()
    later.load_state_dict(states[5])
    assert next(later.window(1)) == drawn[5]
    firsts = [row.example for item in drawn[:1] for batch in item.support for row in batch]
    assert len(set(firsts)) == len(firsts)


def test_mixed_roles_still_cross_languages() -> None:
    rows = {code: encoded(code) for code in ("eng_Latn", "deu_Latn", "hin_Deva")}
    source = Episodes(rows, rows, steps=1, support_size=3, query_size=2, seed=5)
    pairs = {(item.support_language, item.query_language) for item in source.window(40)}
    assert all(first != second for first, second in pairs) and len(pairs) == 6


# Items by number; some stand in several languages.
some_items = st.sets(st.integers(0, 29), min_size=8)


@settings(max_examples=40, deadline=None)
@given(st.lists(some_items, min_size=3, max_size=3))
def test_with_mixed_roles_no_item_ever_supports_and_queries(items: list[set[int]]) -> None:
    codes = ("eng_Latn", "deu_Latn", "hin_Deva")
    given_rows = [
        [Example(id=str(number), language=code, text="a", label="b") for number in sorted(found)]
        for code, found in zip(codes, items, strict=True)
    ]
    try:
        halves = share_out(given_rows[0], [*given_rows[1], *given_rows[2]], roles="mixed", disjoint=True)
    except IsoglossError as problem:
        assert "too few to keep its support rows and its query rows apart" in str(problem)
        return
    support, query = ({item.id for item in half} for half in halves)
    assert not support & query and len(halves[0]) + len(halves[1]) == sum(map(len, items))
    assert all({item.language for item in half} == set(codes) for half in halves)


def test_episodes_of_mixed_roles_hold_no_item_twice(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Translations of an item have one text here, so that rows of any language can be compared."""
    drawn = []
    draw = Episodes._draw
    monkeypatch.setattr(Episodes, "_draw", lambda self: drawn.append(draw(self)) or drawn[-1])  # type: ignore[func-returns-value]
    rule(backbone, tmp_path / "rule", replace(STAGE, roles="mixed", outer_steps=20))
    support = {tuple(row.input_ids) for item in drawn for batch in item.support for row in batch}
    query = {tuple(row.input_ids) for item in drawn for row in item.query}
    assert len(drawn) == 20 and len({item.support_language for item in drawn}) == 3
    assert support and query and not support & query
    with pytest.raises(IsoglossError, match=r"--roles mixed: German .* has 2 labelled rows"):
        share_out(examples("eng_Latn"), examples("deu_Latn", 2, own=True), roles="mixed", disjoint=True)


def test_a_draw_is_cut_into_support_and_query() -> None:
    source = LanguageDraws({"deu_Latn": encoded("deu_Latn")}, batches=2, size=4, seed=1)
    draw = next(source.window(1))["deu_Latn"]
    assert [len(part) for part in draw] == [4, 4]
    assert len({row.example for part in draw for row in part}) == 8
    with pytest.raises(IsoglossError, match="10 labelled rows, but one outer step takes 3 batches of 4"):
        LanguageDraws({"deu_Latn": encoded("deu_Latn")}, batches=3, size=4, seed=1)


SHAPE = Shape(
    fast=10**8,
    frozen=0,
    moments=2,
    inner_steps=8,
    second_order=True,
    tokens=4096,
    length=128,
    width=768,
    ffn=3072,
    heads=12,
    blocks=12,
)


def test_memory_is_refused_with_ways_that_fit() -> None:
    whole = estimate(SHAPE).total
    cheap = estimate(replace(SHAPE, second_order=False)).total
    assert cheap < whole
    with pytest.raises(
        IsoglossError, match=r"8 inner steps of second order needs about .* free; use .*--order first \(about"
    ):
        refuse_too_large(SHAPE, cheap + 1)
    first = replace(SHAPE, second_order=False)
    kept = [estimate(replace(first, inner_steps=steps, steady=True)).steps for steps in (1, 2, 8)]
    assert kept[0] == 0 < kept[1] == kept[2] < estimate(first).steps
    with pytest.raises(IsoglossError, match="smaller --batch-size"):
        refuse_too_large(SHAPE, 1000)
    assert refuse_too_large(SHAPE, None).total == refuse_too_large(SHAPE, whole).total == whole
    with pytest.raises(IsoglossError, match=r"free; use --method fomaml \(about") as problem:
        refuse_too_large(SHAPE, cheap + 1, start=True)
    assert "--order" not in str(problem.value) and "--checkpoint" not in str(problem.value)


@pytest.mark.parametrize("change", [{"checkpoint": True}, {"by": "tensor"}, {"options": {"knots": 3}}])
def test_options_of_rules_are_refused_with_starts(change: dict[str, object]) -> None:
    with pytest.raises(IsoglossError, match=rf"option {next(iter(change))}=.* leave it out with the method xmaml"):
        replace(STAGE, method="xmaml", **change)


@pytest.mark.parametrize(
    ("source", "auxiliary", "targets", "message"),
    [
        ("eng_Latn", "eng_Latn", (), "English (eng_Latn) is also the source"),
        ("eng_Latn", "deu_Latn", ("deu_Latn",), "German (deu_Latn) is also a target of the evaluation"),
        ("eng_Latn", None, (), "--auxiliary is missing"),
    ],
)
def test_languages_that_would_be_no_transfer_are_refused(
    backbone: Backbone, tmp_path: Path, source: str, auxiliary: str | None, targets: tuple[str, ...], message: str
) -> None:
    helpers = [] if auxiliary is None else examples(auxiliary)
    with pytest.raises(IsoglossError) as problem:
        learn_rule(
            backbone, TASK, examples(source), helpers, parse_module("none"), STAGE, tmp_path / "out", targets=targets
        )
    assert message in str(problem.value)
    assert not (tmp_path / "out").exists()


def test_too_many_inner_steps_for_the_memory_are_refused(backbone: Backbone, tmp_path: Path) -> None:
    stage = replace(STAGE, inner_steps=4, order="second", memory=2**20, train="all")
    with pytest.raises(IsoglossError, match=r"4 inner steps of second order needs about .* are free"):
        rule(backbone, tmp_path / "out", stage, "none")
    assert not (tmp_path / "out").exists()
    assert not any(item.requires_grad for item in backbone.model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory": 2**20}, r"1 inner step of second order needs about .* are free"),
        ({"batch_size": 16}, "24 labelled rows, but one outer step takes 2 batches of 16"),
    ],
)
def test_a_start_is_refused_before_anything_is_trained(
    backbone: Backbone, tmp_path: Path, change: dict[str, int], message: str
) -> None:
    stage = replace(STAGE, method="xmaml", train="all", **change)
    given = (backbone, TASK, examples("eng_Latn"), examples("deu_Latn"), parse_module("none"), stage)
    with pytest.raises(IsoglossError, match=message):
        learn_start(*given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not any(item.requires_grad for item in backbone.model.parameters())


def test_a_rule_is_refused_elsewhere(backbone: Backbone, tmp_path: Path) -> None:
    rule(backbone, tmp_path / "rule", replace(STAGE, outer_steps=1))
    update = open_update(str(tmp_path / "rule"))
    stage, config = TaskStage(steps=1), parse_module("adapter:4")
    other = replace(backbone, fingerprint="0" * 16)  # type: ignore[type-var]
    with pytest.raises(IsoglossError, match=r"learned on .* but the backbone is"):
        update.prepare(other, TASK, config, stage)
    with pytest.raises(IsoglossError, match="learned for the task topic, not nli"):
        update.prepare(backbone, get_task("nli"), config, stage)
    with pytest.raises(IsoglossError, match="the rule moves --module adapter:4"):
        update.prepare(backbone, TASK, parse_module("adapter:8"), stage)
    with pytest.raises(IsoglossError, match="--train modules, not adapter:4 with all"):
        update.prepare(backbone, TASK, config, replace(stage, train="all"))
    path = tmp_path / "rule" / "rule.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IsoglossError, match="truncated or altered"):
        open_update(str(tmp_path / "rule"))
    content = json.loads((tmp_path / "rule" / "rule.json").read_text())
    (tmp_path / "rule" / "rule.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(IsoglossError, match="format 99"):
        read_rule(tmp_path / "rule")


@pytest.mark.parametrize("text", ["bottom:x", "random", "open", "bottom:1:2", "random:2"])
def test_updates_that_are_nothing_are_refused(backbone: Backbone, tmp_path: Path, text: str) -> None:
    with pytest.raises(IsoglossError):
        tuned(backbone, tmp_path / "out", text)


def test_freezing_more_blocks_than_there_are_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="bottom:3 freezes blocks that are not there; give 0"):
        tuned(backbone, tmp_path / "out", "bottom:3", train="all")


DROPS = "adapter:4,dropout=0.25"


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows by one whenever an adapter drops parts of its input."""
    calls: list[bool] = []
    plain = torch.nn.functional.dropout

    def noted(value: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if p == 0.25:
            calls.append(training)
        return plain(value, p, training, inplace)

    monkeypatch.setattr(torch.nn.functional, "dropout", noted)
    return calls


@pytest.mark.parametrize("order", ["first", "second"])
def test_dropout_acts_on_support_and_not_on_queries(
    backbone: Backbone, tmp_path: Path, dropped: list[bool], order: str
) -> None:
    """Of the modules too, which hear of the training mode through the stack."""
    rule(backbone, tmp_path / "rule", replace(STAGE, outer_steps=1, order=order, inner_steps=2), DROPS)
    assert len(dropped) == 2 * backbone.config.num_hidden_layers


@pytest.mark.parametrize("method", ["xmaml", "fomaml", "reptile", "auxiliary"])
def test_dropout_acts_while_a_start_is_learned(
    backbone: Backbone, tmp_path: Path, dropped: list[bool], method: str
) -> None:
    stage = TaskStage(steps=1, batch_size=4, select="last", learning_rate=1e-3)
    train_task(backbone, TASK, examples("eng_Latn"), [], parse_module(DROPS), stage, tmp_path / "first")
    dropped.clear()
    learn_start(
        backbone,
        TASK,
        examples("eng_Latn"),
        examples("deu_Latn"),
        parse_module(DROPS),
        replace(STAGE, method=method, outer_steps=1),
        tmp_path / "out",
        start=tmp_path / "first",
    )
    assert dropped
