"""The LM head in chunks: values and gradients against plain torch."""

import pytest
import torch
from _stack_tools import close
from torch.nn import functional as F

from isogloss.stack import head


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_CHUNK_ELEMENTS", 1)  # eight positions a chunk


def _inputs(dtype: torch.dtype = torch.float32, count: int = 21) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(3)
    hidden = torch.randn(count, 6, dtype=dtype, requires_grad=True)
    weight = torch.randn(15, 6, dtype=dtype, requires_grad=True)
    bias = torch.randn(15, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.randint(15, (count,))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_cross_entropy_is_that_of_torch(softcap: float | None, with_bias: bool) -> None:
    hidden, weight, bias, labels = _inputs()
    logits = hidden @ weight.T + (bias if with_bias else 0)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    wanted = F.cross_entropy(logits, labels, reduction="sum")
    sources = [hidden, weight, bias] if with_bias else [hidden, weight]
    wanted_gradients = torch.autograd.grad(3 * wanted, sources, retain_graph=True)
    found = head.cross_entropy_sum(hidden, weight, bias if with_bias else None, labels, softcap)
    found_gradients = torch.autograd.grad(3 * found, sources)
    close(found, wanted)
    for one, other in zip(found_gradients, wanted_gradients, strict=True):
        close(one, other)
    close(head.logsumexp(hidden, weight, bias if with_bias else None, softcap), logits.logsumexp(-1))
    assert torch.equal(head.best_tokens(hidden, weight, bias if with_bias else None, softcap), logits.argmax(-1))


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("columns", [1, 4, 15, 99])
def test_a_frozen_head_goes_over_the_vocabulary_in_blocks(
    monkeypatch: pytest.MonkeyPatch, softcap: float | None, with_bias: bool, columns: int
) -> None:
    monkeypatch.setattr(head, "_columns_per_block", lambda positions, device: columns)
    hidden, weight, bias, labels = _inputs()
    frozen, still = 4 * weight.detach(), bias.detach() if with_bias else None
    logits = hidden @ frozen.T + (0 if still is None else still)
    logits = softcap * torch.tanh(logits / softcap) if softcap else logits
    wanted = F.cross_entropy(logits, labels, reduction="sum")
    found = head.cross_entropy_sum(hidden, frozen, still, labels, softcap)
    close(found, wanted)
    close(torch.autograd.grad(3 * found, hidden)[0], torch.autograd.grad(3 * wanted, hidden)[0])
    with torch.no_grad():
        close(head.cross_entropy_sum(hidden, frozen, still, labels, softcap), wanted)


def test_frozen_blocks_survive_logits_that_overflow_exp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "_columns_per_block", lambda positions, device: 4)
    hidden, weight, _, labels = _inputs()
    loud = 1e4 * weight.detach()
    found = head.cross_entropy_sum(hidden, loud, None, labels)
    wanted = F.cross_entropy(hidden @ loud.T, labels, reduction="sum")
    close(found / wanted, torch.ones(()))
    assert torch.isfinite(torch.autograd.grad(found, hidden)[0]).all()


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_a_frozen_head_in_double_precision(monkeypatch: pytest.MonkeyPatch, softcap: float | None) -> None:
    monkeypatch.setattr(head, "_columns_per_block", lambda positions, device: 4)
    hidden, weight, bias, labels = _inputs(torch.float64, 7)
    frozen, still = weight.detach(), bias.detach()
    assert torch.autograd.gradcheck(lambda h: head.cross_entropy_sum(h, frozen, still, labels, softcap), (hidden,))


def test_a_second_derivative_is_refused() -> None:
    hidden, weight, _, labels = _inputs()
    loss = head.cross_entropy_sum(hidden, weight.detach(), None, labels)
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_gradients_in_double_precision(softcap: float | None) -> None:
    hidden, weight, bias, labels = _inputs(torch.float64, 11)
    assert torch.autograd.gradcheck(
        lambda h, w, b: head.cross_entropy_sum(h, w, b, labels, softcap), (hidden, weight, bias)
    )
    assert torch.autograd.gradcheck(lambda h: head.logsumexp(h, weight.detach(), bias.detach(), softcap), (hidden,))


def test_logsumexp_gradient_reaches_all() -> None:
    hidden, weight, bias, _ = _inputs()
    wanted = torch.autograd.grad((hidden @ weight.T + bias).logsumexp(-1).sum(), (hidden, weight, bias))
    found = torch.autograd.grad(head.logsumexp(hidden, weight, bias).sum(), (hidden, weight, bias))
    for one, other in zip(found, wanted, strict=True):
        close(one, other)


def test_a_frozen_head_gets_no_gradient_and_costs_no_vocabulary_matrix() -> None:
    hidden, weight, bias, labels = _inputs()
    frozen, still = weight.detach(), bias.detach()
    loss = head.cross_entropy_sum(hidden, frozen, still, labels)
    kept = loss.grad_fn.saved_tensors  # type: ignore[union-attr]
    assert [tensor.shape for tensor in kept] == [hidden.shape]
    loss.backward()
    assert frozen.grad is None and still.grad is None and hidden.grad is not None


def test_half_precision_states_are_summed_in_full_precision() -> None:
    hidden, weight, _, labels = _inputs(torch.float32, 400)
    found = head.cross_entropy_sum(hidden.bfloat16(), weight, None, labels)
    wanted = F.cross_entropy((hidden.bfloat16() @ weight.bfloat16().T).float(), labels, reduction="sum")
    assert found.dtype is torch.float32
    close(found, wanted, 1e-5)


def test_no_positions() -> None:
    hidden, weight, _, _ = _inputs()
    empty, none = hidden[:0], torch.zeros(0, dtype=torch.long)
    assert head.cross_entropy_sum(empty, weight, None, none).item() == 0.0
    assert head.logsumexp(empty, weight, None).shape == (0,)
    assert head.best_tokens(empty, weight, None).shape == (0,)
