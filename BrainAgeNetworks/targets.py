"""What a network's output means in years: a number, or a distribution over age bins."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.special import ndtr

from utils.common.errors import UserError


@dataclass(frozen=True)
class YearsTarget:
    """The output is the age minus the mean age of training, in years.

    Centred, so that an untrained network predicts the mean age and a short training starts there.
    """

    mean_age_years: float
    n_outputs: int = 1

    def years(self, outputs: torch.Tensor) -> torch.Tensor:
        """(B, 1) network output -> (B,) age, years."""
        return outputs[:, 0] + self.mean_age_years

    def check_ages(self, ages_years: torch.Tensor) -> None:
        """Every age can be expressed."""


@dataclass(frozen=True)
class BinsTarget:
    """The output is a distribution over age bins (log-softmax of it); the age is its mean.

    Source: Peng et al. 2021, Medical Image Analysis 68:101871, section 2.3: 40 bins of one year over
    42-82, soft labels from a Gaussian of SD 1 year integrated over each bin, KL divergence (figures
    as in the authors' release).
    """

    mean_age_years: float
    first_years: float = 42.0
    last_years: float = 82.0
    width_years: float = 1.0
    soft_label_sd_years: float = 1.0

    @property
    def n_outputs(self) -> int:
        """Number of bins."""
        return round((self.last_years - self.first_years) / self.width_years)

    def _edges(self, like: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(self.n_outputs + 1, dtype=like.dtype, device=like.device)
        return self.first_years + steps * self.width_years

    def years(self, outputs: torch.Tensor) -> torch.Tensor:
        """(B, bins) network output -> (B,) age, years: sum of bin centre times probability."""
        edges = self._edges(outputs)
        centres = (edges[:-1] + edges[1:]) / 2
        return outputs.softmax(dim=1) @ centres

    def soft_labels(self, ages_years: torch.Tensor) -> torch.Tensor:
        """(B,) years -> (B, bins) Gaussian mass in each bin."""
        z = (self._edges(ages_years)[None] - ages_years[:, None]) / self.soft_label_sd_years
        return ndtr(z).diff(dim=1)

    def check_ages(self, ages_years: torch.Tensor) -> None:
        """Refuse ages that no bin covers; such an age could never be predicted."""
        outside = (ages_years < self.first_years) | (ages_years > self.last_years)
        if outside.any():
            low, high = ages_years.min().item(), ages_years.max().item()
            raise UserError(
                f"{int(outside.sum())} of {len(ages_years)} ages lie outside the age bins "
                f"{self.first_years:g}-{self.last_years:g} (they span {low:.1f}-{high:.1f} years); set "
                "[NETWORK] age_bins to cover them, or use loss_function = mse."
            )


Target = YearsTarget | BinsTarget
_KINDS = {"years": YearsTarget, "bins": BinsTarget}


def target_to_dict(target: Target) -> dict[str, Any]:
    """Plain values for a checkpoint."""
    kind = next(name for name, cls in _KINDS.items() if isinstance(target, cls))
    return {"kind": kind, **asdict(target)}


def target_from_dict(content: dict[str, Any]) -> Target:
    """The target of a checkpoint."""
    content = dict(content)
    return _KINDS[content.pop("kind")](**content)
