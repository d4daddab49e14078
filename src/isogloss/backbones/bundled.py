"""The backbones that travel with the package: one of each kind, and an encoder with a prompt pool."""

from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.storage import package_data

_FOLDER = package_data() / "backbones"


def bundled_names() -> tuple[str, ...]:
    """Names of the bundled backbones that are installed, as `bundled:...`."""
    if not _FOLDER.is_dir():
        return ()
    return tuple(f"bundled:{path.name}" for path in sorted(_FOLDER.iterdir()) if (path / "config.json").is_file())


def bundled_folder(name: str) -> Path:
    """Returns the folder of a bundled backbone.

    Raises:
        IsoglossError: There is none of that name.
    """
    folder = _FOLDER / name.removeprefix("bundled:")
    if not (folder / "config.json").is_file():
        raise IsoglossError(
            f"There is no bundled backbone '{name}'; the bundled ones are {', '.join(bundled_names()) or 'none'}."
        )
    return folder
