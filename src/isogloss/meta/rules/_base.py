"""What every update rule has in common."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from isogloss.errors import IsoglossError
from isogloss.meta.features import Features

State = dict[str, Tensor]


class Rule(nn.Module):
    """A meta-optimiser: one gate a group and step, theta_l <- theta_l - g_l u_l (design 5.5).

    Args:
        groups: Labels of the groups, from the lowest layer up.
        layers: Layer number of each group (`FastWeights.layers`).
    """

    method: ClassVar[str]
    # Whether `gates` looks at the features; those that do not save their computation.
    sees_features: ClassVar[bool] = False
    learned: ClassVar[bool] = True
    # Whether all steps of a fine-tuning have the same gates.
    steady: ClassVar[bool] = False

    def __init__(self, groups: Sequence[str], layers: Sequence[int]) -> None:
        super().__init__()
        if len(groups) != len(layers) or not groups:
            raise IsoglossError("An update rule needs at least one group, and a layer number for each.")
        self.groups, self.layers = tuple(groups), tuple(layers)

    def options(self) -> dict[str, Any]:
        """Keyword arguments that build the same rule; JSON values."""
        return {}

    def begin(self) -> State:
        """Hidden state before the first step of a fine-tuning; names to tensors of fixed shapes."""
        return {}

    def gates(self, features: Features | None, progress: float, state: State) -> tuple[Tensor, State]:
        """The gates of one step, [G], and the hidden state after it.

        Args:
            features: None where `sees_features` is false.
            progress: Share of the fine-tuning that is done, 0 to 1.
            state: From `begin` or the step before.
        """
        raise NotImplementedError


def logit(probability: float, name: str) -> float:
    """Inverse of the sigmoid.

    Raises:
        IsoglossError: Not inside (0, 1).
    """
    if not 0.0 < probability < 1.0:
        raise IsoglossError(f"The option {name}={probability} of the update rule must lie between 0 and 1.")
    return math.log(probability / (1.0 - probability))


def known_options(method: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuses options that a rule does not have.

    Raises:
        IsoglossError: Names the first one.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        listed = f"its options are {', '.join(known)}" if known else "it has no options"
        raise IsoglossError(f"The update rule '{method}' has no option '{unknown[0]}'; {listed}.")
