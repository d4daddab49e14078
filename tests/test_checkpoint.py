"""Checkpoints: whole or absent, the older one intact whatever happens, no pickles."""

import errno
import json
import resource

import pytest
import torch

from isogloss.errors import IsoglossError
from isogloss.training import checkpoint as room
from isogloss.training.checkpoint import Checkpoint, Checkpoints, discard_checkpoints, has_checkpoint


def a_checkpoint(step, *, size=10, best_step=None):
    tensors = {"weights/m": torch.full((size,), float(step)), "random/0": torch.arange(5, dtype=torch.uint8)}
    best = {} if best_step is None else {"m": torch.full((size,), float(best_step))}
    return Checkpoint(step=step, facts={"n": step, "x": 0.1}, tensors=tensors, best_step=best_step, best=best)


def names(folder):
    return sorted(path.name for path in (folder / ".checkpoint").iterdir())


def test_comes_back_as_it_went(tmp_path):
    Checkpoints(tmp_path, "k").save(a_checkpoint(7, best_step=5))
    back = Checkpoints(tmp_path, "k").load()
    assert back.step == 7 and back.best_step == 5
    assert back.facts["n"] == 7 and back.facts["x"] == 0.1
    assert torch.equal(back.tensors["weights/m"], torch.full((10,), 7.0))
    assert back.tensors["random/0"].dtype == torch.uint8
    assert torch.equal(back.best["m"], torch.full((10,), 5.0))


def test_the_two_newest_are_kept_with_the_best_weights_they_name(tmp_path):
    store = Checkpoints(tmp_path, "k")
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 3)):
        store.save(a_checkpoint(step, best_step=best))
    assert names(tmp_path) == ["best-0000000003.safetensors", "step-0000000003", "step-0000000004"]


def test_only_safetensors_and_json(tmp_path):
    Checkpoints(tmp_path, "k").save(a_checkpoint(1, best_step=1))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}


def test_nothing_there_is_none_and_discarding_leaves_the_rest(tmp_path):
    assert Checkpoints(tmp_path, "k").load() is None
    assert not has_checkpoint(tmp_path)
    (tmp_path / "mine.txt").write_text("x")
    Checkpoints(tmp_path, "k").save(a_checkpoint(1))
    assert has_checkpoint(tmp_path)
    discard_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_another_run_is_refused_in_one_sentence(tmp_path):
    Checkpoints(tmp_path, "k").save(a_checkpoint(1))
    with pytest.raises(IsoglossError, match="other settings or data"):
        Checkpoints(tmp_path, "another").load()


def test_another_format_is_refused(tmp_path):
    Checkpoints(tmp_path, "k").save(a_checkpoint(1))
    state = tmp_path / ".checkpoint" / "step-0000000001" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "format": 99}))
    with pytest.raises(IsoglossError, match="format 99"):
        Checkpoints(tmp_path, "k").load()


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors"])
def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path, file):
    store = Checkpoints(tmp_path, "k")
    store.save(a_checkpoint(1))
    store.save(a_checkpoint(2))
    path = tmp_path / ".checkpoint" / "step-0000000002" / file
    path.write_bytes(path.read_bytes()[:-9])
    assert Checkpoints(tmp_path, "k").load().step == 1


def test_all_damaged_is_an_error_that_names_the_folder(tmp_path):
    Checkpoints(tmp_path, "k").save(a_checkpoint(1))
    (tmp_path / ".checkpoint" / "step-0000000001" / "tensors.safetensors").write_bytes(b"no")
    with pytest.raises(IsoglossError, match=r"damaged.*delete '.*\.checkpoint'"):
        Checkpoints(tmp_path, "k").load()


def test_what_a_killed_process_left_is_swept_and_not_read(tmp_path):
    Checkpoints(tmp_path, "k").save(a_checkpoint(1))
    half = tmp_path / ".checkpoint" / ".step-0000000002.abc.tmp"
    half.mkdir()
    (half / "tensors.safetensors").write_bytes(b"half")
    (tmp_path / ".checkpoint" / ".best-0000000002.safetensors.abc.tmp").write_bytes(b"half")
    assert Checkpoints(tmp_path, "k").load().step == 1
    assert names(tmp_path) == ["step-0000000001"]


@pytest.mark.parametrize("victim", ["save_tensors", "write_json"])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch, victim):
    store = Checkpoints(tmp_path, "k")
    store.save(a_checkpoint(1))

    def full(path, *rest):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(room, victim, full)
    with pytest.raises(IsoglossError, match=r"step 2 .*No space left on device.*continues from step 1"):
        store.save(a_checkpoint(2))
    monkeypatch.undo()
    assert names(tmp_path) == ["step-0000000001"]
    assert Checkpoints(tmp_path, "k").load().step == 1


def test_a_limit_of_the_operating_system_on_real_writes(tmp_path):
    # The kernel itself refuses the bytes here, so the errors are those that the libraries really give.
    store = Checkpoints(tmp_path, "k")
    store.save(a_checkpoint(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(IsoglossError, match=r"could not be written.*continues from step 1") as caught:
            store.save(a_checkpoint(2, size=1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["step-0000000001"]
    assert Checkpoints(tmp_path, "k").load().step == 1
