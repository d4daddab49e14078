"""From a study file to its points: the product of the axes that each cell uses, less the exclusions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import product
from typing import Any

from pydantic import ValidationError

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.study.reading import Marks, nearest
from isogloss.study.spec import Grid, Scalar, Study

# Letter of a part in a cell's name -> axis suffix.
_PARTS = {"A": "adapter", "P": "prompt", "R": "lora", "C": "custom"}
_PLAIN = {"head": True, "base": True, "full": False}
_PROMPT_AXES = ("placement", "length", "reparameterisation")
_ALWAYS = ("backbone", "freeze", "pool", "update", "task", "source", "shots", "seed")
_ADVICE = "use head, full, or parts such as LA+TA, LP+TP, TA (A adapter, P prompt, R LoRA, C custom)"


@dataclass(frozen=True)
class Cell:
    """A composition.

    Attributes:
        name: As written.
        language, task: Axis of each part, or None.
        frozen: What `freeze` is forced to, or None.
    """

    name: str
    language: str | None
    task: str | None
    frozen: bool | None


@dataclass(frozen=True)
class Point:
    """One way to do a task: everything that the grid decides. `None` where a choice has no meaning."""

    backbone: str
    cell: str
    language_module: str | None
    task_module: str
    freeze: bool
    pool: str
    update: str
    task: str
    source: tuple[str, ...]
    shots: int | None
    seed: int
    language_seed: int | None

    def factors(self) -> dict[str, Scalar]:
        """The choices as the report shows them."""
        config = _parsed(self.task_module)
        found: dict[str, Scalar] = {
            item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("task", "source", "seed")
        }
        found["language_module"] = self.language_module or "none"
        if config.method == "prompt":
            found |= {name: getattr(config, name) for name in _PROMPT_AXES}
        return found


@cache
def parse_cell(name: str) -> Cell:
    """Reads a cell's name.

    Raises:
        IsoglossError: It is none.
    """
    if name in _PLAIN:
        return Cell(name, None, None, None if name != "full" else False)
    language = task = None
    for part in name.split("+"):
        role, letter = part[:1], part[1:]
        if letter not in _PARTS or (role == "L" and language) or (role == "T" and task) or role not in ("L", "T"):
            raise IsoglossError(f"The cell '{name}' is unknown; {_ADVICE}.")
        if role == "L":
            language = f"language_{_PARTS[letter]}"
        else:
            task = f"task_{_PARTS[letter]}"
    return Cell(name, language, task, None)


def points(study: Study, marks: Marks) -> dict[Point, Marks]:
    """All points of a study, each once, in the order of the file, and where the values of each stand.

    Raises:
        IsoglossError: A cell, spec or language that does not exist, a rule that names no axis, or a grid without points.
    """
    grids = [(study.grid, marks)]
    for number, extra in enumerate(study.add):
        try:
            grids.append((Grid(**{**study.grid.model_dump(), **extra}), marks.of_addition(number, extra)))
        except ValueError as problem:
            raise IsoglossError(f"{marks.at(('add', number))} is no grid: {_first(problem)}.") from problem
    rules = [_rule(rule, ("exclude", number), marks) for number, rule in enumerate(study.exclude)]
    found: dict[Point, Marks] = {}
    for grid, here in grids:
        for number, name in enumerate(grid.cell):
            try:
                cell = parse_cell(name)
            except IsoglossError as problem:
                raise IsoglossError(f"{here.at(('grid', 'cell', number))} is wrong: {problem}") from problem
            for values in _product(grid, cell):
                _normalise_source(values, here)
                if any(_fits(rule, values) for rule in rules):
                    continue
                found.setdefault(_point(values, cell, study, here), here)
    if not found:
        raise IsoglossError(
            f"{marks.at(('grid',))} leaves no point: the exclusions take out every combination; loosen one of them."
        )
    return found


def _product(grid: Grid, cell: Cell) -> Iterator[dict[str, Any]]:
    axes = [name for name in _ALWAYS if not (name == "freeze" and cell.frozen is not None)]
    if cell.language:
        axes += [cell.language, "language_seed"]
    if cell.task:
        axes.append(cell.task)
        if cell.task == "task_prompt":
            axes += _PROMPT_AXES
    forced = {} if cell.frozen is None else {"freeze": cell.frozen}
    for chosen in product(*(getattr(grid, name) for name in axes)):
        yield {"cell": cell.name, **forced, **dict(zip(axes, chosen, strict=True))}


def _point(values: Mapping[str, Any], cell: Cell, study: Study, marks: Marks) -> Point:
    spec = "none"
    if cell.task:
        spec = _spec(cell.task, values, marks)
        settings = {name: values[name] for name in _PROMPT_AXES if values.get(name) is not None}
        if settings:
            spec = _with(spec, tuple(settings.items()), marks)
    if values["task"] not in study.tasks:
        raise IsoglossError(
            f"{marks.at(('grid', 'task'))} names the task '{values['task']}', which `tasks` does not describe; "
            f"it has {', '.join(study.tasks)}."
        )
    if values["update"] != "none" and values["update"] not in study.updates:
        raise IsoglossError(
            f"{marks.at(('grid', 'update'))} names the update rule '{values['update']}', which `updates` does not describe."
        )
    return Point(
        backbone=values["backbone"],
        cell=cell.name,
        language_module=_spec(cell.language, values, marks) if cell.language else None,
        task_module=spec,
        freeze=values["freeze"],
        pool=values["pool"],
        update=values["update"],
        task=values["task"],
        source=values["source"],
        shots=values["shots"],
        seed=values["seed"],
        language_seed=values.get("language_seed"),
    )


def _spec(axis: str, values: Mapping[str, Any], marks: Marks) -> str:
    if axis.startswith("language_") and values[axis].isalpha() and values[axis] != "none":
        # Without a size: a ready module of whatever size, else the method's usual one.
        _parsed_or_refused(axis, values, marks)
        return str(values[axis])
    spec = canonical(_parsed_or_refused(axis, values, marks))
    if axis.startswith("language_") and spec == "none":
        raise IsoglossError(
            f"{marks.at(('grid', axis))} says `none`, but the language part of the cell {values['cell']} must be a module; "
            "name one."
        )
    return spec


def _parsed_or_refused(axis: str, values: Mapping[str, Any], marks: Marks) -> str:
    try:
        canonical(values[axis])
        return str(values[axis])
    except IsoglossError as problem:
        raise IsoglossError(f"{marks.at(('grid', axis))} is wrong: {problem}") from problem


@cache
def canonical(spec: str) -> str:
    """A module spec in its shortest form, so that two ways to write it are one step."""
    from isogloss.modules import format_module

    return format_module(_parsed(spec))


@cache
def _parsed(spec: str) -> Any:
    from isogloss.modules import parse_module

    return parse_module(spec)


@cache
def replaced(spec: str, settings: tuple[tuple[str, Any], ...]) -> str:
    """A module spec with some options set."""
    from isogloss.modules import format_module

    return format_module(replace(_parsed(spec), **dict(settings)))


def _with(spec: str, settings: tuple[tuple[str, Any], ...], marks: Marks) -> str:
    try:
        return replaced(spec, settings)
    except IsoglossError as problem:
        raise IsoglossError(f"{marks.at(('grid', settings[0][0]))} is wrong: {problem}") from problem


def _normalise_source(values: dict[str, Any], marks: Marks) -> None:
    values["source"] = source_codes(values["source"], marks.at(("grid", "source")))


@cache
def source_codes(text: str, where: str) -> tuple[str, ...]:
    """Languages of a source such as `en+de`; `where` is for the error."""
    try:
        return tuple(dict.fromkeys(resolve(name).code for name in text.split("+")))
    except IsoglossError as problem:
        raise IsoglossError(f"{where} is wrong: {problem}") from problem


def _rule(rule: Mapping[str, Any], path: tuple[str | int, ...], marks: Marks) -> dict[str, list[Any]]:
    """A rule of exclusion as axis -> values."""
    if not rule:
        raise IsoglossError(f"{marks.at(path)} is an empty rule, which fits everything; name an axis and its values.")
    found = {}
    for axis, value in rule.items():
        if axis not in Grid.model_fields:
            hint = nearest(axis, Grid.model_fields, "the axes are")
            raise IsoglossError(f"{marks.at((*path, axis))} names the axis '{axis}', which the grid has not; {hint}.")
        listed = value if isinstance(value, list) else [value]
        if axis == "source":
            listed = [source_codes(str(item), marks.at((*path, axis))) for item in listed]
        found[axis] = listed
    return found


def _fits(rule: Mapping[str, Sequence[Any]], values: Mapping[str, Any]) -> bool:
    return all(axis in values and values[axis] in wanted for axis, wanted in rule.items())


def _first(problem: ValueError) -> str:
    if not isinstance(problem, ValidationError):
        return str(problem)
    first = problem.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def language_codes(names: Sequence[str], study: Study, path: tuple[str | int, ...], marks: Marks) -> list[str]:
    """Languages by name, code or group, each once.

    Raises:
        IsoglossError: One is neither, or groups hold one another.
    """
    found: dict[str, None] = {}

    def take(name: str, place: tuple[str | int, ...], above: tuple[str, ...]) -> None:
        if name in study.groups:
            if name in above:
                raise IsoglossError(
                    f"{marks.at(('groups', name))} is a group that holds itself: {' -> '.join((*above, name))}."
                )
            for number, inner in enumerate(study.groups[name]):
                take(inner, ("groups", name, number), (*above, name))
            return
        try:
            found.setdefault(resolve(name).code)
        except IsoglossError as problem:
            raise IsoglossError(
                f"{marks.at(place)} names '{name}', which is neither a group ({', '.join(study.groups) or 'none here'}) nor "
                f"a language: {problem}"
            ) from problem

    for number, name in enumerate(names):
        take(name, (*path, number), ())
    return list(found)
