"""Products by oneDNN against those that PyTorch takes by itself: values, first and second gradients, what is left alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isogloss.backbones import products

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this PyTorch has no oneDNN",
)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Turns oneDNN on for products of any size and lists the weights that it multiplied."""
    seen: list[tuple[int, ...]] = []
    plain = products._onednn

    def noted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(tuple(weight.shape))
        return plain(x, weight, bias)

    monkeypatch.setattr(products, "pays", lambda: True)
    monkeypatch.setattr(products, "_SMALLEST_PRODUCT", 1)
    monkeypatch.setattr(products, "_FEWEST_ROWS", 2)
    monkeypatch.setattr(products, "_onednn", noted)
    return seen


def _sources(trained: str) -> list[Tensor]:
    torch.manual_seed(1)
    shapes = {"x": (3, 5, 8), "w": (6, 8), "b": (6,)}
    return [torch.randn(shape, requires_grad=name in trained) for name, shape in shapes.items()]


def _gradients(of: Callable[..., Tensor], sources: list[Tensor]) -> list[Tensor]:
    """The value, its gradients, and the gradients of the square of those."""
    value = of(*sources)
    wanted = [source for source in sources if source.requires_grad]
    first = torch.autograd.grad((value**2).sum(), wanted, create_graph=True)
    second = torch.autograd.grad(sum((item**2).sum() for item in first), wanted)
    return [value, *first, *second]


@pytest.mark.parametrize("trained", ["x", "w", "xw", "xwb"])
def test_values_and_gradients_of_both_orders(trained: str, calls: list[tuple[int, ...]]) -> None:
    found = _gradients(products.linear, _sources(trained))
    assert calls
    for one, other in zip(found, _gradients(F.linear, _sources(trained)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bias", [True, False])
def test_strided_inputs_and_weights(bias: bool, calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(2)
    x, weight, b = torch.randn(8, 12).T, torch.randn(8, 6).T, torch.randn(6) if bias else None
    torch.testing.assert_close(products.linear(x, weight, b), F.linear(x, weight, b))
    expanded = torch.randn(1, 8).expand(12, 8)
    torch.testing.assert_close(products.linear(expanded, weight, b), F.linear(expanded, weight, b))
    assert len(calls) == 2


def test_what_is_left_alone(calls: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(4, 8), torch.randn(6, 8)
    products.linear(x[:1], weight)
    products.linear(x.double(), weight.double())
    products.linear(x.bfloat16(), weight.bfloat16())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.linear(x, weight).dtype is torch.bfloat16
    torch.func.vmap(lambda row: products.linear(row, weight))(x.unsqueeze(1).expand(4, 3, 8))
    monkeypatch.setattr(products, "_LARGEST_WEIGHT", weight.numel() - 1)
    products.linear(x, weight)
    assert not calls


def test_layers_compute_by_it_within_the_context_only(calls: list[tuple[int, ...]]) -> None:
    torch.manual_seed(3)
    layers = [nn.Linear(8, 6), nn.Linear(6, 4)]
    x = torch.randn(5, 8)
    wanted = layers[1](layers[0](x))
    hooked = []
    layers[0].register_forward_hook(lambda layer, inputs, output: hooked.append(output))
    with products.fast_linears(layers), products.fast_linears(layers):
        torch.testing.assert_close(layers[1](layers[0](x)), wanted)
    assert len(calls) == 2 and len(hooked) == 1
    with pytest.raises(RuntimeError, match="stop"), products.fast_linears(layers):
        raise RuntimeError("stop")
    layers[1](layers[0](x))
    assert len(calls) == 2 and not any("forward" in layer.__dict__ for layer in layers)


@pytest.mark.parametrize(("value", "used"), [("0", False), ("1", True)])
def test_the_environment_decides(value: str, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(products.SWITCH, value)
    products.pays.cache_clear()
    try:
        assert products.pays() is used
    finally:
        products.pays.cache_clear()
