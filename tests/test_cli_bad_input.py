"""Everything a user can get wrong: one sentence that names it, status 2, nothing left behind, no model loaded first."""

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from _cli_tools import World, build_world, isogloss, succeed

from isogloss import backbones
from isogloss.cli._identify import Identifier
from isogloss.errors import IsoglossError


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOGLOSS_CACHE", str(root / "cache"))
        yield build_world(root)
    torch.set_num_threads(threads)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a backbone is a failure of the test: the check has to come before."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was loaded before the input was checked")

    monkeypatch.setattr(backbones, "load_backbone", refuse)


def refused(capsys: pytest.CaptureFixture[str], words: tuple[object, ...], *named: str, alone: bool = True) -> None:
    """The command fails with one sentence that holds `named`; `alone` when only the loading of a model may be told besides."""
    result = isogloss(capsys, *words)
    assert result.status == 2, result.err
    assert result.out == ""
    last = result.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in result.err
    for text in named:
        assert text in last
    if alone:
        assert all(line.startswith("loading ") for line in result.err.splitlines()[:-1])


def _data(root: Path, rows: bytes | list[object], name: str = "train.jsonl") -> Path:
    folder = root / "data" / "en"
    folder.mkdir(parents=True)
    content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / name).write_bytes(content)
    return root / "data"


GOOD: dict[str, Any] = {"text": "A sentence.", "category": "travel"}
TAGGED: dict[str, Any] = {"tokens": ["Ann", "sings"], "ner_tags": ["B-PER", "O"]}


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("task", "rows", "named"),
    [
        ("topic", [GOOD, {"text": "No label."}], ("train.jsonl line 2", "label")),
        ("topic", [GOOD, {"text": "A", "category": "cooking"}], ("train.jsonl line 2", "'cooking'", "travel")),
        ("topic", [{"text": " ", "category": "travel"}], ("train.jsonl line 1", "empty")),
        ("topic", b'{"text": "a", "category": "travel"}\n{"text": \n', ("train.jsonl line 2", "JSON")),
        ("topic", b'{"text": "\xff", "category": "travel"}\n', ("train.jsonl line 1", "UTF-8")),
        ("topic", b"", ("train.jsonl", "no row")),
        ("ner", [TAGGED, {**TAGGED, "ner_tags": ["O"]}], ("train.jsonl line 2", "2 tokens but 1 tags")),
        ("ner", [{**TAGGED, "ner_tags": ["B-PER", "X-LOC"]}], ("train.jsonl line 1", "X-LOC")),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, task: str, rows: Any, named: tuple[str, ...]
) -> None:
    data = _data(tmp_path, rows)
    words = ("train", "task", "-b", world.backbone, "-t", task, "-d", data, "-s", "en", "-o", tmp_path / "m")
    refused(capsys, words, *named)
    assert not (tmp_path / "m").exists()


