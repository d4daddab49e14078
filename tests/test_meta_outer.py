"""Outer gradients: against finite differences in float64, and the two-pass form against autograd's."""

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from isogloss.meta import outer
from isogloss.meta.rules import LEARNED, make_rule
from tests._meta_tools import Toy, directions, rows, saved_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_tiny(tmp_path_factory.mktemp("meta"))


def agree(toy: Toy, kind: str, steps: int) -> None:
    found = toy.gradients(kind, steps)
    assert any(float(part.abs().max()) > 1e-6 for part in found)
    for direction in directions(toy.rule):
        wanted = toy.difference(kind, steps, direction)
        got = sum(float((part * way).sum()) for part, way in zip(found, direction, strict=True))
        assert got == pytest.approx(wanted, rel=1e-4, abs=1e-8), (kind, steps)


@pytest.mark.parametrize("method", LEARNED)
def test_two_passes_give_the_exact_gradient_after_one_step(folder: Path, method: str) -> None:
    agree(Toy(folder, method, base="adam", clip=1.0), "two-pass", 1)


@pytest.mark.parametrize("method", LEARNED)
def test_an_unroll_gives_the_exact_gradient_after_three_steps(folder: Path, method: str) -> None:
    agree(Toy(folder, method, base="momentum"), "unrolled", 3)


@pytest.mark.parametrize(
    ("base", "by", "full"), [("sgd", "tensor", True), ("adam", "layer", True), ("adam", "module", False)]
)
def test_every_base_step_and_grouping_is_differentiated(folder: Path, base: str, by: str, full: bool) -> None:
    toy = Toy(folder, "recurrent", base=base, by=by, full=full, clip=0.5)
    assert toy.weights.by == by
    agree(toy, "unrolled", 2)


