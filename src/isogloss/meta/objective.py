"""The loss of a batch as a function: of the live weights, or of any other values of them (torch.func)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from isogloss.backbones.attention import NAME as OWN_ATTENTION
from isogloss.meta.groups import FastWeights
from isogloss.stack import Stack
from isogloss.tasks.heads import Encoded, Head

# PyTorch's own attention and ours: both obey `sdpa_kernel`, and PyTorch's plain kernel has a second derivative.
_SDPA = ("sdpa", OWN_ATTENTION)


class Objective(nn.Module):
    """Mean task loss of rows, with what modules add of their own (a pool's pull loss), as in a task stage.

    Args:
        stack: What runs the text.
        head: What scores it.
        language_index: Language code -> member of the stack's language bank; None without one.
    """

    def __init__(self, stack: Stack, head: Head, language_index: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.stack, self.head = stack, head
        self._index = dict(language_index) if language_index is not None else None
        # Whether a module, or the backbone's own pool, is told the language of its rows.
        self._told = bool(stack.language_routes(["und"]))
        self.tokens = 0

    def forward(self, rows: Sequence[Encoded]) -> Tensor:
        """The mean loss, a scalar."""
        routes: dict[str, Any] = {}
        if self._told:
            routes.update(self.stack.language_routes([row.language for row in rows]))
        if self._index is not None:
            routes["language"] = [self._index[row.language] for row in rows]
        batch = self.head.collate(rows, routes or None).to(self.stack.backbone.device)
        self.tokens += batch.tokens
        total, count = self.head.loss(self.stack, batch)
        mean, own = total / max(count, 1), self.stack.take_module_loss()
        return mean if own is None else mean + own

    def at(self, values: Mapping[str, Tensor], rows: Sequence[Encoded]) -> Tensor:
        """The mean loss with other values of some parameters, by the names of `named_parameters`."""
        found: Tensor = functional_call(self, dict(values), (rows,))
        return found

    def names_of(self, weights: FastWeights) -> tuple[str, ...]:
        """Where the fast weights stand in this module, one a parameter."""
        own = {id(parameter): name for name, parameter in self.named_parameters()}
        return tuple(own[id(parameter)] for parameter in weights.parameters)


@contextmanager
def twice_differentiable(model: Any) -> Iterator[None]:
    """Within it the forward passes use attention that has a second derivative (fused kernels have none).

    PyTorch's own attention is switched to its plain kernel, others (flash attention packages) to `eager`.

    Args:
        model: A `transformers` model.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kind = getattr(model.config, "_attn_implementation", "eager")
    if kind == "eager":
        yield
    elif kind in _SDPA:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation(kind)
