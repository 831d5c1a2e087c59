"""Stop when the validation loss no longer falls."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Counts epochs without a gain of more than `min_delta` in validation loss."""

    patience_epochs: int
    min_delta: float = 0.0
    min_epochs: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0

    def update(self, loss: float, epoch: int) -> bool:
        """Take an epoch's loss; True if it is the best so far. NaN never is."""
        if loss < self.best_loss - self.min_delta:
            self.best_loss, self.best_epoch = loss, epoch
            return True
        return False

    def update_to(self, loss: float, epoch: int) -> None:
        """Let this epoch be the best so far, whatever was before."""
        self.best_loss, self.best_epoch = loss, epoch

    def should_stop(self, epoch: int) -> bool:
        """Whether patience has run out at the end of this epoch."""
        return epoch >= self.min_epochs and epoch - self.best_epoch >= self.patience_epochs

    def state_dict(self) -> dict[str, float | int]:
        """What has to be kept to continue."""
        return {"best_loss": self.best_loss, "best_epoch": self.best_epoch}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Continue from a kept state."""
        self.best_loss, self.best_epoch = float(state["best_loss"]), int(state["best_epoch"])
