"""Every file format and field naming that a reader promises, on small files; and real data when present."""

import gzip
import json
import os
from pathlib import Path

import pytest

from isogloss.tasks import Answer, Example, Task, available, get_task, read, read_split, splits
from isogloss.tasks._hub import dataset_rows, is_hub_id


def put(root: Path, place: str, text: str) -> Path:
    """Write a file under ``root``, gzipped if its name says so."""
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if place.endswith(".gz") else data)
    return path


def rows(*values: object) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def test_sib200_jsonl_gz_and_language_matching_on_both_sides(tmp_path: Path) -> None:
    put(tmp_path, "slk_Latn/test.jsonl.gz", rows({"index_id": 7, "category": "health", "text": "Lieky."}))
    put(tmp_path, "de_gsd/test.jsonl", rows({"index_id": 7, "category": "health", "text": "Arznei."}))
    assert available(tmp_path) == {"deu_Latn": "de_gsd", "slk_Latn": "slk_Latn"}
    for spelling in ("sk", "slk", "Slovak", "slk_Latn"):
        (example,) = read_split(tmp_path, spelling, "test", get_task("topic"))
        assert (example.id, example.language, example.text) == ("7", "slk_Latn", "Lieky.")
        assert example.label == "health"
    assert read_split(tmp_path, "de", "test", get_task("topic"))[0].language == "deu_Latn"


def test_sib200_tsv_with_quoting_only_where_it_is_quoting(tmp_path: Path) -> None:
    text = 'index_id\tcategory\ttext\n1\ttravel\t"He said ""go"" loudly."\n2\ttravel\t"Go," he said. "Now."\n'
    put(tmp_path, "eng_Latn/train.tsv", text + '3\ttravel\t"whole sentence in quotes"\n')
    got = [example.text for example in read_split(tmp_path, "en", "train", get_task("topic"))]
    assert got == ['He said "go" loudly.', '"Go," he said. "Now."', '"whole sentence in quotes"']


def test_csv_with_line_break_in_a_cell_and_fields_of_the_user(tmp_path: Path) -> None:
    put(tmp_path, "en/train.csv", 'Review,Stars\n"Fine,\nreally",5\nBad,1\n')
    task = get_task("classification", fields={"text": "Review", "label": "Stars"})
    examples = read_split(tmp_path, "en", "train", task)
    assert [example.text for example in examples] == ["Fine,\nreally", "Bad"]
    assert task.with_labels_from(examples).labels == ("1", "5")


@pytest.mark.parametrize(
    ("row", "label"),
    [
        ({"idx": 3, "sentence1": "A", "sentence2": "B", "gold_label": "neutral"}, "neutral"),
        ({"premise": "A", "hypothesis": "B", "label": 2}, "contradiction"),
        ({"language": "sk", "premise": "A", "hypothesis": "B", "label": "contradictory"}, "contradiction"),
        ({"premise": "A", "hypothesis": "B", "label": "0"}, "entailment"),
        ({"premise": "A", "hypothesis": "B", "label": "Entailment"}, "entailment"),
    ],
)
def test_nli_in_all_its_namings(tmp_path: Path, row: dict[str, object], label: str) -> None:
    put(tmp_path, "sk/dev.jsonl", rows(row))
    (example,) = read_split(tmp_path, "sk", "validation", get_task("nli"))
    assert (example.text, example.text_pair, example.label) == ("A", "B", label)


def test_paraphrase_claims_sentiment(tmp_path: Path) -> None:
    put(tmp_path, "de/dev.jsonl", rows({"id": 4, "sentence1": "A", "sentence2": "B", "label": 1}))
    assert read_split(tmp_path, "de", "val", get_task("paraphrase"))[0].label == "paraphrase"
    put(tmp_path, "de/debate3.jsonl", rows({"line_number": 1, "text": "Hm", "label": 0}))
    claim = read_split(tmp_path, "de", "debate3", get_task("claims"))[0]
    assert (claim.label, claim.id) == ("not-checkworthy", "debate3:1")
    put(tmp_path, "de/other.jsonl", rows({"tweet_text": "Hm", "class_label": "Yes"}))
    assert read_split(tmp_path, "de", "other", get_task("claims"))[0].label == "checkworthy"
    put(tmp_path, "de/test.jsonl", rows({"tweet": "Hm", "label": "negative"}))
    assert read_split(tmp_path, "de", "test", get_task("sentiment"))[0].label == "negative"


