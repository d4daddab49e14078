"""How something outside the fit loop takes part in its steps: learned update rules and learned starts (meta)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from isogloss.backbones import Backbone
from isogloss.modules import ModuleConfig, TransferModule
from isogloss.tasks import Task

if TYPE_CHECKING:
    from isogloss.training.task_stage import TaskStage


class UpdateStep(Protocol):
    """Takes an optimiser's step in its own way; also an `nn.Module` whose buffers are what checkpoints must hold."""

    def step(self, optimiser: Optimizer, loss: Tensor, progress: float) -> None:
        """Moves the weights, with gradients in place and clipped.

        Args:
            optimiser: Whose step it is.
            loss: Mean loss of the step, a scalar.
            progress: Share of the training that is done, 0 to 1.
        """
        ...


class Update(Protocol):
    """What `--update` brings into a task stage.

    Attributes:
        seen: Codes of the languages whose labels took part in learning it.
        facts: What it is, for the record and for the identity of checkpoints; JSON.
    """

    seen: Sequence[str]
    facts: Mapping[str, Any]

    def prepare(self, backbone: Backbone, task: Task, config: ModuleConfig, stage: "TaskStage") -> "TaskStage":
        """Refuses what it was not learned for, and fills in what the stage leaves open."""
        ...

    def begin(self, backbone: Backbone, module: TransferModule, head: nn.Module, stage: "TaskStage") -> None:
        """Sets initial weights, if it brings any."""
        ...

    def attach(self, parts: Mapping[str, nn.Module], backbone: Backbone) -> UpdateStep | None:
        """The step for weights that are about to be trained; None leaves the optimiser's own."""
        ...
