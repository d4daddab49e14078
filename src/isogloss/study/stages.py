"""How a task module is trained: the study's stage, the task's, the cell's, and the published quirks."""

from typing import Any

from isogloss.errors import IsoglossError
from isogloss.study.grid import Point
from isogloss.study.reading import Marks
from isogloss.study.spec import Study, TaskStageSpec


def merged_stage(study: Study, point: Point, kind: str | None, marks: Marks) -> dict[str, Any]:
    """Fields of `TaskStage` for a point; the nearer section counts.

    Args:
        study: Says how.
        point: What is trained.
        kind: Of its backbone; None while that cannot be told.
        marks: Where its values stand.

    Raises:
        IsoglossError: Nothing is trained, but the backbone needs a trained head.
    """
    merged: dict[str, Any] = {}
    for part in (study.stage, study.tasks[point.task].stage, study.cells.get(point.cell, TaskStageSpec())):
        given = part.model_dump(exclude_none=True)
        if "steps" in given or "epochs" in given:
            # The nearer of the two counts; a stage takes only one.
            merged.pop("steps", None)
            merged.pop("epochs", None)
        merged |= given
    quirks = study.quirks
    if quirks.source_dev_loss:
        merged["select"] = "loss"
    options: dict[str, Any] = dict(merged.get("head_options") or {})
    writes = merged.get("head") == "text" or (kind in (None, "encoder-decoder") and merged.get("head") is None)
    if quirks.generate_20_tokens and writes:
        options["published_generation"] = True
    if quirks.cut_targets and writes:
        options["published_targets"] = True
    if quirks.last_window and writes:
        options["published_windows"] = True
    if options:
        merged["head_options"] = options
    if quirks.double_language_prompt and set(point.cell.split("+")) == {"LP", "TP"}:
        merged["double_language_prompt"] = True
    if point.cell == "base" and kind == "encoder" and merged.get("head") != "verbaliser":
        raise IsoglossError(
            f"{marks.at(('grid', 'cell'))} asks for the cell base, in which nothing is trained, but an encoder needs a "
            "trained head; use the cell head, or `head: verbaliser`."
        )
    return merged
