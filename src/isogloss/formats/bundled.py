"""Modules that travel with the package, by name: `bundled:encoder/adapter/sk` for `data/modules/encoder/adapter/slk_Latn`."""

from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.storage import package_data

_FOLDER = package_data() / "modules"
_PREFIX = "bundled:"


def module_place(folder: str | Path) -> Path:
    """The folder of a module that is named by its path, or by `bundled:KIND/METHOD/LANGUAGE`.

    Raises:
        IsoglossError: No bundled module has that name.
    """
    name = str(folder)
    if not name.startswith(_PREFIX):
        return Path(folder)
    parts = name.removeprefix(_PREFIX).split("/")
    if len(parts) == 3:
        parts[2] = resolve(parts[2]).code
    place = _FOLDER.joinpath(*parts)
    if ".." in parts or not (place / "module.json").is_file():
        there = sorted({str(found.parent.parent.relative_to(_FOLDER)) for found in _FOLDER.glob("*/*/*/module.json")})
        raise IsoglossError(
            f"No bundled module is named '{name}'; there is bundled:{{{','.join(there)}}}/LANGUAGE for the backbone's languages."
        )
    return place
