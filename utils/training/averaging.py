"""An average of a network's weights over its training steps, which is often better than the last ones."""

from __future__ import annotations

import copy
from typing import Any

import torch


class WeightAverage:
    """Exponential moving average of weights and batch-norm statistics; `network` carries it.

    average <- decay_n * average + (1 - decay_n) * weights after step n, with
    decay_n = min(decay, (1 + n) / (10 + n)), so that the first, poor weights are forgotten soon.

    Source: Polyak & Juditsky 1992, SIAM J. Control Optim. 30:838, for averaging; the form of decay_n is
    that of TensorFlow's `ExponentialMovingAverage(num_updates=...)`.
    """

    def __init__(self, network: torch.nn.Module, decay: float):
        self.decay, self.n_steps = decay, 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, network: torch.nn.Module) -> None:
        """Take the weights after a step."""
        self.n_steps += 1
        share = 1 - min(self.decay, (1 + self.n_steps) / (10 + self.n_steps))
        for mean, value in zip(self.network.state_dict().values(), network.state_dict().values()):
            if mean.is_floating_point():
                mean.lerp_(value, share)
            else:
                mean.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """What has to be kept to continue."""
        return {"n_steps": self.n_steps, "weights": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a kept state."""
        self.n_steps = state["n_steps"]
        self.network.load_state_dict(state["weights"])
