"""Batches from length buckets: every item once, within the limits, the same again after a restart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.training.buckets import Batches, TokenBudgetBatches, reading_tokens

lengths_of_items = st.lists(st.integers(0, 90), min_size=1, max_size=120)


@given(
    lengths_of_items,
    st.one_of(st.none(), st.integers(1, 300)),
    st.one_of(st.none(), st.integers(1, 40)),
    st.integers(0, 5),
    st.booleans(),
)
def test_every_item_exactly_once_and_within_the_limits(lengths, tokens, size, epoch, shuffle):
    if tokens is None and size is None:
        size = 7
    sampler = TokenBudgetBatches(lengths, tokens_per_batch=tokens, batch_size=size, shuffle=shuffle)
    batches = sampler.epoch_batches(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == sampler.batch_count(epoch)
    for batch in batches:
        assert len(batch) > 0
        assert size is None or len(batch) <= size
        padded = max(lengths[i] for i in batch) * len(batch)
        assert tokens is None or padded <= tokens or len(batch) == 1


def test_a_plain_batch_size_gives_full_batches():
    sizes = [len(b) for b in TokenBudgetBatches(range(1, 71), batch_size=32).epoch_batches(0)]
    assert sorted(sizes) == [6, 32, 32]


def test_same_seed_same_batches_other_seed_or_epoch_others():
    lengths = np.random.default_rng(0).integers(5, 60, 300)

    def made(seed, epoch):
        sampler = TokenBudgetBatches(lengths, tokens_per_batch=400, seed=seed)
        return [batch.tolist() for batch in sampler.epoch_batches(epoch)]

    assert made(1, 0) == made(1, 0)
    assert made(1, 0) != made(1, 1)
    assert made(1, 0) != made(2, 0)
    # Not only the order of the batches changes, but what is in them.
    assert {frozenset(b) for b in made(1, 0)}.isdisjoint({frozenset(b) for b in made(1, 1)})


def test_equal_lengths_are_shuffled_even_without_noise():
    sampler = TokenBudgetBatches([8] * 64, batch_size=4, noise=0.0)
    assert {frozenset(b.tolist()) for b in sampler.epoch_batches(0)}.isdisjoint(
        {frozenset(b.tolist()) for b in sampler.epoch_batches(1)}
    )


def test_buckets_pad_far_less_than_random_batches():
    random = np.random.default_rng(3)
    lengths = np.clip(random.lognormal(3.3, 0.6, 2000).astype(int), 3, 200)
    sampler = TokenBudgetBatches(lengths, batch_size=32)
    order = random.permutation(2000)
    positions = sum(lengths[order[s : s + 32]].max() * len(order[s : s + 32]) for s in range(0, 2000, 32))
    by_chance = 1 - lengths.sum() / positions
    assert by_chance > 0.5
    assert sampler.padding_share(0) < 0.12
    expected = [lengths[b] for b in sampler.epoch_batches(0)]
    share = 1 - lengths.sum() / sum(held.max() * held.size for held in expected)
    assert sampler.padding_share(0) == pytest.approx(share)


def test_unshuffled_goes_from_short_to_long():
    batches = TokenBudgetBatches([5, 1, 9, 1, 7], batch_size=2, shuffle=False).epoch_batches(3)
    assert [b.tolist() for b in batches] == [[1, 3], [0, 4], [2]]


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.integers(0, 20))
def test_weights_give_every_item_its_share(weights, seed):
    total = len(weights)
    sampler = TokenBudgetBatches([3] * total, batch_size=4, weights=weights, seed=seed)
    drawn = np.bincount(np.concatenate(sampler.epoch_batches(0)), minlength=total)
    expected = np.asarray(weights) / sum(weights) * total
    assert drawn.sum() == total
    assert (np.abs(drawn - expected) < 1 + 1e-9).all()


def numbered(lengths, **options):
    return Batches(TokenBudgetBatches(lengths, **options), lambda items, g: (items, torch.rand(1, generator=g).item()))


def test_windows_end_with_the_epoch_and_count_as_foretold():
    source = numbered(list(range(1, 24)), batch_size=2)  # 12 batches
    sizes, epochs = [], []
    for _ in range(source.steps_in(2, 5)):
        sizes.append(len(list(source.window(5))))
        epochs.append(source.epoch)
    assert sizes == [5, 5, 2, 5, 5, 2]
    assert epochs == [0, 0, 1, 1, 1, 2]
    assert source.steps_in(1.5, 5) == 5
    assert source.steps_in(0.1, 5) == 1


def test_token_budget_epochs_of_unequal_length_are_counted_exactly():
    lengths = np.random.default_rng(1).integers(1, 50, 97)
    source = numbered(lengths, tokens_per_batch=130)
    steps = source.steps_in(4, 3)
    for _ in range(steps):
        list(source.window(3))
    assert source.state_dict()["epoch"] == 4 and source.state_dict()["position"] == 0


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 9))
def test_processes_share_the_batches_of_one(world, accumulation, seed):
    lengths = [1 + i % 17 for i in range(53)]
    alone = numbered(lengths, batch_size=4, seed=seed)
    shared = [numbered(lengths, batch_size=4, seed=seed) for _ in range(world)]
    for _ in range(6):
        whole = list(alone.window(world * accumulation))
        parts = [list(s.window(world * accumulation, rank, world)) for rank, s in enumerate(shared)]
        assert sorted(whole) == sorted(batch for part in parts for batch in part)
        assert all(s.state_dict() == alone.state_dict() for s in shared)


def test_a_restart_continues_with_the_same_batches_and_the_same_randomness():
    lengths = [1 + i % 17 for i in range(53)]
    first, second = numbered(lengths, batch_size=4), numbered(lengths, batch_size=4)
    for _ in range(9):
        list(first.window(2))
    second.load_state_dict(first.state_dict())
    for _ in range(12):
        assert list(first.window(2)) == list(second.window(2))


@pytest.mark.parametrize("rank", [0, 1])
def test_making_batches_ahead_changes_nothing(rank):
    def source(prefetch):
        sampler = TokenBudgetBatches([1 + i % 17 for i in range(53)], batch_size=4)
        return Batches(sampler, lambda items, g: (items, torch.rand(1, generator=g).item()), prefetch=prefetch)

    plain, ahead = source(0), source(3)
    for _ in range(12):
        assert list(plain.window(4, rank, 2)) == list(ahead.window(4, rank, 2))
    ahead.load_state_dict(plain.state_dict())
    for _ in range(9):
        assert list(plain.window(2, rank, 2)) == list(ahead.window(2, rank, 2))


def test_an_error_in_a_batch_made_ahead_arrives():
    def broken(items, _):
        raise KeyError("row 3")

    source = Batches(TokenBudgetBatches([1] * 9, batch_size=2), broken, prefetch=2)
    with pytest.raises(KeyError, match="row 3"):
        list(source.window(1))


def test_a_state_of_another_seed_is_refused():
    with pytest.raises(IsoglossError, match="seed 1, not 2"):
        numbered([1], batch_size=1, seed=2).load_state_dict(numbered([1], batch_size=1, seed=1).state_dict())


@pytest.mark.parametrize(
    ("lengths", "options", "words"),
    [
        ([], {"batch_size": 2}, "no items"),
        ([1], {}, "limit"),
        ([1], {"batch_size": 0}, "batch_size=0"),
        ([1], {"tokens_per_batch": -3}, "tokens_per_batch=-3"),
        ([1, 2], {"batch_size": 1, "weights": [1.0]}, "weights"),
        ([1, 2], {"batch_size": 1, "weights": [0.0, 0.0]}, "weights"),
        ([1, 2], {"batch_size": 1, "weights": [2.0, -1.0]}, "weights"),
    ],
)
def test_impossible_options_are_named(lengths, options, words):
    with pytest.raises(IsoglossError, match=words):
        TokenBudgetBatches(lengths, **options)


def test_what_is_read_at_a_time_suits_the_device() -> None:
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 16):
            torch.set_num_threads(threads)
            found.append(reading_tokens(torch.device("cpu")))
    finally:
        torch.set_num_threads(before)
    assert found == [1024, 2048, 4096]
    assert reading_tokens(torch.device("cuda")) == 4096 and reading_tokens(torch.device("cpu"), 7) == 7
