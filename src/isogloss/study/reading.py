"""Study files: YAML with includes, environment variables and overrides; every error names file and line."""

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from isogloss.errors import IsoglossError
from isogloss.storage.plain_yaml import PlainLoader
from isogloss.study.spec import Grid, Study

_VARIABLE = re.compile(r"\$\{(\w+)(?::([^}]*))?\}")
_INCLUDE = "include"
Place = tuple[str | int, ...]


@dataclass
class Marks:
    """Where each value of a study came from: path of keys -> `file, line n`."""

    where: dict[Place, str] = field(default_factory=dict)
    root: str = "The study"

    def at(self, path: Sequence[str | int]) -> str:
        """The place of the value, or of what holds it."""
        found = tuple(path)
        while found and found not in self.where:
            found = found[:-1]
        return self.where.get(found, self.root)

    def of_addition(self, number: int, axes: Iterable[str]) -> "Marks":
        """The places as they are for the grid of an entry of `add`, which replaces some axes."""
        replaced = {(axis,) for axis in axes}
        where = {path: at for path, at in self.where.items() if path[:1] != ("grid",) or path[1:2] not in replaced}
        where |= {
            ("grid", *path[2:]): at for path, at in self.where.items() if path[:2] == ("add", number) and path[2:]
        }
        return Marks(where, self.root)


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Advice on an unknown name: the valid one that looks like it, else `otherwise` and all of them."""
    valid = list(known)
    near = difflib.get_close_matches(name, valid, n=1)
    return f"did you mean '{near[0]}'" if near else f"{otherwise} {', '.join(valid)}"


def read_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Reads and checks a study file.

    Args:
        path: A YAML file; `include: FILE` (or a list) in it puts other files below it, mappings merged, lists replaced.
        overrides: `key.path=value`, the value as YAML.

    Raises:
        IsoglossError: Not YAML, a cycle of includes, an unknown key (the nearest valid one is named), a bad value.
    """
    return read_marked(path, overrides)[0]


def read_marked(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Study, Marks]:
    """As `read_study`, with the places of all values for later errors."""
    source = Path(path)
    marks = Marks(root=f"The study '{source}'")
    content = _load(source, marks, ())
    for text in overrides:
        _override(content, text, marks)
    _check_variables(content, (), marks)
    _check_keys(content, Study, (), marks)
    added = content.get("add")
    for number, extra in enumerate(added if isinstance(added, list) else ()):
        _check_keys(extra, Grid, ("add", number), marks)
    try:
        return Study(**content), marks
    except ValidationError as problem:
        raise IsoglossError(_explain(problem, marks)) from problem


def _load(source: Path, marks: Marks, above: tuple[Path, ...], asked: str = "") -> dict[str, Any]:
    place = source.resolve()
    if place in above:
        chain = " -> ".join(str(item.name) for item in (*above[above.index(place) :], place))
        raise IsoglossError(f"{asked} includes itself: {chain}; take one of the includes out.")
    try:
        text = source.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as problem:
        missing = f"{asked} includes '{source}', which" if asked else f"The study '{source}'"
        raise IsoglossError(f"{missing} does not exist; see the folder recipes/study/ for examples.") from problem
    except UnicodeDecodeError as problem:
        raise IsoglossError(f"The study '{source}' is not UTF-8 text; save it as UTF-8.") from problem
    own = Marks(root=marks.root)
    try:
        node = yaml.compose(text, Loader=PlainLoader)
        content = _build(node, (), own, source) if node is not None else {}
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        raise IsoglossError(
            f"The study '{source}'{line} is not YAML: {getattr(problem, 'problem', None) or problem}; check the indentation "
            "and the colons there."
        ) from problem
    if not isinstance(content, dict):
        raise IsoglossError(f"The study '{source}' must be a mapping of keys to values; see recipes/study/.")
    included = content.pop(_INCLUDE, [])
    merged: dict[str, Any] = {}
    for number, name in enumerate(included if isinstance(included, list) else [included]):
        below = _load(source.parent / str(name), marks, (*above, place), own.at((_INCLUDE, number)))
        merged = _merge(merged, below)
    marks.where.update(own.where)
    return _merge(merged, content)