def test_bad_rows_can_be_skipped(capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path) -> None:
    data = _data(tmp_path, [GOOD, {"text": "A", "category": "cooking"}, {**GOOD, "category": "sports"}])
    words = ("-t", "topic", "-d", data, "-s", "en", "--bad-rows", "skip", "--steps", 1, "-o", tmp_path / "m")
    result = succeed(capsys, "train", "task", "-b", world.backbone, *words)
    assert "2 examples" in result.err
    assert "note: " in result.err
    assert "unknown label" in result.err


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--task", "topik"), ("'topik'", "topic")),
        (("--task", "retrieval"), ("--task retrieval",)),
        (("--data", "nowhere/at/all/here"), ("--data nowhere",)),
        (("--data", "bundled:other"), ("bundled:other", "bundled:parallel")),
        (("--source", "klingonn"), ("--source klingonn",)),
        (("--source", "xho"), ("Xhosa", "xho_Latn")),
        (("--split-train", "practice"), ("--split practice", "train")),
        (("--split-dev", "practice"), ("--split practice",)),
        (("--module", "adaptr:4"), ("'adaptr:4'", "adapter")),
        (("--module", "adapter:x"), ("'adapter:x'",)),
        (("--module", "adapter:4,varient=par_bn"), ("varient", "variant")),
        (("--field", "text"), ("--field text",)),
        (("--field", "tekst=column"), ("--field tekst=column",)),
        (("--train", "some"), ("--train some", "modules or all")),
        (("--select", "best"), ("--select best",)),
        (("--bad-rows", "drop"), ("--bad-rows drop",)),
        (("--epochs", "2"), ("--steps", "--epochs")),
        (("--batch-size", "0"), ("--batch-size",)),
        (("--language-module", "{sk}"), ("--language-module", "eng_Latn", "slk_Latn")),
        (("--language-module", "{topic}"), ("--language-module", "task module")),
        (("--language-module", "{text}"), ("module.json",)),
        (("--backbone", "bundled:nothing"), ("bundled:nothing",)),
        (("--backbone", "./nothing"), ("./nothing",)),
        (("--device", "cuda:97"), ("--device cuda:97",)),
        (("--optimiser", "lion"), ("'lion'", "adafactor")),
        (("--schedule", "zigzag"), ("'zigzag'", "cosine")),
        (("--lr", "-1"), ("learning_rate", "0 or more")),
        (("--head-lr", "-1"), ("head_learning_rate=-1", "0 or more")),
        (("--backbone-lr", "0.1"), ("--backbone-lr", "--train all")),
        (("--head-lr", "nan"), ("head_learning_rate=nan", "0 or more")),
        (("--precision", "fp16"), ("fp16", "bf16")),
        (("--shots-seed", "3"), ("--shots-seed 3", "--shots")),
        (("--out", "{text}"), ("eng_Latn.jsonl", "--overwrite")),
        (("--out", "{recipe}"), ("encoder.yaml",)),
        (("--out", "{recipe}/m"), ("encoder.yaml",)),
    ],
)
def test_a_wrong_option_of_train_task_is_refused_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, options: tuple[str, str], named: tuple[str, ...]
) -> None:
    usual = {"--task": "topic", "--data": "bundled:parallel", "--source": "en", "--steps": "1", "--limit": "5"}
    usual |= {"--backbone": str(world.backbone), "--out": str(tmp_path / "m"), "--module": "adapter:4"}
    given = {**usual, options[0]: options[1].format(**vars(world))}
    refused(capsys, ("train", "task", *(word for pair in given.items() for word in pair)), *named)
    assert not (tmp_path / "m").exists()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--language", "klingonn"), ("--language klingonn",)),
        (("--text", "nothing.txt"), ("nothing.txt",)),
        (("--text", "bundled:parallel"), ("--text bundled:parallel", "bundled:text")),
        (("--text", "{recipe}"), ("encoder.yaml", ".jsonl")),
        (("--module", "prompt:0.5"), ("prompt:0.5",)),
        (("--out", "{en}"), ("already holds", "--overwrite")),
        (("--steps", "many"), ("--steps",)),
        (("--objective", "banana"), ("'banana'", "masked")),
        (("--optimiser", "lion"), ("'lion'", "adafactor")),
        (("--backbone", "bundled:nothing"), ("bundled:nothing",)),
    ],
)
def test_a_wrong_option_of_train_language(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, options: tuple[str, str], named: tuple[str, ...]
) -> None:
    usual = {"--language": "sk", "--text": str(world.text / "slk_Latn.jsonl"), "--module": "adapter:4"}
    usual |= {"--backbone": str(world.backbone), "--out": str(tmp_path / "m")}
    given = {**usual, options[0]: options[1].format(**vars(world))}
    refused(capsys, ("train", "language", *(word for pair in given.items() for word in pair)), *named)
    assert not (tmp_path / "m").exists()


@pytest.mark.usefixtures("no_model")
def test_bundled_text_names_the_languages_that_it_has(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    words = ("train", "language", "-b", world.backbone, "-l", "de", "--text", "bundled:text", "-o", tmp_path / "m")
    refused(capsys, words, "German (deu_Latn)", "Slovak (slk_Latn)", "Swahili (swh_Latn)")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--targets", "en"), ("English cannot be a target",)),
        (("--targets", "xho"), ("Xhosa",)),
        (("--modules", "{topic}"), ("--modules", "task module", "needs no task")),
        (("--modules", "{sk}"), ("eng_Latn", "--missing none")),
        (("--modules", "{sk},{sk}/."), ("both for slk_Latn",)),
        (("--split", "practice"), ("--split practice",)),
        (("--field", "label=x"), ("label",)),
        (("--backbone", "bundled:nothing"), ("bundled:nothing",)),
    ],
)
def test_a_wrong_option_of_retrieval_is_refused_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str], world: World, options: tuple[str, str], named: tuple[str, ...]
) -> None:
    usual = {"--task": "retrieval", "--targets": "sk", "--data": "bundled:parallel", "--backbone": str(world.backbone)}
    given = {**usual, options[0]: options[1].format(**vars(world))}
    refused(capsys, ("evaluate", *(word for pair in given.items() for word in pair)), *named)


