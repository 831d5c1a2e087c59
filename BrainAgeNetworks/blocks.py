"""Building blocks the architectures share."""

from __future__ import annotations

from torch import nn

from utils.common.errors import UserError

Box = tuple[int, int, int]


def pooled_block(n_in: int, n_out: int, bias: bool) -> nn.Sequential:
    """Conv3d 3x3x3 -> BatchNorm3d -> MaxPool3d 2 -> ReLU (halves X, Y and Z, rounding down)."""
    return nn.Sequential(
        nn.Conv3d(n_in, n_out, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm3d(n_out),
        nn.MaxPool3d(kernel_size=2, stride=2),
        nn.ReLU(),
    )


def pointwise_block(n_in: int, n_out: int, bias: bool) -> nn.Sequential:
    """Conv3d 1x1x1 -> BatchNorm3d -> ReLU."""
    return nn.Sequential(
        nn.Conv3d(n_in, n_out, kernel_size=1, bias=bias), nn.BatchNorm3d(n_out), nn.ReLU()
    )


def pooled_box(box: Box, n_poolings: int) -> Box:
    """(X, Y, Z) after so many halvings.

    Raises
    ------
    UserError
        An axis would vanish; the message gives the smallest box.
    """
    pooled = tuple(size // 2**n_poolings for size in box)
    if min(pooled) < 1:
        raise UserError(
            f"an input of {' x '.join(map(str, box))} voxels is too small for {n_poolings} poolings "
            f"(each axis needs {2**n_poolings}); give fewer widths in [NETWORK] or a larger crop."
        )
    return pooled  # type: ignore[return-value]
