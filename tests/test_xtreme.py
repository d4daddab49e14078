"""The XTREME-style suite: its averages, its traps, and the whole of it on a tiny world."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.stack import Stack, TextBatch
from isogloss.stack.layers import layer_count, reading_layer
from isogloss.tasks import get_task, read
from isogloss.training.language_groups import groups
from isogloss.training.pretrain import pretrain
from isogloss.training.xtreme import SUITE, SuiteOptions, aggregate, find_data, run_suite
from isogloss.training.xtreme.bucc import evaluate_bucc, read_bucc
from isogloss.training.xtreme.data import dev_folder, digests, train_data
from isogloss.training.xtreme.settings import middle_layer
from tests._cli_tools import isogloss, succeed
from tests._pool_tools import recipe, write_world
from tests._stack_tools import batch_of, close, make, texts

OPTIONS = SuiteOptions(epochs=0.5, limit_train=16, limit_test=6)


def test_averages_by_hand() -> None:
    results = {
        "xnli": {"eng_Latn": {"accuracy": 80.0}, "deu_Latn": {"accuracy": 70.0}, "swh_Latn": {"accuracy": 30.0}},
        "xquad": {"eng_Latn": {"f1": 80.0, "em": 60.0}, "deu_Latn": {"f1": 50.0, "em": 30.0}},
        # Of Tatoeba only the direction from English counts, as in XTREME's script; Quechua is none of XTREME's languages.
        "tatoeba": {
            "deu_Latn": {"from_english": 40.0, "to_english": 98.0, "accuracy": 99.0},
            "quy_Latn": {"from_english": 0.0, "to_english": 98.0, "accuracy": 99.0},
        },
    }
    found = aggregate(results, seen=["eng_Latn", "deu_Latn"])
    assert found["tasks"]["xnli"]["score"] == 60 and found["tasks"]["xnli"]["zero_shot"] == 50
    assert found["tasks"]["xquad"]["score"] == 55 and found["tasks"]["xquad"]["metrics"] == {"f1": 65, "em": 45}
    assert found["tasks"]["tatoeba"]["score"] == 40
    assert found["average"] == pytest.approx((60 + 55 + 40) / 3) and not found["complete"]
    assert found["categories"] == {"sentence": 60, "qa": 55, "retrieval": 40}
    assert found["tasks"]["xnli"]["groups"]["seen"] == 70 and found["tasks"]["xnli"]["groups"]["unseen"] == 30
    assert "fra_Latn" in found["tasks"]["xnli"]["missing"]
    whole = {
        name: {
            code: dict.fromkeys(item.metrics, 50.0)
            for code in aggregate({name: {"eng_Latn": dict.fromkeys(item.metrics, 1.0)}})["tasks"][name]["missing"]
        }
        | ({"eng_Latn": dict.fromkeys(item.metrics, 50.0)} if "en" in item.languages else {})
        for name, item in SUITE.items()
    }
    assert aggregate(whole)["complete"] and aggregate(whole)["average"] == pytest.approx(50)
    for bad in ({}, {"xnlu": results["xnli"]}, {"udpos": {"deu_Latn": {"accuracy": 90.0}}}):
        with pytest.raises(IsoglossError):
            aggregate(bad)


def test_the_published_settings() -> None:
    assert {name: len(item.languages) for name, item in SUITE.items()} == {
        "xnli": 15, "paws-x": 7, "udpos": 33, "panx": 40, "xquad": 11, "mlqa": 7, "tydiqa": 9, "bucc": 4, "tatoeba": 36,
    }  # fmt: skip
    # `--specific_layer 7` is the eighth block: evaluate_retrieval.py drops the embeddings and counts from 0.
    assert [middle_layer(SUITE["tatoeba"], blocks) for blocks in (12, 24, 6, 2, 1)] == [8, 14, 4, 1, 1]
    assert [middle_layer(SUITE["bucc"], blocks) for blocks in (12, 24)] == [8, 8]
    large = {name: item.learning_rate_large for name, item in SUITE.items() if item.train}
    assert {name for name, rate in large.items() if rate == 3e-5} == {"xnli", "xquad", "mlqa", "tydiqa"}
    assert {large[name] for name in ("paws-x", "udpos", "panx")} == {2e-5}
    assert SUITE["udpos"].metrics == ("xtreme_f1",) and SUITE["mlqa"].metrics == ("mlqa_f1", "mlqa_em")
    assert SUITE["xquad"].warmup == 500 and SUITE["panx"].epochs == 10


def test_groups_are_whole() -> None:
    codes = ["deu_Latn", "spa_Latn", "tel_Telu", "swh_Latn", "rus_Cyrl", "hin_Deva"]
    found = groups([*codes, "eng_Latn"], seen=["deu_Latn", "eng_Latn"], text={"deu_Latn": 5, "eng_Latn": 9})
    thirds = [code for name, members in found.items() if "syntactic" in name for code in members]
    assert sorted(thirds) == sorted(codes)
    assert found["seen"] == ["deu_Latn", "eng_Latn"] and len(found["unseen"]) == 5
    assert found["low-resource"] == ["deu_Latn"] and found["high-resource"] == ["eng_Latn"]


@pytest.mark.parametrize("name", ["xlmr", "eurobert", "modernbert", "llama", "mt5"])
def test_a_layer_is_what_transformers_calls_it(tiny: Any, name: str) -> None:
    backbone: Backbone = tiny(name)
    batch = batch_of(backbone, texts(3, [5, 7]))
    batch = TextBatch(batch.input_ids, batch.attention_mask)
    with reading_layer(backbone, 1):
        found = Stack(backbone).run(batch).text_hidden
    model = backbone.encoder if name == "mt5" else backbone.body
    wanted = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    real = batch.attention_mask.bool()
    close(found[real], wanted.hidden_states[1][real])
    with reading_layer(backbone, layer_count(backbone)):
        close(Stack(backbone).run(batch).text_hidden[real], wanted.last_hidden_state[real])
    with pytest.raises(IsoglossError, match="use 1 to 2"), reading_layer(backbone, 3):
        pass
    # An adapter at the end of the block has acted on what is read.
    with reading_layer(backbone, 1):
        adapted = Stack(backbone, [make(backbone, "adapter:4"), make(backbone, "prompt:2")]).run(batch).text_hidden
    assert not torch.allclose(adapted[real], found[real], atol=1e-3)


def _rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All nine tasks in English and German, made of a few words."""
    root = tmp_path_factory.mktemp("suite")
    for code, words in (("en", "red green blue big small"), ("de", "rot blau klein gross wald")):
        draw = random.Random(code)

        def text(words: str = words, draw: random.Random = draw) -> str:
            return " ".join(draw.choices(words.split(), k=6))

        for split in ("train", "dev", "test"):
            if code == "de" and split != "test":
                continue
            labels = ["entailment", "neutral", "contradiction"]
            _rows(
                root / "xnli" / code / f"{split}.jsonl",
                [{"sentence1": text(), "sentence2": text(), "gold_label": labels[n % 3]} for n in range(16)],
            )
            _rows(
                root / "pawsx" / code / f"{split}.jsonl",
                [{"sentence1": text(), "sentence2": text(), "label": n % 2} for n in range(16)],
            )
            _rows(
                root / "udpos" / code / f"{split}.jsonl",
                [{"tokens": text().split(), "upos": draw.choices(["NOUN", "ADJ"], k=6)} for _ in range(16)],
            )
            _rows(
                root / "panx" / code / f"{split}.jsonl",
                [{"tokens": text().split(), "ner_tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]} for _ in range(16)],
            )
        for name, split in (
            ("squad", "train"),
            ("squad", "dev"),
            ("xquad", "test"),
            ("mlqa", "test"),
            ("tydiqa", "train"),
            ("tydiqa", "dev"),
        ):
            if code == "de" and (name == "squad" or split == "train"):
                continue
            rows = []
            for number in range(12):
                context = f"{name} {split} {text()}"
                answer = context.split()[3]
                rows.append(
                    {
                        "id": f"{name}{split}{number}",
                        "question": text(),
                        "context": context,
                        "answers": {"text": [answer], "answer_start": [context.index(answer)]},
                    }
                )
            _rows(root / name / code / f"{split}.jsonl", rows)
    pairs = [(f"red {n} blau", f"red {n} blue") for n in range(10)]
    _rows(
        root / "tatoeba" / "deu" / "test.jsonl",
        [{"idx": n, "deu": one, "eng": other} for n, (one, other) in enumerate(pairs)],
    )
    for split in ("dev", "test"):
        base = root / "bucc" / f"de-en.{split}"
        base.parent.mkdir(exist_ok=True)
        base.with_name(base.name + ".de").write_text("".join(f"d{n}\t{one}\n" for n, (one, _) in enumerate(pairs)))
        base.with_name(base.name + ".en").write_text("".join(f"e{n}\t{other}\n" for n, (_, other) in enumerate(pairs)))
        base.with_name(base.name + ".gold").write_text("".join(f"d{n}\te{n}\n" for n in range(5)))
    return root


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    world = write_world(tmp_path_factory.mktemp("world"))
    steps = [{"steps": 1, "length": 24, "batch": 4}]
    shape = {"hidden": 16, "layers": 2, "heads": 2, "ffn": 32, "max_length": 128}
    pretrain(recipe(world, stages=steps, model=shape), world / "backbone", cache_dir=world / "cache")
    return load_backbone(world / "backbone", device="cpu")


def test_the_whole_suite(suite: Path, backbone: Backbone, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in backbone.model.named_parameters()}
    told: list[str] = []
    found = run_suite(backbone, suite, tmp_path / "out", OPTIONS, tell=told.append)
    assert told == list(SUITE)
    assert set(found["tasks"]) == set(SUITE) and not found["complete"]
    for name, task in found["tasks"].items():
        own = {"deu_Latn"} if SUITE[name].category == "retrieval" else {"deu_Latn", "eng_Latn"}
        assert set(task["scores"]) == own and 0 <= task["score"] <= 100
        # XTREME's main metrics are among those scored.
        assert all(metric in row for row in task["scores"].values() for metric in SUITE[name].metrics)
    assert found["tasks"]["bucc"]["scores"]["deu_Latn"]["n"] > 0
    assert any("last tenth" in text for text in found["tasks"]["tydiqa"]["departures"])
    assert any("block 1 of 2" in text for text in found["tasks"]["tatoeba"]["departures"])
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.model.named_parameters())
    # What is finished is kept; what is missing is done; other settings are refused.
    (tmp_path / "out" / "tatoeba" / "scores.json").unlink()
    told.clear()
    again = run_suite(backbone, suite, tmp_path / "out", OPTIONS, tell=told.append)
    assert again == found and [text for text in told if "kept" not in text] == ["tatoeba"]
    with pytest.raises(IsoglossError, match=r"other settings|another backbone"):
        run_suite(backbone, suite, tmp_path / "out", SuiteOptions(epochs=1, limit_train=16, limit_test=6))


def test_a_task_without_labels_is_left_out(suite: Path, backbone: Backbone, tmp_path: Path) -> None:
    """The labels of TyDiQA's development split, which XTREME scores, are withheld in some downloads."""
    for name in ("tydiqa", "udpos"):
        shutil.copytree(suite / name, tmp_path / name)
    files = list((tmp_path / "tydiqa").glob("*/dev.jsonl"))
    for path in files:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text(
            "".join(json.dumps({**row, "answers": [{"text": "", "answer_start": 0}]}) + "\n" for row in rows)
        )
    assert files
    found = run_suite(backbone, tmp_path, tmp_path / "out", OPTIONS)
    assert set(found["tasks"]) == {"udpos"} and "no language is left to score" in found["left_out"]["tydiqa"]
    with pytest.raises(IsoglossError, match="withhold the labels"):
        run_suite(backbone, tmp_path, tmp_path / "out", OPTIONS, names=["tydiqa"])


def test_retrieval_without_labels_is_left_out(suite: Path, backbone: Backbone, tmp_path: Path) -> None:
    """BUCC's gold pairs are withheld in some downloads, and are hardly among its first sentences; it comes after all training."""
    for name in ("bucc", "tatoeba"):
        shutil.copytree(suite / name, tmp_path / name)
    for path in list((tmp_path / "bucc").iterdir()):
        _, split, side = path.name.split(".")
        shutil.copy(path, path.with_name(f"fr-en.{split}.{'fr' if side == 'de' else side}"))
    (tmp_path / "bucc" / "fr-en.test.gold").write_text("")
    found = run_suite(backbone, tmp_path, tmp_path / "out", OPTIONS)
    assert set(found["tasks"]["bucc"]["scores"]) == {"deu_Latn"}
    assert any(text.startswith("fra_Latn left out") for text in found["tasks"]["bucc"]["departures"])
    for path in (tmp_path / "bucc").glob("de-en.*.gold"):
        path.write_text("d9\te9\n")
    found = run_suite(backbone, tmp_path, tmp_path / "again", OPTIONS)
    assert set(found["tasks"]) == {"tatoeba"}
    assert "no gold pair among the first 6 sentences" in found["left_out"]["bucc"]
    (tmp_path / "tatoeba" / "deu").rename(tmp_path / "tatoeba" / "eng")
    with pytest.raises(IsoglossError, match="English alone"):
        run_suite(backbone, tmp_path, tmp_path / "english", OPTIONS)


def test_a_wrong_layer_is_refused_before_anything_is_trained(suite: Path, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match=r"The layer 9 is not one of the 2 blocks"):
        run_suite(backbone, suite, tmp_path / "out", SuiteOptions(layer=9), tell=pytest.fail)
    assert not (tmp_path / "out").exists()


def test_what_is_missing(suite: Path, backbone: Backbone, tmp_path: Path) -> None:
    assert set(find_data(suite)) == set(SUITE)
    for names, root, said in [
        (["xnlu"], suite, "no such task"),
        (["xnli"], tmp_path, "has no folder xnli"),
        ([], tmp_path, "none of the suite's folders"),
        ([], tmp_path / "nowhere", "no such folder"),
    ]:
        with pytest.raises(IsoglossError, match=said):
            find_data(root, names)
    (tmp_path / "xquad" / "de").mkdir(parents=True)
    (tmp_path / "xquad" / "de" / "test.jsonl").write_text((suite / "xquad" / "de" / "test.jsonl").read_text())
    with pytest.raises(IsoglossError, match="no English training rows"):
        run_suite(backbone, tmp_path, tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out" / "xquad").exists()


@pytest.mark.parametrize("name", ["paws-x", "pawsx"])
def test_a_development_split_trains_where_there_is_no_other(suite: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name / "en").mkdir(parents=True)
    (tmp_path / name / "en" / "dev.jsonl").write_text((suite / "pawsx" / "en" / "dev.jsonl").read_text())
    folder, place = train_data(SUITE["paws-x"], tmp_path)
    assert (folder, place.split) == (tmp_path / name, "dev") and "nine tenths" in place.note


def test_weights_are_selected_as_xtreme_selects_them(suite: Path, tmp_path: Path) -> None:
    """MultiNLI trains and XNLI selects; what is scored, or trained on, selects nothing."""
    root = tmp_path / "data"
    shutil.copytree(suite, root)
    shutil.copytree(root / "xnli", root / "mnli")
    for file in (root / "xnli").glob("en*/train*"):
        file.unlink()
    assert any((root / "xnli").glob("en*/dev*")) and any((root / "mnli").glob("en*/dev*"))  # or nothing is told apart
    source, place = train_data(SUITE["xnli"], root)
    assert source == root / "mnli" and dev_folder(root, place) == root / "xnli"
    folder = root / "xnli"
    read_from = digests(SUITE["xnli"], root, folder)
    assert any(name.startswith("xnli/en") and "/dev" in name for name in read_from)
    for file in folder.glob("en*/dev*"):
        file.unlink()
    assert dev_folder(root, place) == root / "mnli"
    for name in ("tydiqa", "paws-x"):
        for place in SUITE[name].train:
            if name == "tydiqa" or place.split == "dev":
                assert dev_folder(root, place) is None


def test_scores_of_other_data_are_not_kept(suite: Path, backbone: Backbone, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(suite / "tatoeba", data / "tatoeba")
    shutil.copytree(suite / "xnli", data / "xnli")
    (data / "xnli" / "en" / "train.jsonl").unlink()

    def run(name: str) -> list[str]:
        told: list[str] = []
        run_suite(backbone, data, out, OPTIONS, names=[name], tell=told.append)
        return told

    assert [run("tatoeba"), run("xnli")] == [["tatoeba"], ["xnli"]]
    # Files that no score comes from are nobody's business, wherever all of it lies.
    (data / "xnli" / "de" / "train.jsonl").write_text((data / "xnli" / "de" / "test.jsonl").read_text())
    data = data.rename(tmp_path / "moved")
    assert [run("tatoeba"), run("xnli")] == [["tatoeba: kept from before"], ["xnli: kept from before"]]
    shutil.copytree(suite / "xnli" / "en", data / "mnli" / "en")
    with pytest.raises(IsoglossError, match="other data"):
        run("xnli")
    test = data / "tatoeba" / "deu" / "test.jsonl"
    test.write_text(test.read_text().replace("red 3 blue", "red 33 blue"))
    with pytest.raises(IsoglossError, match="other data"):
        run("tatoeba")


def test_scores_of_other_settings_are_not_kept(
    suite: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of the suite itself, as another version may have them."""
    whole = {"complete": True, "tasks": {"tatoeba": {}}}
    with monkeypatch.context() as patch:
        patch.setattr("isogloss.training.xtreme.suite.aggregate", lambda *_, **__: whole)
        found = run_suite(backbone, suite, tmp_path, OPTIONS, names=["tatoeba"])
    # Some of the test rows are not XTREME's own average, and it is said.
    assert not found["complete"] and "at most 6 rows" in found["tasks"]["tatoeba"]["departures"][0]
    monkeypatch.setattr("isogloss.training.xtreme.suite.middle_layer", lambda item, blocks: 2)
    with pytest.raises(IsoglossError, match="other data or settings"):
        run_suite(backbone, suite, tmp_path, OPTIONS, names=["tatoeba"])


def test_placeholder_labels_are_refused(suite: Path, tmp_path: Path) -> None:
    """XTREME's download fills the test labels with one and the same: about 33 % on XNLI."""
    rows = [{"sentence1": f"a {n}", "sentence2": "b", "gold_label": "neutral"} for n in range(60)]
    _rows(tmp_path / "xnli" / "de" / "test.jsonl", rows)
    with pytest.raises(IsoglossError, match="withhold the labels"):
        read(tmp_path / "xnli", "deu_Latn", "test", get_task("nli"))
    (tmp_path / "bucc").mkdir()
    for suffix, text in (("de", "d1\tx\n"), ("en", "e1\ty\n"), ("gold", "")):
        (tmp_path / "bucc" / f"de-en.test.{suffix}").write_text(text)
    with pytest.raises(IsoglossError, match="withhold the gold"):
        read_bucc(tmp_path / "bucc", "de", "test")
    (tmp_path / "bucc" / "de-en.test.gold").write_text("d1\te9\n")
    with pytest.raises(IsoglossError, match=r"line 1.*names a sentence"):
        read_bucc(tmp_path / "bucc", "de", "test")
    (tmp_path / "bucc" / "de-en.test.de").write_text("d1 x\n")
    with pytest.raises(IsoglossError, match=r"line 1: expected two columns"):
        read_bucc(tmp_path / "bucc", "de", "test")


def test_repeated_sentences_are_mined_once(
    suite: Path, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XTREME's script mines distinct sentences and extracts no pair of one that has several ids, gold or not."""
    shutil.copytree(suite / "bucc", tmp_path / "bucc")
    for split in ("dev", "test"):
        with (tmp_path / "bucc" / f"de-en.{split}.de").open("a", encoding="utf-8") as stream:
            stream.write("d10\tred 0 blau\nd11\tred 0 blau\n")
    # Perfect vectors: of the number that both sides of a pair share.
    sizes = []

    def vectors(stack: Any, found: list[str], **_: Any) -> torch.Tensor:
        sizes.append(len(found))
        return torch.stack([torch.eye(10)[int(one.split()[1])] for one in found]) + 0.1

    monkeypatch.setattr("isogloss.training.xtreme.bucc.sentence_vectors", vectors)
    score = evaluate_bucc(backbone, None, tmp_path / "bucc")["deu_Latn"]
    assert sizes == [10] * 4
    # Of five gold pairs one cannot be named; nine pairs are found, and all have one score.
    assert (score["recall"], score["precision"]) == (80.0, pytest.approx(100 * 4 / 9))


def test_the_command_takes_data_of_the_hub(
    suite: Path,
    backbone: Backbone,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fetch(folder: Path, names: list[str], *, tell: object) -> Path:
        shutil.copytree(suite / "tatoeba", folder / "tatoeba")
        assert names == ["tatoeba"]
        return folder

    monkeypatch.setattr("isogloss.training.xtreme.fetch_suite", fetch)
    run = ("evaluate", "--suite", "xtreme", "--data", "hub:xtreme", "--backbone", backbone.name, "--tasks", "tatoeba")
    found = succeed(capsys, *run, "--limit", 6, "--out", tmp_path / "out", "--json").json
    assert set(found["tasks"]) == {"tatoeba"} and (tmp_path / "out" / "data" / "tatoeba").is_dir()


def test_the_command(suite: Path, backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = ("evaluate", "--suite", "xtreme", "--data", suite, "--backbone", backbone.name)
    run = (
        *base,
        "--out",
        tmp_path / "o",
        "--tasks",
        "xnli,tatoeba",
        "--epochs",
        0.5,
        "--limit-train",
        16,
        "--limit",
        6,
    )
    shown = succeed(capsys, *run).out
    assert "xnli" in shown and "average" in shown and "Not XTREME's own average" in shown
    assert set(succeed(capsys, *run, "--json").json["tasks"]) == {"xnli", "tatoeba"}
    for arguments, said in [
        (("evaluate", "--suite", "xglue", "--data", suite), "--suite xglue"),
        (("evaluate", "--suite", "xtreme", "--data", suite), "--backbone is missing"),
        (base, "--out is missing"),
        ((*base, "--out", tmp_path / "p", "--tasks", "xnlu"), "no such task"),
        ((*base, "--out", tmp_path / "p", "--module", "adaptor:4"), "adaptor"),
        (("evaluate", "--data", suite / "xnli"), "--targets is missing"),
    ]:
        result = isogloss(capsys, *arguments)
        assert result.status == 2 and said in result.err and len(result.err.strip().splitlines()) == 1, result
