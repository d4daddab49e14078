"""Outer steps of the meta-initialisations against references written out by hand."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from isogloss.meta.initialisations import auxiliary, fomaml, reptile, xmaml

RATE = 0.1


def toy(seed: int = 0) -> tuple[list[Tensor], dict[str, list[tuple[Tensor, Tensor]]]]:
    """Weights of a one-hidden-layer network, and two batches for each of two languages."""
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    weights = [draw(4, 3).requires_grad_(), draw(2, 4).requires_grad_()]
    batches = {code: [(draw(5, 3), draw(5, 2)) for _ in range(2)] for code in ("deu_Latn", "hin_Deva")}
    return weights, batches


def loss_at(values: Sequence[Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    return (torch.tanh(batch[0] @ values[0].T) @ values[1].T - batch[1]).square().mean()


def query_after_one_step(flat: Tensor, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> Tensor:
    """L_query(theta - RATE * grad L_support(theta)) with the inner gradient written out by hand."""
    first, second = flat[:12].view(4, 3), flat[12:].view(2, 4)
    x, y = support
    hidden = torch.tanh(x @ first.T)
    error = 2.0 * (hidden @ second.T - y) / y.numel()
    moved_second = second - RATE * error.T @ hidden
    moved_first = first - RATE * ((error @ second) * (1.0 - hidden * hidden)).T @ x
    return loss_at([moved_first, moved_second], query)


def test_xmaml_is_the_hand_written_second_order_step() -> None:
    weights, batches = toy()
    value = xmaml(weights, loss_at, batches, rate=RATE)
    flat = torch.cat([weight.detach().flatten() for weight in weights]).requires_grad_()
    losses = [query_after_one_step(flat, *found) for found in batches.values()]
    (wanted,) = torch.autograd.grad(sum(losses[1:], start=losses[0]), flat)
    found = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert float(value) == pytest.approx(float(sum(losses).detach()) / 2)


def test_xmaml_gradient_agrees_with_differences() -> None:
    weights, batches = toy(1)
    xmaml(weights, loss_at, batches, rate=RATE)
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    for place in range(0, len(flat), 5):
        ends = []
        for sign in (1.0, -1.0):
            moved = flat.clone()
            moved[place] += sign * 1e-6
            moved.requires_grad_()
            ends.append(sum(float(query_after_one_step(moved, *found)) for found in batches.values()))
        gradient = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
        assert float(gradient[place]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_fomaml_takes_the_query_gradient_where_the_inner_step_led() -> None:
    weights, batches = toy()
    before = [weight.detach().clone() for weight in weights]
    fomaml(weights, lambda batch: loss_at(weights, batch), batches, rate=RATE)
    wanted = [torch.zeros_like(weight) for weight in weights]
    for support, query in batches.values():
        inner = torch.autograd.grad(loss_at(weights, support), weights)
        moved = [(weight - RATE * part).detach().requires_grad_() for weight, part in zip(weights, inner, strict=True)]
        for total, part in zip(wanted, torch.autograd.grad(loss_at(moved, query), moved), strict=True):
            total += part
    for weight, total, old in zip(weights, wanted, before, strict=True):
        torch.testing.assert_close(weight.grad, total, rtol=1e-10, atol=1e-12)
        assert torch.equal(weight, old)


def test_reptile_points_to_where_plain_steps_lead() -> None:
    weights, batches = toy()
    before = [weight.detach().clone() for weight in weights]
    reptile(weights, lambda batch: loss_at(weights, batch), batches, rate=RATE)
    ends = []
    for found in batches.values():
        moved = [weight.clone().requires_grad_() for weight in before]
        for batch in found:
            inner = torch.autograd.grad(loss_at(moved, batch), moved)
            moved = [
                (weight - RATE * part).detach().requires_grad_() for weight, part in zip(moved, inner, strict=True)
            ]
        ends.append(moved)
    for number, (weight, old) in enumerate(zip(weights, before, strict=True)):
        mean = (ends[0][number] + ends[1][number]).detach() / 2
        torch.testing.assert_close(weight.grad, old - mean, rtol=1e-10, atol=1e-12)
        assert torch.equal(weight, old)


def test_auxiliary_fine_tuning_has_plain_gradients() -> None:
    weights, batches = toy()
    auxiliary(weights, lambda batch: loss_at(weights, batch), batches, rate=RATE)
    total = sum(loss_at(weights, batch) for found in batches.values() for batch in found)
    assert isinstance(total, Tensor)
    for weight, wanted in zip(weights, torch.autograd.grad(total, weights), strict=True):
        torch.testing.assert_close(weight.grad, wanted, rtol=1e-10, atol=1e-12)
