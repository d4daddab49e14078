"""Text-to-text templates of S1 to the letter, their fallbacks, and label words on real tokenizers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from isogloss.errors import IsoglossError
from isogloss.tasks import (
    Answer,
    Example,
    Task,
    TextSpans,
    Verbaliser,
    get_task,
    get_template,
    get_verbaliser,
    single_token_check,
    task_names,
    tokenise_label_words,
)

NLI = Example("0", "eng_Latn", text="It rains.", text_pair="It is wet.", label="neutral")
NER = Example("0", "eng_Latn", tokens=("Eva", "Nova", "in", "Brno"), tags=("B-PER", "I-PER", "O", "B-LOC"))
QA = Example("0", "eng_Latn", question="Who?", context="Eva.", answers=(Answer("Eva", 0), Answer("Eva.", 0)))


def test_s1_templates_to_the_letter() -> None:
    nli = get_template(get_task("nli"))
    want = 'It rains. \n\nQuestion: Does this imply that "It is wet."? Yes, no, or maybe?'
    assert (nli.source(NLI), nli.target(NLI), nli.max_target_tokens) == (want, "Maybe", 3)
    qa = get_template(get_task("qa"))
    assert (qa.source(QA), qa.target(QA)) == ("question: Who? context: Eva.", "Eva")
    ner = get_template(get_task("ner"))
    assert (ner.source(NER), ner.max_target_tokens) == ("tag: Eva Nova in Brno", 30)
    assert ner.target(NER) == "PER: Eva Nova $$ LOC: Brno"
    claim = Example("0", "eng_Latn", text="See https://x.org/a?b=c the tax rose", label="checkworthy")
    claims = get_template(get_task("claims"))
    assert claims.source(claim) == "checkworthiness claim: See the tax rose"
    assert (claims.target(claim), claims.max_target_tokens) == ("Checkworthy", 4)


@pytest.mark.parametrize(
    ("task", "output", "want"),
    [
        ("nli", "Yes", "entailment"),
        ("nli", " no. ", "contradiction"),
        ("nli", "perhaps", "neutral"),
        ("claims", "Not checkworthy", "not-checkworthy"),
        ("claims", "checkworthy", "checkworthy"),
        ("claims", "No idea", "not-checkworthy"),
        ("claims", "", "checkworthy"),
        ("topic", "Science/Technology", "science/technology"),
        ("topic", "weather", None),
        ("sentiment", "Negative!", "negative"),
        ("paraphrase", "yes", "paraphrase"),
        ("choice", "B", 1),
    ],
)
def test_reading_labels_back(task: str, output: str, want: str | int | None) -> None:
    assert get_template(get_task(task)).parse(output, NLI) == want


def test_words_that_differ_in_case_or_punctuation_only_are_told_apart() -> None:
    for labels in (("C++", "C", "C#"), ("+", "-"), ("US", "us")):
        task = get_task("classification", labels=labels)
        template = get_template(task)
        example = Example(id="1", language="eng_Latn", text="x")
        assert [template.parse(f" {label}\n", example) for label in labels] == list(labels)
        assert template.parse("", example) is None
    assert get_template(get_task("classification", labels=("C++", "Rust"))).parse("c.", example) == "C++"


@pytest.mark.parametrize("name", ["topic", "nli", "paraphrase", "claims", "sentiment"])
def test_targets_read_back_as_their_labels(name: str) -> None:
    task = get_task(name)
    template = get_template(task)
    for label in task.labels or ():
        example = Example("0", "eng_Latn", text="t", text_pair="u", label=label)
        assert template.parse(template.target(example), example) == label
        assert "t" in template.source(example)


def test_spans_are_read_leniently() -> None:
    template = get_template(get_task("ner"))
    output = "PER: Eva  Nova$$LOC:Brno $$ FOO: x $$ broken $$ ORG: $$ LOC: 10:30"
    got = template.parse(output, NER)
    assert got == TextSpans([("PER", "Eva Nova"), ("LOC", "Brno"), ("LOC", "10:30")])
    assert template.parse("", NER) == TextSpans()


@given(st.text(max_size=40))
def test_tags_are_as_many_as_tokens_whatever_the_output(output: str) -> None:
    task = get_task("pos")
    example = Example("0", "eng_Latn", tokens=("a", "b", "c"), tags=("NOUN", "VERB", "X"))
    template = get_template(task)
    assert template.parse(template.target(example), example) == example.tags
    parsed = template.parse(output, example)
    assert isinstance(parsed, tuple) and len(parsed) == 3 and set(parsed) <= set(task.labels or ())


def test_every_task_has_a_text_form_but_retrieval() -> None:
    for name in task_names():
        task = get_task(name)
        if name == "retrieval":
            with pytest.raises(IsoglossError, match="no text-to-text form"):
                get_template(task)
        else:
            get_template(task if task.labels or not task.has_labels else task.with_labels(["x", "y"]))


def test_own_format_string() -> None:
    template = get_template(get_task("nli"), "{text} => {text_pair}?")
    assert template.source(NLI) == "It rains. => It is wet.?"
    assert template.target(NLI) == "Maybe"
    braces = Example("0", "eng_Latn", text="{x}", text_pair="}", label="neutral")
    assert template.source(braces) == "{x} => }?"
    for bad, why in (
        ("{txt}", "unknown field 'txt'"),
        ("none", "no field"),
        ("{text", "not a format string"),
    ):
        with pytest.raises(IsoglossError, match=why):
            get_template(get_task("nli"), bad)
    with pytest.raises(IsoglossError, match="needs the field question"):
        get_template(get_task("topic"), "{question}").source(NLI)


def test_labels_of_the_users_own_replace_the_words_of_s1() -> None:
    template = get_template(get_task("nli", labels=["implied", "not implied"]))
    example = Example("0", "eng_Latn", text="a", text_pair="b", label="implied")
    assert template.target(example) == "implied"
    with pytest.raises(IsoglossError, match="no word for the label 'neutral'"):
        template.target(NLI)


# --- label words


def tokenizer(pieces: list[str]) -> PreTrainedTokenizerFast:
    """A word-piece tokenizer over these pieces."""
    vocabulary = {piece: index for index, piece in enumerate(["[UNK]", *pieces])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


TOPIC_WORDS = ["science", "travel", "politics", "sports", "health", "entertainment", "earth", "fun", "play"]
SMALL = tokenizer([*TOPIC_WORDS, "govern", "##ment", "##s"])


def test_words_of_s2() -> None:
    xglm = get_verbaliser(get_task("topic"), "xglm").words
    assert xglm["geography"] == "earth" and xglm["science/technology"] == "science"
    assert [xglm[x] for x in ("entertainment", "politics", "health", "travel", "sports")] == [
        "entertainment",
        "politics",
        "health",
        "travel",
        "sports",
    ]
    bloom = get_verbaliser(get_task("topic"), "bloom").words
    assert [bloom[x] for x in ("geography", "science/technology", "entertainment", "politics", "sports")] == [
        "earth",
        "science",
        "fun",
        "government",
        "play",
    ]
    assert (bloom["health"], bloom["travel"]) == ("health", "travel")
    assert tuple(xglm) == get_task("topic").labels


def test_single_and_several_tokens() -> None:
    words = get_verbaliser(get_task("topic"), "bloom").words
    report = single_token_check(SMALL, words)
    assert not report.ok and report.multiple == ("government",)
    assert report.pieces["government"] == ("govern", "##ment")
    assert single_token_check(SMALL, get_verbaliser(get_task("topic"), "xglm").words).ok
    vocabulary = SMALL.get_vocab()
    assert tokenise_label_words(SMALL, words)["politics"] == (vocabulary["govern"],)
    assert tokenise_label_words(SMALL, words, part="last")["politics"] == (vocabulary["##ment"],)
    everything = tokenise_label_words(SMALL, words, part="all")
    assert everything["politics"] == (vocabulary["govern"], vocabulary["##ment"])
    assert everything["travel"] == (vocabulary["travel"],)
    with pytest.raises(IsoglossError, match=r"'government' of 'politics' is 2 tokens \(govern ##ment\)"):
        tokenise_label_words(SMALL, words, part="single")


def test_words_that_collide_or_are_unknown_are_named() -> None:
    with pytest.raises(IsoglossError, match=r"'play' \(a\) and 'plays' \(b\) have the same first token"):
        tokenise_label_words(SMALL, {"a": "play", "b": "plays"})
    assert len(tokenise_label_words(SMALL, {"a": "play", "b": "plays"}, part="all")) == 2
    with pytest.raises(IsoglossError, match="'zebra' is not in the vocabulary"):
        tokenise_label_words(SMALL, {"a": "zebra", "b": "play"})


def test_word_begin_mark_set_apart_is_no_part_of_the_word() -> None:
    vocabulary = [("<unk>", 0.0), ("\u2581", -1.0), ("earth", -1.0), ("fun", -1.0)]
    inner = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    marked = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    assert marked.tokenize("earth") == ["\u2581", "earth"]
    assert tokenise_label_words(marked, {"a": "earth", "b": "fun"}) == {"a": (2,), "b": (3,)}


def test_words_per_language() -> None:
    task: Task = get_task("nli")
    slovak = {"contradiction": "nie", "entailment": "áno", "neutral": "možno"}
    verbaliser = get_verbaliser(task, by_language={"slk_Latn": slovak})
    assert list(verbaliser.words_for("slk_Latn").values()) == ["áno", "možno", "nie"]
    assert verbaliser.words_for("deu_Latn") == verbaliser.words_for(None) == verbaliser.words
    assert get_verbaliser(task, by_language={"sk": slovak}).words_for("slk_Latn") == verbaliser.words_for("slk_Latn")
    with pytest.raises(IsoglossError, match="label words of slk_Latn are for entailment; expected exactly"):
        get_verbaliser(task, by_language={"slk_Latn": {"entailment": "áno"}})
    with pytest.raises(IsoglossError, match="'a' and 'b' have the same word 'x'"):
        Verbaliser({"a": "x", "b": "x"})
    with pytest.raises(IsoglossError, match="is no label of task 'nli'"):
        get_verbaliser(task, words={"maybe": "x"})
    with pytest.raises(IsoglossError, match="no label set for label words"):
        get_verbaliser(get_task("ner"))
