"""What a study says, checked before anything runs: all that a worker would refuse, hours later and without a line."""

import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from isogloss.errors import IsoglossError
from isogloss.study.grid import parse_cell, source_codes
from isogloss.study.reading import Marks, Place, nearest
from isogloss.study.spec import LanguageSection, LanguageStageSpec, Study, TaskSection, TaskStageSpec, UpdateSection
from isogloss.tasks import Task, get_task, task_names
from isogloss.tasks.task import OPTIONAL_FIELDS, REQUIRED_FIELDS

# What a study decides elsewhere: the update's own `method`, `grid.freeze` and `grid.seed`.
_NOT_IN_META_STAGE = ("method", "train", "seed")
_SPANS = ("f1", "precision", "recall")


def check_study(study: Study, marks: Marks) -> list[str]:
    """Refuses what cannot work on any backbone.

    Args:
        study: From `read_study`.
        marks: Where its values stand.

    Returns:
        Notes on what is valid but has no effect.

    Raises:
        IsoglossError: Names file, line and, where there is one, the nearest valid name.
    """
    _check_language(study.language, marks)
    _check_task_stage(study.stage, ("stage",), marks)
    for name, task in study.tasks.items():
        _check_task(name, task, marks)
    for name, update in study.updates.items():
        _check_update(("updates", name), update, marks)
    return [*_check_cells(study, marks), *_check_exclusions(study, marks)]


def check_head(
    stage: Mapping[str, Any], task: TaskSection, name: str, cell: str, kind: str | None, marks: Marks
) -> None:
    """Refuses a head that cannot serve a task on a kind of backbone, and options that it has not.

    Args:
        stage: `head` and `head_options`, merged.
        task: Section of the task.
        name: Its key under `tasks`.
        cell: Whose settings are merged into the stage.
        kind: Of the backbone; None while that cannot be told.
        marks: Where values stand.
    """
    from isogloss.tasks.heads import check_head as call

    try:
        call(stage.get("head"), _task(name, task), kind, stage.get("head_options") or {})
    except IsoglossError as problem:
        levels: tuple[Place, ...] = (("cells", cell), ("tasks", name, "stage"), ("stage",))
        places = [(*level, key) for key in ("head_options", "head") for level in levels]
        place = next((place for place in places if place in marks.where), ("tasks", name))
        raise IsoglossError(f"{marks.at(place)} is wrong: {problem}") from problem


def _check_language(section: LanguageSection, marks: Marks) -> None:
    from isogloss.training.language_stage import LanguageStage

    for name in LanguageSection.model_fields:
        part = getattr(section, name)
        if isinstance(part, LanguageStageSpec):
            _check_stage(part, LanguageStage, ("language", name), marks)
    _check_text(section.init_text, ("language", "init_text"), marks)


def _check_task_stage(section: TaskStageSpec, path: Place, marks: Marks) -> None:
    from isogloss.training.task_stage import TaskStage

    if section.steps is not None and section.epochs is not None:
        raise IsoglossError(
            f"{marks.at((*path, 'epochs'))} gives epochs where there are steps too; give one of the two (null takes the "
            "other one out)."
        )
    _check_stage(section, TaskStage, path, marks)


def _check_stage(section: BaseModel, build: Callable[..., Any], path: Place, marks: Marks) -> None:
    from isogloss.training.config import OPTIMISERS, SCHEDULES

    choices = {"optimiser": OPTIMISERS, "schedule": SCHEDULES}
    for key, value in section.model_dump(exclude_none=True).items():
        where = marks.at((*path, key))
        if value not in choices.get(key, (value,)):
            raise IsoglossError(
                f"{where} has the unknown {key} '{value}'; {nearest(value, choices[key], 'use one of')}."
            )
        try:
            build(**{key: value})
        except IsoglossError as problem:
            raise IsoglossError(f"{where} is wrong: {problem}") from problem


def _check_text(text: str | None, path: Place, marks: Marks) -> None:
    try:
        (text or "").format(name="")
    except (KeyError, IndexError, ValueError) as problem:
        raise IsoglossError(
            f"{marks.at(path)} has braces other than {{name}}; write a brace itself twice."
        ) from problem


def _task(name: str, section: TaskSection) -> Task:
    return get_task(section.task or name, section.fields or None, section.labels, section.label_map or None)


def _check_task(name: str, section: TaskSection, marks: Marks) -> None:
    path = ("tasks", name)
    asked = section.task or name
    if asked not in task_names():
        hint = nearest(asked, task_names(), "use one of")
        advice = hint if section.task else f"{hint}, or say by `task` which one it is"
        raise IsoglossError(f"{marks.at((*path, 'task'))} has the unknown task '{asked}'; {advice}.")
    task = get_task(asked)
    known = (*REQUIRED_FIELDS[task.kind], *OPTIONAL_FIELDS[task.kind])
    for field in section.fields:
        if field not in known:
            raise IsoglossError(
                f"{marks.at((*path, 'fields', field))} has the field '{field}', which the task {asked} has not; "
                f"{nearest(field, known, 'it has')}."
            )
    if section.labels is not None and not task.has_labels:
        raise IsoglossError(
            f"{marks.at((*path, 'labels'))} gives labels, but the task {asked} has none; take them out."
        )
    try:
        task = _task(name, section)
    except IsoglossError as problem:
        raise IsoglossError(f"{marks.at((*path, 'labels'))} is wrong: {problem}") from problem
    metrics = _metrics(task)
    if section.metric is not None and section.metric not in metrics:
        of_a_type = task.kind == "tagging" and task.scheme != "plain" and section.metric.startswith("f1/")
        if not of_a_type or (task.types and section.metric.removeprefix("f1/") not in task.types):
            raise IsoglossError(
                f"{marks.at((*path, 'metric'))} has the metric '{section.metric}', which the task {asked} has not; "
                f"{nearest(section.metric, metrics, 'it has')}."
            )
    _check_text(section.init_text, (*path, "init_text"), marks)
    _check_task_stage(section.stage, (*path, "stage"), marks)


