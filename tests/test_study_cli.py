"""The commands of a study: what they print, and what they refuse in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest

from isogloss.study.steps import Plan
from isogloss.study.store import Store
from tests._cli_tools import isogloss, succeed
from tests.test_study_plan import GOOD, write


def test_plan_prints_steps_without_touching_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write(tmp_path, GOOD + f"store: {tmp_path / 'store'}\n")
    found = succeed(capsys, "study", "plan", study, "--no-measure", "--set", "grid.seed=[1,2,3]", "--json").json
    assert found["points"] == 9
    assert found["steps"]["evaluation"] == {"all": 27, "to_do": 27, "seconds": None, "bytes": None}
    assert not (tmp_path / "store").exists()
    shown = succeed(capsys, "study", "plan", study, "--no-measure").out
    assert "6 models, 24 steps, 0 of them done" in shown.replace("\n", " ")


def test_what_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write(tmp_path, GOOD + f"store: {tmp_path / 'store'}\n")
    for arguments, wanted in (
        (("plan", tmp_path / "none.yaml"), "does not exist; see the folder recipes/study/"),
        (("plan", study, "--set", "grid.sed=1"), "did you mean 'seed'"),
        (("run", study, "--engine", "slurm"), "--engine slurm: expected local or ray"),
        (("status", study), "There is no store in"),
        (("report", study), "There is no store in"),
    ):
        result = isogloss(capsys, "study", *arguments)
        assert result.status == 2 and wanted in result.err, result.err
        assert result.err.startswith("error: ") and result.err.count("\n") == 1
    assert not (tmp_path / "store").exists()


def test_sources_are_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = succeed(
        capsys, "languages", "rank", "--task", "topic", "--target", "sk", "--source", "cs,te,en,sk", "--json"
    ).json
    assert found["target"] == "slk_Latn"
    order = [item["language"] for item in found["ranked"]]
    assert order[0] == "ces_Latn" and sorted(order) == ["ces_Latn", "eng_Latn", "tel_Telu"]
    assert all(item["measured"] is None and item["imputed"] == 1.0 for item in found["ranked"])
    data = tmp_path / "data"
    for code, rows in (("eng_Latn", 1000), ("ces_Latn", 2)):
        (data / code).mkdir(parents=True)
        (data / code / "train.jsonl").write_text('{"text": "a", "label": "travel"}\n' * rows)
    ranked = succeed(capsys, "languages", "rank", "-t", "topic", "--target", "sk", "-d", data, "--json").json["ranked"]
    assert {item["language"]: item["rows"] for item in ranked} == {"eng_Latn": 1000, "ces_Latn": 2}
    result = isogloss(capsys, "languages", "rank", "-t", "topic", "--target", "sk")
    assert result.status == 2 and "give --data with a training split, --source, or --study" in result.err
    result = isogloss(capsys, "languages", "rank", "-t", "nonsense", "--target", "sk", "--source", "cs,en")
    assert result.status == 2 and "--task nonsense: expected topic or " in result.err


def test_measured_transfer_outweighs_the_rest() -> None:
    from isogloss.languages import resolve
    from isogloss.report.study_data import StudyScore
    from isogloss.study.rank import rank_sources

    def score(source: str, language: str, value: float, seen: bool = False) -> StudyScore:
        return StudyScore("k", {}, "topic", source, language, 1, "accuracy", value, 10, seen=seen)

    near, far = resolve("ces"), resolve("tel")
    scores = [
        score("ces_Latn", "slk_Latn", 40.0),
        score("tel_Telu", "slk_Latn", 60.0),
        score("tel_Telu", "slk_Latn", 62.0),
    ]
    ranked = rank_sources(resolve("slk"), [near, far], scores=scores)
    assert [item.language.code for item in ranked] == ["tel_Telu", "ces_Latn"]
    assert (ranked[0].measured, ranked[0].runs, ranked[0].on) == (61.0, 2, "slk_Latn")
    # Scores of languages that took part in training are no transfer; without the target its nearest measured one counts.
    others = [
        score("ces_Latn", "slk_Latn", 99.0, seen=True),
        *(score(s, "pol_Latn", v) for s, v in (("ces_Latn", 50.0), ("tel_Telu", 30.0))),
    ]
    ranked = rank_sources(resolve("slk"), [near, far], scores=others)
    assert [(item.language.code, item.on) for item in ranked] == [("ces_Latn", "pol_Latn"), ("tel_Telu", "pol_Latn")]


def test_sources_are_measured_alike() -> None:
    """In the same settings, though a study has not finished; and on a language that more than one of them was scored on."""
    from isogloss.languages import resolve
    from isogloss.report.study_data import StudyScore
    from isogloss.study.rank import rank_sources

    def score(cell: str, source: str, language: str, value: float) -> StudyScore:
        return StudyScore("k", {"cell": cell}, "topic", source, language, 1, "accuracy", value, 10)

    near, far = resolve("ces"), resolve("tel")
    scores = [score("TA", "ces_Latn", "slk_Latn", 50.0), score("TA", "tel_Telu", "slk_Latn", 40.0)]
    ranked = rank_sources(resolve("slk"), [near, far], scores=[*scores, score("full", "tel_Telu", "slk_Latn", 90.0)])
    assert [(item.language.code, item.measured, item.runs) for item in ranked] == [
        ("ces_Latn", 50.0, 1),
        ("tel_Telu", 40.0, 1),
    ]
    # Czech is nearer to Polish than Bulgarian is, but no model of the Czech source is scored on it.
    scores = [score("TA", "tel_Telu", "ces_Latn", 80.0)]
    scores += [score("TA", "tel_Telu", "bul_Cyrl", 70.0), score("TA", "ces_Latn", "bul_Cyrl", 30.0)]
    ranked = rank_sources(resolve("pol"), [near, far], scores=scores)
    assert [(item.language.code, item.measured, item.on) for item in ranked] == [
        ("tel_Telu", 70.0, "bul_Cyrl"),
        ("ces_Latn", 30.0, "bul_Cyrl"),
    ]


def test_the_status_needs_no_models(tmp_path: Path) -> None:
    study = write(tmp_path, GOOD + f"store: {tmp_path / 'store'}\n")
    Plan("small", "").save(Store(tmp_path / "store", create=True).plan_file)
    asked = (
        f"import sys; from isogloss.cli.app import run; run(['study', 'status', {str(study)!r}])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'datasets')))"
    )
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert found.returncode == 0 and "0 of 0 steps done" in found.stdout, found.stderr
