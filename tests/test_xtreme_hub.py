"""The suite's data from the Hub, which is a stand-in here."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isogloss.errors import IsoglossError
from isogloss.tasks import available, get_task, read, splits
from isogloss.training.xtreme import SUITE, fetch_suite, find_data
from isogloss.training.xtreme.data import train_data

LABELS = SimpleNamespace(names=["entailment", "neutral", "contradiction"])
TAGS = SimpleNamespace(feature=SimpleNamespace(names=["O", "B-PER", "I-PER"]))
POS = SimpleNamespace(feature=SimpleNamespace(names=["NOUN", "ADJ"]))
NLI: list[dict[str, Any]] = [{"premise": f"a {n}", "hypothesis": "b", "label": n % 3} for n in range(6)]
PAWS = [{"id": n, "sentence1": f"a {n}", "sentence2": "b", "label": n % 2} for n in range(6)]
NER = [{"tokens": ["Anna", "is"], "ner_tags": [1, 0], "langs": ["en", "en"]}]
WORDS = [{"tokens": ["red", "fox"], "pos_tags": [1, 0]}]


def question(number: int, name: str = "q") -> dict[str, Any]:
    return {
        "id": f"{name}-{number}-1",
        "question": "what ?",
        "context": f"a fox {number}",
        "answers": {"text": ["fox"], "answer_start": [2]},
    }


QA = [question(number) for number in range(3)]
TYDI = [question(number, name) for name in ("english", "arabic") for number in range(2)]
PAIRS = [{"source_sentence": f"rot {n}\n", "target_sentence": f"red {n}\n", "source_lang": "deu"} for n in range(4)]
ALL = ("train", "validation", "test")
# (id, configuration) -> splits, rows, features; what must not be taken is among them.
HUB: dict[tuple[str, str], tuple[tuple[str, ...], list[dict[str, Any]], dict[str, Any]]] = {
    **{("facebook/xnli", code): (ALL, NLI, {"label": LABELS}) for code in ("en", "de", "all_languages")},
    **{("google-research-datasets/paws-x", code): (ALL, PAWS, {}) for code in ("en", "de")},
    **{("google/xtreme", f"PAN-X.{code}"): (ALL, NER, {"ner_tags": TAGS}) for code in ("en", "de")},
    **{("google/xtreme", f"udpos.{name}"): (ALL, WORDS, {"pos_tags": POS}) for name in ("English", "Afrikans")},
    ("google/xtreme", "udpos.Thai"): (("test",), WORDS, {"pos_tags": POS}),
    **{("google/xtreme", f"XQuAD.{code}"): (("validation",), QA, {}) for code in ("en", "de")},
    **{("google/xtreme", f"MLQA.{code}"): (("test", "validation"), QA, {}) for code in ("en.en", "de.de", "de.en")},
    ("google/xtreme", "SQuAD"): (("train", "validation"), QA, {}),
    ("google/xtreme", "tydiqa"): (("train", "validation"), TYDI, {}),
    ("google/xtreme", "tatoeba.deu"): (("validation",), PAIRS, {}),
    ("google/xtreme", "bucc18.de"): (("validation", "test"), PAIRS, {}),
    ("google/xtreme", "XNLI"): (("validation", "test"), NLI, {}),
}


class Rows(list[dict[str, Any]]):
    features: dict[str, Any]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What was loaded."""
    loaded: list[tuple[str, str, str]] = []

    def load_dataset(name: str, config: str, *, split: str) -> Rows:
        loaded.append((name, config, split))
        there, rows, features = HUB[name, config]
        assert split in there
        found = Rows(rows)
        found.features = dict.fromkeys(rows[0]) | features
        return found

    fake = SimpleNamespace(
        load_dataset=load_dataset,
        get_dataset_config_names=lambda name: [config for found, config in HUB if found == name],
        get_dataset_split_names=lambda name, config: list(HUB[name, config][0]),
    )
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return loaded


def test_the_hub_becomes_the_folders_of_the_suite(asked: list[tuple[str, str, str]], tmp_path: Path) -> None:
    found = find_data(fetch_suite(tmp_path))
    assert set(found) == set(SUITE) - {"bucc"}
    assert len(asked) == len(set(asked)), "nothing is loaded twice"
    for name, folder in found.items():
        item = SUITE[name]
        codes = set(available(folder))
        assert codes == {
            "udpos": {"eng_Latn", "afr_Latn", "tha_Thai"},
            "tydiqa": {"eng_Latn", "arb_Arab"},
            "tatoeba": {"deu_Latn"},
        }.get(name, {"eng_Latn", "deu_Latn"})
        scored = "dev" if name == "tydiqa" else "test"
        for code in codes:
            rows = read(folder, code, scored, get_task(item.task)).examples
            assert rows and all(row.language == code for row in rows)
            if code != "eng_Latn":
                assert splits(folder, code) == [scored]
        if item.train:
            source, place = train_data(item, tmp_path)
            assert not place.note and read(source, "eng_Latn", "train", get_task(item.task)).examples
    pair = read(found["tatoeba"], "deu", "test", get_task("retrieval")).examples[1]
    assert (pair.text, pair.text_pair) == ("rot 1", "red 1")
    labels = [row.label for row in read(found["xnli"], "deu", "test", get_task("nli")).examples]
    assert labels == ["entailment", "neutral", "contradiction"] * 2
    before = len(asked)
    fetch_suite(tmp_path)
    assert len(asked) == before


def test_some_tasks_and_what_the_hub_does_not_have(asked: list[tuple[str, str, str]], tmp_path: Path) -> None:
    assert set(find_data(fetch_suite(tmp_path, ["xquad"]))) == {"xquad"}
    assert {config for _, config, _ in asked} == {"XQuAD.en", "XQuAD.de", "SQuAD"}
    for names, said in (("bucc", "no whole copy"), ("xnlu", "no such task")):
        with pytest.raises(IsoglossError, match=said):
            fetch_suite(tmp_path / "no", [names])
    sys.modules["datasets"].get_dataset_config_names = lambda name: 1 / 0
    with pytest.raises(IsoglossError, match=r"google/xtreme: .* cannot be loaded"):
        fetch_suite(tmp_path / "no", ["tatoeba"])
    assert not (tmp_path / "no").exists()
