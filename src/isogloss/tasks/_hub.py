"""Labelled data sets from the Hugging Face Hub, through ``datasets``."""

import re
from collections.abc import Iterator
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.tasks._rows import RawRow

_HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def is_hub_id(data: str) -> bool:
    """Whether ``data`` can name a Hub data set: ``hub:ID``, or ``name`` or ``owner/name`` that is no path."""
    return data.startswith("hub:") or (_HUB_ID.match(data) is not None and not data.startswith("."))


def hub_id(data: str) -> str:
    """The id without the ``hub:`` in front."""
    return data.removeprefix("hub:")


def _fail(data: str, error: Exception) -> IsoglossError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return IsoglossError(
        f"--data {data}: there is no such folder here, and as a Hub data set it cannot be loaded ({reason}); "
        "give a folder DIR/<language>/<split>.jsonl, bundled:parallel, or a Hub id that you can reach."
    )


def configs(data: str) -> list[str]:
    """Configuration names of a Hub data set, which are its languages in most multilingual sets."""
    try:
        from datasets import get_dataset_config_names

        return [str(name) for name in get_dataset_config_names(hub_id(data))]
    except Exception as error:  # the Hub client raises many kinds, network errors among them
        raise _fail(data, error) from error


def splits(data: str, config: str) -> list[str]:
    """Split names of one configuration."""
    try:
        from datasets import get_dataset_split_names

        return [str(name) for name in get_dataset_split_names(hub_id(data), config)]
    except Exception as error:
        raise _fail(data, error) from error


def rows(data: str, config: str, split: str) -> Iterator[RawRow]:
    """Rows of one split, with class numbers put back into the names that the data set gives them."""
    try:
        from datasets import load_dataset

        loaded: Any = load_dataset(hub_id(data), config, split=split)
    except Exception as error:
        raise _fail(data, error) from error
    yield from dataset_rows(loaded, f"{hub_id(data)} {config}/{split}")


def dataset_rows(loaded: Any, where: str) -> Iterator[RawRow]:
    """Rows of a ``datasets.Dataset``."""
    names: dict[str, tuple[str, ...]] = {}
    for column, feature in loaded.features.items():
        inner = getattr(feature, "feature", feature)
        labels = getattr(inner, "names", None)
        if labels is not None:
            names[column] = tuple(labels)
    for number, row in enumerate(loaded):
        values = {key: _named(value, names[key]) if key in names else value for key, value in row.items()}
        yield RawRow(f"{where} row {number + 1}", number, values)


def _named(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value
