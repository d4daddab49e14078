"""Doing a job: what a worker calls."""

import time
from dataclasses import replace

from isogloss.errors import IsoglossError
from isogloss.study.desk import Desk, Outcome
from isogloss.study.launched import is_launched, launch
from isogloss.study.scoring import score
from isogloss.study.steps import Job
from isogloss.study.trainings import learn_updates, train_languages, train_tasks
from isogloss.study.worker import disk_is_full
from isogloss.training._interrupts import Interrupted

_KINDS = {"language": train_languages, "update": learn_updates, "task": train_tasks, "evaluation": score}

__all__ = ["Desk", "Outcome", "execute"]


def execute(job: Job, desk: Desk) -> list[Outcome]:
    """Does a job and puts what it made into the store.

    Args:
        job: Steps of one group, whose needs are all met; the group must be claimed.
        desk: The worker's.

    Returns:
        One outcome a step.

    Raises:
        Interrupted: A training was stopped; it has left a checkpoint.
    """
    began = time.monotonic()
    steps = [step for step in job.steps if not desk.store.is_done(step.key)]
    if not steps:
        return [Outcome(step.key) for step in job.steps]
    failed: dict[str, Outcome] = {}
    try:
        if is_launched(one := replace(job, steps=steps)):
            launch(one, desk)
        made, failed = _KINDS[steps[0].kind](steps, job, desk)
        if made:
            desk.store.publish(job.group, made)
    except Interrupted:
        raise
    except IsoglossError as problem:
        if disk_is_full(problem):
            raise
        failed = {step.key: Outcome(step.key, str(problem)) for step in steps}
    share = (time.monotonic() - began) / len(steps)
    return [failed.get(step.key, Outcome(step.key, seconds=share)) for step in job.steps]