def test_steps_computed_again_give_the_gradient_of_steps_kept(folder: Path) -> None:
    toy = Toy(folder, "recurrent", base="adam", clip=0.5)
    for kept, again in zip(toy.gradients("unrolled", 3), toy.gradients("checkpoint", 3), strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", LEARNED)
def test_two_passes_equal_autograd_after_one_step(folder: Path, method: str) -> None:
    toy = Toy(folder, method, base="adam")
    plain, graph = toy.gradients("two-pass", 1), toy.gradients("unrolled", 1)
    assert len(plain) == len(list(toy.rule.parameters()))
    for first, second in zip(plain, graph, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("base", ["adam", "momentum"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_last_step_made_again_in_pieces_is_the_step_that_was_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, base: str, steps: int
) -> None:
    """As the moments are all that is left of it when the query's gradients come."""
    toy = Toy(folder, "lstm-gates", base=base, clip=0.5)
    monkeypatch.setattr(outer, "_made_again", lambda inner, taken, *rest: outer._kept(taken))
    wanted = toy.gradients("two-pass", steps)
    monkeypatch.undo()
    monkeypatch.setattr(outer, "_PIECE", 7)
    for found, kept in zip(toy.gradients("two-pass", steps), wanted, strict=True):
        torch.testing.assert_close(found, kept, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("base", ["sgd", "adam", "momentum"])
def test_no_step_of_one_window_is_held_that_moments_can_give(
    folder: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    toy = Toy(folder, "gates", base=base)
    taken: list[weakref.ref[torch.Tensor]] = []
    there: list[int] = []
    move = outer._move

    def watched(inner: Any, steps: Sequence[torch.Tensor | None], gates: torch.Tensor) -> None:
        taken.extend(weakref.ref(step) for step in steps if step is not None)
        move(inner, steps, gates)

    query = outer._query

    def counted(*given: Any) -> Any:
        gc.collect()
        there.append(sum(step() is not None for step in taken))
        return query(*given)

    monkeypatch.setattr(outer, "_move", watched)
    monkeypatch.setattr(outer, "_query", counted)
    toy.window("two-pass", 1)
    assert taken and there == [len(taken) if base == "sgd" else 0]


@pytest.mark.parametrize("method", ["gates", "meta-sgd"])
@pytest.mark.parametrize("base", ["sgd", "adam"])
def test_gates_that_stay_the_same_need_the_sum_of_the_steps_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, base: str
) -> None:
    toy = Toy(folder, method, base=base, clip=0.5)
    counts: list[int] = []
    query = outer._query
    monkeypatch.setattr(outer, "_query", lambda *given: (counts.append(len(given[3])), query(*given))[1])
    found = toy.gradients("two-pass", 4)
    monkeypatch.setattr(type(toy.rule), "steady", False)
    for summed, kept in zip(found, toy.gradients("two-pass", 4), strict=True):
        torch.testing.assert_close(summed, kept, rtol=1e-10, atol=1e-14)
    assert counts == [1, 4]


def test_both_ways_move_the_weights_alike(folder: Path) -> None:
    toy = Toy(folder, "lstm-gates", base="adam", clip=1.0)
    toy.window("two-pass", 3)
    first = [parameter.detach().clone() for parameter in toy.weights.parameters]
    toy.window("unrolled", 3)
    moved = 0.0
    for parameter, other, start in zip(toy.weights.parameters, first, toy.start, strict=True):
        torch.testing.assert_close(parameter.detach(), other, rtol=1e-9, atol=1e-11)
        moved = max(moved, float((other - start).abs().max()))
    assert moved > 1e-3


def test_first_order_leaves_out_what_second_order_counts(folder: Path) -> None:
    toy = Toy(folder, "gates", base="sgd", rate=0.003)
    first, second = toy.gradients("two-pass", 3)[0], toy.gradients("unrolled", 3)[0]
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=0)
    assert 0.9 < float(cosine) < 1.0 and not torch.allclose(first, second, rtol=1e-3)


def test_static_gate_gradient_is_the_formula(folder: Path) -> None:
    """dL/da_l = -lr sigmoid'(a_l) <grad L(theta')_l, g_l>, by hand."""
    toy = Toy(folder, "gates", base="sgd", rate=0.3)
    found = toy.gradients("two-pass", 1)[0]
    toy.put_back()
    parameters = toy.weights.parameters
    inner = torch.autograd.grad(toy.objective(rows(0)), parameters, allow_unused=True)
    gates = torch.sigmoid(toy.rule.logits.detach())
    with torch.no_grad():
        for parameter, gradient, group in zip(parameters, inner, toy.weights.group_of, strict=True):
            if gradient is not None:
                parameter -= gates[group] * 0.3 * gradient
    outer = torch.autograd.grad(toy.objective(rows(9)), parameters, allow_unused=True)
    wanted = torch.zeros_like(gates)
    for first, second, group in zip(inner, outer, toy.weights.group_of, strict=True):
        if first is not None and second is not None:
            wanted[group] -= 0.3 * gates[group] * (1 - gates[group]) * (first * second).sum()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_controls_have_the_gates_that_their_names_say(folder: Path) -> None:
    groups, layers = ("embedding", "encoder 0", "encoder 1", "top", "head"), (0, 1, 2, 3, 3)
    assert make_rule("all-open", groups, layers).gates(None, 0.0, {})[0].tolist() == [1.0] * 5
    assert make_rule("all-shut", groups, layers).gates(None, 0.0, {})[0].tolist() == [0.0] * 5
    assert make_rule("bottom", groups, layers, blocks=1).gates(None, 0.0, {})[0].tolist() == [0.0, 0.0, 1.0, 1.0, 1.0]
    for mean in (0.0, 0.2, 0.9, 1.0):
        gates = make_rule("random", groups, layers, mean=mean, seed=4).gates(None, 0.0, {})[0]
        assert float(gates.mean()) == pytest.approx(mean, abs=1e-6)
        assert float(gates.min()) >= 0.0 and float(gates.max()) <= 1.0


def test_step_gates_go_straight_from_knot_to_knot() -> None:
    rule = make_rule("step-gates", ("a", "b"), (0, 1), knots=3)
    with torch.no_grad():
        rule.logits.copy_(torch.tensor([[0.0, 1.0], [2.0, -1.0], [4.0, 0.0]]))
    for progress, wanted in ((0.0, [0.0, 1.0]), (0.25, [1.0, 0.0]), (0.5, [2.0, -1.0]), (1.0, [4.0, 0.0])):
        found = rule.gates(None, progress, {})[0]
        torch.testing.assert_close(found, torch.sigmoid(torch.tensor(wanted)))


def test_groups_of_a_backbone_rise_from_the_embeddings(folder: Path) -> None:
    toy = Toy(folder, "gates")
    assert toy.weights.groups == ("embedding", "encoder 0", "encoder 1", "top", "head")
    assert toy.weights.layers == (0, 1, 2, 3, 3)
    named = dict(zip(toy.weights.names, toy.weights.group_of, strict=True))
    assert (
        named["module/groups.encoder_1_stream.down_weight"]
        == named["backbone/roberta.encoder.layer.1.output.dense.weight"]
        == 2
    )
    by_module = Toy(folder, "gates", by="module").weights
    assert set(by_module.groups) == {"backbone", "module", "head"}
    assert Toy(folder, "gates", by="tensor").weights.count == len(toy.weights.names)
