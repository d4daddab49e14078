"""Modules: small trainable parts, one method a file; a new method is one file and one line in `METHODS`."""

from isogloss.modules.actions import (
    Action,
    BlockAction,
    EmbeddingAction,
    InsertionAction,
    LinearAction,
    PromptAction,
    PromptText,
    RetrievalAction,
    Retrieved,
    Weights,
)
from isogloss.modules.base import ModuleConfig, ModuleInfo, TransferModule
from isogloss.modules.bottleneck import BottleneckAdapter, BottleneckConfig
from isogloss.modules.invertible import InvertibleAdapter, InvertibleConfig
from isogloss.modules.low_rank import LowRank, LowRankConfig
from isogloss.modules.none import NoModule, NoneConfig
from isogloss.modules.pool import PoolConfig, PromptPool
from isogloss.modules.prompt import PromptConfig, SoftPrompt
from isogloss.modules.registry import METHODS, config_from_dict, create_module, format_module, parse_module

__all__ = [
    "METHODS",
    "Action",
    "BlockAction",
    "BottleneckAdapter",
    "BottleneckConfig",
    "EmbeddingAction",
    "InsertionAction",
    "InvertibleAdapter",
    "InvertibleConfig",
    "LinearAction",
    "LowRank",
    "LowRankConfig",
    "ModuleConfig",
    "ModuleInfo",
    "NoModule",
    "NoneConfig",
    "PoolConfig",
    "PromptAction",
    "PromptConfig",
    "PromptPool",
    "PromptText",
    "RetrievalAction",
    "Retrieved",
    "SoftPrompt",
    "TransferModule",
    "Weights",
    "config_from_dict",
    "create_module",
    "format_module",
    "parse_module",
]
