"""XTREME's averages: metrics of a task, languages, tasks; and the same over groups of languages."""

from collections.abc import Mapping, Sequence
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.training.language_groups import group_means, groups
from isogloss.training.xtreme.settings import SUITE, SuiteTask


def language_scores(item: SuiteTask, scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """One number a language: the metric, or the mean of F1 and exact match for QA.

    Raises:
        IsoglossError: A language lacks one of the metrics.
    """
    found = {}
    for code, row in scores.items():
        lacking = [name for name in item.metrics if name not in row]
        if lacking:
            raise IsoglossError(f"The scores of {item.name} in {code} have no '{lacking[0]}'; score it again.")
        found[code] = sum(row[name] for name in item.metrics) / len(item.metrics)
    return found


def aggregate(
    results: Mapping[str, Mapping[str, Mapping[str, float]]],
    *,
    seen: Sequence[str] = (),
    text: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The suite's averages.

    A task's score is the mean over XTREME's languages of that task that were scored (over all that were when it is none of
    these); `average` is the mean over tasks, `complete` says whether that is XTREME's own average: all tasks, all languages.

    Args:
        results: Task name -> language code -> metrics.
        seen: Languages that the backbone was pre-trained on.
        text: Size of their text, for the low-resource group.

    Returns:
        `{"average", "complete", "categories": {category: mean}, "tasks": {name: {"score", "metrics": {metric: mean},
        "zero_shot": mean without English, "languages", "missing", "groups"}}}`.

    Raises:
        IsoglossError: No results, or an unknown task.
    """
    if not results:
        raise IsoglossError("There are no results to average; score at least one task.")
    tasks: dict[str, Any] = {}
    for name, scores in results.items():
        if name not in SUITE:
            raise IsoglossError(f"The suite has no task '{name}'; it has {', '.join(SUITE)}.")
        item = SUITE[name]
        official = [resolve(code).code for code in item.languages]
        every = language_scores(item, scores)
        own = [code for code in official if code in every] or list(every)
        foreign = [code for code in every if code != "eng_Latn"]
        sorted_in = groups(foreign, seen=seen, text=text)
        tasks[name] = {
            "score": sum(every[code] for code in own) / len(own),
            "metrics": {metric: sum(scores[code][metric] for code in own) / len(own) for metric in item.metrics},
            "zero_shot": sum(every[code] for code in foreign) / len(foreign) if foreign else None,
            "languages": own,
            "missing": [code for code in official if code not in every],
            "groups": group_means(every, sorted_in),
        }
    categories: dict[str, list[float]] = {}
    for name, found in tasks.items():
        categories.setdefault(SUITE[name].category, []).append(found["score"])
    return {
        "average": sum(found["score"] for found in tasks.values()) / len(tasks),
        "complete": set(tasks) == set(SUITE) and not any(found["missing"] for found in tasks.values()),
        "categories": {name: sum(values) / len(values) for name, values in categories.items()},
        "tasks": tasks,
    }
