"""Invented studies for the tests of reports; the tool that shows reports makes them."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from isogloss.report.study_data import Factor, StudyScore

EVIL = '<script>alert("x")</script> & [red]|$a_1$|'


def example() -> ModuleType:
    """`tools/report_example.py` as a module."""
    path = Path(__file__).parent.parent / "tools" / "report_example.py"
    spec = importlib.util.spec_from_file_location("report_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scored(
    cell: str,
    language: str,
    right: Sequence[int] | None,
    *,
    seed: int = 1,
    value: float | None = None,
    task: str = "topic",
    source: str = "eng_Latn",
    items: Sequence[str] | None = None,
    seen: bool | None = None,
    **factors: Factor,
) -> StudyScore:
    """An accuracy from right (1) and wrong (0) answers, or a bare value."""
    n = len(right) if right is not None else 10
    return StudyScore(
        step=f"step-{cell}-{language}-{seed}-{source}-{task}",
        factors={"cell": cell, **factors},
        task=task,
        source=source,
        language=language,
        seed=seed,
        metric="accuracy",
        value=value if value is not None else 100 * sum(right or ()) / n,
        n=n,
        items=items if items is not None else ([f"s{i}" for i in range(n)] if right is not None else None),
        parts=[[float(one)] for one in right] if right is not None else None,
        seen=source == language if seen is None else seen,
        trained_parameters=1000,
        stored_bytes=4000,
        seconds=5.0,
        command=f"isogloss study run x.yaml --set seed={seed}",
        commit="c0ffee",
    )