def test_ner_as_text_as_integers_and_in_columns(tmp_path: Path) -> None:
    want = ("B-PER", "I-PER", "O", "B-LOC")
    tokens = ["Eva", "Nova", "in", "Brno"]
    put(tmp_path, "cs/train.jsonl", rows({"tokens": tokens, "ner_tags": list(want)}))
    put(tmp_path, "cs/dev.jsonl", rows({"tokens": tokens, "ner_tags": [1, 2, 0, 5]}))
    put(tmp_path, "cs/test.conll", "Eva B-PER\nNova I-PER\nin O\nBrno B-LOC\n\n# B-ORG\n")
    put(
        tmp_path,
        "sk/test.iob2",
        "# sent_id = s1\n# text = Eva Nova in Brno\n"
        + "".join(f"{i}\t{t}\t{g}\t-\t-\n" for i, (t, g) in enumerate(zip(tokens, want, strict=True), 1)),
    )
    put(tmp_path, "de/test.conll", "de:Eva\tB-PER\nde:Nova\tI-PER\nde:in\tO\nde:Brno\tB-LOC\n")
    task = get_task("ner")
    for language, split in (("cs", "train"), ("cs", "dev"), ("cs", "test"), ("sk", "test"), ("de", "test")):
        example = read_split(tmp_path, language, split, task)[0]
        assert example.tokens == tuple(tokens), (language, split)
        assert example.tags == want, (language, split)
    assert read_split(tmp_path, "sk", "test", task)[0].id == "s1"
    assert read_split(tmp_path, "cs", "test", task)[1].tokens == ("#",)


def test_ner_types_of_il_ner_and_masakhaner_are_brought_together(tmp_path: Path) -> None:
    tags = ["B-NEP", "I-NEP", "B-NEN", "B-DATE", "B-NEO"]
    put(tmp_path, "te/test.jsonl", rows({"tokens": list("abcde"), "ner_tags": tags}))
    assert read_split(tmp_path, "te", "test", get_task("ner"))[0].tags == (
        "B-PER",
        "I-PER",
        "O",
        "O",
        "B-ORG",
    )
    own = get_task("ner", labels=["NEP", "NEN", "DATE", "ORG"])
    assert own.types == ("NEP", "NEN", "DATE", "ORG")
    got = read_split(tmp_path, "te", "test", own)[0].tags
    assert got == ("B-NEP", "I-NEP", "B-NEN", "B-DATE", "B-ORG")


def test_span_that_begins_with_inside_is_mended_and_counted(tmp_path: Path) -> None:
    put(tmp_path, "sw/test.jsonl", rows({"tokens": list("abc"), "ner_tags": ["I-PER", "I-PER", "I-LOC"]}))
    result = read(tmp_path, "sw", "test", get_task("ner"))
    assert result.examples[0].tags == ("B-PER", "I-PER", "B-LOC")
    assert list(result.repaired.values()) == [1]


def test_pos_from_conllu_skips_ranges_and_empty_nodes(tmp_path: Path) -> None:
    def line(index: str, form: str, upos: str) -> str:
        return "\t".join([index, form, "_", upos, *["_"] * 6])

    words = [
        line("1-2", "del", "_"),
        line("1", "de", "ADP"),
        line("2", "el", "DET"),
        line("2.1", "x", "VERB"),
    ]
    put(tmp_path, "es_gsd/test.conllu.gz", "# sent_id = a-1\n# text = del\n" + "\n".join(words) + "\n\n")
    (example,) = read_split(tmp_path, "es", "test", get_task("pos"))
    assert (example.id, example.tokens, example.tags) == ("a-1", ("de", "el"), ("ADP", "DET"))