def _metrics(task: Task) -> list[str]:
    """What `evaluate_predictions` may give for a task."""
    found = [*task.metrics]
    if task.kind == "tagging":
        found += _SPANS  # A head that writes text is scored by spans.
        found += ["accuracy", "macro_f1"] if task.scheme == "auto" else []
    return list(dict.fromkeys(found))


def _check_update(path: Place, section: UpdateSection, marks: Marks) -> None:
    from isogloss.meta import STARTS, open_update
    from isogloss.meta.rules import CONTROLS, LEARNED, make_rule

    if section.control is not None:
        where = marks.at((*path, "control"))
        if section.method is not None:
            raise IsoglossError(f"{where} gives a `control` beside a `method`; give one of the two.")
        try:
            open_update(section.control)
        except IsoglossError as problem:
            near = nearest(section.control.partition(":")[0], CONTROLS, "")
            hint = f"; {near}" if near.startswith("did") else ""
            raise IsoglossError(f"{where} is wrong: {str(problem).rstrip('.')}{hint}.") from problem
        return
    if section.method is None or not section.auxiliary:
        raise IsoglossError(f"{marks.at(path)} needs `method` and `auxiliary`, or `control`.")
    methods = (*LEARNED, *STARTS)
    if section.method not in methods:
        raise IsoglossError(
            f"{marks.at((*path, 'method'))} has the unknown method '{section.method}'; "
            f"{nearest(section.method, methods, 'use one of')}."
        )
    _check_meta_stage((*path, "stage"), section.method, section.stage, marks)
    if section.method in LEARNED:
        try:
            make_rule(section.method, ["all"], [0], **section.stage.get("options", {}))
        except IsoglossError as problem:
            raise IsoglossError(f"{marks.at((*path, 'stage', 'options'))} is wrong: {problem}") from problem


def _check_meta_stage(path: Place, method: str, given: Mapping[str, Any], marks: Marks) -> None:
    from isogloss.meta import MetaStage

    wanted = {name: kind for name, kind in typing.get_type_hints(MetaStage).items() if name not in _NOT_IN_META_STAGE}
    for key, value in given.items():
        where = marks.at((*path, key))
        if key not in wanted:
            raise IsoglossError(f"{where} has the unknown option '{key}'; {nearest(key, wanted, 'the options are')}.")
        try:
            TypeAdapter(wanted[key]).validate_python(value, strict=True)
        except ValidationError as problem:
            reason = str(problem.errors()[0]["msg"]).removeprefix("Input ")
            hint = " (to YAML 1e-3 is text; write 1.0e-3)" if isinstance(value, str) and "number" in reason else ""
            raise IsoglossError(f"{where} has a wrong value for '{key}' ({value!r}): it {reason}{hint}.") from problem
    try:
        MetaStage(method=method, **given)
    except IsoglossError as problem:
        blamed = next((key for key in given if key in str(problem)), "")
        raise IsoglossError(f"{marks.at((*path, blamed))} is wrong: {problem}") from problem


def _check_cells(study: Study, marks: Marks) -> Iterator[str]:
    used = [str(name) for name in _values(study, "cell")]
    for name, section in study.cells.items():
        where = marks.at(("cells", name))
        if name not in used:
            same = next((cell for cell in used if sorted(cell.split("+")) == sorted(name.split("+"))), None)
            try:
                parse_cell(name)
            except IsoglossError as problem:
                raise IsoglossError(
                    f"{where} describes the unknown cell '{name}'; {nearest(name, used, 'the grid has')}."
                ) from problem
            if same:
                raise IsoglossError(
                    f"{where} describes the cell '{name}', which the grid calls '{same}'; use that name."
                )
            yield f"{where} describes the cell {name}, which the grid has not, so this has no effect"
        _check_task_stage(section, ("cells", name), marks)


def _check_exclusions(study: Study, marks: Marks) -> Iterator[str]:
    """Every value of a rule must be one of its axis, unless the axis was replaced since the rule was written."""
    for number, rule in enumerate(study.exclude):
        for axis, given in rule.items():
            if axis not in type(study.grid).model_fields:
                continue  # `points` refuses it.
            path: Place = ("exclude", number, axis)
            known = _values(study, axis)
            for place, value in enumerate(given if isinstance(given, list) else [given]):
                where = marks.at((*path, place))
                if axis == "source":
                    there = source_codes(str(value), where) in [source_codes(str(item), where) for item in known]
                else:
                    there = value in known
                if there:
                    continue
                if _origin(where) not in ("--set", _origin(marks.at(("grid", axis)))):
                    yield f"{where} leaves out the {axis} {value}, which the grid has not, so this has no effect"
                    continue
                hint = nearest(str(value), [str(item) for item in known], "it has")
                raise IsoglossError(f"{where} leaves out the {axis} '{value}', which the grid has not; {hint}.")


def _origin(where: str) -> str:
    return "--set" if where.startswith("--set") else where.split(", line ")[0]


def _values(study: Study, axis: str) -> Sequence[Any]:
    """All values of an axis, in the grid and in what is added to it."""
    found = list(getattr(study.grid, axis))
    for extra in study.add:
        given = extra.get(axis, [])
        found += given if isinstance(given, list) else [given]
    return found
