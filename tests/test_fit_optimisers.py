"""Optimisers against slow plain numpy, schedules against `transformers`, the state there and back."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_scheduler

from isogloss.training.config import FitConfig, TrainedPart
from isogloss.training.optimisers import create_optimiser, optimiser_state, restore_optimiser_state
from isogloss.training.schedules import learning_rate_factor, warmup_steps

SHAPES = [(5, 3), (4,), (2, 3, 4), (1, 6)]


def weights_and_gradients(steps=12):
    random = np.random.default_rng(0)
    start = [random.normal(size=shape) for shape in SHAPES]
    gradients = [[random.normal(size=s) * 10 ** random.uniform(-3, 1) for s in SHAPES] for _ in range(steps)]
    return start, gradients


def run(config, start, gradients, optimiser=None, parameters=None):
    parameters = parameters or [nn.Parameter(torch.tensor(value)) for value in start]
    optimiser = optimiser or create_optimiser(config, [TrainedPart("all", parameters)])
    for step in gradients:
        # The optimiser's own order of parameters may differ (decayed ones first); gradients go by parameter.
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimiser.step()
    return parameters, optimiser


def adafactor_by_hand(start, gradients, *, rate, decay, decay_rate):
    """Shazeer & Stern 2018, algorithms 4 and 5, without relative steps and parameter scale."""
    values = [value.copy() for value in start]
    rows, columns, full = {}, {}, {}
    for step, grads in enumerate(gradients, 1):
        keep = 1.0 - step ** (-decay_rate)
        for i, gradient in enumerate(grads):
            square = gradient**2 + 1e-30
            if gradient.ndim >= 2:
                rows[i] = keep * rows.get(i, 0.0) + (1 - keep) * square.mean(-1)
                columns[i] = keep * columns.get(i, 0.0) + (1 - keep) * square.mean(-2)
                estimate = rows[i][..., :, None] * columns[i][..., None, :] / rows[i].mean(-1, keepdims=True)[..., None]
            else:
                full[i] = keep * full.get(i, 0.0) + (1 - keep) * square
                estimate = full[i]
            update = gradient / np.sqrt(estimate)
            update = update / max(1.0, np.sqrt((update**2).mean()))
            values[i] = values[i] * (1 - rate * decay) - rate * update
    return values


def test_adafactor_is_the_update_of_the_paper():
    start, gradients = weights_and_gradients()
    config = FitConfig(steps=1, optimiser="adafactor", learning_rate=0.5, weight_decay=1e-5, decay_vectors=True)
    got, _ = run(config, start, gradients)
    expected = adafactor_by_hand(start, gradients, rate=0.5, decay=1e-5, decay_rate=0.8)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine.detach().numpy(), theirs, rtol=1e-9)


def test_adamw_is_the_update_of_the_paper():
    start, gradients = weights_and_gradients()
    config = FitConfig(
        steps=1,
        learning_rate=0.01,
        betas=(0.8, 0.95),
        eps=1e-6,
        weight_decay=0.1,
        decay_vectors=True,
    )
    got, _ = run(config, start, gradients)
    for i, value in enumerate(start):
        first, second = np.zeros_like(value), np.zeros_like(value)
        for step, grads in enumerate(gradients, 1):
            first = 0.8 * first + 0.2 * grads[i]
            second = 0.95 * second + 0.05 * grads[i] ** 2
            value = value * (1 - 0.01 * 0.1)
            value = value - 0.01 * (first / (1 - 0.8**step)) / (np.sqrt(second / (1 - 0.95**step)) + 1e-6)
        np.testing.assert_allclose(got[i].detach().numpy(), value, rtol=1e-9)


def test_sgd_with_momentum_and_decoupled_decay():
    start, gradients = weights_and_gradients()
    config = FitConfig(steps=1, optimiser="sgd", learning_rate=0.01, momentum=0.9, weight_decay=0.1, decay_vectors=True)
    got, _ = run(config, start, gradients)
    for i, value in enumerate(start):
        speed = np.zeros_like(value)
        for grads in gradients:
            speed = 0.9 * speed + grads[i]
            value = value * (1 - 0.01 * 0.1) - 0.01 * speed
        np.testing.assert_allclose(got[i].detach().numpy(), value, rtol=1e-9)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "sgd"])
def test_the_state_goes_there_and_back_to_the_same_bits(name):
    start, gradients = weights_and_gradients()
    config = FitConfig(steps=1, optimiser=name, learning_rate=0.1, momentum=0.9, weight_decay=0.1)
    whole, _ = run(config, start, gradients)
    half, optimiser = run(config, start, gradients[:5])
    tensors, numbers = optimiser_state(optimiser)
    assert all(isinstance(value, torch.Tensor) for value in tensors.values())
    assert all(isinstance(value, int | float) for value in numbers.values())
    tensors = {key: value.clone() for key, value in tensors.items()}
    parameters = [nn.Parameter(p.detach().clone()) for p in half]
    fresh = create_optimiser(config, [TrainedPart("all", parameters)])
    restore_optimiser_state(fresh, tensors, numbers)
    run(config, start, gradients[5:], fresh, parameters)
    for mine, theirs in zip(parameters, whole, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("linear", "linear"),
        ("cosine", "cosine"),
        ("constant", "constant_with_warmup"),
        ("inverse-sqrt", "inverse_sqrt"),
    ],
)
@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_schedules_have_the_values_of_transformers(ours, theirs, warmup):
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(theirs, optimiser, num_warmup_steps=warmup, num_training_steps=40)
    for step in range(40):
        mine = learning_rate_factor(ours, step, steps=40, warmup=warmup)
        assert mine == pytest.approx(schedule.get_last_lr()[0], abs=1e-12), step
        optimiser.step()
        schedule.step()


def test_warmup_is_a_ratio_below_one_and_steps_from_one():
    assert [warmup_steps(value, 95) for value in (0, 0.1, 1, 500)] == [0, 10, 1, 500]
