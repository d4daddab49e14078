"""What every module has in common: a frozen config, named groups of tensors, actions, and facts about its training."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, cast

from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.modules.actions import Action

Role = Literal["language", "task", "shared", "backbone"]


@dataclass(frozen=True)
class ModuleConfig:
    """Base of all module configs. Subclasses are frozen dataclasses of plain values."""

    method: ClassVar[str]


@dataclass
class ModuleInfo:
    """What a saved module says about itself besides its config.

    Attributes:
        role: Whether it stands for a language or for a task; `shared` is learned from text of several languages and used
            under all of them, `backbone` is a backbone's own part.
        language: Code of the language (role language), or of the source language (role task).
        task: Name of the task (role task).
        backbone: Name of the backbone it was trained on.
        fingerprint: Fingerprint of that backbone.
        head: How the task predicts and what that needs (labels, label words, template); JSON.
        training: Facts of the training: data, steps, seed, seconds, the language module it stood on; JSON.
        scores: Metrics measured on it; JSON.
    """

    role: Role = "task"
    language: str | None = None
    task: str | None = None
    backbone: str = ""
    fingerprint: str = ""
    head: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Language or task, as the stack notation writes it."""
        return {"language": self.language, "task": self.task}.get(self.role) or self.role


class TransferModule(nn.Module):
    """A small trainable part.

    Tensors live in named groups; an action names the group that it uses, so that a bank can stack the groups of K
    modules and gather them per row.

    Attributes:
        config: How it is built.
        info: Role, language or task, backbone, training facts.
        head: A task head with weights that is saved with this module, or None.
        head_state: Weights of the head as loaded from a saved module; the task stage rebuilds the head from
            `info.head` and these.
        digest: SHA-256 of the tensor file it was loaded from, or "".
        backbone_state: Changed backbone weights by parameter name (unfrozen training), or None.
    """

    method: ClassVar[str]

    def __init__(self, config: ModuleConfig) -> None:
        super().__init__()
        self.config = config
        self.info = ModuleInfo()
        self.groups = nn.ModuleDict()
        self.head: nn.Module | None = None
        self.head_state: dict[str, Tensor] = {}
        self.backbone_state: dict[str, Tensor] | None = None
        self.digest = ""

    def actions(self) -> Sequence[Action]:
        """What this module does, and where."""
        raise NotImplementedError

    def weights(self, group: str) -> dict[str, Tensor]:
        """The tensors of one group, by name."""
        return dict(self._tensors(group).items())

    def _tensors(self, group: str) -> nn.ParameterDict:
        return cast(nn.ParameterDict, self.groups[group])

    def is_trained(self, group: str) -> bool:
        """Whether anything that the group's weights are made of has gradients on."""
        return any(tensor.requires_grad for tensor in self._tensors(group).values())

    def route_of(self, language: str) -> int | None:
        """What a batch's routes say under this module's slot for a text of a language; None when it does not ask."""
        return None

    def folded(self) -> "TransferModule":
        """The module as it is saved: without parts that only training needs."""
        return self

    def weight_tensors(self) -> dict[str, Tensor]:
        """All tensors of the groups under the names they are saved by (`group.tensor`)."""
        return {f"{group}.{name}": tensor for group in self.groups for name, tensor in self._tensors(group).items()}

    @property
    def shape_key(self) -> tuple[Any, ...]:
        """Equal for modules that can share a bank: same method, same tensors, same actions."""
        shapes = tuple(sorted((name, tuple(tensor.shape)) for name, tensor in self.weight_tensors().items()))
        return (self.method, shapes, self.behaviour())

    def behaviour(self) -> tuple[Any, ...]:
        """The config values that change what the actions compute (not those that only set initial values)."""
        return tuple(sorted((key, str(value)) for key, value in asdict(self.config).items()))


def block_counts(backbone: Backbone, sides: Sequence[str] | None) -> list[tuple[str, int, int]]:
    """Lists (side, block, running number over all sides) for the sides asked for, encoder first.

    The running number is how `leave_out` and AdapterHub count: a decoder's blocks follow the encoder's.
    """
    counted = []
    number = 0
    for side in backbone.sites.sides:
        for block in range(len(backbone.sites.blocks[side])):
            if sides is None or side in sides:
                counted.append((side, block, number))
            number += 1
    return counted
