"""`isogloss bench`: every measurement on tiny models, its ratios, and what it says where a peer is missing."""

import importlib.util
import json
from pathlib import Path

import pytest

from isogloss.bench import Options, language_adapter, memory, padding, prompt_tuning, routing, timing
from isogloss.cli.app import run
from isogloss.errors import IsoglossError

TINY = Options(quick=True, rounds=2, precisions=("fp32",))


def test_ratios_are_taken_round_by_round() -> None:
    slow, fast = timing.Series([4.0, 9.0, 8.0], [2.0, 2.0, 2.0]), timing.Series([2.0, 3.0, 8.0], [1.0, 2.0, 4.0])
    found = timing.ratio(slow, fast)
    assert (found.median, found.low, found.high) == (2.0, 1.0, 3.0)
    assert timing.ratio(slow, fast, "cpu").median == 1.0
    assert [timing.Claim("x", found, bar).met for bar in (None, 2.0, 2.1)] == ["", "yes", "no"]


def test_every_second_round_goes_the_other_way() -> None:
    order: list[tuple[str, int]] = []

    def side(name: str) -> timing.Side:
        def step(number: int) -> timing.Spent:
            order.append((name, number))
            return timing.Spent(1.0, 1.0)

        return step

    series = timing.interleaved({"a": side("a"), "b": side("b")}, TINY)
    assert order == [("b", 0), ("a", 0), ("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert len(series["a"].wall) == 2


def test_soft_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    peer = importlib.util.find_spec("peft") is not None
    result = prompt_tuning.measure(TINY)
    assert {"ours before fp32", "ours after fp32", "s2 fp32"} <= set(result.numbers["times"])
    assert ("peft fp32" in result.numbers["times"]) is peer
    monkeypatch.setattr(prompt_tuning, "has_peft", lambda: False)
    without = prompt_tuning.measure(TINY)
    assert not any("peft" in name for name in without.numbers["times"])
    assert [claim["claim"] for claim in without.numbers["claims"]] == [
        "fp32: s2 / ours before",
        "fp32: s2 / ours after",
    ]
    assert any("isogloss[peft]" in note for note in without.notes)


def test_different_losses_are_not_compared() -> None:
    class Fixed:
        def __init__(self, loss: float) -> None:
            self.loss = loss

        def value(self, rows: object, labels: object) -> float:
            return self.loss

    sides: dict[str, object] = {"ours before": Fixed(1.0), "ours after": Fixed(1.0), "s2": Fixed(1.1)}
    with pytest.raises(IsoglossError, match="losses differ"):
        prompt_tuning.check_losses(sides, ([], None), 1e-3)  # type: ignore[arg-type]


def test_language_adapter_alone() -> None:
    result = language_adapter.measure(TINY)
    assert set(result.numbers["times"]) == {"ours"} and not result.numbers["claims"]
    assert "--adapters-python" in result.notes[0]


def test_a_python_without_adapters_is_named(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    python.chmod(0o755)
    options = Options(quick=True, rounds=1, adapters_python=python)
    with pytest.raises(IsoglossError, match=r"status 3 \(no such library\)"):
        language_adapter.measure(options)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is told by Linux only")
def test_memory_runs_in_processes_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "has_peft", lambda: False)
    sizes = memory.measure(TINY).numbers["memory"]
    assert set(sizes) == {"ours before fp32", "ours after fp32"}
    assert all(size["peak"] >= size["loaded"] > 10**7 for size in sizes.values())


def test_padding_costs() -> None:
    costs = padding.costs_of([10, 20, 30, 200], 2, seed=0)
    assert costs["fixed"] == pytest.approx(4 * 128 / (10 + 20 + 30 + 128))
    assert 1 <= costs["buckets"] <= costs["random"] <= costs["fixed"]


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["bench", "padding", "adapter", "--quick", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert "128 / buckets" in shown and "one masked-LM step" in shown and "say nothing about real ones" in shown
    assert run(["bench", "padding", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["padding"]["cost"]["all mixed"]["buckets"] < found["padding"]["cost"]["all mixed"]["fixed"]
    assert found["machine"]["threads"] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["speed"], "no measurement 'speed'"),
        (["prompt", "--precision", "fp16"], "'fp16'"),
        (["adapter", "--adapters-python", "nowhere/python"], "nowhere/python"),
    ],
)
def test_bad_input(given: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *given]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1


def test_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "start_up", lambda model: 2.0)
    result = routing.measure(Options(quick=True, rounds=1))
    assert set(result.numbers) == {"prompts", "adapters"}
    for part in result.numbers.values():
        assert len(part["claims"]) == 2
        times = part["times"]
        single, mixed = (times[f"{way}, 8 each"]["cpu_seconds_per_step"] for way in ("one by one", "mixed"))
        assert part["processes_over_mixed"][8] == pytest.approx((16 * 2.0 + single) / mixed)
