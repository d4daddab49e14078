"""Windows over contexts and words over sub-tokens: nothing is lost, answers and tags round-trip."""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch
from _heads_tools import KINDS, TEXTS, load, save
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from isogloss.backbones import Backbone, load_backbone
from isogloss.stack import Stack
from isogloss.tasks import Answer, Example, get_task
from isogloss.tasks.heads import Prediction, make_head
from isogloss.tasks.heads._coder import Coder


@lru_cache
def backbone(kind: str) -> Backbone:
    return load(save(kind, Path(mkdtemp()) / kind))


words = st.text(alphabet="abcdeghiotrsunл你ā中̈🙂", min_size=1, max_size=6)
contexts = st.lists(words, min_size=1, max_size=80).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    context=contexts,
    question=st.lists(words, min_size=1, max_size=30).map(" ".join),
    budget=st.integers(16, 120),
    stride=st.integers(1, 40),
    data=st.data(),
)
def test_windows_cover_the_context_and_answers_round_trip(
    kind: str, context: str, question: str, budget: int, stride: int, data: st.DataObject
) -> None:
    begin = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(begin + 1, min(len(context), begin + 12)))
    text = context[begin:end]
    example = Example(id="q", language="eng_Latn", question=question, context=context, answers=(Answer(text, begin),))
    head = make_head("span", get_task("qa"), backbone(kind), stride=stride, max_answer=200)
    rows = head.encode([example], budget=budget)
    coder = Coder(backbone(kind))
    ids, offsets = coder.tokens_with_offsets([context])[0]
    covered = set()
    starts = []
    for row in rows:
        assert len(row.input_ids) <= budget
        assert len(row.positions) == len(row.offsets)
        place = offsets.index(row.offsets[0], starts[-1] + 1 if starts else 0)
        starts.append(place)
        assert [row.input_ids[column] for column in row.positions] == ids[place : place + len(row.positions)]
        covered.update(range(place, place + len(row.positions)))
    assert covered == set(range(len(ids)))
    assert all(second - first <= stride for first, second in pairwise(starts))

    # Read back what the labels say: the answer, widened to whole tokens at most.
    held = [row for row in rows if row.labels != (0, 0)]
    for row in held:
        first, last = (label - row.positions[0] for label in row.labels)
        span = (0.0, row.offsets[first][0], row.offsets[last][1])
        (answer,) = head.decode([example], [row], [Prediction(spans=(span,))])
        assert span[1] <= begin + len(text) - len(text.lstrip()) and text.strip() in answer
        assert answer in context
    if len(rows) == 1 and text.strip() and coder.tokens([text.strip()])[0]:
        assert held


def test_the_best_window_wins_and_spans_are_exact() -> None:
    kind = "encoder"
    body = backbone(kind)
    example = Example(id="q", language="eng_Latn", question="who?", context=" ".join(TEXTS))
    head = make_head("span", get_task("qa"), body, max_answer=5, best=3, stride=10)
    with torch.no_grad():
        head.layer.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(1))
    rows = head.encode([example], budget=40)
    assert len(rows) > 3
    stack = Stack(body)
    best: tuple[float, str] = (float("-inf"), "")
    for row in rows:
        # Brute force over every pair, one row at a time.
        states = stack.run(head.collate([row]).text).text_hidden[0]
        scores = (states @ head.layer.weight.T + head.layer.bias).detach()
        usable = [0, *row.positions]
        begin, end = scores[usable, 0].log_softmax(0)[1:], scores[usable, 1].log_softmax(0)[1:]
        pairs = [
            (float(begin[i] + end[j]), row.offsets[i][0], row.offsets[j][1])
            for i in range(len(begin))
            for j in range(i, min(i + 5, len(begin)))
        ]
        pairs.sort(reverse=True)
        (found,) = head.predict(stack, head.collate([row]))
        assert [span[1:] for span in found.spans] == [pair[1:] for pair in pairs[:3]]
        assert [span[0] for span in found.spans] == pytest.approx([pair[0] for pair in pairs[:3]], abs=1e-4)
        best = max(best, (pairs[0][0], (example.context or "")[pairs[0][1] : pairs[0][2]].strip()))
    together = head.predict(stack, head.collate(rows))
    assert head.decode([example], rows, together) == [best[1]]


