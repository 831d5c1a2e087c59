"""Losses, one number a subject, against torch and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn

from BrainAgeNetworks.targets import BinsTarget, YearsTarget
from utils.training.losses import build_loss, soft_label_divergence

OUTPUTS = torch.tensor([[1.0], [-2.0], [0.5]])
AGES = torch.tensor([60.0, 61.0, 70.0])


def test_mse_and_mae_are_in_years():
    target = YearsTarget(62.0)  # predictions 63, 60, 62.5
    assert build_loss("mse", target)(OUTPUTS, AGES).tolist() == [9.0, 1.0, 56.25]
    assert build_loss("mae", target)(OUTPUTS, AGES).tolist() == [3.0, 1.0, 7.5]
    predicted = target.years(OUTPUTS)
    assert build_loss("mse", target)(OUTPUTS, AGES).mean() == nn.MSELoss()(predicted, AGES)


def test_kl_against_scipy_and_torch():
    target = BinsTarget(62.0)
    ages = torch.tensor([43.0, 60.25, 81.5], dtype=torch.float64)
    torch.manual_seed(0)
    outputs = torch.randn(3, 40, dtype=torch.float64)
    found = build_loss("kl", target)(outputs, ages)
    labels = np.diff(stats.norm.cdf(np.arange(42, 83)[None], loc=ages.numpy()[:, None]), axis=1)
    log_q = special.log_softmax(outputs.numpy(), axis=1)
    expected = (special.xlogy(labels, labels) - labels * log_q).sum(axis=1)
    assert np.allclose(found.numpy(), expected, rtol=1e-10)
    published = nn.KLDivLoss(reduction="sum")(
        outputs.log_softmax(1), torch.from_numpy(labels)
    ) / len(ages)
    assert found.mean().item() == pytest.approx(published.item(), rel=1e-10)


def test_kl_is_zero_for_the_labels_themselves_and_has_finite_gradients():
    labels = BinsTarget(62.0).soft_labels(torch.tensor([62.5], dtype=torch.float64))
    outputs = labels.clamp(min=1e-12).log().requires_grad_()
    loss = soft_label_divergence(outputs, labels)
    assert abs(loss.item()) < 1e-9
    loss.sum().backward()
    assert torch.isfinite(outputs.grad).all()


def test_every_loss_is_one_number_a_subject():
    for name, target in (("mse", YearsTarget(62.0)), ("kl", BinsTarget(62.0))):
        outputs = torch.randn(3, target.n_outputs)
        together = build_loss(name, target)(outputs, AGES)
        alone = [build_loss(name, target)(outputs[i : i + 1], AGES[i : i + 1]) for i in range(3)]
        assert together.shape == (3,)
        assert torch.allclose(together, torch.cat(alone))


def test_losses_that_do_not_fit():
    for name, target in (("kl", YearsTarget(62.0)), ("huber", YearsTarget(62.0))):
        with pytest.raises(ValueError, match=f"no loss called '{name}' for YearsTarget"):
            build_loss(name, target)
