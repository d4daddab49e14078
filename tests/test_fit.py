"""The fit loop against a loop written by hand, and its promises one by one."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from isogloss.errors import IsoglossError
from isogloss.training.buckets import Batches, TokenBudgetBatches
from isogloss.training.config import FitConfig, LossResult, TrainedPart
from isogloss.training.fit import fit

N, D, K = 64, 6, 3


class Toy:
    """A small classifier with dropout on random data, with all that `fit` asks for."""

    def __init__(self, *, dropout=0.2, batch_size=8, dtype=torch.float32, norm=False):
        random_ = torch.Generator().manual_seed(1)
        self.x = torch.randn(N, D, generator=random_, dtype=dtype)
        self.y = torch.randint(0, K, (N,), generator=random_)
        with torch.random.fork_rng():
            torch.manual_seed(2)
            middle = [nn.BatchNorm1d(12)] if norm else []
            self.model = nn.Sequential(nn.Linear(D, 12), *middle, nn.Tanh(), nn.Dropout(dropout), nn.Linear(12, K)).to(
                dtype
            )
        self.sampler = TokenBudgetBatches([1] * N, batch_size=batch_size)
        self.batches = Batches(self.sampler, lambda items, _: (self.x[items], self.y[items]))
        self.validate = None

    def loss(self, batch):
        x, y = batch
        return LossResult(cross_entropy(self.model(x), y, reduction="sum"), len(y), 2 * len(y))

    def weights(self):
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def fit(self, config=None, parts=None, folder=None, **options):
        return fit(
            config or FitConfig(steps=20, learning_rate=1e-2),
            parts=parts or [TrainedPart("model", list(self.model.parameters()))],
            batches=self.batches,
            loss=options.pop("loss", self.loss),
            modules={"model": self.model},
            validate=options.pop("validate", self.validate),
            folder=folder,
            **options,
        )


def assert_same(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **(tolerance or {"rtol": 0, "atol": 0}))


def test_identical_to_a_loop_written_by_hand():
    toy, hand = Toy(), Toy()
    result = toy.fit(FitConfig(steps=20, learning_rate=1e-2, weight_decay=0.1, warmup=4, seed=3))

    with torch.random.fork_rng():
        torch.manual_seed(3)
        linear = [p for p in hand.model.parameters() if p.ndim > 1]
        biases = [p for p in hand.model.parameters() if p.ndim == 1]
        groups = [{"params": linear, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: step / 4 if step < 4 else max(0.0, (20 - step) / 16)
        )
        hand.model.train()
        order = [items for epoch in range(3) for items in hand.sampler.epoch_batches(epoch)]
        for items in order[:20]:
            optimiser.zero_grad()
            cross_entropy(hand.model(hand.x[items]), hand.y[items]).backward()
            nn.utils.clip_grad_norm_(hand.model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    assert_same(toy.weights(), hand.weights())
    assert result.steps == 20 and result.tokens == 20 * 16 and result.seconds > 0


def test_accumulation_equals_one_big_batch():
    # The same four epochs as whole batches and as windows of smaller ones of unequal size.
    items = [list(range(start, start + 16)) for start in range(0, N, 16)]

    class Fixed(TokenBudgetBatches):
        def __init__(self, pieces):
            super().__init__([1] * N, batch_size=16)
            self.pieces = [np.array(piece) for piece in pieces]

        def epoch_batches(self, epoch=0):
            return self.pieces

        def batch_count(self, epoch):
            return len(self.pieces)

    weights = []
    for sizes in ([16], [8, 8], [1, 9, 4, 2]):
        toy = Toy(dropout=0.0, dtype=torch.float64)
        pieces = [piece for whole in items for piece in np.split(np.array(whole), np.cumsum(sizes)[:-1])]
        toy.batches = Batches(Fixed(pieces), lambda i, _, toy=toy: (toy.x[i], toy.y[i]))
        result = toy.fit(FitConfig(epochs=4, accumulation=len(sizes), learning_rate=1e-2))
        assert result.steps == 16
        weights.append(toy.weights())
    assert_same(weights[0], weights[1], rtol=1e-10, atol=1e-12)
    assert_same(weights[0], weights[2], rtol=1e-10, atol=1e-12)


def test_an_epoch_that_does_not_fill_its_last_window_still_sees_every_item_once():
    toy, seen = Toy(batch_size=5), []
    toy.batches = Batches(toy.sampler, lambda i, _: (seen.extend(i), (toy.x[i], toy.y[i]))[1])
    result = toy.fit(FitConfig(epochs=2, accumulation=4))  # 13 batches an epoch: windows of 4, 4, 4, 1
    assert result.steps == 8
    assert sorted(seen[:N]) == list(range(N)) and sorted(seen[N:]) == list(range(N))


def test_parts_have_learning_rates_of_their_own():
    toy = Toy(dropout=0.0)
    before = toy.weights()
    first, last = toy.model[0], toy.model[-1]
    toy.fit(
        FitConfig(steps=1, learning_rate=1e-3, schedule="constant"),
        parts=[
            TrainedPart("first", list(first.parameters()), learning_rate=1e-2),
            TrainedPart("last", list(last.parameters())),
            TrainedPart("empty", []),
        ],
    )
    # Adam's first step has the size of the learning rate wherever the gradient is not tiny.
    moved = {name: (value - before[name]).abs().max().item() for name, value in toy.weights().items()}
    assert moved["0.weight"] == pytest.approx(1e-2, rel=1e-3)
    assert moved["3.weight"] == pytest.approx(1e-3, rel=1e-3)


def test_weight_decay_per_part_spares_vectors_unless_told():
    def decayed(**options):
        toy = Toy(dropout=0.0)
        config = FitConfig(steps=1, learning_rate=0.1, schedule="constant", optimiser="sgd", **options)
        part = TrainedPart("m", list(toy.model.parameters()), weight_decay=0.5)
        before = toy.weights()
        toy.fit(config, parts=[part], loss=lambda b: LossResult(0.0 * toy.model(b[0]).sum(), 1, 1))
        return {name: (value / before[name]).mean().item() for name, value in toy.weights().items()}

    assert decayed()["0.weight"] == pytest.approx(0.95)
    assert decayed()["0.bias"] == pytest.approx(1.0)
    assert decayed(decay_vectors=True)["0.bias"] == pytest.approx(0.95)


def test_clipping_bounds_the_whole_gradient():
    def moved(clip):
        toy = Toy(dropout=0.0)
        before = torch.cat([v.flatten() for v in toy.weights().values()])
        config = FitConfig(steps=1, learning_rate=1.0, optimiser="sgd", schedule="constant", clip=clip)
        toy.fit(config, loss=lambda b: LossResult(100 * toy.loss(b).total, len(b[1]), 1))
        return (torch.cat([v.flatten() for v in toy.weights().values()]) - before).norm().item()

    assert moved(0.25) == pytest.approx(0.25, rel=1e-4)
    assert moved(None) > 5


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_weights_come_back(higher):
    values = [0.1, 0.9, 0.5, 0.2] if higher else [0.9, 0.1, 0.5, 0.2]
    toy, kept = Toy(), []

    def validate():
        kept.append(toy.weights())
        assert not toy.model.training
        return values[len(kept) - 1]

    config = FitConfig(steps=20, eval_every=5, learning_rate=1e-2, higher_is_better=higher)
    result = toy.fit(config, validate=validate)
    assert (result.best_step, result.best_value) == (10, values[1])
    assert_same(toy.weights(), kept[1])
    assert [entry["value"] for entry in result.history if "value" in entry] == values


def test_without_keep_best_the_last_weights_stay():
    toy, kept = Toy(), []
    toy.fit(
        FitConfig(steps=10, eval_every=5, keep_best=False),
        validate=lambda: (kept.append(toy.weights()), -len(kept))[1],
    )
    assert_same(toy.weights(), kept[-1])


def test_patience_stops_after_so_many_values_without_a_gain():
    values = iter([0.5, 0.6, 0.6, float("nan"), 0.9])
    result = Toy().fit(FitConfig(steps=100, eval_every=4, patience=2), validate=lambda: next(values))
    assert result.stopped_early and result.steps == 16
    assert (result.best_step, result.best_value) == (8, 0.6)


def test_epochs_are_validated_at_their_ends_and_steps_at_the_last():
    result = Toy().fit(FitConfig(epochs=3), validate=lambda: 1.0)
    assert [entry["step"] for entry in result.history if "value" in entry] == [8, 16, 24]
    result = Toy().fit(FitConfig(steps=9), validate=lambda: 1.0)
    assert [entry["step"] for entry in result.history if "value" in entry] == [9]


def test_validation_does_not_change_the_training():
    toy, plain = Toy(), Toy()
    toy.fit(
        FitConfig(steps=20, eval_every=3, keep_best=False),
        validate=lambda: float(torch.rand(1)) + random.random() + np.random.rand(),
    )
    plain.fit(FitConfig(steps=20))
    assert_same(toy.weights(), plain.weights())


def test_the_callers_generators_and_modes_are_left_alone():
    toy = Toy()
    toy.model.eval()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = float(torch.rand(1)), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    toy.fit()
    assert (float(torch.rand(1)), random.random(), np.random.rand()) == expected
    assert not any(module.training for module in toy.model.modules())


def test_the_seed_decides():
    def trained(seed):
        toy = Toy()
        toy.fit(FitConfig(steps=5, learning_rate=1e-2, seed=seed))
        return toy.weights()

    assert_same(trained(1), trained(1))
    assert not torch.equal(trained(1)["0.weight"], trained(2)["0.weight"])


def test_bf16_is_a_matter_of_the_forward_pass():
    toy, dtypes = Toy(), set()

    def loss(batch):
        logits = toy.model(batch[0])
        dtypes.add(logits.dtype)
        return LossResult(cross_entropy(logits.float(), batch[1], reduction="sum"), len(batch[1]), 1)

    toy.fit(FitConfig(steps=30, learning_rate=1e-2, precision="bf16"), loss=loss)
    full = Toy()
    full.fit(FitConfig(steps=30, learning_rate=1e-2))
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in toy.model.parameters()} == {torch.float32}
    assert_same(toy.weights(), full.weights(), rtol=0.3, atol=0.05)


def test_a_batch_without_labels_changes_nothing_by_itself():
    toy = Toy(dropout=0.0)
    before = toy.weights()
    toy.fit(FitConfig(steps=3), loss=lambda batch: LossResult(torch.zeros(()), 0, 4))
    assert_same(toy.weights(), before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path, bad):
    toy, calls = Toy(), []

    def loss(batch):
        calls.append(1)
        result = toy.loss(batch)
        return LossResult(result.total * bad, result.count, 1) if len(calls) == 7 else result

    with pytest.raises(IsoglossError, match=rf"loss became {bad} at step 7 of 20; lower the learning rate"):
        toy.fit(FitConfig(steps=20, checkpoint_every=1), loss=loss, folder=tmp_path)
    # The poisoned step is in no checkpoint.
    assert sorted(p.name for p in (tmp_path / ".checkpoint").glob("step-*"))[-1] == "step-0000000006"


def test_nothing_to_train_is_an_error():
    with pytest.raises(IsoglossError, match=r"nothing to train.*'a', 'b'"):
        Toy().fit(parts=[TrainedPart("a", []), TrainedPart("b", [])])


def test_mistakes_in_the_parts_are_named():
    toy = Toy()
    everything = list(toy.model.parameters())
    with pytest.raises(IsoglossError, match="'a' and 'b' share"):
        toy.fit(parts=[TrainedPart("a", everything), TrainedPart("b", everything[:1])])
    with pytest.raises(IsoglossError, match=r"'3\.weight' of module 'model' asks for a gradient"):
        toy.fit(parts=[TrainedPart("a", everything[:2])])
    with pytest.raises(IsoglossError, match="in none of the modules"):
        toy.fit(parts=[TrainedPart("a", [*everything, nn.Parameter(torch.ones(2))])])
    everything[0].requires_grad_(False)
    with pytest.raises(IsoglossError, match="frozen parameter"):
        toy.fit(parts=[TrainedPart("a", everything)])
    half = copy.deepcopy(toy.model).bfloat16().requires_grad_(True)
    with pytest.raises(IsoglossError, match=r"bfloat16.*must be float32"):
        toy.fit(parts=[TrainedPart("a", list(half.parameters()))])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either steps or epochs"),
        ({"steps": 3, "epochs": 1}, "either steps or epochs"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 1, "accumulation": 0}, "accumulation=0"),
        ({"steps": 1, "learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"steps": 1, "learning_rate": float("nan")}, "learning_rate=nan"),
        ({"steps": 1, "optimiser": "lion"}, "'lion'.*adamw, adafactor, sgd"),
        ({"steps": 1, "schedule": "step"}, "'step'.*linear"),
        ({"steps": 1, "precision": "fp16"}, "fp16.*bf16 or fp32"),
        ({"steps": 1, "clip": 0.0}, "clip=0.0"),
        ({"steps": 1, "seed": -1}, "seed=-1"),
        ({"steps": 1, "patience": 0}, "patience=0"),
    ],
)
def test_impossible_settings_are_named(options, words):
    with pytest.raises(IsoglossError, match=words):
        FitConfig(**options)


def test_history_holds_means_over_the_steps_since_the_last_entry():
    toy, losses = Toy(), []

    def loss(batch):
        result = toy.loss(batch)
        losses.append(result.total.item())
        return result

    result = toy.fit(FitConfig(steps=10, log_every=4, learning_rate=1e-2, schedule="constant"), loss=loss)
    assert [entry["step"] for entry in result.history] == [4, 8, 10]
    expected = [sum(losses[a:b]) / (8 * (b - a)) for a, b in ((0, 4), (4, 8), (8, 10))]
    assert [entry["loss"] for entry in result.history] == pytest.approx(expected)
    assert {entry["learning_rate"] for entry in result.history} == {1e-2}


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Toy().fit(FitConfig(steps=3, checkpoint_every=1))
    assert list(tmp_path.iterdir()) == []
