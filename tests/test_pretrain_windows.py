"""What one optimiser step of pre-training reads, on one process and on several, at once and accumulated."""

from pathlib import Path
from typing import Any

import pytest

from isogloss.training import pretrain as pretraining
from isogloss.training.pretrain import _start, _text_files
from isogloss.training.pretrain_stream import PretrainStep, PretrainStream
from isogloss.training.recipe import ObjectiveRecipe, read_recipe
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


def test_the_batches_of_a_step_share_their_objective(world: Path, parts: tuple[Any, ...]) -> None:
    """Of all that a step scores, a contrast has a few rows and masked LM hundreds of tokens."""
    items = [ObjectiveRecipe(name="masked", weight=1, rate=rate) for rate in (0.1, 0.3)]
    wanted = parts[0].model_copy(update={"objectives": items})
    one, many = PretrainStream(wanted, *parts[1:]), PretrainStream(wanted, *parts[1:])
    found = [[step.objective.rate for step in many.window(3)] for _ in range(6)]
    assert {*map(len, found)} == {3} and {tuple(set(step)) for step in found} == {(0.1,), (0.3,)}
    # The choice is that of the step's first batch, as it was for steps of one batch.
    draws = [next(one.window(1)).objective.rate for _ in range(18)]
    assert [step[0] for step in found] == draws[::3]


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


def test_accumulation_makes_the_step_of_as_many_processes(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {"pool": None, "parallel": [], "stages": STAGES, "objectives": [{"name": "masked", "weight": 1}]}
    read = []
    step_loss = pretraining.step_loss

    def seen(stack: Any, step: PretrainStep, *more: Any) -> Any:
        if stack.training:
            read.extend(rows([step]))
        return step_loss(stack, step, *more)

    monkeypatch.setattr(pretraining, "step_loss", seen)
    wanted = recipe(world, **shape, accumulation=2)
    facts = pretraining.pretrain(wanted, tmp_path / "out", cache_dir=world / "cache")
    assert facts["steps"] == 6
    assert [len(row) for row in read] == [6 * 16] * 8 + [4 * 24] * 4
    assert "2 such batches a step" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_recipe_without_accumulation_is_recorded_as_before_there_was_any(world: Path) -> None:
    """Checkpoints are known by it."""
    assert not {"accumulation", "pool", "pool_rate", "text_seed"} & set(recipe(world, pool=None).record())
    assert recipe(world, accumulation=1).record() == recipe(world).record()
    assert recipe(world, accumulation=2).record()["accumulation"] == 2
    assert recipe(world).record()["pool"] == "pool:4x2"
    assert recipe(world, pool_rate=3).record()["pool_rate"] == 3


def test_the_large_recipe_can_accumulate_what_eight_gpus_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parent.parent / "recipes" / "pretrain" / "pool" / "xlm-r-base.yaml"
    assert read_recipe(path).accumulation == 1
    monkeypatch.setenv("ACCUMULATION", "8")
    assert read_recipe(path).accumulation == 8
