"""How far an output is from an age: one number a subject, so that means can be weighted by subjects."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

from BrainAgeNetworks.targets import BinsTarget, Target

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_loss(name: str, target: Target) -> Loss:
    """(outputs (B, n_outputs), ages_years (B,)) -> (B,) loss: years^2, years, or nats for `kl`."""
    if name == "mse":
        return lambda outputs, ages: (target.years(outputs) - ages).square()
    if name == "mae":
        return lambda outputs, ages: (target.years(outputs) - ages).abs()
    if name == "kl" and isinstance(target, BinsTarget):
        return lambda outputs, ages: soft_label_divergence(outputs, target.soft_labels(ages))
    raise ValueError(f"no loss called {name!r} for {type(target).__name__}")


def soft_label_divergence(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """KL divergence of soft labels from softmax(outputs), nats, (B,).

    Source: Peng et al. 2021, Medical Image Analysis 68:101871; the authors' release uses
    `KLDivLoss(reduction="sum") / batch` on log-softmax, which is the mean of this over the batch.
    """
    log_probabilities = outputs.log_softmax(dim=1)
    return functional.kl_div(log_probabilities, labels, reduction="none").sum(dim=1)