def test_a_long_question_leaves_room_for_the_context() -> None:
    head = make_head("span", get_task("qa"), backbone("encoder"))
    example = Example(id="q", language="eng_Latn", question=" ".join(TEXTS * 3), context=TEXTS[0])
    rows = head.encode([example], budget=60)
    assert rows[0].lost > 0
    assert rows[0].positions and rows[0].offsets[-1][1] == len(TEXTS[0])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    tokens=st.lists(words, min_size=1, max_size=30),
    budget=st.one_of(st.none(), st.integers(8, 60)),
    data=st.data(),
)
def test_tags_round_trip_through_sub_tokens(
    kind: str, tokens: list[str], budget: int | None, data: st.DataObject
) -> None:
    task = get_task("ner")
    assert task.labels is not None
    tags = tuple(data.draw(st.sampled_from(task.labels)) for _ in tokens)
    example = Example(id="s", language="eng_Latn", tokens=tuple(tokens), tags=tags)
    head = make_head("linear", task, backbone(kind))
    (row,) = head.encode([example], budget=budget)
    assert list(row.words) == sorted(set(row.words))
    (decoded,) = head.decode([example], [row], [Prediction(tags=row.labels)])
    for word, tag in enumerate(tags):
        assert decoded[word] == (tag if word in row.words else "O")
    if row.lost == 0:
        assert len(row.words) == len(tokens)
    # Each position is the first sub-token of its word, or the last on a decoder.
    ids, owners = Coder(backbone(kind)).words([tokens])[0]
    begin = row.positions[0] - (owners.index(0) if kind != "decoder" else 0) if row.positions else 0
    for column, word in zip(row.positions, row.words, strict=True):
        inside = [place for place, owner in enumerate(owners) if owner == word]
        if kind == "decoder":
            kept = [place for place in inside if place < len(row.input_ids)]
            assert column == kept[-1] and row.input_ids[column] == ids[kept[-1]]
        else:
            assert column == begin + inside[0] and row.input_ids[column] == ids[inside[0]]


def test_byte_level_words_keep_the_space_in_front_of_them() -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=350, initial_alphabet=alphabet, special_tokens=["<pad>", "</s>"], show_progress=False
        ),
    )
    body = load(save("decoder", Path(mkdtemp()) / "byte"))
    body.tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained, eos_token="</s>", pad_token="<pad>")
    coder = Coder(body)
    for text in TEXTS:
        ids, owners = coder.words([text.split()])[0]
        assert ids == coder.tokens([text])[0]
        assert owners == sorted(owners) and set(owners) == set(range(len(text.split())))


@pytest.mark.parametrize("kind", ["encoder", "encoder-decoder"])
def test_rows_are_those_of_the_tokenizer(kind: str) -> None:
    body = backbone(kind)
    coder = Coder(body)
    for first, second in zip(TEXTS, TEXTS[3:] + TEXTS[:3], strict=True):
        a, b = coder.tokens([first, second])
        assert coder.single(a, None).ids == body.tokenizer(first)["input_ids"]
        assert coder.pair(a, b, None).ids == body.tokenizer(first, second)["input_ids"]
        for limit in (12, 15, 20):
            cut = coder.pair(a, b, limit)
            theirs = body.tokenizer(first, second, truncation="longest_first", max_length=limit)["input_ids"]
            assert len(cut.ids) == len(theirs)
            assert cut.lost == len(body.tokenizer(first, second)["input_ids"]) - len(cut.ids)


def test_segments_are_those_of_a_bert_tokenizer() -> None:
    from tokenizers import processors

    body = load(save("encoder", Path(mkdtemp()) / "segments"))
    body.config.type_vocab_size = 2
    body.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    body.tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
    coder = Coder(body)
    a, b = coder.tokens(TEXTS[:2])
    row, theirs = coder.pair(a, b, None), body.tokenizer(TEXTS[0], TEXTS[1])
    assert (row.ids, row.types) == (theirs["input_ids"], theirs["token_type_ids"])
    assert sum(row.types or []) == len(b) + 1


def test_every_head_keeps_the_protocol() -> None:
    from isogloss.tasks.heads import TaskHead

    methods = [name for name, item in vars(TaskHead).items() if callable(item) and not name.startswith("_")]
    assert len(methods) == 6
    head = make_head("span", get_task("qa"), backbone("encoder"))
    assert all(callable(getattr(head, name)) for name in methods)


def test_a_character_of_several_bytes_is_cut_as_a_whole() -> None:
    encoder = load_backbone("bundled:encoder")
    words = dict(zip(get_task("topic").labels or (), "abcdefg", strict=True))
    head = make_head("verbaliser", get_task("topic"), encoder, words=words, max_length=12)
    for ending in ("\U00013080", "\U00013080\U00013081", "a\U00013080b"):
        text = "one two three four five six " + ending
        assert len(encoder.tokenizer.tokenize("\U00013080")) > 2  # no piece of the vocabulary: bytes
        for words in range(7):
            example = Example(id="x", language="eng_Latn", text=" ".join(text.split()[words:]), label="health")
            (row,) = head.encode([example], budget=None)
            assert all(len(variant.input_ids) <= 12 for variant in row.alternatives)
