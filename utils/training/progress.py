"""Where a network is within an epoch: its next step, and what its steps so far add up to."""

from __future__ import annotations

import math
from typing import Any

import torch


class EpochProgress:
    """Sums over the steps of one epoch; they stay on the device until they are read."""

    def __init__(self, device: torch.device):
        self.next_step = 0
        self.n_subjects = 0
        self.n_steps = 0
        self.device = device
        # loss over subjects, gradient norm over steps, the largest of these norms
        self._sums = torch.zeros(3, dtype=torch.float64, device=device)

    def add(self, step: int, losses: torch.Tensor, gradient_norm: torch.Tensor) -> None:
        """Take a finished step: (B,) losses, and the norm of its gradients before any clipping."""
        self._sums[0] += losses.double().sum()
        self._sums[1] += gradient_norm
        self._sums[2] = torch.maximum(self._sums[2], gradient_norm.double())
        self.n_subjects += len(losses)
        self.n_steps += 1
        self.next_step = step + 1

    @property
    def is_lost(self) -> bool:
        """Whether a loss was no finite number; on a GPU it shows at the end, so that no step waits for it."""
        return self.device.type == "cpu" and not math.isfinite(float(self._sums[0]))

    @property
    def mean_loss(self) -> float:
        """Mean over subjects; NaN before the first."""
        return float(self._sums[0]) / (self.n_subjects or math.nan)

    def gradient_norms(self) -> dict[str, float]:
        """Mean over steps, and the largest."""
        return {
            "gradient_norm": float(self._sums[1]) / (self.n_steps or math.nan),
            "largest_gradient_norm": float(self._sums[2]),
        }

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "next_step": self.next_step,
            "n_subjects": self.n_subjects,
            "n_steps": self.n_steps,
            "sums": self._sums.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a kept state."""
        self.next_step, self.n_subjects = state["next_step"], state["n_subjects"]
        self.n_steps = state["n_steps"]
        self._sums = torch.tensor(state["sums"], dtype=torch.float64, device=self.device)
