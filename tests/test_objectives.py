import pytest
import torch
from _corpora_tools import word_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.corpora import (
    CausalLM,
    MaskedLM,
    PairBatch,
    PrefixLM,
    SpanCorruption,
    TranslationContrast,
    TranslationLM,
    raw_length_for,
    span_lengths,
    symmetric_info_nce,
)
from isogloss.errors import IsoglossError

ENCODER = word_tokenizer()
T5 = word_tokenizer("encoder-decoder", sentinels=30)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def words(rows, length, low=5, seed=0):
    return torch.randint(low, 200, (rows, length), generator=seeded(seed))


# --- span corruption ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "density", "mean", "raw", "target"),
    # The values of T5's compute_input_and_target_lengths; the second is T5's own setting.
    [
        (256, 0.15, 3.0, 284, 58),
        (512, 0.15, 3.0, 568, 114),
        (128, 0.15, 3.0, 141, 29),
        (64, 0.15, 3.0, 70, 14),
    ],
)
def test_length_algebra(length, density, mean, raw, target):
    assert raw_length_for(length, density, mean) == (raw, target)


@given(st.integers(8, 600), st.sampled_from([0.1, 0.15, 0.3]), st.sampled_from([1.0, 2.0, 3.0, 10.0]))
def test_raw_length_is_the_longest_that_fits(length, density, mean):
    def inputs(raw):
        noise, spans = span_lengths(raw, density, mean)
        return raw - noise + spans + 1

    raw, _ = raw_length_for(length, density, mean)
    assert inputs(raw) <= length < inputs(raw + 1)


def rebuild(inputs, targets, sentinels, eos):
    """Undoes span corruption one token at a time, without the code under test."""
    assert inputs[-1] == targets[-1] == eos
    spans, current = {}, None
    for token in targets[:-1]:
        if token in sentinels:
            assert token not in spans
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    assert list(spans) == sentinels[: len(spans)]
    out = []
    for token in inputs[:-1]:
        out.extend(spans.pop(token) if token in sentinels else [token])
    assert not spans
    return out


@settings(max_examples=60, deadline=None)
@given(
    st.integers(8, 120),
    st.integers(1, 4),
    st.integers(0, 10_000),
    st.sampled_from([(0.15, 3.0), (0.5, 2.0), (0.3, 1.0)]),
)
def test_span_corruption_can_be_undone(length, rows, seed, rates):
    tokenizer = word_tokenizer("encoder-decoder", sentinels=120)
    objective = SpanCorruption(tokenizer, length, decoder_start_id=1, density=rates[0], mean_span=rates[1])
    sentinels = [tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(120)]
    blocks = torch.randint(125, 325, (rows, objective.raw_length), generator=seeded(seed))
    batch = objective.collate(blocks, seeded(seed))
    labels = batch.labels.view(rows, -1)
    assert batch.input_ids.shape == (rows, objective.length)
    assert labels.shape == (rows, objective.target_length)
    for row in range(rows):
        assert rebuild(batch.input_ids[row].tolist(), labels[row].tolist(), sentinels, 2) == blocks[row].tolist()
    assert torch.equal(batch.decoder_input_ids[:, 1:], labels[:, :-1])
    assert (batch.decoder_input_ids[:, 0] == 1).all()
    assert torch.equal(batch.label_positions, torch.arange(labels.numel()))


def test_span_corruption_spans_are_spread_evenly():
    objective = SpanCorruption(T5, 256, decoder_start_id=1)
    blocks = torch.arange(284).expand(3000, -1) + 1000
    batch = objective.collate(blocks, seeded())
    noisy = torch.zeros(284)
    labels = batch.labels[batch.labels >= 1000] - 1000
    noisy.scatter_add_(0, labels, torch.ones(len(labels)))
    share = noisy / 3000
    assert share[0] == 0  # T5 begins with kept text, and ends with noise
    assert share[-1] == 1
    assert share[40:240].mean() == pytest.approx(0.15, abs=0.01)
    assert share[40:240].std() < 0.02


def test_span_corruption_needs_sentinels():
    with pytest.raises(IsoglossError, match="only 5 of the 14 needed sentinel"):
        SpanCorruption(word_tokenizer("encoder-decoder", sentinels=5), 256, decoder_start_id=1)
    with pytest.raises(IsoglossError, match="none of the"):
        SpanCorruption(ENCODER, 64, decoder_start_id=1)


