"""Making the module that a stage trains, also from what an earlier training left."""

from collections.abc import Sequence
from typing import Any

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module
from isogloss.modules import ModuleConfig, PromptConfig, SoftPrompt, TransferModule, create_module


def new_module(config: ModuleConfig, backbone: Backbone, *, seed: int, labels: Sequence[str] = ()) -> TransferModule:
    """Builds a fresh module; a prompt may start from class labels or from a saved prompt (transfer initialisation).

    Args:
        config: From `parse_module`.
        backbone: Where it will act.
        seed: Of its initial values.
        labels: Names of the classes, for `init=labels`.

    Raises:
        IsoglossError: The saved prompt is none, or belongs to another backbone.
    """
    if not isinstance(config, PromptConfig):
        return create_module(config, backbone, seed=seed)
    extra: dict[str, Any] = {"labels": labels}
    if config.init == "prompt":
        saved = load_module(config.source, backbone)
        if not isinstance(saved, SoftPrompt):
            raise IsoglossError(
                f"The prompt cannot start from '{config.source}', which holds the method '{saved.method}'; name a saved prompt."
            )
        vectors = saved.vectors(saved.weights("prompt")).detach().cpu()
        extra["vectors"] = vectors.repeat(config.length // len(vectors) + 1, 1)[: config.length]
    return create_module(config, backbone, seed=seed, **extra)
