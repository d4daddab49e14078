"""The parallel data set: built files equal their source, and the builder refuses what it should."""

import importlib.util
import json
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

REPO = Path(__file__).resolve().parents[1]


def _load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_parallel", REPO / "tools" / "build_parallel.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


builder = _load_builder()
TAGS = {"O", *(f"{p}-{t}" for p in "BI" for t in ("PER", "LOC", "ORG"))}
BUILT = sorted(builder.ROOT.glob("*/*.jsonl"))
LANGS = sorted({path.parent.name for path in BUILT})


def _rows(lang: str, split: str) -> list[dict[str, Any]]:
    lines = (builder.ROOT / lang / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def test_built_files_equal_source() -> None:
    expected = builder.render(builder.load())
    found = {path.relative_to(builder.ROOT).as_posix(): path.read_text(encoding="utf-8") for path in BUILT}
    assert sorted(found) == sorted(expected), "run tools/build_parallel.py"
    for name, contents in expected.items():
        assert found[name] == contents, f"{name} is not what the source gives: run tools/build_parallel.py"


@pytest.mark.parametrize(("split", "per_topic"), [("test", 12), ("dev", 5), ("train", 45)])
def test_english_counts(split: str, per_topic: int) -> None:
    counts = Counter(row["category"] for row in _rows("eng_Latn", split))
    assert set(counts) == set(builder.TOPICS.values())
    assert min(counts.values()) >= per_topic
    assert len(set(counts.values())) == 1, "topics are balanced"


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("split", ["dev", "test"])
def test_ids_and_topics_are_parallel(lang: str, split: str) -> None:
    english = {row["id"]: row["category"] for row in _rows("eng_Latn", split)}
    assert {row["id"]: row["category"] for row in _rows(lang, split)} == english


@pytest.mark.parametrize("path", BUILT, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_rows_are_well_formed(path: Path) -> None:
    for row in _rows(path.parent.name, path.stem):
        tokens, tags = row["tokens"], row["ner_tags"]
        assert list(row) == ["id", "category", "text", "tokens", "ner_tags"]
        assert len(tokens) == len(tags) > 0
        assert set(tags) <= TAGS and set(tags) != {"O"}
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert not tag.startswith("I-") or before[2:] == tag[2:], (row["id"], tags)
        assert "".join(tokens) == row["text"].replace(" ", "")
        assert row["text"] == row["text"].strip() == unicodedata.normalize("NFC", row["text"])
        assert "[" not in row["text"]
        # An entity never begins or ends with a comma, a full stop or a bracket.
        assert all(any(c.isalnum() for c in token) for token, tag in zip(tokens, tags, strict=True) if tag[0] == "B")


@pytest.mark.parametrize("lang", LANGS)
def test_no_sentence_in_two_splits(lang: str) -> None:
    splits = [s for s in builder.SPLITS if (builder.ROOT / lang / f"{s}.jsonl").exists()]
    texts = [" ".join(row["tokens"]).casefold() for split in splits for row in _rows(lang, split)]
    assert len(texts) == len(set(texts))


def test_english_train_shares_no_entity_with_dev_and_test() -> None:
    def names(split: str) -> set[str]:
        found: list[str] = []
        for row in _rows("eng_Latn", split):
            for token, tag in zip(row["tokens"], row["ner_tags"], strict=True):
                if tag[0] == "B":
                    found.append(token)
                elif tag[0] == "I":
                    found[-1] += f" {token}"
        return set(found)

    assert len(names("train")) > 200
    assert not names("train") & (names("dev") | names("test"))


@pytest.mark.parametrize(
    ("marked", "tokens", "tags"),
    [
        ("In [LOC Brno], rain.", "In Brno , rain .", "O B-LOC O O O"),
        ("[PER Mira Kolar]!", "Mira Kolar !", "B-PER I-PER O"),
        ("[LOC Ankara]'da kar.", "Ankara'da kar .", "B-LOC O O"),
        ("[LOC Ankara'da] kar.", "Ankara'da kar .", "B-LOC O O"),
        ("de l'[ORG OMS] (oui)", "de l'OMS ( oui )", "O B-ORG O O O"),
        ("«[ORG Газпром]» и [LOC Омск]", "« Газпром » и Омск", "O B-ORG O O B-LOC"),
        ("و[LOC باريس]، [LOC بروما]", "وباريس ، بروما", "B-LOC O B-LOC"),
        ("[LOC दिल्ली] में।", "दिल्ली में ।", "B-LOC O O"),
        ("[LOC హైదరాబాద్‌లో] వాన.", "హైదరాబాద్‌లో వాన .", "B-LOC O O"),
        ("[LOC Baden-Baden] 5%", "Baden-Baden 5 %", "B-LOC O O"),
    ],
)
def test_parse_marked(marked: str, tokens: str, tags: str) -> None:
    _, found, labels = builder.parse_marked(marked)
    assert " ".join(found) == tokens
    assert " ".join(labels) == tags


@pytest.mark.parametrize(
    ("marked", "message"),
    [
        ("Nord-[LOC Italien] ruft.", "starts inside a word"),
        ("[MISC Czech] film", "unknown entity type"),
        ("[LOC Brno is wet", "square bracket"),
        ("[LOC  Brno] is wet", "space at its edge"),
        ("[LOC Praha]-[LOC Brno]", "starts inside a word"),
        ("[LOC ...] is wet", "only punctuation"),
    ],
)
def test_parse_marked_refuses(marked: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        builder.parse_marked(marked)


@given(st.text(alphabet=st.sampled_from("aß1 .,'«»-ाది్‌،%"), max_size=30))
def test_token_spans_cover_the_text(text: str) -> None:
    spans = builder.token_spans(text)
    assert "".join(text[a:b] for a, b in spans) == "".join(text.split())
    for a, b in spans:
        word = text[a:b]
        edge_is_punctuation = any(unicodedata.category(c)[0] in "PS" for c in (word[0], word[-1]))
        assert len(word) == 1 or not edge_is_punctuation


GOOD = {
    "eng_Latn.test": "test-sci-01\tscience/technology\t[PER Mira Kolar] built a radio in [LOC Brno].",
    "eng_Latn.dev": "dev-sci-01\tscience/technology\t[ORG NASA] built a probe.",
    "deu_Latn.test": "test-sci-01\tscience/technology\t[PER Mira Kolar] baute in [LOC Brünn] ein Radio.",
    "deu_Latn.dev": "dev-sci-01\tscience/technology\tDie [ORG NASA] baute eine Sonde.",
}


def _source(root: Path, **changes: str) -> Path:
    (root / "source").mkdir()
    for name, line in (GOOD | {k.replace("__", "."): v for k, v in changes.items()}).items():
        (root / "source" / f"{name}.tsv").write_text(f"id\ttopic\ttext\n{line}\n", encoding="utf-8", newline="\n")
    return root


def test_build_writes_and_removes_stale(tmp_path: Path) -> None:
    root = _source(tmp_path)
    (root / "xxx_Latn").mkdir()
    (root / "xxx_Latn" / "test.jsonl").write_text("{}\n")
    builder.write(builder.render(builder.load(root)), root)
    assert sorted(p.relative_to(root).as_posix() for p in root.glob("*/*.jsonl*")) == [
        "deu_Latn/dev.jsonl",
        "deu_Latn/test.jsonl",
        "eng_Latn/dev.jsonl",
        "eng_Latn/test.jsonl",
    ]
    assert json.loads((root / "deu_Latn" / "test.jsonl").read_text(encoding="utf-8")) == {
        "id": "test-sci-01",
        "category": "science/technology",
        "text": "Mira Kolar baute in Brünn ein Radio.",
        "tokens": ["Mira", "Kolar", "baute", "in", "Brünn", "ein", "Radio", "."],
        "ner_tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O", "O", "O"],
    }


_SCI = "science/technology"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"test-sci-01\t{_SCI}\t[PER Mira Kolar] baute ein Radio.", "entity types are PER, but .* LOC PER"),
        (f"test-sci-01\t{_SCI}\tMira Kolar baute ein Radio.", "no marked entity"),
        (f"test-sci-02\t{_SCI}\t[PER Mira Kolar] in [LOC Brno].", "not in the English file"),
        ("test-sci-01\tsports\t[PER Mira Kolar] in [LOC Brno].", "does not fit id"),
        (f"test-sci-01\t{_SCI}\t[PER Mira Kolar] in [LOC Bru\u0308nn].", "NFC"),
        (f"test-sci-01\t{_SCI}\t[PER Mira Kolar] in [LOC Brno]. ", "space at the start or end"),
        (f"test-sci-01\t{_SCI}\t[PER Mira\u00a0Kolar] in [LOC Brno].", "U\\+00A0"),
        (f"test-sci-01\t{_SCI}\t[PER Мира Колар] в [LOC Брно].", "letters are latin"),
        (f"test-sci-01\t{_SCI}\t[PER Mira Kolar] built a radio in [LOC Brno].", "is the English sentence"),
        (f"test-sci-01\t{_SCI}", "2 tab-separated cells"),
    ],
)
def test_build_refuses_bad_translation(tmp_path: Path, line: str, message: str) -> None:
    root = _source(tmp_path, deu_Latn__test=line)
    with pytest.raises(builder.BuildError, match=rf"deu_Latn\.test\.tsv:2: .*{message}"):
        builder.load(root)


