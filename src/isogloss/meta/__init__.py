"""Meta-learning: update rules and starts learned by simulating zero-shot transfer (design 5.5, S4)."""

from isogloss.meta.applied import open_update
from isogloss.meta.base_steps import BaseStep
from isogloss.meta.groups import FastWeights, fast_weights
from isogloss.meta.learn import learn_rule
from isogloss.meta.rules import RULES, Rule, make_rule
from isogloss.meta.saved import RuleRecord, load_rule, read_rule, save_rule
from isogloss.meta.stage import STARTS, MetaStage
from isogloss.meta.start import learn_start

__all__ = [
    "RULES",
    "STARTS",
    "BaseStep",
    "FastWeights",
    "MetaStage",
    "Rule",
    "RuleRecord",
    "fast_weights",
    "learn_rule",
    "learn_start",
    "load_rule",
    "make_rule",
    "open_update",
    "read_rule",
    "save_rule",
]
