"""Changed backbone weights (unfrozen training), lent to the model for the time of one computation."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from isogloss.errors import IsoglossError


class BackbonePatch:
    """Puts other weights in place of a model's own and takes them out again.

    The parameter objects change places, not their contents: what autograd has saved in a forward stays what the
    forward used, also when the backward runs after the patch is gone.

    Args:
        model: The backbone's model.
        state: Parameter name -> tensor of the same shape.

    Raises:
        IsoglossError: The model has no parameter of a name.
    """

    def __init__(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        # Tied weights are one parameter in several places; every place must change.
        places: dict[int, list[tuple[nn.Module, str]]] = {}
        for module in model.modules():
            for attribute, parameter in module._parameters.items():
                if parameter is not None:
                    places.setdefault(id(parameter), []).append((module, attribute))
        named = dict(model.named_parameters(remove_duplicate=False))
        unknown = [name for name in state if name not in named]
        if unknown:
            raise IsoglossError(
                f"A module carries a changed backbone weight '{unknown[0]}', but the backbone has none of that name; "
                "load the backbone that the module was made for."
            )
        self._swaps = [(places[id(named[name])], tensor) for name, tensor in state.items()]
        self._ready: list[nn.Parameter | None] = [None] * len(self._swaps)
        self._depth = 0

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within it the model computes with the changed weights; may be nested."""
        if self._depth:
            yield
            return
        kept: list[tuple[nn.Module, str, nn.Parameter | None]] = []
        self._depth += 1
        try:
            for number, (places, tensor) in enumerate(self._swaps):
                for module, attribute in places:
                    own = module._parameters[attribute]
                    assert own is not None
                    kept.append((module, attribute, own))
                    module._parameters[attribute] = self._like(number, tensor, own)
            yield
        finally:
            for module, attribute, own in reversed(kept):
                module._parameters[attribute] = own
            self._depth -= 1

    def _like(self, number: int, tensor: Tensor, own: nn.Parameter) -> nn.Parameter:
        ready = self._ready[number]
        if ready is None or ready.dtype != own.dtype or ready.device != own.device:
            ready = nn.Parameter(tensor.detach().to(own.device, own.dtype), requires_grad=False)
            self._ready[number] = ready
        return ready
