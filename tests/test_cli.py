"""Commands that need no model: help, languages, backbones, options and the shape of what is printed."""

import io
import json
import subprocess
import sys
from itertools import pairwise

import pytest
from _cli_tools import isogloss, succeed
from typer.testing import CliRunner

from isogloss.cli._console import counted, plain, print_table
from isogloss.cli._errors import explain
from isogloss.cli._inputs import json_pairs, pairs, split_list
from isogloss.cli.app import app
from isogloss.errors import IsoglossError
from isogloss.languages import all_languages, distance
from isogloss.tasks import get_task
from isogloss.tasks.rows_in import unlabelled_examples

COMMANDS = (
    "quickstart",
    "languages",
    "backbones",
    "pretrain",
    "train language",
    "train task",
    "evaluate",
    "predict",
    "modules list",
    "modules show",
    "modules import",
    "modules export",
    "modules push",
    "modules pull",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_contract_has_help_and_json(command: str) -> None:
    found = CliRunner().invoke(app, [*command.split(), "--help"])
    assert found.exit_code == 0
    assert "--json" in found.output
    assert f"isogloss {command}" in found.output or f"root {command}" in found.output


def test_help_and_languages_do_not_load_torch() -> None:
    code = (
        "import sys; from isogloss.cli.app import run\n"
        "for words in (['--help'], ['languages', 'sk'], ['languages', '--distance', 'sk', 'de']): run(words)\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Slovak" in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from isogloss import __version__

    assert succeed(capsys, "--version").out == f"isogloss {__version__}\n"


def test_languages_by_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    rows = succeed(capsys, "languages", "sk", "German", "zh-Hant", "--json").json["languages"]
    assert [row["code"] for row in rows] == ["slk_Latn", "deu_Latn", "zho_Hant"]
    assert rows[0]["name"] == "Slovak"
    assert rows[0]["family"] == "Indo-European"


def test_all_languages_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(succeed(capsys, "languages", "--json").json["languages"]) == len(all_languages())


def test_distances_are_those_of_the_language_room(capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed(capsys, "languages", "--distance", "sk", "te", "--json").json
    assert (found["a"], found["b"]) == ("slk_Latn", "tel_Telu")
    assert len(found["distances"]) == 6
    for kind, item in found["distances"].items():
        assert item["value"] == distance(kind, "sk", "te").value


def test_nearest_among_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed(
        capsys, "languages", "te", "cs", "sw", "--nearest", "sk", "--kind", "genetic", "--count", 2, "--json"
    ).json
    assert found["nearest"][0]["code"] == "ces_Latn"
    assert len(found["nearest"]) == 2


def test_tables_have_names_no_colours_and_fit_eighty_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in (["languages", "sk", "swh", "zh"], ["languages", "--distance", "sk", "bm"], ["backbones"]):
        out = succeed(capsys, *words).out
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) <= 80
    assert "Bambara" in succeed(capsys, "languages", "bm").out


def test_families_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed(capsys, "backbones", "--json").json
    assert {"XLM-R", "XGLM", "mT5 / mT0"} <= {row["name"] for row in found["families"]}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "Usage"),
        (("train",), "Usage"),
        (("languges",), "languges"),
        (("languages", "--nope"), "--nope"),
        (("languages", "klingonn"), "klingonn"),
        (("languages", "--distance", "sk"), "--distance"),
        (("languages", "--nearest", "sk", "--kind", "genetik"), "genetik"),
        (("languages", "--nearest", "sk", "--count", "0"), "--count"),
        (("languages", "--nearest", "sk", "--distance", "sk", "de"), "--nearest"),
        (("train", "language"), "--backbone"),
        (("modules", "list", "/no/such/folder"), "/no/such/folder"),
        (("modules", "show", "/no/such/folder"), "/no/such/folder"),
        (("backbones", "bundled:nothing"), "bundled:nothing"),
        (("backbones", "/no/such/folder"), "/no/such/folder"),
    ],
)
def test_wrong_words_are_refused_in_a_sentence(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], named: str
) -> None:
    result = isogloss(capsys, *words)
    assert result.status == 2
    assert named in result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    if named != "Usage":
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1


