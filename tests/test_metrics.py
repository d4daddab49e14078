"""Metrics against hand-made cases, independent second definitions, and properties."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.tasks import Answer, Example, evaluate_predictions, get_task
from isogloss.tasks.metrics import (
    TextSpans,
    accuracy,
    average_precision,
    class_f1,
    macro_f1,
    mlqa,
    mlqa_words,
    per_class_f1,
    span_f1,
    spans,
    spans_to_tags,
    squad,
    squad_words,
    tag_accuracy,
    text_span_f1,
    text_spans,
    xtreme_pos_f1,
)

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
UPOS = ["NOUN", "SCONJ", "SYM", "VERB", "X", "INTJ"]
labels = st.lists(st.sampled_from("abc"), min_size=1, max_size=30)
corpora = st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=9), min_size=1, max_size=6)


def chunks_by_definition(tags: list[str]) -> set[tuple[str, int, int]]:
    """conlleval's rule (seqeval's default), token by token: does an entity end here, does one begin."""
    found, start = set(), -1
    for i in range(len(tags) + 1):
        before = tags[i - 1] if i > 0 else "O"
        here = tags[i] if i < len(tags) else "O"
        ends = before != "O" and (here == "O" or here[0] == "B" or here[2:] != before[2:])
        begins = here != "O" and (here[0] == "B" or before == "O" or here[2:] != before[2:])
        if ends:
            found.add((before[2:], start, i))
        if begins:
            start = i
    return found


@given(st.lists(st.sampled_from(TAGS), max_size=12))
def test_spans_follow_the_lenient_definition(tags: list[str]) -> None:
    assert set(spans(tags)) == chunks_by_definition(tags)


@pytest.mark.parametrize(
    ("tags", "want"),
    [
        (["B-PER", "I-PER", "O"], [("PER", 0, 2)]),
        (["I-PER", "I-PER"], [("PER", 0, 2)]),
        (["B-PER", "B-PER"], [("PER", 0, 1), ("PER", 1, 2)]),
        (["B-PER", "I-LOC"], [("PER", 0, 1), ("LOC", 1, 2)]),
        (["O", "I-LOC", "O", "I-LOC"], [("LOC", 1, 2), ("LOC", 3, 4)]),
    ],
)
def test_spans_by_hand(tags: list[str], want: list[tuple[str, int, int]]) -> None:
    assert spans(tags) == want


def test_span_f1_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "O"]]
    # three gold, three predicted, one right (the first B-LOC)
    got = span_f1(gold, predicted)
    assert got["f1"] == got["precision"] == got["recall"] == pytest.approx(100 / 3)
    assert got["f1/LOC"] == pytest.approx(100 * 2 / 3) and got["f1/PER"] == 0.0


@given(corpora, st.integers(0, 9))
@settings(max_examples=50)
def test_span_f1_bounds_perfection_and_order(gold: list[list[str]], seed: int) -> None:
    rng = random.Random(seed)
    predicted = [[rng.choice(TAGS) for _ in tags] for tags in gold]
    score = span_f1(gold, predicted)
    assert all(0 <= value <= 100 for value in score.values())
    if any(spans(tags) for tags in gold):
        assert span_f1(gold, gold)["f1"] == 100
    order = rng.sample(range(len(gold)), len(gold))
    assert span_f1([gold[i] for i in order], [predicted[i] for i in order]) == score
    swapped = span_f1(predicted, gold)
    assert (swapped["precision"], swapped["recall"]) == (score["recall"], score["precision"])


def test_text_spans_are_matched_as_multisets() -> None:
    gold = [TextSpans([("PER", "Eva"), ("PER", "Eva")])]
    assert text_span_f1(gold, [TextSpans([("PER", "Eva")])]) == {
        "f1": pytest.approx(100 * 2 / 3),
        "precision": 100,
        "recall": 50,
    }
    assert text_span_f1(gold, [TextSpans([("LOC", "Eva")])])["f1"] == 0


@given(st.lists(st.sampled_from(TAGS), min_size=1, max_size=9))
def test_text_spans_go_back_to_tags_when_the_words_differ(tags: list[str]) -> None:
    tokens = [f"w{i}" for i in range(len(tags))]
    again = spans_to_tags(tokens, text_spans(tokens, tags))
    assert spans(again) == spans(tags)


def test_repeated_entities_take_one_place_each() -> None:
    tokens = ["Eva", "met", "Eva", "Nova"]
    found = TextSpans([("PER", "Eva Nova"), ("PER", "Eva"), ("LOC", "Brno")])
    assert spans_to_tags(tokens, found) == ("B-PER", "O", "B-PER", "I-PER")


def test_pos_scores_by_hand() -> None:
    gold = [["NOUN", "NOUN", "SCONJ", "SCONJ", "VERB"]]
    predicted = [["NOUN", "VERB", "SCONJ", "SCONJ", "VERB"]]
    assert tag_accuracy(gold, predicted) == 80
    # gold has 4 runs, NOUN NOUN | SCONJ | SCONJ | VERB; predicted 5, with NOUN | VERB in front; 3 are right
    assert xtreme_pos_f1(gold, predicted) == pytest.approx(100 * 6 / 9)


@given(st.lists(st.lists(st.sampled_from(UPOS), min_size=1, max_size=8), min_size=1, max_size=4))
def test_pos_scores_of_the_right_tags_are_100(gold: list[list[str]]) -> None:
    assert tag_accuracy(gold, gold) == xtreme_pos_f1(gold, gold) == 100


@given(labels, st.integers(0, 9))
def test_classification_properties(gold: list[str], seed: int) -> None:
    rng = random.Random(seed)
    predicted = [rng.choice("abcd") for _ in gold]
    assert accuracy(gold, gold) == macro_f1(gold, gold) == 100
    assert 0 <= macro_f1(gold, predicted) <= 100
    order = rng.sample(range(len(gold)), len(gold))
    shuffled = [gold[i] for i in order], [predicted[i] for i in order]
    assert macro_f1(*shuffled) == pytest.approx(macro_f1(gold, predicted))
    assert accuracy(*shuffled) == pytest.approx(accuracy(gold, predicted))


def test_classification_by_hand() -> None:
    gold, predicted = ["a", "a", "b", "c"], ["a", "b", "b", "b"]
    assert accuracy(gold, predicted) == 50
    assert per_class_f1(gold, predicted) == {"a": pytest.approx(200 / 3), "b": 50, "c": 0}
    assert macro_f1(gold, predicted) == pytest.approx((200 / 3 + 50) / 3)
    assert class_f1(gold, predicted, "b") == {"f1": 50, "precision": pytest.approx(100 / 3), "recall": 100}
    assert macro_f1(["a"], ["a"], labels=["a", "b"]) == 50
    assert macro_f1(["a", "a"], ["a", None]) == pytest.approx(200 / 3)


def test_average_precision_by_hand() -> None:
    assert average_precision([True, False, True, False], [4, 3, 2, 1]) == pytest.approx(100 * (1 + 2 / 3) / 2)
    # equal scores are one threshold: two positives among four
    assert average_precision([True, False, True, False], [1, 1, 1, 1]) == 50
    assert average_precision([False, False], [1, 2]) == 0
    with pytest.raises(IsoglossError, match="not a number"):
        average_precision([True], [math.nan])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=25), st.integers(0, 9))
def test_average_precision_is_precision_summed_over_thresholds(rows: list[tuple[bool, int]], seed: int) -> None:
    truth, scores = [row[0] for row in rows], [float(row[1]) for row in rows]
    total, want, recall_before = sum(truth), 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [t for t, s in rows if s >= threshold]
        recall = sum(above) / total if total else 0.0
        want += (recall - recall_before) * sum(above) / len(above)
        recall_before = recall
    assert average_precision(truth, scores) == pytest.approx(100 * want)
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    assert average_precision([truth[i] for i in order], [scores[i] for i in order]) == pytest.approx(100 * want)


def test_squad_by_hand() -> None:
    assert squad_words("The Cat, a dog!") == ["cat", "dog"]
    assert squad([["The cat."]], ["cat"]) == {"em": 100, "f1": 100}
    got = squad([["black cat", "dog"], ["x"]], ["black dog", "y"])
    assert got == {"em": 0, "f1": pytest.approx(100 * (2 / 3) / 2)}
    assert squad([["the"]], ["a"]) == {
        "em": 100,
        "f1": 0,
    }  # as SQuAD's own: no words left, equal but no overlap


@pytest.mark.parametrize(
    ("language", "text", "want"),
    [
        ("deu_Latn", "Der „große“ Hund", ["große", "hund"]),
        ("spa", "¿La casa?", ["casa"]),
        ("vie_Latn", "cái nhà", ["nhà"]),
        ("zho_Hans", "北京2008年。", ["北", "京", "2008", "年"]),
        ("cmn_Hans", "2 万", ["2", "万"]),
        ("jpn_Jpan", "東京タワー!", [*"東京タワー"]),
        ("arb_Arab", "الكتاب،", ["كتاب"]),
        ("hin_Deva", "the राम।", ["the", "राम"]),
        ("slk_Latn", "the dom", ["the", "dom"]),
    ],
)
def test_mlqa_words(language: str, text: str, want: list[str]) -> None:
    assert mlqa_words(text, language) == want


def test_chinese_answers_can_be_partly_right_only_for_mlqa() -> None:
    assert squad([["北京大学"]], ["北京"])["f1"] == 0
    assert mlqa([["北京大学"]], ["北京"], ["zho_Hans"])["f1"] == pytest.approx(100 * 4 / 6)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=5), st.sampled_from(["eng", "zho", "arb", "slk"]))
def test_answers_equal_to_gold_are_exact(texts: list[str], language: str) -> None:
    gold = [[text] for text in texts]
    assert squad(gold, texts)["em"] == mlqa(gold, texts, [language] * len(texts))["em"] == 100
    assert 0 <= squad(gold, texts[::-1])["f1"] <= 100


def test_different_lengths_are_refused() -> None:
    for call in (
        lambda: accuracy(["a"], []),
        lambda: span_f1([["O"]], [["O", "O"]]),
        lambda: span_f1([["O"]], []),
        lambda: text_span_f1([TextSpans()], []),
        lambda: squad([["a"]], []),
    ):
        with pytest.raises(IsoglossError, match="give one"):
            call()
    with pytest.raises(IsoglossError, match="no gold answer"):
        squad([[]], ["a"])


def test_evaluate_labels_with_scores_and_unread_output() -> None:
    task = get_task("claims")
    examples = [Example(str(i), "eng_Latn", text="t", label=label) for i, label in enumerate(task.labels or ())]
    got = evaluate_predictions(task, examples, ["not-checkworthy", None], scores=[0.1, 0.9])
    assert got["accuracy"] == got["unparsed"] == 50 and got["f1"] == 0
    assert got["average_precision"] == 100 and got["n"] == 2
    assert "average_precision" not in evaluate_predictions(task, examples, ["checkworthy"] * 2)


def test_evaluate_every_kind() -> None:
    ner = [Example("0", "slk_Latn", tokens=("Eva", "ide"), tags=("B-PER", "O"))]
    assert evaluate_predictions(get_task("ner"), ner, [("B-PER", "O")])["f1"] == 100
    assert evaluate_predictions(get_task("ner"), ner, [TextSpans([("PER", "Eva")])])["f1"] == 100
    assert evaluate_predictions(get_task("ner"), ner, [None]) == {
        **span_f1([["B-PER", "O"]], [["O", "O"]]),
        "unparsed": 100,
        "n": 1,
    }
    pos = [Example("0", "slk_Latn", tokens=("a", "b"), tags=("NOUN", "VERB"))]
    got = evaluate_predictions(get_task("pos"), pos, [("NOUN", "NOUN")])
    assert got["accuracy"] == 50 and set(got) == {"accuracy", "macro_f1", "xtreme_f1", "n"}
    question = [Example("0", "zho_Hans", question="?", context="北京", answers=(Answer("北京", 0),))]
    got = evaluate_predictions(get_task("qa"), question, ["北"])
    assert got["f1"] == 0 and got["mlqa_f1"] == pytest.approx(200 / 3)
    choice = [Example("0", "est_Latn", text="p", choices=("a", "b"), label=1)]
    assert evaluate_predictions(get_task("choice"), choice, [1])["accuracy"] == 100
    pair = [Example("x", "deu_Latn", text="a", text_pair="b")]
    assert evaluate_predictions(get_task("retrieval"), pair, ["x"]) == {"accuracy": 100, "n": 1}


def test_evaluate_gives_the_primary_metric_and_refuses_unlabelled_examples() -> None:
    task = get_task("topic")
    with pytest.raises(IsoglossError, match="Example 7 has no label"):
        evaluate_predictions(task, [Example("7", "eng_Latn", text="t")], ["health"])
    with pytest.raises(IsoglossError, match="no example"):
        evaluate_predictions(task, [], [])
    with pytest.raises(IsoglossError, match="2 predictions"):
        evaluate_predictions(task, [Example("7", "eng_Latn", text="t", label="health")], ["a", "b"])
