"""Scores on rows that were trained on are said to be no test; published quirks can be had by a switch."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from _cli_tools import World, build_world, isogloss, succeed

from isogloss.formats import read_info


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOGLOSS_CACHE", str(root / "cache"))
        yield build_world(root)
    torch.set_num_threads(threads)


def _write(folder: Path, split: str, rows: list[tuple[str, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    labels = ("travel", "sports", "health")
    lines = [
        json.dumps({"id": name, "text": text, "category": labels[place % 3]}) for place, (name, text) in enumerate(rows)
    ]
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    _write(root / "en", "train", [("a", "One."), ("b", "Two."), ("c", "Three.")])
    # "b" again, and the text of "c" under another id
    _write(root / "en", "test", [("b", "Two."), ("x", "Three."), ("y", "Five.")])
    # the translation of "a", and one that is in no training data
    _write(root / "sk", "test", [("a", "Jeden."), ("z", "Desať.")])
    _write(root / "cs", "test", [("q", "Deset.")])
    return root


def _train(capsys: pytest.CaptureFixture[str], world: World, data: Path, out: Path) -> Path:
    what = ("-b", world.backbone, "-t", "topic", "-d", data, "-s", "en", "--split-dev", "none")
    succeed(capsys, "train", "task", *what, "--module", "adapter:4", "--steps", 1, "--device", "cpu", "--out", out)
    return out


def test_evaluate_says_which_rows_were_trained_on(
    capsys: pytest.CaptureFixture[str], world: World, data: Path, tmp_path: Path
) -> None:
    module = _train(capsys, world, data, tmp_path / "module")
    what = ("evaluate", "-m", module, "-l", "en,sk,cs", "--device", "cpu")
    found = succeed(capsys, *what, "-d", data, "--json").json
    assert found["in_training"] == {"eng_Latn": 2, "slk_Latn": 1}
    told = succeed(capsys, *what, "-d", data).err
    assert "Slovak: 1 row of 2 stand" in told and "English: 2 rows of 3" in told and "Czech" not in told
    # In other data equal ids mean nothing, but equal texts do.
    other = tmp_path / "other"
    for code in ("en", "sk", "cs"):
        (other / code).mkdir(parents=True)
        (other / code / "test.jsonl").write_bytes((data / code / "test.jsonl").read_bytes())
    assert succeed(capsys, *what, "-d", other, "--json").json["in_training"] == {"eng_Latn": 2}


def test_a_dev_split_without_labels_is_refused_with_the_way_out(
    capsys: pytest.CaptureFixture[str], world: World, data: Path, tmp_path: Path
) -> None:
    rows = [{"id": "d", "text": "Seven.", "category": None}]
    (data / "en" / "dev.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    what = ("-b", world.backbone, "-t", "topic", "-d", data, "-s", "en", "--module", "adapter:4", "--steps", 1)
    refused = isogloss(capsys, "train", "task", *what, "--device", "cpu", "--out", tmp_path / "module")
    assert refused.status == 2 and refused.err.rstrip().endswith("or --split-dev none.")
    assert not (tmp_path / "module").exists()


def test_a_split_that_was_trained_on_is_refused(
    capsys: pytest.CaptureFixture[str], world: World, data: Path, tmp_path: Path
) -> None:
    _write(data / "en", "dev", [("d", "Seven."), ("e", "Eight.")])
    module = tmp_path / "module"
    what = ("-b", world.backbone, "-t", "topic", "-d", data, "-s", "en", "--split-train", "dev", "--split-dev", "none")
    succeed(capsys, "train", "task", *what, "--module", "adapter:4", "--steps", 1, "--device", "cpu", "--out", module)
    assert read_info(module).info.training["split"] == "dev"
    refused = isogloss(capsys, "evaluate", "-m", module, "-l", "en", "-d", data, "--split", "dev", "--device", "cpu")
    assert refused.status == 2 and "dev" in refused.err
    succeed(capsys, "evaluate", "-m", module, "-l", "en", "-d", data, "--device", "cpu")


def test_ids_that_only_count_rows_are_no_leak(capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path) -> None:
    data = tmp_path / "data"
    _write(data / "en", "train", [("row-1", "One."), ("row-2", "Two."), ("row-3", "Three.")])
    _write(data / "en", "test", [("row-1", "Four."), ("row-2", "Five.")])
    module = _train(capsys, world, data, tmp_path / "module")
    found = succeed(capsys, "evaluate", "-m", module, "-l", "en", "-d", data, "--device", "cpu", "--json").json
    assert "in_training" not in found


def test_training_data_that_have_gone_are_no_trouble(
    capsys: pytest.CaptureFixture[str], world: World, data: Path, tmp_path: Path
) -> None:
    module = _train(capsys, world, data, tmp_path / "module")
    (data / "en" / "train.jsonl").unlink()
    found = succeed(capsys, "evaluate", "-m", module, "-l", "sk", "-d", data, "--device", "cpu", "--json").json
    assert "in_training" not in found and found["scores"]["slk_Latn"]["n"] == 2


def test_the_few_shot_draw_has_a_seed_of_its_own(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    what = ("train", "task", "-b", world.backbone, "-t", "topic", "-d", "bundled:parallel", "-s", "en", "--steps", 1)
    what = (*what, "--module", "adapter:4", "--shots", 2, "--split-dev", "none", "--device", "cpu")
    told = succeed(capsys, *what, "--shots-seed", "random", "--out", tmp_path / "drawn").err
    seed = read_info(tmp_path / "drawn").info.training["shots_seed"]
    assert f"2 of each class (drawn by --shots-seed {seed}) out of" in told
    succeed(capsys, *what, "--shots-seed", seed, "--out", tmp_path / "again")
    succeed(capsys, *what, "--shots-seed", seed + 1, "--out", tmp_path / "other")
    weights = [(tmp_path / name / "module.safetensors").read_bytes() for name in ("drawn", "again", "other")]
    assert weights[0] == weights[1] != weights[2]
    for wrong, part in ((("--shots-seed", "x"), "number"), (("--shots-seed", "-1"), "number")):
        refused = isogloss(capsys, *what, *wrong, "--out", tmp_path / "wrong")
        assert refused.status == 2 and part in refused.err and not (tmp_path / "wrong").exists()


def test_the_double_prompt_of_s1_is_a_switch(capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path) -> None:
    language = tmp_path / "prompt"
    text = world.text / "eng_Latn.jsonl"
    short = ("--steps", 1, "--length", 24, "--batch-size", 4, "--device", "cpu")
    succeed(
        capsys,
        "train",
        "language",
        "-b",
        world.backbone,
        "-l",
        "en",
        "-t",
        text,
        "-m",
        "prompt:3",
        *short,
        "-o",
        language,
    )
    what = ("train", "task", "-b", world.backbone, "-t", "topic", "-d", "bundled:parallel", "-s", "en", "--limit", 8)
    what = (*what, "--module", "prompt:2", "--steps", 3, "--select", "last", "--device", "cpu")
    over = ("--language-module", language)
    succeed(capsys, *what, *over, "--double-language-prompt", "--out", tmp_path / "double")
    succeed(capsys, *what, *over, "--out", tmp_path / "single")
    assert read_info(tmp_path / "double").info.training["stack"]["double_language_prompt"] is True
    weights = [(tmp_path / name / "module.safetensors").read_bytes() for name in ("double", "single")]
    assert weights[0] != weights[1]
    for modules in ((), ("--language-module", world.en)):
        refused = isogloss(capsys, *what, *modules, "--double-language-prompt", "--out", tmp_path / "wrong")
        assert refused.status == 2 and "language prompt" in refused.err and not (tmp_path / "wrong").exists()
