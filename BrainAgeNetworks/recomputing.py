"""Training in little memory: pooled blocks keep what they pooled and recompute the rest, a sample at a time.

The first block of a network makes three quarters of all activations. Checkpointing whole blocks
(`torch.utils.checkpoint`) saves nothing: when the first block is recomputed, all of its activations are there at
once, and that is the worst moment anyway. Here no more than one sample's are there: batch-norm's mean and
variance, and the sums that its gradient needs, come from all samples of the batch, and everything else
belongs to one sample. So the results are those of the plain block but for rounding (sums are formed in
another order), at the price of one more forward convolution.

Two facts make it possible. Batch-norm followed by max-pooling picks the largest value of a convolution's
output where batch-norm's weight is positive, the smallest where it is negative: which voxels are picked does
not depend on the statistics. And batch-norm's gradient (Ioffe & Szegedy 2015, arXiv:1502.03167, section 3),

    dL/dc = weight / sd * (g - mean(g) - c' * mean(g * c')),   c' = (c - mean) / sd,

needs two sums over g, which is zero but for the picked voxels.
"""

from __future__ import annotations

import math
import types
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from BrainAgeNetworks.blocks import PooledBlock, update_running_statistics
from BrainAgeNetworks.fused import backend_for


def recompute(network: nn.Module) -> nn.Module:
    """Let the pooled blocks of a network recompute in training; the network itself is changed and returned.

    Weights, buffers and their names stay as they are; evaluation is not affected. A first block that is
    fused (`blocks.set_blocks`) stays so: it keeps no more, and is quicker.
    """
    for block in network.modules():
        if isinstance(block, PooledBlock):
            # a bound method, so that a copy of the network runs its own blocks
            block.forward = types.MethodType(_forward, block)  # type: ignore[method-assign]
    return network


def is_recomputing(network: nn.Module) -> bool:
    """Whether `recompute` was called on a network."""
    return any(
        "forward" in vars(block) for block in network.modules() if isinstance(block, PooledBlock)
    )


def _forward(block: PooledBlock, volumes: torch.Tensor) -> torch.Tensor:
    """(B, C, X, Y, Z) -> (B, C', X // 2, Y // 2, Z // 2), in the place of the block's own forward."""
    convolution, norm = block[0], block[1]
    if not _is_recomputed(block, volumes):
        return type(block).forward(block, volumes)
    assert isinstance(convolution, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)
    weight, bias, device = convolution.weight, convolution.bias, volumes.device.type
    # oneDNN's weight gradient in bfloat16 takes in memory that was never written if the first axis is 2
    is_faulty = device == "cpu" and volumes.shape[2] == 2
    if torch.is_autocast_enabled(device):
        dtype = torch.float32 if is_faulty else torch.get_autocast_dtype(device)
        volumes, weight = volumes.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(device, enabled=False):  # the types are chosen, forward and backward
        output, mean, variance = _PooledBlock.apply(
            volumes, weight, bias, norm.weight, norm.bias, norm.eps
        )
    n = len(volumes) * math.prod(volumes.shape[2:])
    update_running_statistics(norm, mean, variance * (n / (n - 1)))
    return output


def _is_recomputed(block: PooledBlock, volumes: torch.Tensor) -> bool:
    """Whether there is something to save: gradients are wanted, by the statistics of this batch."""
    convolution, norm = block[0], block[1]
    if type(norm) is not nn.BatchNorm3d or not (norm.training and torch.is_grad_enabled()):
        return False  # synchronised or frozen statistics, or nothing is kept anyway
    assert isinstance(convolution, nn.Conv3d)
    is_fused_first = (
        block.way == "fused"
        and convolution.in_channels == 1
        and not volumes.requires_grad
        and backend_for(volumes, convolution.out_channels, norm.weight.dtype) is not None
    )
    return not is_fused_first


