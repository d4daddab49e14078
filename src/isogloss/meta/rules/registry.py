"""All update rules by name."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.meta.rules._base import Rule, known_options
from isogloss.meta.rules.controls import AllOpen, AllShut, BottomFrozen, RandomGates
from isogloss.meta.rules.lstm_gates import LSTMGates
from isogloss.meta.rules.meta_sgd import MetaSGD
from isogloss.meta.rules.recurrent import RecurrentGates
from isogloss.meta.rules.static_gates import StaticGates
from isogloss.meta.rules.step_gates import StepGates

RULES: dict[str, type[Rule]] = {
    rule.method: rule
    for rule in (
        StaticGates,
        StepGates,
        LSTMGates,
        RecurrentGates,
        MetaSGD,
        AllOpen,
        AllShut,
        BottomFrozen,
        RandomGates,
    )
}
LEARNED = tuple(name for name, rule in RULES.items() if rule.learned)
CONTROLS = tuple(name for name, rule in RULES.items() if not rule.learned)


def make_rule(method: str, groups: Sequence[str], layers: Sequence[int], **options: Any) -> Rule:
    """Builds a rule.

    Args:
        method: Key of `RULES`.
        groups: Labels, from the lowest layer up.
        layers: Layer number of each.
        **options: Of the rule.

    Raises:
        IsoglossError: An unknown rule, option or value.
    """
    if method not in RULES:
        raise IsoglossError(f"The update rule '{method}' is unknown; use one of {', '.join(RULES)}.")
    known = list(inspect.signature(RULES[method].__init__).parameters)[3:]
    known_options(method, options, known)
    try:
        return RULES[method](groups, layers, **options)
    except (TypeError, ValueError) as problem:
        raise IsoglossError(
            f"An option of the update rule '{method}' has a value of the wrong kind: {problem}."
        ) from problem


def control_rule(text: str, groups: Sequence[str], layers: Sequence[int]) -> Rule:
    """Builds a control from `all-open`, `all-shut`, `bottom:N`, `random:MEAN` or `random:MEAN:SEED`.

    Raises:
        IsoglossError: The text is none of these.
    """
    options = control_options(text)
    return make_rule(text.partition(":")[0], groups, layers, **options)


def control_options(text: str) -> Mapping[str, Any]:
    """The options in the text of a control, without building it; see `control_rule`."""
    name, *values = text.split(":")
    try:
        match name, values:
            case (("all-open" | "all-shut"), []):
                return {}
            case "bottom", [blocks]:
                return {"blocks": int(blocks)}
            case "random", [mean]:
                return {"mean": float(mean)}
            case "random", [mean, seed]:
                return {"mean": float(mean), "seed": int(seed)}
    except ValueError:
        pass
    raise IsoglossError(
        f"The update rule '{text}' is neither a folder of `isogloss meta learn` nor a control; controls are all-open, "
        "all-shut, bottom:N (N blocks frozen) and random:MEAN[:SEED]."
    )


def is_control(text: str) -> bool:
    """Whether a text begins with the name of a control."""
    return text.partition(":")[0] in CONTROLS
