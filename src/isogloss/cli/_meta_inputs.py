"""Inputs of `isogloss meta learn` that need no model: recipes, languages, and which split teaches."""

from pathlib import Path
from typing import Any

import typer

from isogloss.cli._console import say
from isogloss.cli._inputs import language, language_name
from isogloss.errors import IsoglossError


def read_recipe(context: typer.Context, value: Path | None) -> Path | None:
    """Makes the options of a recipe the defaults of this call."""
    if value is None:
        return None
    import yaml

    try:
        content: Any = yaml.safe_load(value.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else " ".join(str(problem).split())
        raise IsoglossError(
            f"--recipe {value}: the file cannot be read ({reason}); give a YAML file of options."
        ) from problem
    known = {parameter.name for parameter in context.command.params} - {"recipe", "help"}
    if not isinstance(content, dict):
        raise IsoglossError(f"--recipe {value}: expected one `option: value` a line.")
    unknown = [str(name) for name in content if name not in known]
    if unknown:
        raise IsoglossError(f"--recipe {value}: `isogloss meta learn` has no option '{unknown[0]}'; see its --help.")
    listed = {parameter.name for parameter in context.command.params if getattr(parameter, "multiple", False)}
    context.default_map = {
        name: [item] if name in listed and not isinstance(item, list) else item for name, item in content.items()
    }
    return value


def codes_of(data: str, names: list[str], option: str) -> list[str]:
    """Codes of languages as the data set knows them."""
    from isogloss.tasks import available

    folders = {folder: code for code, folder in available(data).items()}
    return [folders.get(name) or language(name, option).code for name in names]


def auxiliary_split(data: str, names: list[str], wanted: list[str]) -> str:
    """The first of the wanted splits that every auxiliary has.

    Raises:
        IsoglossError: An auxiliary has none of them.
    """
    from isogloss.tasks import available, canonical_split, splits

    there = available(data)
    found: dict[str, list[str]] = {}
    for name in names:
        code = name if name in there.values() else language(name, "--auxiliary").code
        folder = there.get(code, code)
        found[name] = list(map(canonical_split, splits(data, folder))) if folder in there.values() else []
        if not set(map(canonical_split, wanted)) & set(found[name]):
            have = f"it has {', '.join(found[name])}" if found[name] else f"{data} has no folder for it"
            raise IsoglossError(
                f"--auxiliary {name}: there are no labelled {' or '.join(wanted)} data of {language_name(code)} ({have}); take "
                "another language, or name another split by --split-auxiliary."
            )
    shared = [split for split in wanted if all(canonical_split(split) in splits_ for splits_ in found.values())]
    if not shared:
        raise IsoglossError(
            f"--auxiliary: no split among {' and '.join(wanted)} is there for all of {', '.join(names)}; name one by "
            "--split-auxiliary."
        )
    if shared[0] != wanted[0]:
        say(f"note: not every auxiliary has a {wanted[0]} split, so their {shared[0]} split is learned from")
    return shared[0]