def test_qa_in_both_forms_with_repair_and_unanswerable_left_out(tmp_path: Path) -> None:
    context = "Eva was born in Brno and lives in Oslo."
    put(
        tmp_path,
        "en/dev.jsonl",
        rows(
            {
                "id": "a",
                "context": context,
                "question": "?",
                "answers": [{"text": "Brno", "answer_start": 16}],
            },
            {
                "id": "b",
                "context": context,
                "question": "?",
                "answers": {"text": ["Oslo"], "answer_start": [30]},
            },
            {"id": "c", "context": context, "question": "?", "answers": {"text": [], "answer_start": []}},
            {"id": "d", "context": context, "question": "?", "answers": [{"text": "", "answer_start": 0}]},
        ),
    )
    result = read(tmp_path, "en", "dev", get_task("qa"))
    assert [example.answers for example in result.examples] == [(Answer("Brno", 16),), (Answer("Oslo", 34),)]
    assert result.dropped == {"without an answer": 2}
    assert sum(result.repaired.values()) == 1


def test_squad_nesting(tmp_path: Path) -> None:
    qas = [{"id": "q", "question": "?", "answers": [{"text": "b", "answer_start": 2}]}]
    nested = {"data": [{"title": "T", "paragraphs": [{"context": "a b", "qas": qas}]}]}
    put(tmp_path, "en/test.json", json.dumps(nested, indent=1))
    (example,) = read_split(tmp_path, "en", "test", get_task("qa"))
    assert (example.title, example.context, example.answers) == ("T", "a b", (Answer("b", 2),))


def test_choice_and_retrieval(tmp_path: Path) -> None:
    row = {"premise": "P", "choice1": "A", "choice2": "B", "question": "cause", "label": 1, "idx": 9}
    put(tmp_path, "et/test.jsonl", rows(row))
    (example,) = read_split(tmp_path, "et", "test", get_task("choice"))
    assert (example.choices, example.question, example.label, example.id) == (
        ("A", "B"),
        "cause",
        1,
        "test:9",
    )
    put(tmp_path, "afr/test.jsonl", rows({"idx": 0, "afr": "Goed.", "eng": "Good."}))
    (pair,) = read_split(tmp_path, "af", "test", get_task("retrieval"))
    assert (pair.text, pair.text_pair) == ("Goed.", "Good.")


def test_retrieval_finds_the_english_side_by_id(tmp_path: Path) -> None:
    put(tmp_path, "eng_Latn/test.jsonl", rows({"id": "x2", "text": "Two."}, {"id": "x1", "text": "One."}))
    put(tmp_path, "deu_Latn/test.jsonl", rows({"id": "x1", "text": "Eins."}))
    (pair,) = read_split(tmp_path, "de", "test", get_task("retrieval"))
    assert (pair.text, pair.text_pair, pair.id) == ("Eins.", "One.", "x1")


def test_list_columns_in_tsv(tmp_path: Path) -> None:
    put(tmp_path, "en/train.tsv", "tokens\ttags\nA b\tX Y\n['C', 'd']\t[\"X\", \"Y\"]\n")
    examples = read_split(tmp_path, "en", "train", get_task("tagging"))
    assert [example.tokens for example in examples] == [("A", "b"), ("C", "d")]
    assert get_task("tagging").with_labels_from(examples).scheme == "plain"


def test_without_labels_only_inputs_are_read(tmp_path: Path) -> None:
    put(tmp_path, "en/new.jsonl", rows({"text": "Hello"}))
    assert read_split(tmp_path, "en", "new", get_task("topic"), labelled=False)[0].label is None


def test_rows_without_gold_label_are_counted(tmp_path: Path) -> None:
    row = {"sentence1": "A", "sentence2": "B"}
    put(tmp_path, "en/train.jsonl", rows({**row, "gold_label": "-"}, {**row, "gold_label": "neutral"}))
    result = read(tmp_path, "en", "train", get_task("nli"))
    assert (len(result.examples), result.dropped) == (1, {"no gold label": 1})


def test_language_whose_script_is_unknown_is_taken_in_the_script_of_its_text(tmp_path: Path) -> None:
    put(tmp_path, "bzd/test.jsonl", rows({"premise": "Ye'", "hypothesis": "Be'", "label": 1}))
    assert list(available(tmp_path).values()) == ["bzd"]
    assert read_split(tmp_path, "bzd", "test", get_task("nli"))[0].language == "bzd_Latn"


