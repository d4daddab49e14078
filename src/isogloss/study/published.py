"""Whether the numbers from papers that a study names can stand beside its own."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.report.study_data import MEAN_OF_ALL, MEAN_ZERO_SHOT
from isogloss.study.reading import Marks
from isogloss.study.spec import Published, Study


def published_notes(study: Study, points: Sequence[Mapping[str, Any]], marks: Marks) -> list[str]:
    """Checks `published`, and says which numbers stand alone because no model of the study has their setting.

    A setting that the grid lacks is no error, so that `--set` may narrow the grid of a recipe.

    Raises:
        IsoglossError: One names a task, a language or a factor that the study does not know.
    """
    known = list(dict.fromkeys(name for point in points for name in point["factors"]))
    tests: dict[str, set[str]] = {}
    for point in points:
        tests.setdefault(point["task"], set()).update(test for _, test, _ in point["evaluations"])
    lacking: dict[str, None] = {}
    for number, one in enumerate(study.published):
        _check(one, study, known, ("published", number), marks)
        if one.test and one.test not in tests.get(one.task, {one.test}):
            raise IsoglossError(
                f"{marks.at(('published', number, 'test'))} names the test set '{one.test}', which {one.task} has not; it has "
                f"{', '.join(sorted(tests[one.task]))}."
            )
        if one.setting and not any(
            point["task"] == one.task and all(point["factors"].get(name) == one.setting[name] for name in one.setting)
            for point in points
        ):
            lacking.setdefault(f"{one.task} with {', '.join(f'{name} {value}' for name, value in one.setting.items())}")
    return [f"published numbers whose setting no model here has: {'; '.join(lacking)}"] if lacking else []


def _check(one: Published, study: Study, known: Sequence[str], path: tuple[str | int, ...], marks: Marks) -> None:
    if one.task not in study.tasks:
        raise IsoglossError(
            f"{marks.at((*path, 'task'))} is of the task '{one.task}', which `tasks` does not describe; it has "
            f"{', '.join(study.tasks)}."
        )
    if one.language.lower() not in MEAN_OF_ALL | MEAN_ZERO_SHOT and one.language not in study.groups:
        try:
            resolve(one.language)
        except IsoglossError as problem:
            raise IsoglossError(
                f"{marks.at((*path, 'language'))} names '{one.language}', which is no group, not `mean` or `zero-shot`, and no "
                f"language: {problem}"
            ) from problem
    for name in one.setting or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean '{near[0]}'" if near else f"models differ in {', '.join(known)}"
            raise IsoglossError(
                f"{marks.at((*path, 'setting', name))} names '{name}', which no model of the study has; {hint}."
            )
