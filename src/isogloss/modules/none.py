"""No module at all: a task that trains only its head, or the whole backbone (the baselines)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from isogloss.backbones import Backbone
from isogloss.modules.actions import Action
from isogloss.modules.base import ModuleConfig, TransferModule


@dataclass(frozen=True)
class NoneConfig(ModuleConfig):
    """Nothing to configure."""

    method: ClassVar[str] = "none"


class NoModule(TransferModule):
    """Holds a task head or changed backbone weights, and acts nowhere."""

    method = "none"

    def __init__(self, config: NoneConfig, backbone: Backbone, generator: torch.Generator) -> None:
        super().__init__(config)

    def actions(self) -> Sequence[Action]:
        """No actions."""
        return []