def test_sentinels_as_mt5_writes_them():
    tokenizer = word_tokenizer("encoder-decoder", extra=[f"▁<extra_id_{i}>" for i in (3, 2, 1, 0)])
    batch = SpanCorruption(tokenizer, 32, decoder_start_id=1).collate(words(1, 34, 20), seeded())
    assert batch.labels[0] == tokenizer.convert_tokens_to_ids("▁<extra_id_0>")


def test_span_corruption_refuses_other_lengths():
    with pytest.raises(IsoglossError, match="blocks of 284, not 256"):
        SpanCorruption(T5, 256, decoder_start_id=1).collate(words(2, 256), seeded())


# --- masked LM ---------------------------------------------------------------------------------------------


def test_masked_lm_rates_and_frame():
    objective = MaskedLM(ENCODER, 128)
    assert objective.raw_length == 126
    blocks = words(400, 126)
    batch = objective.collate(blocks, seeded(1))
    whole = torch.cat([torch.zeros(400, 1).long(), blocks, torch.full((400, 1), 2)], dim=1)
    assert torch.equal(whole.flatten()[batch.label_positions], batch.labels)
    count = len(batch.labels)
    assert count / blocks.numel() == pytest.approx(0.15, abs=0.006)
    seen = batch.input_ids.flatten()[batch.label_positions]
    masked, kept = (seen == 4), (seen == batch.labels)
    assert masked.float().mean() == pytest.approx(0.8, abs=0.02)
    # A random token is the original one time in 200.
    assert kept.float().mean() == pytest.approx(0.1 + 0.1 / 200, abs=0.015)
    assert not torch.isin(seen[~masked], torch.tensor([0, 1, 2, 3])).any()
    rest = torch.ones(whole.numel(), dtype=torch.bool)
    rest[batch.label_positions] = False
    assert torch.equal(batch.input_ids.flatten()[rest], whole.flatten()[rest])


def test_masked_lm_never_touches_special_tokens():
    blocks = words(50, 30)
    blocks[:, 10] = 2
    batch = MaskedLM(ENCODER, 32, rate=0.9).collate(blocks, seeded())
    assert (batch.input_ids[:, 11] == 2).all()
    assert 2 not in batch.labels
    assert batch.input_ids[:, 0].eq(0).all()
    assert batch.input_ids[:, -1].eq(2).all()


def test_masked_lm_always_has_a_label():
    batch = MaskedLM(ENCODER, 8, rate=0.001).collate(words(1, 6), seeded())
    assert len(batch.labels) == 1


def test_masked_lm_needs_a_mask_token():
    with pytest.raises(IsoglossError, match="no mask token"):
        MaskedLM(T5, 32)


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaskedLM(ENCODER, 32),
        lambda: SpanCorruption(T5, 32, decoder_start_id=1),
        lambda: PrefixLM(T5, 32),
    ],
)
def test_same_generator_same_batch(make):
    objective = make()
    blocks = words(4, objective.raw_length, 40)
    one, two, other = (objective.collate(blocks, seeded(s)) for s in (3, 3, 4))
    assert torch.equal(one.input_ids, two.input_ids)
    assert torch.equal(one.label_positions, two.label_positions)
    assert not (
        torch.equal(one.input_ids, other.input_ids)
        and one.label_positions.shape == other.label_positions.shape
        and torch.equal(one.label_positions, other.label_positions)
    )


# --- causal and prefix LM ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "bos"), [("decoder", 0), ("decoder-bos", 1)])
def test_causal_labels_are_the_next_tokens(kind, bos):
    objective = CausalLM(word_tokenizer(kind), 16)
    assert objective.raw_length == 16 - bos
    blocks = words(3, 16 - bos)
    batch = objective.collate(blocks)
    assert batch.input_ids.shape == (3, 16)
    flat = batch.input_ids.flatten()
    for position, label in zip(batch.label_positions.tolist(), batch.labels.tolist(), strict=True):
        assert position % 16 != 15
        assert flat[position + 1] == label
    assert len(batch.labels) == 3 * 15


