"""Where what travels with the package is."""

from importlib.resources import files
from pathlib import Path


def package_data() -> Path:
    """The folder of what travels with the package: backbones, modules, labelled data, text."""
    return Path(str(files("isogloss"))) / "data"
