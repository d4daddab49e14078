"""Numbers from papers beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass

from isogloss.report.study_compare import GroupResult, TaskResult
from isogloss.report.study_data import MEAN_OF_ALL, MEAN_ZERO_SHOT, PublishedScore, StudyData, board_name
from isogloss.report.study_index import Arm, language_names, resolve_code
from isogloss.report.study_words import listed
from isogloss.report.tables import Column, Table, Value


@dataclass(frozen=True)
class _Ours:
    """A setting that corresponds to a published number, its score, and the number of languages that a mean is over."""

    setting: str | None = None
    value: float | None = None
    languages: int | None = None


def published_table(results: Sequence[TaskResult], data: StudyData) -> Table:
    """Numbers from papers beside ours."""
    rows: list[list[Value]] = []
    alone: dict[str, None] = {}
    unscored: dict[str, None] = {}
    for one in data.published:
        label = f"{board_name(one.task, one.test)}, {one.cell}"
        group = _group_name(one.language, data)
        code = resolve_code(one.language)
        shown = (one.language or "mean") if group else language_names([code])[code]
        found = [ours for result in results for ours in _matches(result, one, group)]
        if not found:
            alone.setdefault(label)
        elif all(ours.value is None for ours in found):
            unscored.setdefault(f"{label} ({shown}, {one.metric})")
        for ours in found or [_Ours()]:
            rows.append(
                [
                    label,
                    shown,
                    one.metric,
                    one.value,
                    one.backbone,
                    ours.setting,
                    ours.value,
                    None if ours.value is None else ours.value - one.value,
                    ours.languages,
                    one.source,
                ]
            )
    notes = ["Backbones, data and training differ, so a difference is no verdict."]
    if alone:
        notes.append(
            f"Numbers that stand alone, as no scored setting of this study corresponds: {listed(list(alone), 20)}."
        )
    if unscored:
        notes.append(f"A setting corresponds, but has no such score: {listed(list(unscored), 20)}.")
    return Table(
        "Published numbers beside ours",
        [
            Column("task, their setting"),
            Column("language"),
            Column("metric"),
            Column("published", numeric=True),
            Column("their backbone"),
            Column("our setting"),
            Column("ours", numeric=True),
            Column("difference", numeric=True, note="ours minus theirs"),
            Column("over", numeric=True, note="languages that our mean is over; theirs may be others"),
            Column("where it stands", wide=True),
        ],
        rows,
        notes=notes,
    )


def _group_name(language: str, data: StudyData) -> str | None:
    """The group of languages that a published mean is over; None for a single language."""
    if language.lower() in MEAN_OF_ALL:
        return "all"
    if language.lower() in MEAN_ZERO_SHOT:
        return "zero-shot"
    return language if language in data.groups else None


def _matches(result: TaskResult, one: PublishedScore, group: str | None) -> list[_Ours]:
    test = result.board.test
    if result.board.task != board_name(one.task, test) or one.test not in ("", test):
        return []
    found = []
    for arm in result.board.arms:
        if not _corresponds(arm, one):
            continue
        value, languages = None, None
        if result.board.metric == one.metric and group:
            known = result.group(group)
            value = _standing(known, arm) if known else None
            languages = len({language for _, language in known.units}) if known and value is not None else None
        elif result.board.metric == one.metric:
            code = resolve_code(one.language)
            value = result.board.mean(arm, [unit for unit in result.board.units if unit[1] == code])
        found.append(_Ours(f"{arm.name} ({test})" if test and not one.test else arm.name, value, languages))
    return found


def _standing(group: GroupResult, arm: Arm) -> float | None:
    return next((one.estimate.value for one in group.standings if one.arm == arm), None)


def _corresponds(arm: Arm, one: PublishedScore) -> bool:
    if one.setting:
        return all(arm.factors.get(name) == value for name, value in one.setting.items())
    return one.cell in (arm.name, arm.factors.get("cell"))
