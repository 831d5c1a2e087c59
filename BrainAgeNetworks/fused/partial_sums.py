"""What the programs of a GPU kernel sum, each for itself, and the sums of all: in float64, in a fixed order."""

from __future__ import annotations

import torch

# Tiles a program of the forward kernels does before it writes its sums: at twelve volumes 7,200 rows of
# 32 channels, 3.7 MB beside gigabytes. More would make the bound on cancellation (triton_convolution) loose.
TILES = 16


def empty_sums(
    like: torch.Tensor, n_cells: int, cells: int, n_channels: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Room for each program's shift, sum, sum of squares (P, C) and number of values (P,)."""
    programs = -(-n_cells // (cells * TILES))
    shift, total, squares = (
        torch.empty(programs, n_channels, device=like.device) for _ in range(3)
    )
    return shift, total, squares, torch.empty(programs, device=like.device)


def total(partial: torch.Tensor) -> torch.Tensor:
    """The programs' sums together, float64."""
    return partial.sum(dim=0, dtype=torch.float64)


def statistics(
    shift: torch.Tensor, total: torch.Tensor, squares: torch.Tensor, count: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums about each program's own shift -> mean and biased variance of all, (C,) float64.

    The programs' means and sums of squares about them, put together as in Chan, Golub & LeVeque
    1983, The American Statistician 37:242, doi 10.2307/2683386.
    """
    count = count.double()[:, None]
    total = total.double()
    means = shift.double() + total / count
    about_means = squares.double() - total.square() / count
    n = count.sum()
    mean = (count * means).sum(dim=0) / n
    variance = (about_means + count * (means - mean).square()).sum(dim=0) / n
    return mean, variance.clamp(min=0.0)
