"""Bad input: one sentence each, naming the file and line or the argument."""

import gzip
import json
from pathlib import Path

import pytest

from isogloss.errors import IsoglossError
from isogloss.tasks import available, get_task, read, read_split


def refused(tmp_path: Path, task: str, content: str | bytes, *, name: str = "en/test.jsonl") -> str:
    """The message of reading one file with this content; checks that it is one line."""
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    split = path.name.split(".")[0]
    with pytest.raises(IsoglossError) as caught:
        read_split(tmp_path, "en", split, get_task(task))
    message = str(caught.value)
    assert "\n" not in message
    return message


GOOD = json.dumps({"text": "Hi", "category": "health"}) + "\n"


@pytest.mark.parametrize(
    ("task", "line", "want"),
    [
        ("topic", "{broken", "test.jsonl line 2: not valid JSON"),
        ("topic", "[1]", "test.jsonl line 2: expected a JSON object"),
        ("topic", '{"text": "Hi"}', "no column category or label or topic"),
        ("topic", '{"text": 5, "category": "health"}', "text must be a text, found int 5"),
        ("topic", '{"text": "  ", "category": "health"}', "line 2: text is empty"),
        ("topic", '{"text": "a\\ud800", "category": "health"}', "half a surrogate pair"),
        (
            "topic",
            '{"text": "Hi", "category": "helth"}',
            "unknown label 'helth'; task 'topic' accepts science",
        ),
        ("topic", '{"text": "Hi", "category": 3}', "name the labels in that order with --labels"),
        ("topic", '{"text": "Hi", "category": ["health"]}', "a label must be a text or an integer"),
    ],
)
def test_malformed_rows(tmp_path: Path, task: str, line: str, want: str) -> None:
    assert want in refused(tmp_path, task, GOOD + line + "\n")


@pytest.mark.parametrize(
    ("task", "row", "want"),
    [
        ("ner", {"tokens": ["a", "b"], "ner_tags": ["O"]}, "2 tokens but 1 tags"),
        ("ner", {"tokens": ["a"], "ner_tags": ["PER"]}, "'PER' is not an IOB2 tag"),
        (
            "ner",
            {"tokens": ["a"], "ner_tags": ["B-FOO"]},
            "unknown label 'B-FOO'; task 'ner' accepts the types PER, LOC",
        ),
        ("ner", {"tokens": ["a"], "ner_tags": [42]}, "integer without a known meaning"),
        ("ner", {"tokens": [], "ner_tags": []}, "no tokens"),
        ("ner", {"tokens": ["a", " "], "ner_tags": ["O", "O"]}, "every token must be a valid text"),
        ("ner", {"tokens": 3, "ner_tags": ["O"]}, "tokens must be a list"),
        ("pos", {"tokens": ["a"], "upos": ["NOM"]}, "unknown label 'NOM'"),
        ("pos", {"tokens": ["a"], "upos": [3]}, "unknown label '3'"),
        ("qa", {"question": "?", "context": "c d", "answers": "d"}, "answers must be a list"),
        (
            "qa",
            {"question": "?", "context": "c", "answers": [{"text": "x", "answer_start": 0}]},
            "stands no times",
        ),
        (
            "qa",
            {"question": "?", "context": "c c", "answers": [{"text": "c", "answer_start": 1}]},
            "stands 2 times",
        ),
        (
            "qa",
            {"question": "?", "context": "c", "answers": {"text": ["c"], "answer_start": []}},
            "two lists",
        ),
        ("choice", {"premise": "p", "choice1": "a", "choice2": "b", "label": 2}, "accepts 0 and 1"),
        ("nli", {"premise": "p", "hypothesis": "", "label": 0}, "hypothesis is empty"),
        (
            "nli",
            {"premise": "p", "hypothesis": "h", "label": 3},
            "unknown label '3'; task 'nli' accepts entailment",
        ),
        ("retrieval", {"text": "x"}, "retrieval looks for English translations"),
    ],
)
def test_malformed_rows_of_other_kinds(tmp_path: Path, task: str, row: dict[str, object], want: str) -> None:
    assert want in refused(tmp_path, task, json.dumps(row) + "\n")


def test_invalid_utf8_names_the_line(tmp_path: Path) -> None:
    message = refused(tmp_path, "topic", GOOD.encode() + b'{"text": "\xff", "category": "health"}\n')
    assert "test.jsonl line 2: byte 11 of the line is not valid UTF-8" in message


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD.encode() * 50)
    assert "not a whole gzip file" in refused(tmp_path, "topic", whole[:-12], name="en/test.jsonl.gz")
    assert "not a whole gzip file" in refused(tmp_path, "topic", b"plain", name="en/train.jsonl.gz")


