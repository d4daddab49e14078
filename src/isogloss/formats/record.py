"""What is known of a saved module without its weights."""

from dataclasses import dataclass
from pathlib import Path

from isogloss.modules import ModuleConfig, ModuleInfo

FORMAT = 1
MODULE_FILE = "module.json"
TENSOR_FILE = "module.safetensors"
CARD_FILE = "README.md"


@dataclass(frozen=True)
class SavedModule:
    """What `module.json` of one folder says.

    Attributes:
        folder: Where it lies.
        method: Name in the registry of methods.
        config: How it is built.
        info: Role, language or task, backbone, head, training facts, scores.
        version: The isogloss that saved it.
        digest: SHA-256 of its tensor file.
        parameters: Numbers in the tensor file, head and backbone weights included.
    """

    folder: Path
    method: str
    config: ModuleConfig
    info: ModuleInfo
    version: str
    digest: str
    parameters: int
