import gzip
import json
import multiprocessing
import os
import random
import signal
import sys
import time
import types

import numpy as np
import pytest
import torch
from _corpora_tools import WORDS, word_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from isogloss.corpora import (
    MixtureSampler,
    ParallelCorpus,
    TokenStore,
    read_parallel,
    read_texts,
    smoothed_shares,
    take_blocks,
    tokenise,
    train_tokenizer,
)
from isogloss.errors import IsoglossError

TOKENIZER = word_tokenizer()


def write(path, text, *, encoding="utf-8"):
    data = text.encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def rows(*objects):
    return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)


# --- reading -----------------------------------------------------------------------------------------------


def test_text_lines_and_paragraphs(tmp_path):
    lines = write(tmp_path / "a.txt", "\ufeffeins\nzwei\r\n\n")
    assert list(read_texts(lines)) == ["eins", "zwei"]
    paragraphs = write(tmp_path / "b.txt.gz", "eins\nzwei\n \ndrei\n\n\nvier")
    assert list(read_texts(paragraphs)) == ["eins\nzwei", "drei", "vier"]


def test_jsonl_folder_limit_and_several(tmp_path):
    write(
        tmp_path / "d" / "b.jsonl.gz",
        rows({"text": "zwei", "body": "II"}, {"text": "  "}, {"text": "drei", "body": "III"}),
    )
    write(tmp_path / "d" / "a.jsonl", rows({"text": "eins", "body": "I"}))
    write(tmp_path / "d" / "README.md", "nicht lesen")
    assert list(read_texts(tmp_path / "d")) == ["eins", "zwei", "drei"]
    assert list(read_texts(str(tmp_path / "d"), limit=2)) == ["eins", "zwei"]
    assert list(read_texts([tmp_path / "d" / "b.jsonl.gz", tmp_path / "d" / "a.jsonl"])) == [
        "zwei",
        "drei",
        "eins",
    ]
    with pytest.raises(IsoglossError, match=r"b\.jsonl\.gz', line 2: the field 'body' is missing \(found: text\)"):
        list(read_texts(tmp_path / "d", field="body"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "is empty"),
        ("a.txt", b"\n\n", "is empty"),
        ("a.txt", b"gut\nschlecht \xff\n", "a.txt', line 2: byte 10 of the line is not valid UTF-8"),
        ("a.txt.gz", b"no gzip", "not a whole gzip file"),
        ("a.txt.gz", gzip.compress(b"abc\n" * 9999, mtime=0)[:-20], "not a whole gzip file"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2, is not JSON"),
        ("a.jsonl", b'["x"]\n', "line 1, is not a JSON object but a list"),
        ("a.jsonl", b'{"text": 3}\n', "line 1: the field 'text' is not text"),
        ("a.pdf", b"x", "unknown kind"),
    ],
)
def test_bad_text(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(IsoglossError, match=message.replace("(", r"\(")):
        list(read_texts(tmp_path / name))


def test_missing_text(tmp_path):
    for source, message in [
        (tmp_path / "no.txt", "does not exist"),
        (tmp_path, "holds no text file"),
        ([], "No text was given"),
    ]:
        with pytest.raises(IsoglossError, match=message):
            list(read_texts(source))


def test_reading_streams(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text(rows({"text": "x"}) + "broken\n")
    texts = read_texts(path)
    assert next(texts) == "x"  # the broken line is not reached


def test_hub_source_is_parsed_and_streamed(monkeypatch):
    calls = []

    def load_dataset(name, config, *, split, streaming):
        calls.append((name, config, split, streaming))
        if name == "gone":
            raise FileNotFoundError("Dataset 'gone' doesn't exist on the Hub")
        return iter([{"text": "a"}, {"text": "b"}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert list(read_texts("hub:wikimedia/wikipedia:20231101.sk:train", limit=1)) == ["a"]
    assert list(read_texts("hub:some/set")) == ["a", "b"]
    assert calls == [("wikimedia/wikipedia", "20231101.sk", "train", True), ("some/set", None, "train", True)]
    with pytest.raises(IsoglossError, match="'hub:gone' cannot be read: Dataset 'gone' doesn't"):
        list(read_texts("hub:gone"))
    with pytest.raises(IsoglossError, match="malformed"):
        list(read_texts("hub:a:b:c:d"))


# --- token store -------------------------------------------------------------------------------------------

documents = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), min_size=1, max_size=20)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents, st.integers(1, 25))
def test_packing_keeps_every_token_in_order(tmp_path, texts, length):
    path = write(tmp_path / "t.txt", "\n".join(" ".join(words) for words in texts))
    store = tokenise(path, TOKENIZER, cache_dir=tmp_path / "cache")
    expected = [i for words in texts for i in [*TOKENIZER.convert_tokens_to_ids(words), 2]]
    blocks = store.blocks(length)
    assert len(blocks) == len(expected) // length
    packed = blocks.take(range(len(blocks)))
    assert packed.dtype == torch.int64
    assert packed.shape == (len(blocks), length)
    assert packed.flatten().tolist() == expected[: len(blocks) * length]
    assert store.tokens.tolist() == expected
    assert store.document_count == len(texts)
    for i, words in enumerate(texts):
        assert store.document(i).tolist() == TOKENIZER.convert_tokens_to_ids(words)


def some_text(tmp_path, count=50, name="t.txt"):
    return write(tmp_path / name, "\n".join(f"w{i} w{i + 1} w{i + 2}" for i in range(count)))


def test_store_is_made_once_per_text_tokenizer_and_limit(tmp_path):
    cache = tmp_path / "cache"
    one = tokenise(some_text(tmp_path), TOKENIZER, cache_dir=cache)
    made = (one.folder / "tokens.bin").stat().st_mtime_ns
    renamed = some_text(tmp_path, name="other.txt")
    # Padding and truncation settings of an earlier call do not change what is stored, nor the key.
    TOKENIZER(["w1 w2", "w1"], padding=True, truncation=True, max_length=2)
    two = tokenise(renamed, TOKENIZER, cache_dir=cache)
    assert two.folder == one.folder
    assert (two.folder / "tokens.bin").stat().st_mtime_ns == made
    others = [
        tokenise(some_text(tmp_path, 49), TOKENIZER, cache_dir=cache),
        tokenise(renamed, TOKENIZER, cache_dir=cache, limit=3),
        tokenise(renamed, word_tokenizer("decoder"), cache_dir=cache),
    ]
    assert len({one.folder, *(s.folder for s in others)}) == 4
    assert others[1].document_count == 3


def test_default_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGLOSS_CACHE", str(tmp_path / "here"))
    assert (tmp_path / "here") in tokenise(some_text(tmp_path), TOKENIZER).folder.parents


def test_ids_beyond_uint16(tmp_path):
    tokenizer = word_tokenizer(words=[f"w{i}" for i in range(70_000)])
    store = tokenise(write(tmp_path / "a.txt", "w69999 w1"), tokenizer, cache_dir=tmp_path)
    assert store.tokens.dtype == np.uint32
    assert store.tokens.tolist() == [70_004, 6, 2]
    assert tokenise(some_text(tmp_path), TOKENIZER, cache_dir=tmp_path).tokens.dtype == np.uint16


def test_split_by_documents(tmp_path):
    store = tokenise(some_text(tmp_path), TOKENIZER, cache_dir=tmp_path)
    for part, count in ((5, 5), (0.1, 5), (0.001, 1)):
        train, validation = store.split(part)
        assert (train.document_count, validation.document_count) == (50 - count, count)
        assert train.tokens.tolist() + validation.tokens.tolist() == store.tokens.tolist()
        assert validation.document(0).tolist() == store.document(50 - count).tolist()
        assert validation.offsets[0] == 0
        assert validation.offsets[-1] == validation.token_count
    with pytest.raises(IsoglossError, match="cannot be split"):
        store.split(50)


def test_damaged_store_is_named_and_made_again(tmp_path):
    store = tokenise(some_text(tmp_path), TOKENIZER, cache_dir=tmp_path)
    with (store.folder / "tokens.bin").open("r+b") as stream:
        stream.truncate(10)
    with pytest.raises(IsoglossError, match="is damaged"):
        TokenStore(store.folder)
    assert tokenise(some_text(tmp_path), TOKENIZER, cache_dir=tmp_path).document_count == 50


def test_failed_build_leaves_nothing(tmp_path):
    path = write(tmp_path / "t.jsonl", rows({"text": "w1"}) + "broken\n")
    with pytest.raises(IsoglossError, match="line 2"):
        tokenise(path, TOKENIZER, cache_dir=tmp_path / "cache")
    assert [p for p in (tmp_path / "cache" / "tokens").iterdir() if p.suffix != ".lock"] == []


def _build(path, cache, queue, pause):
    from isogloss.corpora import token_store

    plain = token_store._write_store

    def slow(folder, texts, tokenizer):
        plain(folder, texts, tokenizer)
        queue.put(os.getpid())
        time.sleep(pause)

    token_store._write_store = slow
    store = tokenise(path, word_tokenizer(), cache_dir=cache)
    queue.put(store.token_count)


def test_killed_build_does_not_block_the_next_and_two_builders_share(tmp_path):
    context = multiprocessing.get_context("fork")
    path, cache = some_text(tmp_path), tmp_path / "cache"
    queue = context.Queue()
    killed = context.Process(target=_build, args=(path, cache, queue, 60))
    killed.start()
    os.kill(queue.get(timeout=30), signal.SIGKILL)
    killed.join()
    queue = context.Queue()
    both = [context.Process(target=_build, args=(path, cache, queue, 0.5)) for _ in range(2)]
    for process in both:
        process.start()
    answers = [queue.get(timeout=30) for _ in range(3)]
    for process in both:
        process.join()
        assert process.exitcode == 0
    # One of the two built (its process id), both opened a whole store.
    assert sorted(answers)[:2] == [200, 200]
    assert queue.empty()


# --- parallel text -----------------------------------------------------------------------------------------


@pytest.fixture
def parallel(tmp_path):
    source = tmp_path / "src"
    write(source / "eng.jsonl.gz", rows(*({"key": f"k{i}", "text": f"w{i}"} for i in range(10))))
    write(source / "deu.jsonl.gz", rows(*({"key": f"k{i}", "text": f"w{100 + i} w5"} for i in range(8, -1, -2))))
    write(source / "fra.jsonl", rows({"key": "k9", "text": "w159"}, {"key": "k4", "text": "w154"}))
    return source


def test_read_parallel_joins_by_key(parallel):
    got = list(read_parallel(parallel))
    assert ("deu", "eng", "w104 w5", "w4") in got
    assert ("deu", "fra", "w104 w5", "w154") in got
    assert ("eng", "fra", "w9", "w159") in got
    assert len(got) == 5 + 1 + 2
    assert {pair[:2] for pair in read_parallel(parallel, pivot="eng")} == {("eng", "deu"), ("eng", "fra")}
    assert {pair[:2] for pair in read_parallel(parallel, languages=["fra", "eng"])} == {("fra", "eng")}


def test_parallel_corpus_reads_what_read_parallel_reads(parallel, tmp_path):
    corpus = ParallelCorpus.open([parallel], TOKENIZER, cache_dir=tmp_path / "cache")
    assert corpus.sizes == {"deu-eng": 5, "deu-fra": 1, "eng-fra": 2}
    assert len(corpus) == 8

    def read(corpus):
        found = []
        for batch in corpus.iterate(batch_size=3):
            for a, b, (x, y) in zip(batch.first, batch.second, batch.languages, strict=True):
                found.append((x, y, TOKENIZER.decode(a), TOKENIZER.decode(b)))
        return sorted(found)

    assert read(corpus) == sorted(read_parallel(parallel))
    assert read(ParallelCorpus.open(parallel, TOKENIZER, cache_dir=tmp_path / "cache", pivot="eng")) == sorted(
        read_parallel(parallel, pivot="eng")
    )


def test_parallel_groups_are_segments(parallel, tmp_path):
    corpus = ParallelCorpus.open([parallel], TOKENIZER, cache_dir=tmp_path / "cache")
    draw = next(MixtureSampler(corpus.sizes, 200, alpha=0.5))
    batch = corpus.take(draw)
    again = corpus.take(next(MixtureSampler(corpus.sizes, 200, alpha=0.5)))
    assert [a.tolist() for a in batch.first] == [a.tolist() for a in again.first]
    keys = {}
    for a, b, group in zip(batch.first, batch.second, batch.groups.tolist(), strict=True):
        for ids in (a, b):
            keys.setdefault(group, set()).add(int(TOKENIZER.decode(ids).split()[0][1:]) % 10)
    # Every text of the fixture ends in the digit of its key.
    assert sorted(len(k) for k in keys.values()) == [1] * len(keys)
    assert len(keys) == 6


def test_bad_parallel(parallel, tmp_path):
    for bad, message in [
        ({"sources": tmp_path / "no"}, "is not a folder"),
        (
            {"sources": parallel, "languages": ["eng", "xxx"]},
            "No parallel text for xxx .*there is: deu, eng, fra",
        ),
    ]:
        with pytest.raises(IsoglossError, match=message):
            list(read_parallel(**bad))
    write(parallel / "ita.jsonl", rows({"key": "k1", "text": "a"}, {"key": "k1", "text": "b"}))
    with pytest.raises(IsoglossError, match=r"ita\.jsonl', line 2, repeats the key 'k1'"):
        list(read_parallel(parallel))
    with pytest.raises(IsoglossError, match="holds no pair"):
        ParallelCorpus.open(parallel, TOKENIZER, languages=["eng"], cache_dir=tmp_path / "cache")


# --- mixture -----------------------------------------------------------------------------------------------


def test_smoothed_shares():
    shares = smoothed_shares({"a": 1000, "b": 10}, 0.5)
    assert shares["a"] / shares["b"] == pytest.approx(10)
    assert sum(shares.values()) == pytest.approx(1)
    with pytest.raises(IsoglossError, match="for b: the text is shorter than one row"):
        smoothed_shares({"a": 10, "b": 0})


def test_mixture_follows_the_shares_and_visits_everything_once_an_epoch():
    sampler = MixtureSampler({"a": 400, "b": 7}, 32, alpha=0.3, seed=1)
    draws = [next(sampler) for _ in range(300)]
    sources = torch.cat([d.sources for d in draws])
    share = 400**0.3 / (400**0.3 + 7**0.3)
    assert (sources == 0).float().mean() == pytest.approx(share, abs=0.02)
    for source, size in ((0, 400), (1, 7)):
        items = torch.cat([d.indices[d.sources == source] for d in draws])
        for epoch in range(len(items) // size):
            assert sorted(items[epoch * size : (epoch + 1) * size].tolist()) == list(range(size))
    first, second = (torch.cat([d.indices[d.sources == 1] for d in draws])[i : i + 7].tolist() for i in (0, 7))
    assert first != second or first != list(range(7))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.integers(1, 20), st.booleans(), st.integers(0, 5))
def test_mixture_resumes_to_the_same_stream(steps, rows_, one_source, seed):
    def make():
        return MixtureSampler({"a": 30, "b": 5, "c": 1}, rows_, one_source=one_source, seed=seed)

    whole = make()
    for _ in range(steps):
        next(whole)
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    for _ in range(10):
        a, b = next(whole), next(resumed)
        assert torch.equal(a.sources, b.sources)
        assert torch.equal(a.indices, b.indices)
        assert not one_source or len(set(a.sources.tolist())) == 1


def test_mixture_refuses_another_state():
    state = MixtureSampler({"a": 3}, 1).state_dict()
    with pytest.raises(IsoglossError, match="other texts"):
        MixtureSampler({"a": 4}, 1).load_state_dict(state)
    with pytest.raises(IsoglossError, match="mixture weights name"):
        MixtureSampler({"a": 3}, 1, weights={"b": 1.0})


def test_take_blocks(tmp_path):
    views = {
        name: tokenise(write(tmp_path / name, text), TOKENIZER, cache_dir=tmp_path).blocks(2)
        for name, text in (("a.txt", "w0 w1 w2 w3 w4"), ("b.txt", "w100 w101 w102"))
    }
    draw = next(MixtureSampler({n: len(v) for n, v in views.items()}, 40))
    blocks = take_blocks(views, draw)
    for row, source, index in zip(blocks, draw.sources.tolist(), draw.indices.tolist(), strict=True):
        assert row.tolist() == views[draw.names[source]].take([index])[0].tolist()


# --- tokenizer training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    generator = np.random.default_rng(0)
    stems = ["haus", "garten", "wasser", "licht", "sommer", "freude"]
    german = "\n".join(" ".join(generator.choice(stems, 8)) + "." for _ in range(300))
    russian = "\n".join(" ".join(generator.choice(["дом", "вода", "свет", "лето"], 8)) for _ in range(20))
    sources = {
        "deu": write(folder / "de.txt", german),
        "rus": write(folder / "ru.txt", russian + "\nредкий ☃"),
    }
    return sources, folder


@pytest.mark.parametrize(
    ("kind", "single", "pair"),
    [
        ("encoder", "<s> {} </s>", "<s> {} </s> {} </s>"),
        ("decoder", "{}", "{} {}"),
        ("encoder-decoder", "{} </s>", "{} {} </s>"),
    ],
)
def test_trained_tokenizer(trained, kind, single, pair):
    sources, folder = trained
    tokenizer = train_tokenizer(
        sources, vocab_size=500, kind=kind, sentinels=3, character_coverage=0.999, max_length=64
    )
    tokenizer.save_pretrained(folder / kind)
    loaded = AutoTokenizer.from_pretrained(folder / kind)
    assert len(loaded) <= 500
    assert loaded.model_max_length == 64
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"]
    assert loaded.convert_ids_to_tokens(list(range(8))) == names
    assert (loaded.bos_token_id, loaded.pad_token_id, loaded.eos_token_id, loaded.mask_token_id) == (
        0,
        1,
        2,
        4,
    )
    for text in ("das haus, дом", "漢字 ☃ 😀 ñ", "a<0x41>b {x}", "wasser\tlicht\nsommer"):
        ids = loaded(text)["input_ids"]
        assert ids == tokenizer(text)["input_ids"]
        assert 3 not in ids
        assert loaded.decode(ids, skip_special_tokens=True) == text.replace("\t", " ").replace("\n", " ")
    one = loaded.tokenize("haus")
    assert one == ["▁haus"]
    assert loaded.convert_ids_to_tokens(loaded("haus")["input_ids"]) == single.format("▁haus").split()
    assert loaded.convert_ids_to_tokens(loaded("haus", "haus")["input_ids"]) == pair.format("▁haus", "▁haus").split()
    assert loaded.tokenize("haus <mask> <extra_id_1>")[-1] == "<extra_id_1>"


def test_rare_characters_are_left_to_bytes_and_common_ones_are_not(trained):
    sources, _ = trained
    tokenizer = train_tokenizer(sources, vocab_size=500, character_coverage=0.999)
    assert "☃" not in "".join(tokenizer.get_vocab())
    assert "<0xE2>" in tokenizer.tokenize("☃")
    assert not any(piece.startswith("<0x") for piece in tokenizer.tokenize("дом"))


def test_a_vocabulary_is_the_same_each_time(world_text):
    """`tokenizers` sums in the order of hash tables; ids and scores must not depend on it."""
    once, again = (train_tokenizer({"deu_Latn": [world_text]}, vocab_size=500) for _ in range(2))
    assert once.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()


@pytest.fixture
def world_text(tmp_path):
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=4)) for _ in range(40)]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(draw.choices(words, k=12)) for _ in range(80)), encoding="utf-8")
    return path


def test_vocabulary_too_small(trained):
    with pytest.raises(IsoglossError, match="vocabulary of 300 is too small"):
        train_tokenizer(trained[0], vocab_size=300)