@pytest.mark.parametrize(
    ("name", "content", "want"),
    [
        (
            "en/test.tsv",
            "text\tcategory\nHi\n",
            "test.tsv line 2: 1 tab-separated fields, but the header has 2",
        ),
        ("en/test.tsv", "text\ttext\nHi\tho\n", "names column 'text' twice"),
        ("en/test.csv", 'text,category\n"Hi,health\n', "not valid CSV"),
        ("en/test.csv", "text,category\nok,health\nHi\n", "test.csv line 3: 1 fields, but the header has 2"),
        ("en/test.json", "{}", "expected a list of rows"),
        ("en/test.json", "[3]", "row 1: expected an object"),
        ("en/test.jsonl", "\n\n", "it holds no row"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, want: str) -> None:
    assert want in refused(tmp_path, "topic", content, name=name)


def test_broken_column_files(tmp_path: Path) -> None:
    assert "line 2: 3 tab-separated columns" in refused(tmp_path, "pos", "# x\n1\ta\tb\n", name="en/test.conllu")
    assert "line 1: expected a token and a tag" in refused(tmp_path, "ner", "word\n", name="en/train.conll")


def test_missing_folder_language_and_split(tmp_path: Path) -> None:
    task = get_task("topic")
    with pytest.raises(IsoglossError, match="there is no such folder"):
        read_split(tmp_path / "nowhere", "en", "test", task)
    with pytest.raises(IsoglossError, match="no folder of a language"):
        available(tmp_path)
    for folder in ("deu_Latn", "slk_Latn"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dev.jsonl").write_text(GOOD)
    with pytest.raises(IsoglossError, match=r"nothing for Czech.*it has deu_Latn, slk_Latn"):
        read_split(tmp_path, "cs", "dev", task)
    with pytest.raises(IsoglossError, match="Atlantisch"):
        read_split(tmp_path, "Atlantisch", "dev", task)
    with pytest.raises(IsoglossError, match=r"--split test: .* has no such split for deu_Latn; it has dev"):
        read_split(tmp_path, "de", "test", task)
    with pytest.raises(IsoglossError, match="this is a file"):
        available(tmp_path / "deu_Latn" / "dev.jsonl")
    with pytest.raises(IsoglossError, match="no such bundled data set"):
        available("bundled:nothing")


def test_mistyped_folder_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsoglossError, match="--data data/sib: there is no such folder"):
        available("data/sib")


def test_two_folders_for_one_language(tmp_path: Path) -> None:
    for folder in ("de", "deu_Latn"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dev.jsonl").write_text(GOOD)
    with pytest.raises(IsoglossError, match="de and deu_Latn are both German"):
        available(tmp_path)
    with pytest.raises(IsoglossError, match="de and deu_Latn are both German"):
        read_split(tmp_path, "German", "dev", get_task("topic"))
    assert len(read_split(tmp_path, "de", "dev", get_task("topic"))) == 1


def test_two_files_for_one_split(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    for name in ("val.jsonl", "validation.jsonl"):
        (tmp_path / "de" / name).write_text(GOOD)
    with pytest.raises(IsoglossError, match="are both the split dev"):
        read_split(tmp_path, "de", "dev", get_task("topic"))


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("nli", {"sentence1": "A", "sentence2": "B", "gold_label": "neutral"}),
        ("ner", {"tokens": ["a"], "ner_tags": ["O"]}),
        ("nli", {"sentence1": "A", "sentence2": "B", "gold_label": -1}),
        ("qa", {"question": "?", "context": "c", "answers": [{"text": "", "answer_start": 0}]}),
    ],
)
def test_withheld_test_labels_are_not_scored(tmp_path: Path, task: str, row: dict[str, object]) -> None:
    (tmp_path / "en").mkdir()
    for split in ("train", "test"):
        (tmp_path / "en" / f"{split}.jsonl").write_text((json.dumps(row) + "\n") * 60)
    with pytest.raises(IsoglossError, match="withhold the labels"):
        read_split(tmp_path, "en", "test", get_task(task))


def test_withheld_labels_are_found_behind_a_limit(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    one, other, bad = (f'{{"text": "a", "category": "{label}"}}\n' for label in ("health", "travel", "none of these"))
    file = tmp_path / "en" / "test.jsonl"
    file.write_text(one * 80 + bad)
    with pytest.raises(IsoglossError, match="all 80 rows have the label 'health'"):
        read(tmp_path, "en", "test", get_task("topic"), limit=60)
    # Sorted by class, as SIB-200 is: what is read on is neither given back nor counted.
    file.write_text(one * 80 + bad + other)
    result = read(tmp_path, "en", "test", get_task("topic"), limit=60)
    assert len(result.examples) == 60 and not result.dropped


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "en").mkdir()
    bad = '{"text": "", "category": "health"}\n{"text": "x", "category": "y"}\n'
    (tmp_path / "en" / "test.jsonl").write_text(GOOD + bad + GOOD)
    result = read(tmp_path, "en", "test", get_task("topic"), bad_rows="skip")
    assert (len(result.examples), result.dropped) == (2, {"empty text": 1, "unknown label": 1})


def test_unknown_task_field_and_labels() -> None:
    with pytest.raises(IsoglossError, match="no task 'topics': expected one of topic, nli"):
        get_task("topics")
    with pytest.raises(IsoglossError, match="--field txt=a: task 'topic' has no field 'txt', it has text, label"):
        get_task("topic", fields={"txt": "a"})
    with pytest.raises(IsoglossError, match="holds 'a' twice"):
        get_task("classification", labels=["a", "a"])
    with pytest.raises(IsoglossError, match="has no label set"):
        get_task("qa", labels=["a"])
    with pytest.raises(IsoglossError, match="no label 'x'"):
        get_task("topic").label_index("x")
