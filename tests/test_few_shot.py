"""Few-shot samples are balanced, sized as S2 has them and decided by the seed; leaks are found."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.tasks import Example, check_leaks, duplicate_contents, few_shot, get_task, without_duplicates
from isogloss.tasks.few_shot import dev_size, undersample

TASK = get_task("classification", labels=["a", "b", "c"])


def data(counts: dict[str, int], split: str) -> list[Example]:
    return [
        Example(f"{split}-{label}-{i}", "eng_Latn", text=f"{split} {label} {i}", label=label)
        for label, count in counts.items()
        for i in range(count)
    ]


TRAIN, DEV = data({"a": 70, "b": 58, "c": 176}, "train"), data({"a": 8, "b": 12, "c": 30}, "dev")


@given(st.integers(1, 58), st.integers(0, 5))
def test_balanced_sizes_and_seed(k: int, seed: int) -> None:
    sample = few_shot(TASK, TRAIN, DEV, k, seed)
    assert Counter(example.label for example in sample.train) == dict.fromkeys("abc", k)
    per_class = 8 if k == 32 else min(math.ceil(k / 4), 8)
    assert Counter(example.label for example in sample.dev) == dict.fromkeys("abc", per_class)
    assert len({example.id for example in sample.train}) == 3 * k
    assert few_shot(TASK, TRAIN, DEV, k, seed) == sample


def test_other_seed_other_sample_and_input_order_of_classes_does_not_matter() -> None:
    first = few_shot(TASK, TRAIN, DEV, 8, 0)
    assert first != few_shot(TASK, TRAIN, DEV, 8, 1)
    by_class = sorted(TRAIN, key=lambda example: str(example.label), reverse=True)
    assert few_shot(TASK, by_class, DEV, 8, 0).train == first.train


def test_legacy_draws_ignore_the_seed() -> None:
    draws = {tuple(e.id for e in few_shot(TASK, TRAIN, DEV, 8, 0, legacy_unseeded=True).train) for _ in range(5)}
    assert len(draws) == 5


def test_dev_size_of_32_is_the_whole_balanced_dev_set() -> None:
    assert [dev_size(k, 11) for k in (1, 4, 5, 8, 16, 31, 32, 58)] == [1, 1, 2, 2, 4, 8, 11, 11]


def test_undersampling_stops_at_the_rarest_class() -> None:
    assert {label: len(group) for label, group in undersample(TASK, TRAIN).items()} == dict.fromkeys("abc", 58)


def test_tagging_counts_examples() -> None:
    examples = [Example(str(i), "eng_Latn", tokens=("w",), tags=("O",)) for i in range(20)]
    sample = few_shot(get_task("ner"), examples, examples, 10)
    assert (len(sample.train), len(sample.dev), sample.per_class) == (10, 3, 0)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(IsoglossError, match=r"59 examples a class wanted, but the rarest class .* has 58"):
        few_shot(TASK, TRAIN, DEV, 59)
    with pytest.raises(IsoglossError, match="give at least 1"):
        few_shot(TASK, TRAIN, DEV, 0)
    with pytest.raises(IsoglossError, match="no example of the class 'c'"):
        few_shot(TASK, data({"a": 2, "b": 2}, "train"), [], 1)
    with pytest.raises(IsoglossError, match="21 examples wanted"):
        few_shot(get_task("qa"), TRAIN[:20], [], 21)


def test_leak_across_languages_is_refused() -> None:
    english = [
        Example("548", "eng_Latn", text="a", label="a"),
        Example("549", "eng_Latn", text="b", label="a"),
    ]
    german = [Example("549", "deu_Latn", text="B", label="a")]
    with pytest.raises(IsoglossError, match=r"1 items .* 549 .*trained on in eng_Latn, tested in deu_Latn"):
        check_leaks(english, german)
    check_leaks(english[:1], german)


def test_equal_contents_are_found_under_other_ids() -> None:
    train = [
        Example("1", "pcm_Latn", text="same", label="a"),
        Example("2", "pcm_Latn", text="own", label="a"),
    ]
    test = [Example("9", "pcm_Latn", text="same", label="a")]
    assert duplicate_contents(train, test) == ["1"]
    assert without_duplicates(train, test) == train[1:]
