"""The steps that train: language modules, update rules, task modules."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isogloss.errors import DivergedError, IsoglossError
from isogloss.languages import resolve
from isogloss.modules import parse_module
from isogloss.storage import content_key
from isogloss.study import sources
from isogloss.study.desk import (
    Desk,
    Made,
    Outcome,
    asked_task,
    auxiliary_rows,
    keep_training,
    language_part,
    progress_of,
    room,
    shared_modules,
    training_rows,
)
from isogloss.study.steps import Job, Step
from isogloss.study.store import MODULE
from isogloss.tasks import Example, Task
from isogloss.training.language_stage import LanguageStage, train_language
from isogloss.training.task_stage import TaskStage, train_task
from isogloss.training.update import Update

if TYPE_CHECKING:
    from isogloss.meta import MetaStage


def train_languages(steps: Sequence[Step], job: Job, desk: Desk) -> tuple[Made, dict[str, Outcome]]:
    """Trains language modules from raw text."""
    made: Made = []
    for step in steps:
        began = time.monotonic()
        out, whole = room(step, desk)
        if not whole:
            spec = step.spec
            facts = train_language(
                desk.backbone(step.inputs["backbone"]),
                resolve(spec["language"]),
                [step.inputs["text"]],
                parse_module(spec["module"]),
                LanguageStage(**spec["stage"], seed=spec["seed"]),
                desk.store.work(step.key) / MODULE,
                progress=progress_of(step, desk),
                cache_dir=job.options.get("cache"),
            )
            keep_training(step, job, desk, out, began, facts)
        made.append((step, out))
    return made, {}


def learn_updates(steps: Sequence[Step], job: Job, desk: Desk) -> tuple[Made, dict[str, Outcome]]:
    """Learns an update rule or a start."""
    made: Made = []
    for step in steps:
        began = time.monotonic()
        out, whole = room(step, desk)
        if not whole:
            spec, inputs = step.spec, step.inputs
            backbone = desk.backbone(inputs["backbone"])
            task, source, auxiliary = update_rows(step, desk)
            stage = meta_stage(step)
            facts = update_learner(stage)(
                backbone,
                task,
                source,
                auxiliary,
                parse_module(spec["module"]),
                stage,
                desk.store.work(step.key) / MODULE,
                language_modules=[language_part(key, inputs, desk, backbone) for key in spec["languages"].values()],
                data_name=_data_name(step),
                split=inputs["train"],
                auxiliary_split=spec["auxiliary_split"],
                progress=progress_of(step, desk),
            )
            keep_training(step, job, desk, out, began, facts)
        made.append((step, out))
    return made, {}


def update_rows(step: Step, desk: Desk) -> tuple[Task, list[Example], list[Example]]:
    """Rows that support and rows that query, of an update step."""
    spec, inputs = step.spec, step.inputs
    task = asked_task(spec)
    source = [
        row
        for code in spec["train"]
        for row in desk.examples(inputs["data"][code], code, inputs["train"], task, spec["limit"], spec["bad_rows"])
    ]
    task = task.with_labels_from(source) if task.has_labels else task
    return task, source, auxiliary_rows(step, desk, task)


def meta_stage(step: Step) -> "MetaStage":
    """How an update step learns.

    Raises:
        IsoglossError: An unknown option, or one that cannot work.
    """
    from isogloss.meta import MetaStage

    spec = step.spec
    train: Any = "modules" if spec["freeze"] else "all"
    try:
        return MetaStage(method=spec["method"], **spec["stage"], train=train, seed=spec["seed"])
    except TypeError as problem:
        raise IsoglossError(f"updates: the stage of {step.label} has an unknown option: {problem}.") from problem


def update_learner(stage: "MetaStage") -> Callable[..., dict[str, Any]]:
    """What learns by a stage's method: a rule or a start."""
    from isogloss.meta import STARTS, learn_rule, learn_start

    return learn_start if stage.method in STARTS else learn_rule


