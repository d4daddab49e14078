"""The quickstart end to end on a tiny backbone: what it trains, prints, writes, and what it never leaves behind."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from _heads_tools import TEXTS, TOPICS, load, save
from rich.console import Console

from isogloss import quickstart
from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import list_modules, save_module
from isogloss.modules import create_module, parse_module
from isogloss.quickstart import CELLS, run_quickstart
from isogloss.tasks.registry import TOPICS as LABELS
from isogloss.training._interrupts import Interrupted
from isogloss.training.evaluation import evaluate, load_parts

SPECS = {"adapter": "adapter:4", "prompt": "prompt:3"}
NAMES = {"eng_Latn": "English", "slk_Latn": "Slovak", "deu_Latn": "German"}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(save("encoder", tmp_path_factory.mktemp("backbone") / "tiny"))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> Path:
    """Parallel data in three languages, modules for all of them, and raw text of Slovak and English."""
    root = tmp_path_factory.mktemp("shelf")
    for code in NAMES:
        for split, count in (("train", 14), ("dev", 7), ("test", 9)):
            if code != "eng_Latn" and split == "train":
                continue
            # Sports is the most frequent label, so that the majority class is known.
            labels = [*TOPICS[:3], *(["sports"] * (count - 3))]
            rows = [
                {"id": f"{split}-{n}", "text": f"{TEXTS[n % 8]} {code[n % 3]} {n}", "category": label}
                for n, label in enumerate(labels)
            ]
            path = root / "data" / code / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        for number, (method, spec) in enumerate(SPECS.items()):
            module = create_module(parse_module(spec), backbone, seed=number)
            for tensor in module.weight_tensors().values():
                # A fresh adapter does nothing; these must change the scores' inputs.
                tensor.data.normal_(0, 0.3)
            module.info.role, module.info.language = "language", code
            module.info.scores = {"held_out": {"loss": 2.5, "loss_without": 3.0}}
            save_module(module, root / "modules" / "encoder" / method / code)
    (root / "text").mkdir()
    for code in ("slk_Latn", "eng_Latn"):
        (root / "text" / f"{code}.txt").write_text("\n".join(TEXTS * 12), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def start(shelf: Path, backbone: Backbone) -> Callable[..., tuple[dict[str, Any], str]]:
    def call(out: Path, **given: Any) -> tuple[dict[str, Any], str]:
        console = Console(file=io.StringIO(), width=120, highlight=False)
        options: dict[str, Any] = {
            "modules_folder": shelf / "modules",
            "text_folder": shelf / "text",
            "progress": False,
            "task_steps": 2,
            "language_steps": 2,
            "data": shelf / "data",
            "backbone": backbone,
            **given,
        }
        results = run_quickstart(out, console=console, **options)
        return results, console.file.getvalue()  # type: ignore[attr-defined]

    return call


@pytest.fixture(scope="module")
def whole(
    start: Callable[..., tuple[dict[str, Any], str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], str]:
    out = tmp_path_factory.mktemp("whole") / "quickstart"
    results, printed = start(out, seeds=(1, 2))
    return out, results, printed


def test_all_cells_with_bundled_modules(whole: tuple[Path, dict[str, Any], str]) -> None:
    _, results, _ = whole
    assert list(results["cells"]) == list(CELLS)
    assert list(results["languages"]) == ["eng_Latn", "deu_Latn", "slk_Latn"]
    assert results["zero_shot"] == ["deu_Latn", "slk_Latn"] and results["source"] == "eng_Latn"
    for cell in results["cells"].values():
        assert {code: scores["n"] for code, scores in cell["scores"].items()} == dict.fromkeys(results["languages"], 9)
        means = [cell["scores"][code]["accuracy"] for code in results["zero_shot"]]
        assert cell["mean"] == pytest.approx(sum(means) / 2)
        assert cell["interval"][0] <= cell["mean"] <= cell["interval"][1]
        assert [run["seed"] for run in cell["runs"]] == [1, 2]


def test_scores_are_those_of_evaluate_on_the_written_folders(
    whole: tuple[Path, dict[str, Any], str], shelf: Path, backbone: Backbone
) -> None:
    out, results, _ = whole
    for name in ("TA", "LA+TA", "LP+TP"):
        cell = results["cells"][name]
        found = []
        for run in cell["runs"]:
            folders = [
                out / module["module"]
                for module in results["language_modules"]
                if module["origin"] == "bundled" and module["method"] == cell["language_module"]
            ]
            module, languages = load_parts([out / run["module"], *folders], backbone)
            assert module is not None
            scores = evaluate(backbone, module, languages, shelf / "data", list(NAMES))["scores"]
            assert {code: run["scores"][code] for code in NAMES} == scores
            found.append(scores)
        for code in NAMES:
            mean = sum(scores[code]["accuracy"] for scores in found) / 2
            assert cell["scores"][code]["accuracy"] == pytest.approx(mean)


def test_majority_and_differences(whole: tuple[Path, dict[str, Any], str]) -> None:
    _, results, _ = whole
    assert "sports" in LABELS
    # 6 of 9 test sentences, and one of the first three, are about sports or not: counted from the data's own recipe.
    expected = 100 * ([*TOPICS[:3], *(["sports"] * 6)].count("sports")) / 9
    assert results["majority"]["scores"] == pytest.approx(dict.fromkeys(results["languages"], expected))
    assert {name: found["against"] for name, found in results["differences"].items()} == {
        "LA+TA": "TA",
        "LP+TA": "TA",
        "LA+TP": "TP",
        "LP+TP": "TP",
    }
    for name, found in results["differences"].items():
        gain = results["cells"][name]["mean"] - results["cells"][found["against"]]["mean"]
        assert found["difference"] == pytest.approx(gain)


def test_language_modules_are_trained_before_the_readers_eyes(whole: tuple[Path, dict[str, Any], str]) -> None:
    out, results, _ = whole
    made = [module for module in results["language_modules"] if module["origin"] == "trained now"]
    assert [(module["method"], module["language"], module["steps"]) for module in made] == [
        ("adapter", "slk_Latn", 2),
        ("prompt", "slk_Latn", 2),
    ]
    for module in made:
        assert module["spec"] == SPECS[module["method"]], "built as the bundled one, to fit in its place"
        assert {"loss", "loss_without"} <= set(module)
    assert set(results["cells"]["LA+TA"]["runs"][0]["with_trained_now"]) == {"slk_Latn"}
    saved = {item.folder.relative_to(out).as_posix() for item in list_modules(out)}
    assert saved == {module["module"] for module in results["language_modules"]} | {
        run["module"] for cell in results["cells"].values() for run in cell["runs"]
    }
    assert len(saved) == 6 + 2 + 14


def test_what_is_printed_and_written(whole: tuple[Path, dict[str, Any], str]) -> None:
    out, results, printed = whole
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == results
    assert sorted(item.name for item in out.iterdir()) == ["languages", "report.html", "results.json", "tasks"]
    report = (out / "report.html").read_text(encoding="utf-8")
    flat = " ".join(printed.split())
    for name in (*NAMES.values(), *CELLS, "majority"):
        assert name in flat and name in report
    for cell in results["cells"].values():
        assert f"{cell['mean']:.1f}" in flat and f"{cell['mean']:.1f}" in report
        assert all(f"{scores['accuracy']:.1f}" in report for scores in cell["scores"].values())
    assert "n=9" in flat and "2 seeds (1, 2)" in flat and "95% interval" in flat
    assert report.count("<svg") == 2
    assert results["backbone"]["fingerprint"] in report and "isogloss quickstart" in report


def test_next_commands_name_what_exists(whole: tuple[Path, dict[str, Any], str]) -> None:
    out, results, printed = whole
    lines = [line for line, _ in results["next"]]
    assert all(line in printed for line in lines), "not wrapped, so that it can be copied"
    assert {line.split(" --")[0] for line in lines} == {
        "isogloss evaluate",
        "isogloss predict",
        "isogloss train language",
        "isogloss train task",
    }
    for line in lines[:2]:
        folders = line.split("--modules ")[1].split()[0].split(",")
        assert len(folders) == 2 and all((Path(folder) / "module.json").is_file() for folder in folders)
        assert all(folder.startswith(out.as_posix()) for folder in folders)


def test_an_earlier_quickstart_is_replaced_by_the_same_numbers(
    start: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    first, _ = start(tmp_path / "q", minutes=0.0)
    again, _ = start(tmp_path / "q", minutes=0.0)
    assert list(first["cells"]) == ["head only", "TA", "LA+TA", "LP+TA"], "no time: the first four cells only"
    assert any("Left out to stay within 0 minutes: TP, LA+TP, LP+TP." in text for text in first["done"])
    for name, cell in first["cells"].items():
        assert cell["scores"] == again["cells"][name]["scores"]
    (tmp_path / "q" / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(IsoglossError, match="already holds something"):
        start(tmp_path / "q")
    assert (tmp_path / "q" / "mine.txt").read_text(encoding="utf-8") == "precious"


def test_with_nothing_bundled_three_cells_remain(
    start: Callable[..., tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    results, printed = start(tmp_path / "q", modules_folder=tmp_path / "none", text_folder=tmp_path / "none")
    assert list(results["cells"]) == ["head only", "TA", "TP"] and results["language_modules"] == []
    assert "No language modules are bundled" in printed
    assert (tmp_path / "q" / "report.html").read_text(encoding="utf-8").count("<svg") == 1


def test_with_text_only_language_modules_are_trained(
    start: Callable[..., tuple[dict[str, Any], str]], shelf: Path, backbone: Backbone, tmp_path: Path
) -> None:
    # Modules of another backbone are of no use, and no reason to stop.
    for method, spec in SPECS.items():
        module = create_module(parse_module(spec), backbone)
        module.info.role, module.info.language, module.info.fingerprint = "language", "slk_Latn", "another"
        save_module(module, tmp_path / "old" / "encoder" / method / "slk_Latn")
    results, printed = start(tmp_path / "q", modules_folder=tmp_path / "old", minutes=0.0)
    assert {(m["method"], m["language"], m["origin"]) for m in results["language_modules"]} == {
        (method, code, "trained now") for method in SPECS for code in ("eng_Latn", "slk_Latn")
    }
    assert results["zero_shot"] == ["slk_Latn"]
    assert "deu_Latn" not in results["cells"]["LA+TA"]["scores"] and "deu_Latn" in results["cells"]["TA"]["scores"]
    assert "because a language module is missing: German" in " ".join(printed.split())


def test_what_fails_leaves_nothing(
    start: Callable[..., tuple[dict[str, Any], str]],
    shelf: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(IsoglossError, match="needs a test split of Turkish"):
        start(tmp_path / "q", source="tr")
    with pytest.raises(IsoglossError, match="at least one seed"):
        start(tmp_path / "q", seeds=())

    def stop(*given: Any, **named: Any) -> None:
        raise Interrupted("Stopped after step 3; the same command continues.")

    monkeypatch.setattr(quickstart, "train_task", stop)
    with pytest.raises(Interrupted, match="kept nothing"):
        start(tmp_path / "q")
    assert list(tmp_path.iterdir()) == []
