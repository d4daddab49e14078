"""What one optimiser step of pre-training reads, on one process and on several, at once and accumulated."""

from pathlib import Path
from typing import Any

import pytest

from isogloss.training.pretrain import _start, _text_files
from isogloss.training.pretrain_stream import PretrainStep, PretrainStream
from tests._pool_tools import recipe, write_world

STAGES = [{"steps": 4, "length": 16, "batch": 6}, {"steps": 2, "length": 24, "batch": 4}]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def parts(world: Path) -> tuple[Any, ...]:
    """Of a stream of masked LM in two stages."""
    wanted = recipe(world, pool=None, parallel=[], stages=STAGES, objectives=[{"name": "masked", "weight": 1}])
    files = {code: _text_files(wanted, code) for code in wanted.codes}
    backbone, stores = _start(wanted, files, world / "cache", lambda text: None)
    return wanted, stores, None, backbone


def rows(steps: list[PretrainStep]) -> list[list[int]]:
    return [step.batch.input_ids.flatten().tolist() for step in steps]  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_stages_are_of_optimiser_steps(parts: tuple[Any, ...], size: int) -> None:
    stream = PretrainStream(*parts)
    lengths = [[step.batch.input_ids.shape[1] for step in stream.window(size)] for _ in range(6)]  # type: ignore[union-attr]
    assert lengths == [[16] * size] * 4 + [[24] * size] * 2


def test_processes_share_the_windows_out(parts: tuple[Any, ...]) -> None:
    alone, both = PretrainStream(*parts), [PretrainStream(*parts) for _ in range(2)]
    for _ in range(6):
        found = rows(list(alone.window(4)))
        shares = [rows(list(stream.window(4, rank, 2))) for rank, stream in enumerate(both)]
        assert shares == [found[0::2], found[1::2]]


def test_it_goes_on_in_the_middle_of_a_stage(parts: tuple[Any, ...]) -> None:
    stream, again = PretrainStream(*parts), PretrainStream(*parts)
    for _ in range(3):
        list(stream.window(2))
    again.load_state_dict(stream.state_dict())
    for _ in range(3):
        assert rows(list(again.window(2))) == rows(list(stream.window(2)))


def test_a_place_of_one_process_that_counts_batches_only_is_known(parts: tuple[Any, ...]) -> None:
    """Checkpoints from before windows were counted."""
    stream, again = PretrainStream(*parts), PretrainStream(*parts)
    for _ in range(3):
        list(stream.window(1))
    state = stream.state_dict()
    assert state.pop("windows") == 3
    again.load_state_dict(state)
    lengths = [next(again.window(1)).batch.input_ids.shape[1] for _ in range(3)]  # type: ignore[union-attr]
    assert lengths == [16, 24, 24]