def test_ids_of_numbered_rows_belong_to_their_split_and_flores_numbers_do_not(tmp_path: Path) -> None:
    for split in ("dev", "test"):
        row = {"idx": 0, "sentence1": split, "sentence2": "B", "gold_label": "neutral"}
        put(tmp_path, f"en/{split}.jsonl", rows(row))
    ids = [read_split(tmp_path, "en", split, get_task("nli"))[0].id for split in ("dev", "test")]
    assert ids == ["dev:0", "test:0"]


def test_hub_rows_get_the_names_of_their_classes() -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "tokens": datasets.Sequence(datasets.Value("string")),
            "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-LOC"])),
            "label": datasets.ClassLabel(names=["positive", "neutral"]),
        }
    )
    data = {"tokens": [["Oslo", "."]], "ner_tags": [[1, 0]], "label": [1]}
    (row,) = dataset_rows(datasets.Dataset.from_dict(data, features=features), "hub en/test")
    assert row.values["ner_tags"] == ["B-LOC", "O"]
    assert row.values["label"] == "neutral"
    assert is_hub_id("Davlan/sib200") and is_hub_id("xnli") and not is_hub_id("../data/x")


def test_tasks_survive_json() -> None:
    for name in ("topic", "ner", "tagging", "qa"):
        task = get_task(name)
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


REAL = [
    ("sib200", "eng_Latn", "dev", "topic", 99),
    ("xnli", "en", "dev", "nli", 2490),
    ("americasnli", "bzd", "test", "nli", 750),
    ("pawsx", "de", "test", "paraphrase", 1968),
    ("uner", "sk", "test", "ner", 1061),
    ("masakhaner2", "swa", "test", "ner", 1883),
    ("il-ner", "te", "test", "ner", 384),
    ("ud-pos", "sk", "test", "pos", 1061),
    ("masakhapos", "zul", "dev", "pos", 150),
    ("xquad", "tr", "test", "qa", 1190),
    ("mlqa", "de", "dev", "qa", 512),
    ("tydiqa-goldp", "en", "train", "qa", 3696),
    ("clef18-checkthat-task1", "ar", "debate2", "claims", 1303),
    ("afrisenti", "twi", "test", "sentiment", 949),
    ("xcopa", "et", "dev", "choice", 100),
    ("tatoeba", "tel", "test", "retrieval", 234),
    ("sib200", "tel_Telu", "test", "retrieval", 204),
]


@pytest.mark.parametrize(("name", "language", "split", "task", "count"), REAL)
def test_real_data_read_without_conversion(name: str, language: str, split: str, task: str, count: int) -> None:
    shared = Path(os.environ.get("ISOGLOSS_SHARED", Path(__file__).parents[2] / "shared")) / "data" / name
    if not shared.is_dir():
        pytest.skip(f"the shared data are not here ({shared})")
    assert split in splits(shared, language)
    assert len(read_split(shared, language, split, get_task(task))) == count


def test_tagging_of_the_users_own_learns_whether_its_tags_are_spans() -> None:
    def tagged(*tags: str) -> Example:
        return Example("0", "eng_Latn", tokens=("w",) * len(tags), tags=tags)

    spans = get_task("tagging").with_labels_from([tagged("B-X", "I-X"), tagged("B-Y")])
    assert (spans.scheme, spans.primary) == ("iob2", "f1")
    assert spans.labels == ("O", "B-X", "I-X", "B-Y", "I-Y")
    plain = get_task("tagging").with_labels_from([tagged("N", "V", "N")])
    assert (plain.scheme, plain.primary, plain.labels) == ("plain", "accuracy", ("N", "V"))


def test_bundled_data_serve_topic_ner_and_retrieval() -> None:
    found = available("bundled:parallel")
    assert "eng_Latn" in found
    for name in ("topic", "ner"):
        examples = read_split("bundled:parallel", "en", "test", get_task(name))
        assert len(examples) >= 70
    assert all(example.id.startswith("test-") for example in examples)
    other = next((code for code in found if code != "eng_Latn"), None)
    if other is None:
        pytest.skip("the bundled data hold only English so far")
    pairs = read_split("bundled:parallel", other, "test", get_task("retrieval"))
    assert len(pairs) == len(examples)
