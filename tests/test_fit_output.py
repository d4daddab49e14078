"""What a run shows: on stderr only, one line that changes on a terminal, few lines elsewhere; trackers."""

import io

import pytest
import torch
from rich.console import Console
from test_fit import Toy

from isogloss.errors import IsoglossError
from isogloss.training import progress as room
from isogloss.training.config import FitConfig
from isogloss.training.progress import Progress


def test_nothing_on_stdout_and_one_last_line_on_stderr(capsys):
    Toy().fit(FitConfig(steps=10, eval_every=5), progress=Progress("toy"), validate=lambda: 0.5)
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert lines[:2] == ["toy: step 5: dev 0.5000 (best so far)", "toy: step 10: dev 0.5000"]
    assert lines[2].startswith("toy: step 10/10  loss ") and "tokens/s" in lines[2]
    assert len(lines) == 3


def test_silent_without_a_progress(capsys):
    Toy().fit(FitConfig(steps=5))
    output = capsys.readouterr()
    assert output.out == output.err == ""


def test_lines_come_every_so_many_seconds_with_rate_and_time_left(monkeypatch):
    stream, now = io.StringIO(), [100.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    progress = Progress("p", every_seconds=30, stream=stream)
    progress.begin(40, 100)
    for step in range(41, 51):
        now[0] += 10
        progress.update(step, 1.5, 20_000)
    assert stream.getvalue().splitlines() == [
        "p: step 43/100  loss 1.5000  2.0k tokens/s  0:30 gone, 9:30 left",
        "p: step 46/100  loss 1.5000  2.0k tokens/s  1:00 gone, 9:00 left",
        "p: step 49/100  loss 1.5000  2.0k tokens/s  1:30 gone, 8:30 left",
    ]


def test_hours_are_shown():
    assert room._clock(3 * 3600 + 62) == "3:01:02"


def test_a_terminal_gets_a_live_line_that_ends_as_an_ordinary_one():
    stream = io.StringIO()
    progress = Progress("p", stream=stream)
    progress._console = Console(file=stream, force_terminal=True, width=100, highlight=False)
    Toy().fit(FitConfig(steps=30), progress=progress)
    assert progress._live is None
    last = stream.getvalue().splitlines()[-1]
    assert "p: step 30/30  loss" in last


def test_markup_in_a_title_is_text():
    stream = io.StringIO()
    Progress("[red]x", stream=stream).note("[bold]y")
    assert stream.getvalue() == "[red]x: [bold]y\n"


def test_an_error_leaves_no_live_line_behind():
    progress = Progress("p", stream=io.StringIO())
    progress._console = Console(file=io.StringIO(), force_terminal=True)
    toy = Toy()
    with pytest.raises(ZeroDivisionError):
        toy.fit(progress=progress, loss=lambda batch: 1 / 0)
    assert progress._live is None


def test_resuming_is_told(tmp_path, capsys):
    toy = Toy()
    with pytest.raises(IsoglossError):
        bad = iter([1.0] * 4 + [float("nan")])

        def loss(batch):
            result = toy.loss(batch)
            return type(result)(result.total * next(bad), result.count, result.tokens)

        toy.fit(FitConfig(steps=9, checkpoint_every=2), folder=tmp_path, loss=loss)
    Toy().fit(FitConfig(steps=9, checkpoint_every=2), folder=tmp_path, progress=Progress("toy"))
    assert "toy: continuing from step 4 of 9" in capsys.readouterr().err


def test_an_unknown_tracker_is_named():
    with pytest.raises(IsoglossError, match=r"'crystal-ball'.*tensorboard"):
        Toy().fit(FitConfig(steps=2, tracker="crystal-ball"))


def test_a_tracker_that_is_not_installed_is_named(monkeypatch):
    import accelerate.tracking as tracking

    monkeypatch.setattr(tracking, "get_available_trackers", list)
    with pytest.raises(IsoglossError, match="'wandb' is not installed"):
        Toy().fit(FitConfig(steps=2, tracker="wandb"))


def test_tensorboard_gets_the_curves(tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "module"
    config = FitConfig(steps=10, log_every=5, eval_every=5, tracker="tensorboard", learning_rate=1e-2)
    result = Toy().fit(config, folder=out, validate=lambda: 0.25)
    events = EventAccumulator(str(tmp_path / "module.logs" / "isogloss")).Reload()
    expected = [entry["loss"] for entry in result.history if "loss" in entry]
    assert [e.step for e in events.Scalars("loss")] == [5, 10]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(expected, rel=1e-6)
    assert [e.value for e in events.Scalars("value")] == [0.25, 0.25]
    assert torch.isfinite(torch.tensor(expected)).all()