@pytest.mark.usefixtures("no_model")
def test_evaluate_without_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ("evaluate", "-d", "bundled:parallel", "-l", "sk"), "--modules", "--task retrieval")
    refused(capsys, ("evaluate", "-d", "bundled:parallel", "-l", "sk", "-t", "retrieval"), "--backbone")


@pytest.mark.usefixtures("no_model")
def test_a_data_set_of_many_languages_is_not_listed_whole(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    for code in ["af", "bg", "cs", "da", "de", "el", "es", "fi", "fr", "hr", "hu", "it"]:
        (tmp_path / "data" / code).mkdir(parents=True)
        (tmp_path / "data" / code / "test.jsonl").write_text("{}")
    words = ("evaluate", "-d", tmp_path / "data", "-l", "xho", "-m", world.plain)
    refused(capsys, words, "Xhosa", "it has af, bg, cs, da, de, el, es, fi, fr, hr, hu, it.")
    (tmp_path / "data" / "sk").mkdir()
    (tmp_path / "data" / "sk" / "test.jsonl").write_text("{}")
    refused(capsys, words, "13 languages: af, bg, cs, da, de, el, es, fi and 5 more", "--targets all")


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.txt", b"", "a.txt"),
        ("a.txt", b" \n\n", "a.txt"),
        ("a.txt", b"good\n\xff\xfe\n", "line 2"),
        ("a.jsonl", b'{"text": "good"}\n{"txt": "bad"}\n', "line 2"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "good"}\n' * 50, mtime=0)[:-6], "a.jsonl.gz"),
    ],
)
def test_raw_text_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, name: str, content: bytes, named: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    words = ("-b", world.backbone, "-l", "sk", "-t", file, "--steps", 1, "-o", tmp_path / "m")
    refused(capsys, ("train", "language", *words), named, alone=False)
    assert not (tmp_path / "m").exists()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--targets", "klingonn"), ("--targets klingonn",)),
        (("--targets", ","), ("--targets",)),
        (("--targets", "xho"), ("Xhosa",)),
        (("--targets", "de"), ("deu_Latn", "--missing none")),
        (("--split", "practice"), ("--split practice",)),
        (("--modules", "{en}"), ("--modules", "no task module")),
        (("--modules", "{topic},{plain}"), ("topic", "plain", "exactly one")),
        (("--modules", "{topic},{en},{en}/."), ("both for eng_Latn",)),
        (("--modules", "{topic}"), ("trained over a language adapter",)),
        (("--modules", "{text}"), ("module.json",)),
        (("--task", "nli"), ("--task nli", "topic")),
        (("--field", "tekst=x"), ("--field tekst=x",)),
        (("--missing", "skip"), ("--missing skip",)),
    ],
)
def test_a_wrong_option_of_evaluate_is_refused_before_a_model_is_loaded(
    capsys: pytest.CaptureFixture[str], world: World, options: tuple[str, str], named: tuple[str, ...]
) -> None:
    usual = {"--targets": "sk", "--data": "bundled:parallel", "--modules": f"{world.topic},{world.en},{world.sk}"}
    given = {**usual, options[0]: options[1].format(**vars(world))}
    refused(capsys, ("evaluate", *(word for pair in given.items() for word in pair)), *named)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", ("in.txt", "no text")),
        (b"good\n\xff\n", ("in.txt line 2", "UTF-8")),
        (b'{"text": "good"}\n{"text": \n', ("in.txt line 2", "JSON")),
        (b'{"txt": "good"}\n', ("in.txt line 1", "text")),
        (b'{"text": "good"}\n[1]\n', ("in.txt line 2", "object")),
    ],
)
def test_input_of_predict_that_cannot_be_read(
    capsys: pytest.CaptureFixture[str],
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    named: tuple[str, ...],
) -> None:
    if named[0] == "in.txt line 2":  # the first row can be read, so the model is loaded
        monkeypatch.undo()
        monkeypatch.setenv("ISOGLOSS_CACHE", str(world.root / "cache"))
    (tmp_path / "in.txt").write_bytes(content)
    refused(capsys, ("predict", "-m", world.plain, tmp_path / "in.txt"), *named)


