"""What an output means in years: soft labels and expected ages against scipy and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from BrainAgeNetworks.targets import BinsTarget, YearsTarget, target_from_dict, target_to_dict
from utils.common.errors import UserError

BINS = BinsTarget(60.0)


def test_years_are_about_the_mean_of_training():
    target = YearsTarget(63.5)
    assert target.years(torch.tensor([[0.0], [-2.5]])).tolist() == [63.5, 61.0]
    target.check_ages(torch.tensor([3.0, 119.0]))


def test_soft_labels_are_gaussian_mass_of_each_bin():
    ages = np.array([42.0, 50.3, 63.5, 81.9])
    edges = np.arange(42, 83)
    expected = np.diff(stats.norm.cdf(edges[None], loc=ages[:, None], scale=1.0), axis=1)
    labels = BINS.soft_labels(torch.from_numpy(ages))
    assert labels.shape == (4, 40)
    assert np.allclose(labels.numpy(), expected, atol=1e-12)
    # by hand: an age in the middle of its bin has 38.3 % there and 24.2 % in each neighbour
    middle = labels[2].numpy()
    assert middle[21] == pytest.approx(0.3829249, abs=1e-6)
    assert middle[[20, 22]] == pytest.approx([0.2417303, 0.2417303], abs=1e-6)


def test_other_bins_and_spreads():
    target = BinsTarget(60.0, 40.0, 90.0, 2.5, 3.0)
    assert target.n_outputs == 20
    expected = np.diff(stats.norm.cdf(np.arange(40, 91, 2.5), loc=55.0, scale=3.0))
    labels = target.soft_labels(torch.tensor([55.0], dtype=torch.float64))
    assert np.allclose(labels[0].numpy(), expected, atol=1e-12)


def test_the_age_is_the_mean_of_bin_centres():
    outputs = torch.full((2, 40), -1e9)
    outputs[0, 0] = 0.0  # all in the first bin: 42.5
    outputs[1, 10] = outputs[1, 20] = 3.0  # half at 52.5, half at 62.5
    assert BINS.years(outputs).tolist() == [42.5, 57.5]
    assert BINS.years(torch.zeros(1, 40)).tolist() == [62.0]


def test_a_perfect_output_gives_the_age_back():
    ages = torch.tensor([55.2, 62.0, 70.9], dtype=torch.float64)
    perfect = BINS.soft_labels(ages).clamp(min=1e-300).log()
    assert torch.allclose(BINS.years(perfect), ages, atol=1e-6)


def test_ages_that_no_bin_covers_are_refused_with_the_range():
    BINS.check_ages(torch.tensor([42.0, 82.0]))
    with pytest.raises(UserError) as caught:
        BINS.check_ages(torch.tensor([41.5, 60.0, 85.25]))
    said = str(caught.value)
    assert "2 of 3 ages lie outside the age bins 42-82" in said
    assert "41.5-85.2 years" in said and "[NETWORK] age_bins" in said


@pytest.mark.parametrize("target", [YearsTarget(61.25), BinsTarget(61.25, 40.0, 90.0, 2.5, 3.0)])
def test_a_target_survives_its_dictionary(target):
    assert target_from_dict(target_to_dict(target)) == target