def test_build_refuses_missing_file_and_missing_id(tmp_path: Path) -> None:
    root = _source(tmp_path)
    (root / "source" / "deu_Latn.dev.tsv").write_text("id\ttopic\ttext\n", encoding="utf-8")
    with pytest.raises(builder.BuildError, match="id 'dev-sci-01' of the English file is missing"):
        builder.load(root)
    (root / "source" / "deu_Latn.dev.tsv").unlink()
    with pytest.raises(builder.BuildError, match=r"deu_Latn\.dev\.tsv:1: file is missing"):
        builder.load(root)


def test_build_refuses_train_sentence_from_test(tmp_path: Path) -> None:
    copy = f"train-sci-01\t{_SCI}\t[PER Mira Kolar] built a radio, in [LOC BRNO]!"
    root = _source(tmp_path, eng_Latn__train=copy)
    with pytest.raises(builder.BuildError, match=r"eng_Latn\.train\.tsv:2: same text as eng_Latn\.test\.tsv:2"):
        builder.load(root)


def test_exception_lets_types_differ_and_must_be_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _source(tmp_path, deu_Latn__test=f"test-sci-01\t{_SCI}\t[PER Mira Kolar] baute ein Radio.")
    monkeypatch.setitem(builder.EXCEPTIONS, ("deu_Latn", "test-sci-01"), "the place is an adjective")
    assert len(builder.load(root)) == 4
    monkeypatch.setitem(builder.EXCEPTIONS, ("deu_Latn", "dev-sci-01"), "not needed")
    with pytest.raises(builder.BuildError, match="is in EXCEPTIONS"):
        builder.load(root)