class _PooledBlock(torch.autograd.Function):
    """Convolution, batch-norm by the batch's statistics, max-pooling, ReLU; also mean and variance (C',)."""

    @staticmethod
    def forward(
        ctx: Any,
        volumes: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: torch.Tensor,
        offset: torch.Tensor,
        epsilon: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sign = _sign(scale, volumes)
        box = [size // 2 for size in volumes.shape[2:]]
        extremes = volumes.new_empty((len(volumes), len(weight), *box))
        means, variances = [], []
        for volume, picked in zip(volumes.split(1), extremes.split(1)):
            convolved = _convolved(volume, weight, bias)
            variance, mean = torch.var_mean(_precise(convolved), (0, 2, 3, 4), correction=0)
            means.append(mean)
            variances.append(variance)
            picked.copy_(functional.max_pool3d(convolved.mul_(sign), 2).mul_(sign))
            del convolved  # or the next one would be made beside it
        # samples are equally large: the variance of all is the mean of variances and the means' variance
        between, mean = torch.var_mean(torch.stack(means), 0, correction=0)
        variance = torch.stack(variances).mean(0) + between
        one_over_sd = (variance + epsilon).rsqrt()
        slope = scale * one_over_sd
        output = _precise(extremes) * _each(slope)
        output = output.add_(_each(offset - mean * slope)).clamp_(min=0).to(volumes.dtype)
        ctx.save_for_backward(volumes, weight, bias, scale, extremes, output, mean, one_over_sd)
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        with torch.autocast(gradient.device.type, enabled=False):
            return _gradients(ctx, gradient)


def _gradients(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Of volumes, weight, bias, scale, offset and epsilon."""
    volumes, weight, bias, scale, extremes, output, mean, one_over_sd = ctx.saved_tensors
    n_values = len(volumes) * math.prod(volumes.shape[2:])
    sign = _sign(scale, volumes)
    outer = gradient * (output > 0)
    to_offset = _precise(outer).sum((0, 2, 3, 4))
    products = (_precise(extremes) - _each(mean)).mul_(outer)
    to_scale = products.sum((0, 2, 3, 4)) * one_over_sd
    del products
    # -mean(g) - c' * mean(g * c'), as a straight line in the convolution's output c
    tilt = -one_over_sd * to_scale / n_values
    level = -to_offset / n_values - tilt * mean
    slope = scale * one_over_sd
    wanted = [*ctx.needs_input_grad[:2], bias is not None and ctx.needs_input_grad[2]]
    to_volumes = torch.empty_like(volumes) if wanted[0] else None
    to_weight = torch.zeros_like(weight, dtype=_precise(weight).dtype)
    to_bias = None if bias is None else torch.zeros_like(bias, dtype=to_weight.dtype)
    for i, volume in enumerate(volumes.split(1)):
        convolved = _convolved(volume, weight, bias)
        where = functional.max_pool3d(convolved.mul_(sign), 2, return_indices=True)[1]
        convolved.mul_(_each(tilt * sign.flatten())).add_(_each(level))
        convolved = convolved.contiguous()
        convolved.flatten(2).scatter_add_(2, where.flatten(2), outer[i : i + 1].flatten(2))
        convolved.mul_(_each(slope))
        own = torch.ops.aten.convolution_backward(
            convolved, volume, weight, None if bias is None else [len(weight)],
            [1, 1, 1], _padding(weight), [1, 1, 1], False, [0, 0, 0], 1, wanted,
        )  # fmt: skip
        del convolved, where
        if to_volumes is not None:
            to_volumes[i] = own[0][0]
        if wanted[1]:
            to_weight += own[1]
        if to_bias is not None and wanted[2]:
            to_bias += own[2]
    return (
        to_volumes,
        to_weight.to(weight.dtype),
        None if to_bias is None or bias is None else to_bias.to(bias.dtype),
        to_scale.to(scale.dtype),
        to_offset.to(scale.dtype),
        None,
    )


def _convolved(
    volume: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    return functional.conv3d(volume, weight, bias, padding=_padding(weight))


def _padding(weight: torch.Tensor) -> list[int]:
    """So much that a convolution leaves the size as it is."""
    return [size // 2 for size in weight.shape[2:]]


def _precise(values: torch.Tensor) -> torch.Tensor:
    """In the type in which sums are formed: float32 for half precision."""
    return values.float() if values.dtype.itemsize < 4 else values


def _sign(scale: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """-1 where the smallest value is the one that pooling picks after batch-norm, else 1; (1, C', 1, 1, 1)."""
    return _each(torch.where(scale < 0, -1.0, 1.0).to(like.dtype))


def _each(channels: torch.Tensor) -> torch.Tensor:
    """(C',) beside (B, C', X, Y, Z)."""
    return channels[None, :, None, None, None]