def test_prefix_lm_decoder_scores_after_the_split_only():
    batch = PrefixLM(word_tokenizer("decoder-bos"), 12).collate(words(200, 11), seeded())
    flat = batch.input_ids.flatten()
    assert torch.equal(flat[batch.label_positions + 1], batch.labels)
    firsts = set()
    for row in range(200):
        columns = (batch.label_positions[batch.label_positions // 12 == row] % 12).tolist()
        assert columns == list(range(columns[0], 11))
        firsts.add(columns[0])
    # Position 0 is BOS, 1 the shortest prefix; position 10 predicts the last token.
    assert firsts == set(range(1, 11))


def test_prefix_lm_encoder_decoder_halves_rebuild_the_block():
    objective = PrefixLM(T5, 12, decoder_start_id=1)
    blocks = words(20, objective.raw_length, 40)
    batch = objective.collate(blocks, seeded())
    width = batch.decoder_input_ids.shape[1]
    assert (batch.decoder_input_ids[:, 0] == 1).all()
    for row in range(20):
        head = batch.input_ids[row][batch.attention_mask[row].bool()].tolist()
        assert head.pop() == 2
        mine = batch.label_positions // width == row
        tail = batch.labels[mine].tolist()
        assert head + tail == blocks[row].tolist()
        assert head
        assert tail
        assert batch.decoder_input_ids[row, 1 : len(tail)].tolist() == tail[:-1]


# --- parallel text -----------------------------------------------------------------------------------------


def pairs(lengths, seed=0):
    generator = seeded(seed)
    first = [torch.randint(5, 200, (a,), generator=generator) for a, _ in lengths]
    second = [torch.randint(5, 200, (b,), generator=generator) for _, b in lengths]
    return PairBatch(first, second, [("a", "b")] * len(lengths), torch.arange(len(lengths)))


def restored(batch):
    ids = batch.input_ids.clone()
    ids.view(-1)[batch.label_positions] = batch.labels
    return ids


def test_translation_lm_holds_both_sides_masked():
    batch = TranslationLM(ENCODER, 64, pack=False).collate(source := pairs([(10, 12)] * 60), seeded())
    ids = restored(batch)
    orders = set()
    for row in range(60):
        a, b = source.first[row].tolist(), source.second[row].tolist()
        swapped = [0, *b, 2, *a, 2]
        assert ids[row].tolist() in ([0, *a, 2, *b, 2], swapped)
        orders.add(ids[row].tolist() == swapped)
    assert orders == {True, False}
    columns = batch.label_positions % ids.shape[1]
    assert (columns < 10).any()
    assert (columns > 14).any()
    assert len(batch.labels) / (60 * 22) == pytest.approx(0.15, abs=0.04)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12), st.integers(16, 60))
def test_translation_lm_packs_every_pair_once(lengths, room):
    batch = TranslationLM(ENCODER, room).collate(pairs(lengths), seeded())
    ids, mask = restored(batch), batch.attention_mask.bool()
    assert ids.shape[1] <= room
    assert int((ids[mask] == 2).sum()) == 2 * len(lengths)
    assert int((ids[mask] == 0).sum()) == len(ids)
    expected = sum(min(a + b, room - 3) for a, b in lengths)
    assert int(mask.sum()) == expected + 2 * len(lengths) + len(ids)
    assert mask.flatten()[batch.label_positions].all()


def test_contrast_halves_and_loss():
    batch = TranslationContrast(ENCODER, 10).collate(pairs([(20, 3), (4, 5)]))
    assert batch.first.input_ids.shape == (2, 10)
    assert batch.second.attention_mask.sum(1).tolist() == [5, 7]
    generator = seeded()
    a, b = torch.randn(6, 8, generator=generator), torch.randn(6, 8, generator=generator)
    cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=2) / 0.1
    reference = -(cosine.log_softmax(0).diag().mean() + cosine.log_softmax(1).diag().mean()) / 2
    torch.testing.assert_close(symmetric_info_nce(a, b, temperature=0.1), reference)
    groups = torch.tensor([0, 0, 1, 2, 3, 4])
    cosine[0, 1] = cosine[1, 0] = float("-inf")
    reference = -(cosine.log_softmax(0).diag().mean() + cosine.log_softmax(1).diag().mean()) / 2
    torch.testing.assert_close(symmetric_info_nce(a, b, temperature=0.1, groups=groups), reference)
