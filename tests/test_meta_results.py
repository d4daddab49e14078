"""tools/meta_results.py: what its tables say of time."""

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from isogloss.storage import read_json


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    path = Path(__file__).parents[1] / "tools" / "meta_results.py"
    spec = importlib.util.spec_from_file_location("meta_results", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up.
    monkeypatch.setitem(sys.modules, "meta_results", module)
    spec.loader.exec_module(module)
    return module


def test_the_seconds_of_a_start_are_its_own_when_plain_was_made_before(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start alone counted the plain fine-tuning that it goes on from; after `plain` in the same call it did not."""
    clock = [0.0]
    monkeypatch.setattr(tool.time, "time", lambda: clock[0])

    def tune(runner: Any, name: str, update: str | None) -> Path:
        clock[0] += 100.0
        folder = runner.scratch / f"tuned-{name}"
        folder.mkdir()
        (folder / "module.json").write_text("{}")
        return folder  # type: ignore[no-any-return]

    def learn(runner: Any, method: str) -> tuple[Path, dict[str, Any]]:
        runner.plain()
        clock[0] += 7.0
        return runner.scratch, {}

    monkeypatch.setattr(tool.Runner, "tune", tune)
    monkeypatch.setattr(tool.Runner, "learn", learn)
    monkeypatch.setattr(tool.Runner, "score", lambda runner, folder: {"mean": {"accuracy": 50.0}})
    monkeypatch.setattr(tool, "load_backbone", lambda name: argparse.Namespace(languages=(), fingerprint="f"))
    monkeypatch.setattr(tool, "rows_of", lambda plan, covered: tool.Rows([], [], [], []))
    monkeypatch.setattr(tool, "get_task", lambda name: argparse.Namespace(has_labels=False))
    given = dict.fromkeys(tool.OPTIONS)
    options = argparse.Namespace(
        **given, task="topic", fast="all", backbone="b", methods=["fomaml"], seeds=[1], threads=1, out=str(tmp_path)
    )
    tool.run(options)
    assert read_json(tool.place_of(options, "fomaml", 1))["seconds"] == 7.0