def test_debug_shows_the_traceback_and_may_stand_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--debug", "languages", "klingonn"), ("languages", "klingonn", "--debug")):
        result = isogloss(capsys, *words)
        assert result.status == 2
        assert "Traceback" in result.err
        assert result.err.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("problem", "said", "status"),
    [
        (IsoglossError("The field\nis wrong"), "error: The field is wrong.", 2),
        (OSError(28, "No space left on device", "/out/x"), "disk is full ('/out/x')", 2),
        (RuntimeError("safetensors: I/O error: No space left on device (os error 28)"), "disk is full", 2),
        (PermissionError(13, "Permission denied", "/root/x"), "'/root/x'", 2),
        (FileNotFoundError(2, "No such file or directory", "gone.txt"), "'gone.txt'", 2),
        (KeyboardInterrupt(), "run the same command again", 2),
        (MemoryError(), "--batch-size", 2),
        (ZeroDivisionError("division by zero"), "--debug", 1),
    ],
)
def test_every_kind_of_trouble_is_one_sentence(problem: BaseException, said: str, status: int) -> None:
    text, found = explain(problem)
    assert text.startswith("error: ")
    assert said in text
    assert "\n" not in text
    assert found == status


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -c 'from isogloss.cli import main; main()' languages --json"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | true"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0


def test_option_values() -> None:
    assert split_list(["a,b", " c ", "a", ""]) == ["a", "b", "c"]
    assert pairs(["text=Sentence One"], "--field") == {"text": "Sentence One"}
    assert json_pairs(["pooling=mean", "dropout=0.2", "seed=3"], "--head-option") == {
        "pooling": "mean",
        "dropout": 0.2,
        "seed": 3,
    }
    with pytest.raises(IsoglossError, match="--field text"):
        pairs(["text"], "--field")


def test_json_holds_no_number_that_json_does_not_have() -> None:
    assert (
        json.dumps(plain({"a": float("nan"), "b": [float("inf"), 1.5]}), allow_nan=False)
        == '{"a": null, "b": [null, 1.5]}'
    )


def test_tables_hold_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("a", "b"), [("[red]x", 1234567), (None, True)])
    out = capsys.readouterr().out
    assert "[red]x" in out
    assert "1,234,567" in out
    assert "yes" in out


def test_counts() -> None:
    assert [counted(1, "row"), counted(2, "row"), counted(1000, "step")] == ["1 row", "2 rows", "1,000 steps"]


def test_stdin_is_not_needed_by_other_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "Slovak" in succeed(capsys, "languages", "sk").out


def test_options_of_training_stand_under_headings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for command, option in (("task", "--source"), ("language", "--text")):
        shown = CliRunner().invoke(app, ["train", command, "--help"]).output
        places = [shown.index(f"\n{name}:\n") for name in ("What", "How it is trained", "Output", "Other")]
        assert places == sorted(places)
        what, how, output = (shown[a:b] for a, b in pairwise(places))
        assert option in what
        assert "--backbone" in what
        assert "--lr" in how
        assert "[as --lr]" in how
        assert "--out" in output
        assert shown.count("--overwrite ") == 1


def test_rows_of_any_origin_become_examples_without_labels() -> None:
    rows = [{"text": "Prvá veta.", "category": "no such topic"}, {"text": "Druhá.", "index_id": 7}]
    found = list(unlabelled_examples(rows, get_task("topic"), language="slk_Latn"))
    assert [(example.text, example.label, example.language) for example in found] == [
        ("Prvá veta.", None, "slk_Latn"),
        ("Druhá.", None, "slk_Latn"),
    ]
    assert found[1].id == "7"
    with pytest.raises(IsoglossError, match=r"line 2: .*text"):
        list(unlabelled_examples([rows[0], {"sentence": 3}], get_task("topic"), where="line"))
    with pytest.raises(IsoglossError, match="row 1: expected columns and values, found str"):
        list(unlabelled_examples(["text"], get_task("topic")))  # type: ignore[list-item]


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "isogloss", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("isogloss ")
