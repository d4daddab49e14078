"""Stopping and going on: the same bits as if nothing had happened."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from test_fit import Toy, assert_same

from isogloss.errors import IsoglossError
from isogloss.training._interrupts import Interrupted
from isogloss.training.checkpoint import has_checkpoint
from isogloss.training.config import FitConfig, TrainedPart
from isogloss.training.outputs import claim_output


class PowerCutError(Exception):
    pass


def settings(optimiser="adamw", **more):
    return FitConfig(
        **{
            "steps": 30,
            "accumulation": 2,
            "learning_rate": 2e-2,
            "optimiser": optimiser,
            "momentum": 0.9,
            "warmup": 0.2,
            "weight_decay": 0.01,
            "eval_every": 4,
            "checkpoint_every": 3,
            "checkpoint_seconds": None,
            "log_every": 5,
            **more,
        }
    )


def scored(toy):
    """A score that goes up and down, so that the best step is not the last."""
    return lambda: float(torch.sin(40 * toy.model[0].weight.sum()))


def uninterrupted(config):
    toy = Toy(norm=True)
    return toy, toy.fit(config, validate=scored(toy))


def cut_at(toy, call):
    """The toy's loss, which fails at its n-th call."""
    calls = []

    def loss(batch):
        calls.append(1)
        if len(calls) == call:
            raise PowerCutError
        return toy.loss(batch)

    return loss


@pytest.mark.parametrize("optimiser", ["adamw", "adafactor", "sgd"])
@pytest.mark.parametrize("cuts", [[7], [8, 13], [59], [24, 3, 20]])
def test_resumed_equals_uninterrupted_to_the_bit(tmp_path, optimiser, cuts):
    config = settings(optimiser)
    whole, expected = uninterrupted(config)
    for cut in cuts:
        toy = Toy(norm=True)
        with pytest.raises(PowerCutError):
            toy.fit(config, folder=tmp_path, validate=scored(toy), loss=cut_at(toy, cut))
    toy = Toy(norm=True)
    result = toy.fit(config, folder=tmp_path, validate=scored(toy))
    assert result.resumed_from is not None and result.resumed_from % 3 == 0
    assert_same(toy.weights(), whole.weights())
    assert result.history == expected.history
    assert (result.steps, result.tokens) == (expected.steps, expected.tokens)
    assert (result.best_step, result.best_value) == (expected.best_step, expected.best_value)
    assert 0 < expected.best_step < 30


def test_a_cut_before_the_first_checkpoint_starts_again(tmp_path):
    config = settings()
    whole, _ = uninterrupted(config)
    toy = Toy(norm=True)
    with pytest.raises(PowerCutError):
        toy.fit(config, folder=tmp_path, validate=scored(toy), loss=cut_at(toy, 2))
    assert not has_checkpoint(tmp_path)
    toy = Toy(norm=True)
    assert toy.fit(config, folder=tmp_path, validate=scored(toy)).resumed_from is None
    assert_same(toy.weights(), whole.weights())


def test_the_state_before_a_resume_does_not_matter(tmp_path):
    config = settings()
    whole, _ = uninterrupted(config)
    toy = Toy(norm=True)
    with pytest.raises(PowerCutError):
        toy.fit(config, folder=tmp_path, validate=scored(toy), loss=cut_at(toy, 30))
    toy = Toy(norm=True)
    with torch.no_grad():
        for tensor in toy.model.state_dict().values():
            tensor.fill_(9)
    toy.fit(config, folder=tmp_path, validate=scored(toy))
    assert_same(toy.weights(), whole.weights())


def test_patience_counts_over_restarts(tmp_path):
    values = [0.5, 0.9, 0.3, 0.2, 0.1, 0.0]

    def run(folder, cut):
        toy, step = Toy(), []
        config = settings(patience=3, eval_every=2, checkpoint_every=2)

        def loss(batch):
            step.append(1)
            if cut and len(step) == cut:
                raise PowerCutError
            return toy.loss(batch)

        seen = []

        def validate():
            seen.append(1)
            return values[(len(seen) - 1) if cut else (len(seen) + 3 - 1)]

        return toy.fit(config, folder=folder, validate=validate, loss=loss)

    with pytest.raises(PowerCutError):
        run(tmp_path, 14)  # after the third value, at step 6
    result = run(tmp_path, None)
    assert result.resumed_from == 6
    assert result.stopped_early and result.steps == 10 and result.best_step == 4


def test_a_finished_run_that_was_not_saved_is_not_trained_again(tmp_path):
    config = settings()
    toy = Toy(norm=True)
    first = toy.fit(config, folder=tmp_path, validate=scored(toy))
    again = Toy(norm=True)

    def never(batch):
        raise AssertionError("trained again")

    second = again.fit(config, folder=tmp_path, validate=scored(again), loss=never)
    assert_same(toy.weights(), again.weights())
    assert (second.steps, second.best_step, second.resumed_from) == (30, first.best_step, 30)


def test_resume_false_starts_over(tmp_path):
    toy = Toy()
    toy.fit(settings(steps=6), folder=tmp_path)
    other = Toy()
    assert other.fit(settings(steps=6, seed=9), folder=tmp_path, resume=False).resumed_from is None


