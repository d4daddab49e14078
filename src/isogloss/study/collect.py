"""From a store to what a report is made of."""

from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.formats.saved import isogloss_version
from isogloss.report.study_data import GateTable, LearningCurve, PlannedScore, PublishedScore, StudyData, StudyScore
from isogloss.storage import read_json
from isogloss.study.shares import known_shares
from isogloss.study.steps import Plan
from isogloss.study.store import CURVE, MODULE, RECORD, SCORES, Store


def collect(store: Store, plan: Plan | None = None, *, command: str = "", commit: str = "") -> StudyData:
    """Reads everything that a study has finished.

    Args:
        store: Of the study.
        plan: What to collect; the plan of the latest run by default.
        command: Command that makes the report.
        commit: Of the code that makes it.

    Raises:
        IsoglossError: The store has no plan.
    """
    plan = plan or store.plan()
    done = store.done(plan.steps)
    failures = store.failures()
    records: dict[str, dict[str, Any]] = {}
    scores: list[StudyScore] = []
    curves: dict[str, LearningCurve] = {}
    tests = _test_sets(plan)
    for point in plan.points:
        key = point["step"]
        if key not in done:
            continue
        record = records.setdefault(key, store.record(key))
        for curve in _curves(store, key, plan.steps[key].label):
            curves.setdefault(f"{key}-{curve.kind}", curve)
        for code, test, evaluation in point["evaluations"]:
            if evaluation in done:
                scores.append(
                    _score(store, point, record, evaluation, code, test if test in tests[point["task"]] else "")
                )
    gates: list[GateTable] = []
    for key, step in plan.steps.items():
        if step.kind == "update" and key in done:
            gates += _gates(store, key, step.label)
        if step.kind == "language" and key in done:
            for curve in _curves(store, key, step.label):
                curves.setdefault(f"{key}-{curve.kind}", curve)
    return StudyData(
        name=plan.name,
        description=plan.description,
        scores=scores,
        curves=list(curves.values()),
        gates=gates,
        published=[PublishedScore(**item) for item in plan.published],
        planned=_planned(plan, tests),
        notes=plan.notes,
        missing=_missing(plan, done, failures),
        shares=known_shares(plan),
        command=command,
        commit=commit,
        groups=plan.options.get("groups", {}),
        backbones=_backbones(store, plan, done),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        version=isogloss_version(),
    )


def _test_sets(plan: Plan) -> dict[str, list[str]]:
    """Names of the test sets by task, where it has several; else one empty name."""
    found: dict[str, dict[str, None]] = {}
    for point in plan.points:
        found.setdefault(point["task"], {}).update(dict.fromkeys(test for _, test, _ in point["evaluations"]))
    return {task: list(names) if len(names) > 1 else [""] for task, names in found.items()}


def _planned(plan: Plan, tests: Mapping[str, Sequence[str]]) -> list[PlannedScore]:
    """Every score that the study asks for, those of targets without data too, which no step is planned for."""
    found: dict[tuple[str, str, str, str], bool] = {}
    for point in plan.points:
        names = tests[point["task"]]
        asked = [(code, test) for code in plan.options.get("targets") or () for test in names]
        asked += [(code, test if test in names else "") for code, test, _ in point["evaluations"]]
        for code, test in asked:
            place = point["task"], point["source"], code, test
            found[place] = found.get(place, False) or code in point["seen"]
    return [PlannedScore(task, source, code, seen, test) for (task, source, code, test), seen in found.items()]


def _backbones(store: Store, plan: Plan, done: Set[str]) -> dict[str, str]:
    """Fingerprints by name, as the trained modules say."""
    found: dict[str, str] = {}
    for point in plan.points:
        name = str(point["factors"].get("backbone"))
        if name not in found and point["step"] in done:
            info = store.place(point["step"]) / MODULE / "module.json"
            found[name] = str(read_json(info)["fingerprint"]) if info.is_file() else ""
    return found


def _score(
    store: Store, point: Mapping[str, Any], trained: Mapping[str, Any], key: str, code: str, test: str
) -> StudyScore:
    found = read_json(store.place(key) / SCORES)
    record = read_json(store.place(key) / RECORD)
    return StudyScore(
        step=key,
        factors=point["factors"],
        task=point["task"],
        source=point["source"],
        language=code,
        seed=point["seed"],
        metric=found["metric"],
        value=found["value"],
        n=found["n"],
        items=found["items"],
        parts=found["parts"],
        seen=code in point["seen"],
        trained_parameters=int(trained.get("parameters", 0)),
        stored_bytes=int(trained.get("stored_bytes", 0)),
        seconds=float(trained.get("seconds", 0.0)),
        command=record.get("command", ""),
        commit=record.get("commit", ""),
        test=test,
    )


def _curves(store: Store, key: str, label: str) -> list[LearningCurve]:
    with suppress(IsoglossError):
        found = read_json(store.place(key) / CURVE)
        return [
            LearningCurve(key, label, kind, [point[0] for point in found[kind]], [point[1] for point in found[kind]])
            for kind in ("loss", "dev")
            if found.get(kind)
        ]
    return []


def _gates(store: Store, key: str, label: str) -> list[GateTable]:
    place = store.place(key) / MODULE / "rule.json"
    if not place.is_file():  # a learned start has none
        return []
    rule = read_json(place)
    values = [[float(part[number]) for part in rule["gates"]] for number in range(len(rule["groups"]))]
    return [GateTable(key, label, rule["groups"], values)] if rule["gates"] else []


def _missing(plan: Plan, done: Set[str], failures: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Steps that are not done, with the reason: a failure of their own, or one further below."""
    cause: dict[str, str] = {}
    found = []
    for key, step in plan.steps.items():  # each step comes after what it needs
        if key in done:
            continue
        below = next((cause[need] for need in step.needs if need in cause), None)
        if key in failures:
            cause[key] = key
            found.append((step.label, str(failures[key]["error"])))
        elif below is not None:
            cause[key] = below
            found.append((step.label, f"needs a step that failed: {plan.steps[below].label}"))
        else:
            found.append((step.label, "has not run yet"))
    return found
