"""Update rules, one file each: what decides how far each group of weights moves."""

from isogloss.meta.rules._base import Rule, State
from isogloss.meta.rules.registry import CONTROLS, LEARNED, RULES, control_options, control_rule, is_control, make_rule

__all__ = [
    "CONTROLS",
    "LEARNED",
    "RULES",
    "Rule",
    "State",
    "control_options",
    "control_rule",
    "is_control",
    "make_rule",
]
