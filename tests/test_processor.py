"""Which precision a machine computes in, by what its processor says of itself."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from isogloss.backbones import processor
from isogloss.errors import IsoglossError
from isogloss.storage import read_json
from isogloss.training import fit, pretrain
from isogloss.training.config import FitConfig, LossResult, TrainedPart
from isogloss.training.progress import Progress
from tests._pool_tools import recipe, write_world

MACHINES = {
    "Cascade Lake": ("flags\t\t: fma avx2 avx512f avx512_vnni\nbugs\t\t: none", False),
    "Zen 4": ("flags\t\t: fma avx2 avx512f avx512_bf16 avx512_vnni", True),
    "Sapphire Rapids": ("flags\t\t: avx512f amx_bf16 amx_tile", True),
    "Neoverse V1": ("Features\t: fp asimd i8mm bf16 dgh", True),
    "Neoverse N1": ("Features\t: fp asimd evtstrm", False),
}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> bool:
    text, multiplies = MACHINES[request.param]
    monkeypatch.setattr(processor, "processor", lambda: text)
    return multiplies


@pytest.mark.parametrize("machine", MACHINES, indirect=True)
def test_bf16_is_known_by_the_processors_features(machine: bool) -> None:
    assert processor.has_bf16("cpu") == machine


def test_this_machines_processor_is_read_or_empty() -> None:
    assert isinstance(processor.processor(), str)


@pytest.mark.parametrize("machine", ["Cascade Lake", "Zen 4"], indirect=True)
@pytest.mark.parametrize("wanted", ["auto", "fp32", "bf16"])
def test_pretraining_takes_what_is_fast_unless_told(
    wanted: str, machine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    plain = fit.fit

    def noted(config: FitConfig, **options: object) -> object:
        taken.append(config.precision)
        return plain(config, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pretrain, "fit", noted)
    world = write_world(tmp_path / "world")
    made = recipe(world, pool=None, precision=wanted, stages=[{"steps": 1, "length": 24, "batch": 4}])
    pretrain.pretrain(made, tmp_path / "out", cache_dir=tmp_path / "cache")
    assert taken == [{"auto": "bf16" if machine else "fp32"}.get(wanted, wanted)]
    assert read_json(tmp_path / "out" / "isogloss.json")["recipe"]["precision"] == taken[0]


def test_a_run_from_a_machine_of_the_other_sort_can_be_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = write_world(tmp_path / "world")
    shape = {"pool": None, "stages": [{"steps": 1, "length": 24, "batch": 4}]}
    monkeypatch.setattr(processor, "processor", lambda: MACHINES["Zen 4"][0])
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(pretrain, "validation_losses", lambda *a: (_ for _ in ()).throw(RuntimeError("killed")))
        pretrain.pretrain(recipe(world, **shape, precision="auto"), tmp_path / "out", cache_dir=tmp_path / "cache")
    monkeypatch.setattr(processor, "processor", lambda: MACHINES["Cascade Lake"][0])
    with pytest.raises(IsoglossError, match=r"'precision: auto' is fp32 on this machine.* write 'precision: bf16'"):
        pretrain.pretrain(recipe(world, **shape, precision="auto"), tmp_path / "out", cache_dir=tmp_path / "cache")
    pretrain.pretrain(recipe(world, **shape, precision="bf16"), tmp_path / "out", cache_dir=tmp_path / "cache")


class _Rows:
    epoch = 0

    def window(self, size: int, rank: int = 0, world: int = 1) -> Iterator[int]:
        return iter(range(size))

    def steps_in(self, epochs: float, size: int) -> int:
        return 1

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: object) -> None:
        pass


@pytest.mark.parametrize("machine", ["Cascade Lake", "Zen 4"], indirect=True)
def test_imitated_bf16_is_said(machine: bool) -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    stream = io.StringIO()
    fit.fit(
        FitConfig(steps=1, precision="bf16"),
        parts=[TrainedPart("weight", [layer.weight])],
        batches=_Rows(),
        loss=lambda row: LossResult((layer.weight**2).sum(), 1, 1),
        modules={"layer": layer},
        progress=Progress("toy", stream=stream),
    )
    assert ("only imitates bf16" in stream.getvalue()) == (not machine)