def _build(node: Any, path: Place, marks: Marks, source: Path, above: tuple[int, ...] = ()) -> Any:
    """Plain values of a YAML node, and the line of each; `above` are the nodes that hold it."""
    marks.where[path] = f"The study '{source}', line {node.start_mark.line + 1},"
    if id(node) in above:
        raise IsoglossError(
            f"{marks.where[path]} starts a value that holds itself by an alias (`*name`); write out what is meant instead."
        )
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if key in found:
                raise IsoglossError(
                    f"The study '{source}', line {key_node.start_mark.line + 1}, has the key '{key}' twice; keep one of them."
                )
            found[key] = _build(value_node, (*path, key), marks, source, above)
            marks.where[(*path, key)] = f"The study '{source}', line {key_node.start_mark.line + 1},"
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, number), marks, source, above) for number, item in enumerate(node.value)]
    value = _scalar(node)
    return _expand(value) if isinstance(value, str) else value


def _scalar(node: Any) -> Any:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    finally:
        loader.dispose()


def _expand(text: str) -> str:
    """Text with its variables filled in; those that are not set and have no default stay as they are."""
    return _VARIABLE.sub(lambda match: os.environ.get(match[1], match[0] if match[2] is None else match[2]), text)


def _check_variables(content: Any, path: Place, marks: Marks) -> None:
    """Refuses variables that were left; not before all overrides, since one may have replaced the value."""
    if isinstance(content, dict):
        for key, value in content.items():
            _check_variables(value, (*path, key), marks)
    elif isinstance(content, list):
        for number, value in enumerate(content):
            _check_variables(value, (*path, number), marks)
    elif isinstance(content, str) and (left := _VARIABLE.search(content)):
        raise IsoglossError(
            f"{marks.at(path)} uses the environment variable {left[1]}, which is not set; set it, or write a default: "
            f"${{{left[1]}:...}}."
        )


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _override(content: dict[str, Any], text: str, marks: Marks) -> None:
    key, equals, value = text.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise IsoglossError(f"--set {text}: expected KEY.PATH=VALUE, such as --set grid.seed=[1,2,3].")
    try:
        node = yaml.compose(value, Loader=PlainLoader)
    except yaml.YAMLError as problem:
        raise IsoglossError(
            f"--set {text}: the value is not YAML ({getattr(problem, 'problem', problem)}); quote it."
        ) from problem
    own = Marks()
    parsed = None if node is None else _build(node, tuple(path), own, Path("--set"))
    here: Any = content
    for part in path[:-1]:
        here = here.setdefault(part, {}) if isinstance(here, dict) else None
        if not isinstance(here, dict):
            raise IsoglossError(f"--set {text}: '{part}' holds a value and no keys; name the key that is to change.")
    here[path[-1]] = parsed
    for place in [place for place in marks.where if place[: len(path)] == tuple(path)]:
        del marks.where[place]
    for place in own.where or {tuple(path): ""}:
        marks.where[place] = f"--set {text}:"


def _check_keys(content: Any, model: type[BaseModel], path: Place, marks: Marks) -> None:
    """Refuses unknown keys with the nearest valid one, before pydantic counts them up."""
    if not isinstance(content, Mapping):
        return
    for key, value in content.items():
        info = model.model_fields.get(key)
        if info is None:
            known = list(model.model_fields)
            hint = nearest(str(key), known, "the keys here are")
            name = ".".join(str(part) for part in (*path, key))
            raise IsoglossError(f"{marks.at((*path, key))} has the unknown key '{name}'; {hint}.")
        for inner, within, item in _inner(info.annotation, (*path, key), value):
            _check_keys(item, inner, within, marks)


def _inner(annotation: Any, path: Place, value: Any) -> list[tuple[type[BaseModel], Place, Any]]:
    """The parts of a value that are described by a model of their own."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, path, value)]
    arguments = [item for item in get_args(annotation) if isinstance(item, type) and issubclass(item, BaseModel)]
    if not arguments:
        return []
    if get_origin(annotation) is dict and isinstance(value, Mapping):
        return [(arguments[0], (*path, key), item) for key, item in value.items()]
    if get_origin(annotation) is list and isinstance(value, Mapping):
        return [(arguments[0], path, value)]
    if get_origin(annotation) is list and isinstance(value, list):
        return [(arguments[0], (*path, number), item) for number, item in enumerate(value)]
    return []


def _explain(problem: ValidationError, marks: Marks) -> str:
    first = problem.errors()[0]
    # Branches of unions stand in the location too; they are no keys of the file.
    path = [
        part for part in first["loc"] if not (isinstance(part, str) and re.search(r"[\[\]()]|^(str|int|dict)$", part))
    ]
    name = ".".join(str(part) for part in path)
    if first["type"] == "missing":
        return f"{marks.at(path[:-1])} lacks the key '{name}'; add it (docs/studies.md)."
    reason = str(first["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    reason = "must hold at least one value" if first["type"] == "too_short" else reason[:1].lower() + reason[1:]
    return f"{marks.at(path)} has a wrong value for '{name}' ({first['input']!r}): it {reason}."
