"""The commands end to end on a tiny backbone that they make themselves: pretrain, train, evaluate, predict, modules."""

import io
import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from _cli_tools import OBJECTIVES, World, build_world, isogloss, succeed, write_recipe
from safetensors.torch import load_file

from isogloss.training.progress import Progress

LINES = ["Parlament schválil zákon.", "The team won the match.", "Lekár odporučil viac spánku pacientom."]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOGLOSS_CACHE", str(root / "cache"))
        yield build_world(root)
    torch.set_num_threads(threads)


def test_pretrain_writes_a_backbone_that_backbones_describes(capsys: pytest.CaptureFixture[str], world: World) -> None:
    facts = succeed(capsys, "backbones", world.backbone, "--json").json
    assert facts["kind"] == "encoder"
    assert facts["languages"] == ["eng_Latn", "slk_Latn"]
    assert 261 < facts["vocabulary"] <= 420
    assert facts["sites"]["blocks"] == {"encoder": 1}
    shown = succeed(capsys, "backbones", world.backbone).out
    assert facts["fingerprint"] in shown
    assert "Slovak" in shown


def test_train_language_reports_json_and_keeps_its_options(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    result = succeed(
        capsys, "train", "language", "--backbone", world.backbone, "--language", "Slovak",
        "--text", world.text / "slk_Latn.jsonl", world.text / "eng_Latn.jsonl",
        "--module", "prompt:3", "--steps", 2, "--length", 20, "--batch-size", 2, "--lr", "0.01", "--optimiser", "adafactor",
        "--schedule", "constant", "--seed", 7, "--out", tmp_path / "p", "--json",
    )  # fmt: skip
    found = result.json
    assert set(found) >= {"module", "steps", "seconds", "metrics"}
    assert found["steps"] == 2
    assert found["language"] == "slk_Latn"
    assert found["parameters"] == 3 * 16
    assert re.search(r"48 parameters trained, [\d,]+ frozen, 2 steps", result.err)
    shown = succeed(capsys, "modules", "show", tmp_path / "p", "--json").json
    training = shown["training"]
    assert shown["spec"] == "prompt:3"
    assert (training["optimiser"], training["learning_rate"], training["schedule"]) == ("adafactor", 0.01, "constant")
    assert (training["seed"], training["length"], len(training["data"])) == (7, 20, 2)
    assert not list(tmp_path.glob("**/.checkpoint"))


def test_train_task_reports_json(capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path) -> None:
    result = succeed(
        capsys, "train", "task", "-b", world.backbone, "--task", "ner", "--data", "bundled:parallel", "--source", "English",
        "--module", "lora:2", "--language-module", world.en, "--steps", 2, "--batch-size", 4, "--limit", 20, "--max-length", 40,
        "--head-option", "dropout=0.25", "--out", tmp_path / "ner", "--json",
    )  # fmt: skip
    found = result.json
    assert set(found) >= {"module", "steps", "seconds", "metrics"}
    assert found["notation"] == "adapter:eng_Latn > lora:ner"
    assert found["metrics"]["n"] == 20
    shown = succeed(capsys, "modules", "show", tmp_path / "ner", "--json").json
    assert shown["head"]["options"]["max_length"] == 40
    assert shown["head"]["options"]["dropout"] == 0.25
    assert shown["training"]["source"] == ["eng_Latn"]
    scores = succeed(
        capsys, "evaluate", "-b", world.backbone, "--task", "ner", "--data", "bundled:parallel", "--targets", "sk,en",
        "--modules", tmp_path / "ner", "--modules", f"{world.en},{world.sk}", "--limit", 10, "--json",
    ).json  # fmt: skip
    assert set(scores["scores"]) == {"slk_Latn", "eng_Latn"}
    assert scores["scores"]["slk_Latn"]["n"] == 10
    assert scores["mean"] == {key: value for key, value in scores["scores"]["slk_Latn"].items() if key != "n"}


def test_evaluate_prints_a_table_for_newcomers(
    capsys: pytest.CaptureFixture[str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ("evaluate", "-d", "bundled:parallel", "-l", "sk", "-l", "en", "--modules", world.topic, world.en, world.sk)
    result = succeed(capsys, *words, "--limit", 5)
    for expected in ("Slovak", "English", "source", "target", "accuracy", "mean of 1 target", "own language module"):
        assert expected in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert "\x1b" not in result.out


def test_all_targets_with_and_without_their_modules(capsys: pytest.CaptureFixture[str], world: World) -> None:
    words = ("evaluate", "-d", "bundled:parallel", "--targets", "all", "--limit", 2, "--json")
    refused = isogloss(capsys, *words, "--modules", f"{world.topic},{world.en}")
    assert refused.status == 2
    assert "--missing none" in refused.err
    mixed = succeed(capsys, *words, "--modules", f"{world.topic},{world.en}", "--missing", "none").json
    plain = succeed(capsys, *words, "--modules", world.plain).json
    assert set(mixed["scores"]) == set(plain["scores"]) >= {"eng_Latn", "deu_Latn", "slk_Latn"}
    assert mixed["language_modules"] == ["eng_Latn"]
    assert plain["language_modules"] == []


def _predict(capsys: pytest.CaptureFixture[str], *words: object) -> list[dict[str, object]]:
    return [json.loads(line) for line in succeed(capsys, "predict", *words, "--json").out.splitlines()]


def test_predict_of_mixed_languages_is_that_of_each_alone(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    file = tmp_path / "in.txt"
    file.write_text("\n".join(LINES) + "\n\n", encoding="utf-8")
    mixed = _predict(capsys, "--modules", world.topic, world.en, world.sk, file, "--language", "auto")
    assert [row["language"] for row in mixed] == ["slk_Latn", "eng_Latn", "slk_Latn"]
    assert [row["line"] for row in mixed] == [1, 2, 3]
    for language in ("sk", "en"):
        alone = _predict(capsys, "--modules", world.topic, world.en, world.sk, file, "-l", language)
        assert {row["language"] for row in alone} == {"slk_Latn" if language == "sk" else "eng_Latn"}
        for one, other in zip(mixed, alone, strict=True):
            if one["language"] == other["language"]:
                assert one["label"] == other["label"]
                assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
    for row in mixed:
        scores = row["scores"]
        assert isinstance(scores, dict)
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        assert max(scores, key=scores.__getitem__) == row["label"]


def test_predict_keeps_rows_apart_whose_language_modules_differ_in_shape(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    file = tmp_path / "in.txt"
    file.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    wide = tmp_path / "sk"
    short = ("--steps", 2, "--length", 24, "--batch-size", 4, "--device", "cpu")
    text = world.text / "slk_Latn.jsonl"
    succeed(
        capsys, "train", "language", "-b", world.backbone, "-l", "sk", "-t", text, "-m", "adapter:8", *short, "-o", wide
    )
    modules = ("--modules", world.topic, world.en, wide)
    mixed = _predict(capsys, *modules, file, "--language", "auto")
    assert [row["language"] for row in mixed] == ["slk_Latn", "eng_Latn", "slk_Latn"]
    for language in ("sk", "en"):
        alone = _predict(capsys, *modules, file, "-l", language)
        for one, other in zip(mixed, alone, strict=True):
            if one["language"] == other["language"]:
                assert one["scores"] == pytest.approx(other["scores"], abs=1e-5)
                assert one["label"] == other["label"]


def test_texts_that_are_cut_are_counted(capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path) -> None:
    lines = [f"A {'very ' * 400}long text.", "A short one."]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = succeed(capsys, "predict", "-m", world.plain, tmp_path / "in.txt").err
    assert "2 rows answered, 1 row of them too long" in told
    (tmp_path / "en").mkdir()
    for split in ("train", "test"):
        rows = [{"id": f"{split}{place}", "text": text, "category": "travel"} for place, text in enumerate(lines)]
        rows.append({"id": f"{split}9", "text": "Another.", "category": "health"})
        (tmp_path / "en" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    scored = ("evaluate", "-m", world.plain, "-d", tmp_path, "--targets", "en")
    assert succeed(capsys, *scored, "--json").json["cut"] == {"eng_Latn": 1}
    assert "English: 1 row of 3 longer than the model" in succeed(capsys, *scored).err
    train = ("train", "task", "-b", world.backbone, "-t", "topic", "-d", tmp_path, "-s", "en", "--split-dev", "none")
    told = succeed(capsys, *train, "-m", "adapter:4", "--steps", 1, "--device", "cpu", "-o", tmp_path / "m").err
    assert "1 of 3 rows are too long" in told


def test_predict_reads_stdin_and_prints_label_and_text(
    capsys: pytest.CaptureFixture[str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in ("\ufeffPrvá veta.\r\n", '{"text": "Prvá veta."}\n'):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8"))))
        label, shown = succeed(capsys, "predict", "-m", world.plain, "-").out.rstrip("\n").split("\t")
        assert shown == "Prvá veta."
        assert label in ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_the_whole_way_on_the_other_kinds(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, kind: str
) -> None:
    recipe = write_recipe(tmp_path, world.text, kind)
    backbone = tmp_path / "backbone"
    made = succeed(capsys, "pretrain", recipe, "--out", backbone, "--json").json
    assert made["kind"] == kind
    assert OBJECTIVES[kind] in succeed(capsys, "pretrain", recipe, "--out", backbone, "--overwrite").err
    short = ("--steps", 2, "--batch-size", 2)
    for code in ("en", "sk"):
        text = next(world.text.glob(f"{'slk' if code == 'sk' else 'eng'}*"))
        words = (
            "-b",
            backbone,
            "-l",
            code,
            "-t",
            text,
            "-m",
            "prompt:2",
            *short,
            "--length",
            20,
            "-o",
            tmp_path / code,
        )
        succeed(capsys, "train", "language", *words)
    words = ("-b", backbone, "-t", "topic", "-d", "bundled:parallel", "-s", "en", "--language-module", tmp_path / "en")
    succeed(
        capsys,
        "train",
        "task",
        *words,
        "-m",
        "prompt:2",
        *short,
        "--limit",
        4,
        "--max-length",
        40,
        "-o",
        tmp_path / "t",
    )
    modules = ("-m", f"{tmp_path / 't'},{tmp_path / 'en'},{tmp_path / 'sk'}")
    scores = succeed(capsys, "evaluate", "-d", "bundled:parallel", "-l", "sk", *modules, "--limit", 2, "--json").json
    assert scores["scores"]["slk_Latn"]["n"] == 2
    (tmp_path / "in.txt").write_text(LINES[0], encoding="utf-8")
    assert len(_predict(capsys, *modules, "-l", "sk", tmp_path / "in.txt")) == 1


def test_prompts_that_start_from_a_saved_one_and_bundled_text(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    language = ("train", "language", "-b", world.backbone, "-t", "bundled:text", "--steps", 1, "--length", 20)
    small = ("--batch-size", 2, "--device", "cpu", "--lr", 1e-9)
    succeed(capsys, *language, *small, "-l", "sw", "-m", "prompt:2", "-o", tmp_path / "sw")
    spec = f"prompt:3,source={tmp_path / 'sw'}"
    made = succeed(capsys, *language, *small, "-l", "Slovak", "-m", spec, "-o", tmp_path / "sk", "--json").json
    assert (made["language"], made["parameters"]) == ("slk_Latn", 3 * 16)
    task = ("train", "task", "-b", world.backbone, "-t", "topic", "-d", "bundled:parallel", "-s", "en", "--limit", 6)
    result = succeed(capsys, *task, *small, "--steps", 1, "-m", spec, "-o", tmp_path / "topic")
    assert "(119 in the head)" in result.err
    assert f"{3 * 16 + 119} parameters trained" in result.err
    saved = {name: load_file(tmp_path / name / "module.safetensors") for name in ("sw", "sk", "topic")}
    vectors = {name: next(v for k, v in found.items() if "head" not in k) for name, found in saved.items()}
    for name in ("sk", "topic"):
        # The vectors of the saved prompt, repeated to fill; the learning rate moves them by next to nothing.
        torch.testing.assert_close(vectors[name], vectors["sw"][[0, 1, 0]], atol=1e-6, rtol=0)
    data = succeed(capsys, "modules", "show", tmp_path / "sk", "--json").json["training"]["data"]
    assert data[0]["name"] == "slk_Latn.txt"


def test_retrieval_needs_no_task_module(
    capsys: pytest.CaptureFixture[str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ("evaluate", "-t", "retrieval", "-d", "bundled:parallel", "--limit", 6)
    bare = succeed(capsys, *words, "-b", world.backbone, "--targets", "all", "--json").json
    assert {"slk_Latn", "deu_Latn"} <= set(bare["scores"])
    assert "eng_Latn" not in bare["scores"]
    for score in (*bare["scores"].values(), {**bare["mean"], "n": 6}):
        assert score["accuracy"] == pytest.approx((score["to_english"] + score["from_english"]) / 2)
        assert score["n"] == 6
    # The modules say which backbone it is.
    own = succeed(capsys, *words, "--targets", "sk", "--modules", f"{world.sk},{world.en}", "--json").json
    assert own["language_modules"] == ["eng_Latn", "slk_Latn"]
    shown = succeed(capsys, *words, "--targets", "sk,de", "-m", world.sk, world.en, "--missing", "none")
    assert max(map(len, shown.out.splitlines())) <= 80
    for expected in ("Slovak", "own module", "no module", "to_english", "mean of 2"):
        assert expected in shown.out
    assert "role" not in shown.out
    assert shown.err.startswith("loading ")


def test_a_module_is_shown_in_words(
    capsys: pytest.CaptureFixture[str], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = succeed(capsys, "modules", "show", world.topic).out
    lines = {line[:16].strip(): line[16:].strip() for line in shown.splitlines()}
    assert lines["trained on"] == "bundled:parallel, train split, 30 examples"
    assert lines["over"] == "language adapter, of English"
    assert lines["trained for"].startswith("2 steps, ")
    assert lines["source dev data"].startswith("accuracy ")
    assert "adamw, learning rate 0.0001" in lines["optimiser"]
    assert "_" not in shown.split("other settings")[1]
    assert "held-out text" in succeed(capsys, "modules", "show", world.sk).out


def test_a_generic_task_from_columns_that_nobody_prepared(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    for language in ("en", "sk"):
        folder = tmp_path / "data" / language
        folder.mkdir(parents=True)
        rows = "".join(f"Statement {number}\tA reply\t{'good' if number % 2 else 'bad'}\n" for number in range(6))
        for split in ("train", "test"):
            (folder / f"{split}.tsv").write_text("first\tsecond\tverdict\n" + rows, encoding="utf-8")
    fields = ("--field", "text=first", "--field", "text_pair=second", "--field", "label=verdict")
    words = ("-b", world.backbone, "-t", "pair-classification", "-d", tmp_path / "data", "-s", "en", *fields)
    made = succeed(capsys, "train", "task", *words, "-m", "none", "--steps", 2, "-o", tmp_path / "m")
    assert "no dev split" in made.err
    scores = succeed(capsys, "evaluate", "-d", tmp_path / "data", "-l", "all", "-m", tmp_path / "m", "--json").json
    assert scores["scores"]["slk_Latn"]["n"] == 6
    (tmp_path / "in.tsv").write_text("One thing\tanother\n", encoding="utf-8")
    assert _predict(capsys, "-m", tmp_path / "m", tmp_path / "in.tsv")[0]["label"] in ("good", "bad")


def test_modules_list_export_and_import(capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path) -> None:
    listed = succeed(capsys, "modules", "list", world.root, "--json").json["modules"]
    assert {row["folder"] for row in listed} == {str(x) for x in (world.en, world.sk, world.topic, world.plain)}
    assert "English (eng_Latn)" in succeed(capsys, "modules", "list", world.root).out
    succeed(
        capsys, "train", "language", "-b", world.backbone, "-l", "sk", "-t", world.text / "slk_Latn.jsonl", "-m", "prompt:2",
        "--steps", 1, "--length", 20, "--out", tmp_path / "p",
    )  # fmt: skip
    exported = succeed(capsys, "modules", "export", tmp_path / "p", "--out", tmp_path / "peft", "--json").json
    assert "adapter_config.json" in exported["files"]
    back = succeed(
        capsys,
        "modules",
        "import",
        tmp_path / "peft",
        "-b",
        world.backbone,
        "-l",
        "sk",
        "-o",
        tmp_path / "back",
        "--json",
    ).json
    assert (back["method"], back["role"], back["language"]) == ("prompt", "language", "slk_Latn")
    first, second = (load_file(tmp_path / name / "module.safetensors") for name in ("p", "back"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_imported_task_prompt_scores_as_the_exported_one(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path
) -> None:
    small = ("--limit", 20, "--steps", 2, "--device", "cpu", "--module", "prompt:3")
    topics = ("science/technology", "travel", "politics", "sports", "health", "entertainment", "geography")
    words = json.dumps(dict(zip(topics, "abcdefg", strict=True)))
    head = ("--head", "verbaliser", "--head-option", f"words={words}")
    train = ("train", "task", "-b", world.backbone, "-t", "topic", "-d", "bundled:parallel", "-s", "en", *small, *head)
    succeed(capsys, *train, "-o", tmp_path / "p")
    succeed(capsys, "modules", "export", tmp_path / "p", "--out", tmp_path / "peft")
    back = ("modules", "import", tmp_path / "peft", "-b", world.backbone, "-t", "topic", "-l", "en")
    bare = succeed(capsys, *back, "-o", tmp_path / "bare")
    assert "has weights that are not imported; --head verbaliser" in bare.err
    succeed(capsys, *back, *head, "-o", tmp_path / "back")
    score = ("evaluate", "-d", "bundled:parallel", "--targets", "sk,en", "--limit", 20, "--json", "-m")
    first, second = (succeed(capsys, *score, tmp_path / name).json for name in ("p", "back"))
    assert first["scores"] == second["scores"]
    assert first["mean_over"] == second["mean_over"] == ["slk_Latn"]
    refused = isogloss(capsys, *back, "--head", "linear", "-o", tmp_path / "no")
    assert refused.status == 2 and "--head linear: it has weights" in refused.err and not (tmp_path / "no").exists()
    refused = isogloss(capsys, *back[:5], "-l", "en", "--head", "text", "-o", tmp_path / "no")
    assert refused.status == 2 and "give --task too" in refused.err
    named = ("modules", "import", tmp_path / "peft", "-b", world.backbone, "-t", "sarcasm", "-o", tmp_path / "own")
    assert "'sarcasm' is no task that isogloss knows" in succeed(capsys, *named).err


def test_push_and_pull_move_the_files_of_a_module(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import huggingface_hub

    hub = tmp_path / "hub"

    def upload(*, repo_id: str, folder_path: Path, **options: object) -> None:
        shutil.copytree(folder_path, hub / repo_id)

    def download(repository: str, *, local_dir: Path, **options: object) -> None:
        shutil.copytree(hub / repository, local_dir, dirs_exist_ok=True)

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda name, **options: f"https://hub/{name}")
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert "https://hub/me/sk" in succeed(capsys, "modules", "push", world.sk, "me/sk").out
    pulled = succeed(capsys, "modules", "pull", "me/sk", "--out", tmp_path / "sk", "--json").json
    assert pulled["language"] == "slk_Latn"
    shutil.rmtree(hub / "me" / "sk")
    (hub / "me" / "sk").mkdir()
    refused = isogloss(capsys, "modules", "pull", "me/sk", "--out", tmp_path / "other")
    assert refused.status == 2
    assert "me/sk" in refused.err
    assert not (tmp_path / "other").exists()


def test_ctrl_c_is_a_sentence_and_the_same_command_continues_to_the_same_bits(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "train", "language", "-b", world.backbone, "-l", "sk", "-t", world.text / "slk_Latn.jsonl", "-m", "adapter:4",
        "--length", 24, "--batch-size", 4, "--device", "cpu", "--steps", 9, "--out",
    ]  # fmt: skip
    update = Progress.update

    def press(self: Progress, step: int, loss: float, tokens: int) -> None:
        update(self, step, loss, tokens)
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", press)
        stopped = isogloss(capsys, *words, tmp_path / "stopped")
    assert (stopped.status, stopped.out) == (2, "")
    last = stopped.err.splitlines()[-1]
    assert last.startswith("error: Stopped at step")
    assert "run the same command again" in last
    assert "Traceback" not in stopped.err
    assert [item.name for item in (tmp_path / "stopped").iterdir()] == [".checkpoint"]
    continued = succeed(capsys, *words, tmp_path / "stopped", "--json")
    assert "continuing from step" in continued.err
    assert continued.json["steps"] == 9
    succeed(capsys, *words, tmp_path / "straight")
    first, second = (load_file(tmp_path / name / "module.safetensors") for name in ("stopped", "straight"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ctrl_c_before_training_leaves_nothing(
    capsys: pytest.CaptureFixture[str], world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isogloss.backbones.load_backbone", press)
    words = ("-b", world.backbone, "-l", "sk", "-t", world.text / "slk_Latn.jsonl", "--out", tmp_path / "m")
    stopped = isogloss(capsys, "train", "language", *words)
    assert stopped.status == 2
    assert stopped.err.splitlines()[0] == f"loading {world.backbone} ..."
    assert stopped.err.splitlines()[1].startswith("error: Interrupted")
    assert stopped.err.count("\n") == 2
    assert not (tmp_path / "m").exists()