@pytest.mark.parametrize("change", ["config", "part", "identity", "shape"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path, change):
    Toy().fit(settings(steps=6), folder=tmp_path, identity={"data": "a"})
    toy = Toy(norm=change == "shape")
    config = settings(steps=6, learning_rate=1.0 if change == "config" else 2e-2)
    parts = [TrainedPart("model", list(toy.model.parameters()), 0.5 if change == "part" else None)]
    identity = {"data": "b" if change == "identity" else "a"}
    with pytest.raises(IsoglossError, match="other settings or data"):
        toy.fit(config, folder=tmp_path, parts=parts, identity=identity)


def test_how_often_it_saves_and_logs_may_differ_between_starts(tmp_path):
    toy = Toy()
    with pytest.raises(PowerCutError):
        toy.fit(settings(), folder=tmp_path, loss=cut_at(toy, 30))
    toy = Toy()
    assert toy.fit(settings(checkpoint_every=10, log_every=1), folder=tmp_path).resumed_from == 12


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_says_how_to_continue_and_continues_to_the_same_bits(tmp_path, number):
    config = settings(checkpoint_every=None)
    whole, _ = uninterrupted(config)
    toy, calls = Toy(norm=True), []

    def loss(batch):
        calls.append(1)
        if len(calls) == 15:  # in the middle of step 8
            os.kill(os.getpid(), number)
        return toy.loss(batch)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        Interrupted, match=r"Stopped at step 8 of 30; .*\(without --overwrite\) to continue from step 8\."
    ):
        toy.fit(config, folder=tmp_path, validate=scored(toy), loss=loss)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    toy = Toy(norm=True)
    assert toy.fit(config, folder=tmp_path, validate=scored(toy)).resumed_from == 8
    assert_same(toy.weights(), whole.weights())


def test_ctrl_c_without_a_folder_says_that_nothing_was_kept():
    toy = Toy()

    def loss(batch):
        os.kill(os.getpid(), signal.SIGINT)
        return toy.loss(batch)

    with pytest.raises(Interrupted, match="nothing was kept because no output folder"):
        toy.fit(settings(), loss=loss)


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    toy, calls = Toy(), []

    def loss(batch):
        calls.append(1)
        if len(calls) == 15:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the second signal came to nothing")
        return toy.loss(batch)

    with pytest.raises(Interrupted, match=r"Stopped at step 7 of 30; .*from step 6\."):
        toy.fit(settings(), folder=tmp_path, loss=loss)


KILLED = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from test_fit import Toy
    from test_fit_resume import scored, settings
    toy = Toy(norm=True)
    def loss(batch):
        time.sleep(0.02)
        return toy.loss(batch)
    toy.fit(settings(steps=120, checkpoint_every=1), folder={folder!r}, validate=scored(toy), loss=loss)
"""


def test_kill_9_then_the_next_start_continues(tmp_path):
    config = settings(steps=120, checkpoint_every=1)
    whole, _ = uninterrupted(config)
    code = textwrap.dedent(KILLED).format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        # Saving after every step of 40 ms, the kill falls into a write as easily as beside one.
        while not list(tmp_path.glob(".checkpoint/step-*[5-9]")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    toy = Toy(norm=True)
    result = toy.fit(config, folder=tmp_path, validate=scored(toy))
    assert result.resumed_from >= 5
    assert_same(toy.weights(), whole.weights())


def test_a_full_disk_stops_with_one_sentence_and_can_be_continued(tmp_path, monkeypatch):
    from isogloss.training import checkpoint as room

    config = settings()
    whole, _ = uninterrupted(config)
    real, writes = room.write_json, []

    def filling(path, content):
        writes.append(path)
        if len(writes) == 4:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(room, "write_json", filling)
    toy = Toy(norm=True)
    with pytest.raises(IsoglossError, match=r"step 12 .*No space left on device.*continues from step 9"):
        toy.fit(config, folder=tmp_path, validate=scored(toy))
    toy = Toy(norm=True)
    toy.fit(config, folder=tmp_path, validate=scored(toy))
    assert_same(toy.weights(), whole.weights())


def test_the_clock_goes_on_over_restarts(tmp_path):
    toy, calls = Toy(), []

    def slow(batch):
        time.sleep(0.005)
        calls.append(1)
        if len(calls) == 50:
            raise PowerCutError
        return toy.loss(batch)

    with pytest.raises(PowerCutError):
        toy.fit(settings(), folder=tmp_path, loss=slow)
    again = Toy()
    result = again.fit(settings(), folder=tmp_path)
    assert result.resumed_from == 24
    assert result.seconds > 48 * 0.005


def test_a_run_that_overwrites_can_be_continued_without_saying_so_again(tmp_path):
    """What it replaces stands beside its checkpoints until it is done."""
    (tmp_path / "module.json").write_text("{}")
    with pytest.raises(IsoglossError, match=r"already holds 'module.json'"):
        claim_output(tmp_path)
    toy, config = Toy(), settings()
    with pytest.raises(PowerCutError):
        toy.fit(config, folder=claim_output(tmp_path, overwrite=True), loss=cut_at(toy, 30))
    assert (tmp_path / "module.json").is_file()
    assert Toy().fit(config, folder=claim_output(tmp_path)).resumed_from == 12
    claim_output(tmp_path, overwrite=True)
    with pytest.raises(IsoglossError, match=r"already holds 'module.json'"):
        claim_output(tmp_path)
