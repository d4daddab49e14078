"""The step that scores: one model, all its languages, one pass of mixed-language batches."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.formats import load_module
from isogloss.storage import write_text
from isogloss.study.desk import (
    Desk,
    Made,
    Outcome,
    auxiliary_rows,
    language_part,
    room,
    shared_modules,
    training_rows,
    write_record,
)
from isogloss.study.parts import example_parts
from isogloss.study.steps import Job, Step
from isogloss.study.store import MODULE, SCORES
from isogloss.tasks import Example, Task, check_leaks, evaluate_predictions
from isogloss.training.evaluation import make_predictor, positive_scores
from isogloss.training.inference import Predictor
from isogloss.training.language_stage import language_of


def score(steps: Sequence[Step], job: Job, desk: Desk) -> tuple[Made, dict[str, Outcome]]:
    """Scores one model on all languages in mixed-language batches."""
    began = time.monotonic()
    failed: dict[str, Outcome] = {}
    task_step = Step.from_json(job.options["tasks"][steps[0].spec["task"]])
    backbone = desk.backbone(steps[0].inputs["backbone"])
    module = load_module(desk.store.place(task_step.key) / MODULE, backbone)
    shared = {language_of(found): found for found in shared_modules(task_step, desk, backbone)}
    rows: dict[str, list[Example]] = {}
    _, train, dev = training_rows(task_step, desk)
    # With the label set that the training found, where the task itself has none.
    asked = Task.from_dict(module.info.head["task"])
    for learned in (Step.from_json(item) for item in job.options.get("updates", {}).values()):
        train = [*train, *auxiliary_rows(learned, desk, asked)]
    made: Made = []
    for together in _passes(steps):
        parts = dict(shared)
        for step in together:
            spec = step.spec
            try:
                found = desk.examples(
                    step.inputs["data"], spec["language"], spec["split"], asked, spec.get("limit"), spec["bad_rows"]
                )
                check_leaks([*train, *dev], found)
                if spec.get("part") and spec["language"] not in parts:
                    parts[spec["language"]] = language_part(spec["part"], step.inputs, desk, backbone)
                rows[step.key] = found
            except IsoglossError as problem:
                failed[step.key] = Outcome(step.key, str(problem))
        todo = [step for step in together if step.key in rows]
        if not todo:
            continue
        desk.tell(f"scoring {len(todo)} language{'s' if len(todo) > 1 else ''}")
        predictor = make_predictor(backbone, module, parts, list(dict.fromkeys(step.spec["language"] for step in todo)))
        made += _one_pass(todo, rows, predictor, job, desk, began, failed)
    return made, failed


def _one_pass(
    todo: Sequence[Step],
    rows: Mapping[str, list[Example]],
    predictor: Predictor,
    job: Job,
    desk: Desk,
    began: float,
    failed: dict[str, Outcome],
) -> Made:
    """Scores steps in mixed-language batches, one module a language; what cannot be scored goes into `failed`."""
    task = predictor.head.task
    examples = [example for step in todo for example in rows[step.key]]
    decoded, encoded, predictions = predictor.predict(examples, tokens_per_batch=job.options.get("tokens_per_batch"))
    made: Made = []
    certainty = positive_scores(task, len(examples), encoded, predictions)
    first = 0
    for step in todo:
        last = first + len(rows[step.key])
        answers, sure = decoded[first:last], certainty[first:last] if certainty else None
        metrics = evaluate_predictions(task, rows[step.key], answers, sure)
        metric = step.spec.get("metric") or task.primary
        if metric not in metrics:
            failed[step.key] = Outcome(
                step.key,
                f"tasks: the metric '{metric}' is unknown for {task.name}; use one of "
                f"{', '.join(name for name in metrics if name != 'n')}.",
            )
        else:
            out, whole = room(step, desk)
            if not whole:
                out.mkdir(parents=True, exist_ok=True)
                _write_scores(out, step, task, metric, metrics, rows[step.key], answers)
                write_record(step, job, began, out, {"metric": metric, "value": metrics[metric]})
            made.append((step, out))
        first = last
    return made


def _passes(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps that can be scored in one pass: in each a language has one module.

    A model whose sources take ready modules is one model for every `language_seed`; its targets' modules are not one.
    """
    found: list[tuple[dict[str, Any], list[Step]]] = []
    for step in steps:
        language, part = step.spec["language"], step.spec.get("part")
        for parts, members in found:
            if parts.setdefault(language, part) == part:
                members.append(step)
                break
        else:
            found.append(({language: part}, [step]))
    return [members for _, members in found]


def _write_scores(
    out: Path, step: Step, task: Task, metric: str, metrics: Mapping[str, float], rows: Sequence[Example], answers: Any
) -> None:
    parts = example_parts(task, metric, rows, answers)
    content = {
        "language": step.spec["language"],
        "test": step.inputs["test"],
        "metric": metric,
        "value": metrics[metric],
        "n": len(rows),
        "metrics": dict(metrics),
        "items": [example.id for example in rows],
        "parts": parts and [[int(value) if value == int(value) else value for value in row] for row in parts],
    }
    write_text(out / SCORES, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