@pytest.mark.usefixtures("no_model")
def test_other_inputs_of_predict(capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    refused(capsys, ("predict", "-m", world.plain, tmp_path / "none.txt"), "none.txt")
    refused(capsys, ("predict", "-m", world.plain, tmp_path / "a.txt", "-"), "a.txt", "one file")
    refused(capsys, ("predict", "-m", world.plain, "-l", "klingonn", tmp_path / "a.txt"), "--language klingonn")
    words = ("predict", "-m", f"{world.topic},{world.en}", "-l", "sk", tmp_path / "a.txt")
    refused(capsys, words, "slk_Latn", "--missing none")


@pytest.mark.usefixtures("no_model")
def test_language_auto_without_its_package_names_the_extra(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setitem(__import__("sys").modules, "py3langid.langid", None)
    refused(capsys, ("predict", "-m", world.plain, "-l", "auto", tmp_path / "a.txt"), "isogloss[identify]")


@pytest.mark.parametrize("change", ["cut", "bit"])
def test_an_altered_module_is_refused(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, change: str
) -> None:
    shutil.copytree(world.plain, tmp_path / "m")
    file = tmp_path / "m" / "module.safetensors"
    content = bytearray(file.read_bytes())
    if change == "bit":
        content[-3] ^= 1
    file.write_bytes(content[:-9] if change == "cut" else content)
    words = ("evaluate", "-d", "bundled:parallel", "-l", "sk", "-m", tmp_path / "m")
    refused(capsys, words, "module.safetensors", "truncated or altered")


def test_a_module_of_another_backbone_is_refused_with_both_fingerprints(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    recipe = tmp_path / "other.yaml"
    recipe.write_text(world.recipe.read_text() + "seed: 5\n")
    succeed(capsys, "pretrain", recipe, "--out", tmp_path / "other")
    prints = [
        succeed(capsys, "backbones", x, "--json").json["fingerprint"] for x in (world.backbone, tmp_path / "other")
    ]
    words = ("evaluate", "-d", "bundled:parallel", "-l", "sk", "-m", world.plain, "-b", tmp_path / "other")
    refused(capsys, words, *prints)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("warmup", "warmpu: 0.1"), ("line 10", "'warmpu'", "warmup")),
        (("kind", "kind: encoderr"), ("line 2", "kind")),
        (("languages", "languages: [klingonn]"), ("klingonn",)),
        (("languages", "languages: [te]"), ("tel_Telu",)),
        (("yaml", "objectives: [{"), ("YAML",)),
    ],
)
def test_a_wrong_recipe(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, change: tuple[str, str], named: tuple[str, ...]
) -> None:
    lines = world.recipe.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(f"{change[0]}:")]
    place = 1 if change[0] == "kind" else len(kept)
    recipe = tmp_path / "r.yaml"
    recipe.write_text("\n".join([*kept[:place], change[1], *kept[place:]]))
    refused(capsys, ("pretrain", recipe, "--out", tmp_path / "b"), *named, alone=False)
    assert not (tmp_path / "b").exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("isogloss.formats.saved.save_tensors", full)
    monkeypatch.setattr("isogloss.training.checkpoint.save_tensors", full, raising=False)
    words = ("-b", world.backbone, "-l", "sk", "-t", world.text / "slk_Latn.jsonl", "--steps", 1, "-o", tmp_path / "m")
    refused(capsys, ("train", "language", *words), "pace", alone=False)
    assert not (tmp_path / "m" / "module.json").exists()
    assert {item.name for item in tmp_path.iterdir()} <= {"m"}


@pytest.mark.usefixtures("no_model")
def test_the_hub_out_of_reach(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def offline(*arguments: object, **options: object) -> None:
        raise ConnectionError("Name or service not known")

    for name in ("create_repo", "upload_folder", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, offline)
    refused(capsys, ("modules", "push", world.sk, "me/sk"), "me/sk", "Name or service not known")
    refused(capsys, ("modules", "pull", "me/sk", "-o", tmp_path / "sk"), "me/sk", "connection")
    assert not list(tmp_path.iterdir())


def test_language_auto_does_not_choose_between_two_scripts_of_one_language() -> None:
    """All rows would be given the module of one of them, without a word about it."""
    pytest.importorskip("py3langid")
    with pytest.raises(IsoglossError, match="srp_Cyrl from srp_Latn"):
        Identifier.automatic(["srp_Cyrl", "ces_Latn", "srp_Latn"])
    assert Identifier.automatic(["srp_Cyrl", "ces_Latn"])(["Ово је на српском језику."]) == ["srp_Cyrl"]
