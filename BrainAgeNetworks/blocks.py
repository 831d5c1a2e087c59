"""Building blocks the architectures share."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from BrainAgeNetworks.fused import backend_for
from utils.common.errors import UserError

Box = tuple[int, int, int]
WAYS = ("plain", "fused")


class Convolution(nn.Conv3d):
    """Conv3d with padding to the same size; on a CPU in bfloat16, with a gradient that is right.

    oneDNN's gradient of the weights in bfloat16 takes in memory that was never written where the first
    spatial axis is 2 (seen with torch 2.13: random gradients, infinite ones among them). There float32 is
    computed in, which costs nothing at that size.
    """

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """(B, n_in, X, Y, Z) -> (B, n_out, X, Y, Z)."""
        is_faulty = volumes.device.type == "cpu" and volumes.shape[2] == 2
        if is_faulty and self.weight.requires_grad and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(volumes.float())
        return super().forward(volumes)


class PooledBlock(nn.Sequential):
    """Conv3d 3x3x3 -> BatchNorm3d -> MaxPool3d 2 -> ReLU (halves X, Y and Z, rounding down).

    Two ways to compute it in training: `plain` calls the four modules one after another and is the
    reference; `fused` does the same, within rounding, in few kernels (`BrainAgeNetworks.fused`). Where
    these do not fit, and in evaluation, the plain way is taken.
    """

    way = "plain"

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """(B, n_in, X, Y, Z) -> (B, n_out, X // 2, Y // 2, Z // 2)."""
        if self.way == "plain" or not self._has_plain_layers():
            return super().forward(volumes)
        convolution, norm = self[0], self[1]
        assert isinstance(convolution, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)
        values = volumes
        of_volumes = convolution.in_channels == 1 and not volumes.requires_grad
        if not of_volumes:
            values = convolution(volumes)
        kernels = backend_for(values, convolution.out_channels, norm.weight.dtype)
        if kernels is None:
            return super().forward(volumes) if of_volumes else self[1:](values)
        if of_volumes:
            output, mean, variance, n = kernels.first_block(
                volumes, convolution.weight, convolution.bias, norm.weight, norm.bias, norm.eps
            )
        else:
            output, mean, variance, n = kernels.norm_pool_relu(
                values, norm.weight, norm.bias, norm.eps
            )
        update_running_statistics(norm, mean, variance * (n / (n - 1)))
        return output

    def _has_plain_layers(self) -> bool:
        """Whether the statistics are those of this batch, and of nothing but this batch."""
        # exactly these types: a subclass does more, as synchronised norms do
        return (
            len(self) == 4
            and type(self[0]) is Convolution
            and type(self[1]) is nn.BatchNorm3d
            and self[1].training  # a frozen layer keeps its statistics
        )


def pooled_block(n_in: int, n_out: int, bias: bool) -> PooledBlock:
    """A `PooledBlock` with fresh layers."""
    return PooledBlock(
        Convolution(n_in, n_out, kernel_size=3, padding=1, bias=bias),
        nn.BatchNorm3d(n_out),
        nn.MaxPool3d(kernel_size=2, stride=2),
        nn.ReLU(),
    )


def set_blocks(network: nn.Module, way: str) -> nn.Module:
    """Let all pooled blocks of a network compute in this way, "plain" or "fused"; gives the network."""
    if way not in WAYS:
        raise ValueError(f"no way called {way!r} to compute a block; there are {', '.join(WAYS)}")
    for block in network.modules():
        if isinstance(block, PooledBlock):
            block.way = way
    return network


@torch.no_grad()
def update_running_statistics(
    norm: nn.BatchNorm3d, mean: torch.Tensor, variance: torch.Tensor
) -> None:
    """What batch-norm does in training with a batch's mean and unbiased variance, (C,) each."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


def unpooled_block(n_in: int, n_out: int, bias: bool, kernel_size: int) -> nn.Sequential:
    """Conv3d -> BatchNorm3d -> ReLU; X, Y and Z stay."""
    return nn.Sequential(
        Convolution(n_in, n_out, kernel_size, padding=kernel_size // 2, bias=bias),
        nn.BatchNorm3d(n_out),
        nn.ReLU(),
    )


def blocks(widths: tuple[int, ...], n_poolings: int, bias: bool) -> list[nn.Module]:
    """3x3x3 blocks of these widths from one channel on; the first `n_poolings` of them pool."""
    return [
        pooled_block(n_in, n_out, bias)
        if i < n_poolings
        else unpooled_block(n_in, n_out, bias, kernel_size=3)
        for i, (n_in, n_out) in enumerate(itertools.pairwise((1, *widths)))
    ]


def checked_poolings(n_poolings: int | None, n_blocks: int) -> int:
    """How many of so many blocks pool: all, unless a plan says otherwise.

    Raises
    ------
    UserError
        More poolings than blocks, or less than none.
    """
    if n_poolings is None:
        return n_blocks
    if not 0 <= n_poolings <= n_blocks:
        raise UserError(
            f"{n_poolings} poolings are asked of {n_blocks} blocks that can pool; "
            f"give a number from 0 to {n_blocks}, or other widths in [NETWORK]."
        )
    return n_poolings


def doubled(upsample: bool) -> nn.Module:
    """x2 in each axis, trilinear with aligned corners; or nothing."""
    if upsample:
        return nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True)
    return nn.Identity()


def in_float32(layers: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Layers that are cheap and that the age is read from: not in autocast's type."""
    if values.device.type == "meta":  # shapes alone; autocast does not know it
        return layers(values)
    with torch.autocast(values.device.type, enabled=False):
        return layers(values.float() if values.dtype.itemsize < 4 else values)


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