def train_tasks(steps: Sequence[Step], job: Job, desk: Desk) -> tuple[Made, dict[str, Outcome]]:
    """Trains task modules from labelled text; several steps of one group differ in their seeds and share one pass."""
    if len(steps) == 1:
        return [_train_task(steps[0], job, desk)], {}
    try:
        return _seeds(steps, job, desk), {}
    except DivergedError:
        # Only the sum of the losses is seen there, and no other seed is to fail with the one that diverged.
        desk.tell("a seed diverged, so each is trained by itself")
    made: Made = []
    failed: dict[str, Outcome] = {}
    for step in steps:
        try:
            made.append(_train_task(step, job, desk))
        except DivergedError as problem:
            failed[step.key] = Outcome(step.key, str(problem))
    shutil.rmtree(_common(steps, desk), ignore_errors=True)
    return made, failed


def _train_task(step: Step, job: Job, desk: Desk) -> tuple[Step, Path]:
    began = time.monotonic()
    out, whole = room(step, desk)
    if not whole:
        spec = step.spec
        backbone = desk.backbone(step.inputs["backbone"])
        task, train, dev = training_rows(step, desk)
        facts = train_task(
            backbone,
            task,
            train,
            dev,
            parse_module(spec["module"]),
            task_stage(spec),
            desk.store.work(step.key) / MODULE,
            language_modules=[
                *shared_modules(step, desk, backbone),
                *(language_part(key, step.inputs, desk, backbone) for key in spec["languages"].values()),
            ],
            data_name=_data_name(step),
            split=step.inputs["train"],
            update=_opened(step, desk),
            progress=progress_of(step, desk),
        )
        keep_training(step, job, desk, out, began, facts)
    return step, out


def task_stage(spec: Mapping[str, Any]) -> TaskStage:
    """How a task step trains."""
    train: Any = "modules" if spec["freeze"] else "all"
    return TaskStage(**spec["stage"], train=train, shots=spec["shots"], seed=spec["seed"])


def _seeds(steps: Sequence[Step], job: Job, desk: Desk) -> Made:
    """Trains the seeds of one shape in one pass; they enter the store together."""
    from isogloss.training.seed_stage import train_task_seeds

    began = time.monotonic()
    rooms = [room(step, desk) for step in steps]
    # The common checkpoints outlive a kill, and with them the common run: all its seeds, in the same order.
    common = _common(steps, desk)
    todo = [step for step, (_, whole) in zip(steps, rooms, strict=True) if not whole]
    if todo:
        step, spec = todo[0], todo[0].spec
        backbone = desk.backbone(step.inputs["backbone"])
        task, train, dev = training_rows(step, desk)
        made = train_task_seeds(
            backbone,
            task,
            train,
            dev,
            parse_module(spec["module"]),
            [task_stage(step.spec) for step in steps],
            [desk.store.work(step.key) / MODULE for step in steps],
            common,
            language_modules=[language_part(key, step.inputs, desk, backbone) for key in spec["languages"].values()],
            data_name=_data_name(step),
            split=step.inputs["train"],
            progress=progress_of(step, desk),
        )
        for one, (out, whole), facts in zip(steps, rooms, made, strict=True):
            if whole:
                shutil.rmtree(desk.store.work(one.key) / MODULE)
            else:
                keep_training(one, job, desk, out, began, facts)
    shutil.rmtree(common, ignore_errors=True)
    return [(step, out) for step, (out, _) in zip(steps, rooms, strict=True)]


def _data_name(step: Step) -> str:
    return "+".join(dict.fromkeys(Path(name).name for name in step.inputs["data"].values()))


def _common(steps: Sequence[Step], desk: Desk) -> Path:
    return desk.store.work(content_key([step.key for step in steps])[:24])


def _opened(step: Step, desk: Desk) -> Update | None:
    update = step.spec.get("update")
    if update is None:
        return None
    from isogloss.meta import open_update

    if update in step.needs:
        return open_update(str(desk.store.place(update) / MODULE))
    found = open_update(step.inputs["update"])
    if update.startswith("saved:") and update != sources.saved_identity(found):
        raise IsoglossError(
            f"The update rule in '{step.inputs['update']}' has changed since the study was planned; plan it again."
        )
    return found
