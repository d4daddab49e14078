"""What the commands that train on labelled text read and check before they load a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.cli._console import say
from isogloss.cli._inputs import json_pairs, language
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.tasks import Example, Task


def head_options(given: list[str] | None, max_length: int | None) -> dict[str, Any]:
    """The options of `--head-option`, and `--max-length`, which is one too."""
    options = json_pairs(given, "--head-option")
    return options if max_length is None else {**options, "max_length": max_length}


def read_sources(
    data: str, names: Sequence[str], split: str, task: "Task", bad_rows: str, limit: int | None
) -> list["Example"]:
    """One split of several languages, one after the other."""
    from isogloss.tasks import read

    examples: list[Example] = []
    for name in names:
        _known(data, name)
        examples += read(data, name, split, task, bad_rows=bad_rows, limit=limit).examples  # type: ignore[arg-type]
    return examples


def _known(data: str, name: str) -> None:
    """Refuses a source that is neither a language nor the exact name of a folder."""
    if not (Path(data) / name).is_dir():
        language(name, "--source")


def read_dev(
    data: str, names: Sequence[str], split: str, task: "Task", bad_rows: str, limit: int | None
) -> list["Example"]:
    """Source dev data; data sets without any are trained on without choosing the best weights."""
    from isogloss.tasks import canonical_split, splits

    if split == "none":
        return []
    lacking = [name for name in names if canonical_split(split) not in map(canonical_split, splits(data, name))]
    if lacking and split == "dev":
        say(f"note: {data} has no dev split for {', '.join(lacking)}, so the last weights are kept")
        names = [name for name in names if name not in lacking]
    try:
        return read_sources(data, names, split, task, bad_rows, limit)
    except IsoglossError as problem:
        reason = str(problem).rstrip(".")
        raise IsoglossError(
            f"{reason}; name another split for the choice of the best weights, or --split-dev none."
        ) from problem


def check_language_modules(folders: Sequence[str], sources: Sequence[str]) -> None:
    """Refuses, before a model is loaded, modules that are not those of the source languages."""
    from isogloss.formats import read_info

    codes = []
    for folder in folders:
        info = read_info(folder).info
        if info.role == "shared":
            continue
        if info.role != "language" or not info.language:
            raise IsoglossError(f"--language-module {folder}: this is a task module; give a language module.")
        codes.append(info.language)
    lacking = [code for code in sources if code not in codes]
    if codes and lacking:
        raise IsoglossError(
            f"--language-module: none of those given is for the source {', '.join(lacking)} "
            f"(they are for {', '.join(codes)}); give one for every source language, or none at all."
        )


def check_prompts(folders: Sequence[str]) -> None:
    """Refuses `--double-language-prompt` without a language prompt."""
    from isogloss.formats import read_info

    if not any(read_info(folder).config.method == "prompt" for folder in folders):
        raise IsoglossError(
            "--double-language-prompt: there is no language prompt to feed twice; give one with --language-module."
        )
