"""The average of weights: its formula by hand, its statistics, and that it is kept."""

from __future__ import annotations

import torch

from utils.training.averaging import WeightAverage


def with_weights(value: float) -> torch.nn.Module:
    network = torch.nn.BatchNorm1d(1)
    with torch.no_grad():
        network.weight.fill_(value)
    network.running_mean.fill_(10 * value)
    network.num_batches_tracked.fill_(int(value))
    return network


def test_the_formula_by_hand():
    average = WeightAverage(with_weights(1.0), decay=0.3)
    average.update(with_weights(2.0))  # decay_1 = 2 / 11
    assert torch.allclose(average.network.weight, torch.tensor([2 / 11 * 1 + 9 / 11 * 2]))
    before = average.network.weight.item()
    for _ in range(4):
        average.update(with_weights(2.0))
    before = average.network.weight.item()
    average.update(with_weights(5.0))  # (1 + 6) / (10 + 6) is above 0.3
    assert torch.allclose(average.network.weight, torch.tensor([0.3 * before + 0.7 * 5]))
    assert torch.allclose(average.network.running_mean, 10 * average.network.weight)
    assert average.network.num_batches_tracked.item() == 5
    assert not average.network.training and not average.network.weight.requires_grad


def test_an_average_of_equal_weights_is_these_weights():
    average = WeightAverage(with_weights(3.0), decay=0.99)
    for _ in range(20):
        average.update(with_weights(3.0))
    assert torch.equal(average.network.weight, torch.tensor([3.0]))


def test_a_kept_average_goes_on(same_to_the_bit):
    first, second = (WeightAverage(with_weights(1.0), decay=0.9) for _ in range(2))
    for value in (2.0, 4.0):
        first.update(with_weights(value))
    second.load_state_dict(first.state_dict())
    for average in (first, second):
        average.update(with_weights(7.0))
    assert same_to_the_bit(first.state_dict(), second.state_dict())
