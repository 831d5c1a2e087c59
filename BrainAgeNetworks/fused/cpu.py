"""The fused blocks on the CPU, with Numba's kernels; the plain modules stay the reference.

What they save is memory traffic and, more than that, fresh pages: the full-resolution output of the first
convolution is never written, and that of a later one is read once forwards and once backwards.

Two facts carry it. Batch-norm is an affine map of each channel, so the statistics of the first block
follow from sums over the input (`cpu_convolution`) and can be put into the weights before convolving; and
in the gradient of batch-norm (Ioffe & Szegedy 2015, arXiv 1502.03167, section 3), with g the gradient that
ReLU let through, at the voxels that won the pooling, n values a channel, y^ = (y - mean) / sd,

    dy = gamma / sd * (g - sum(g) / n - y^ * sum(g y^) / n),

the first term is sparse and the others are affine in y. For the first block, y = W P, so with
T = g P^T, s = P 1 and G = P P^T,

    dgamma = (sum over taps of W * T - mean * dbeta) / sd
    dW     = gamma / sd * (T - dbeta / n * s^T - dgamma / (n sd) * W (G - s s^T / n)).

Sums are float32 within a row and float64 beyond, in a fixed order whatever the number of threads. In
float64 everything is float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from BrainAgeNetworks.fused.cpu_convolution import (
    N_LAGS,
    convolve_and_pool,
    lagged_products,
    weigh_patches,
)
from BrainAgeNetworks.fused.cpu_pooling import (
    find_extremes,
    scale_and_rectify,
    spread_gradient,
    sum_gradient,
)
from BrainAgeNetworks.fused.slabs import work_on_slabs

_LANES = (16, 8, 4)  # numbers in a vector: the most that divides the channels
_LAG_LANES = (0,) * 16


def fits(n_channels: int, values: torch.dtype, weights: torch.dtype) -> bool:
    """Whether the kernels are made for so many channels of these types."""
    kinds = {torch.float32: (torch.float32, torch.bfloat16), torch.float64: (torch.float64,)}
    return n_channels % _LANES[-1] == 0 and values in kinds.get(weights, ())


def first_block(
    volumes: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Conv3d 3x3x3 (padding 1) of one channel -> BatchNorm (batch statistics) -> MaxPool 2 -> ReLU.

    Parameters
    ----------
    volumes
        (B, 1, X, Y, Z); gets no gradient.
    weight, bias
        (C, 1, 3, 3, 3), (C,) or None; the bias's gradient is zero by the mathematics.
    gamma, beta, eps
        Batch-norm's weight (C,), bias (C,) and the number added to the variance.

    Returns
    -------
    out, mean, variance, n
        (B, C, X // 2, Y // 2, Z // 2), channels last, in autocast's type where it is on, else that of
        the weights; the batch's mean and biased variance (C,) without gradient; values per channel.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    out, mean, variance = _FirstBlock.apply(volumes, weight, bias, gamma, beta, eps, dtype)
    return out, mean, variance, volumes.numel()


def norm_pool_relu(
    values: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """BatchNorm (batch statistics) -> MaxPool 2 -> ReLU of a convolution's output.

    values (B, C, X, Y, Z), float32, float64 or bf16, best channels last (else copied so); the rest and
    what is returned as for `first_block`, out in the type of values.
    """
    out, mean, variance = _NormPoolReLU.apply(values, gamma, beta, eps)
    return out, mean, variance, values.numel() // values.shape[1]


def convolve_pool_relu(
    volumes: torch.Tensor, weight: torch.Tensor, shift: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """ReLU(MaxPool 2 (Conv3d 3x3x3, padding 1, of one channel) + shift), and the winners' places.

    (B, 1, X, Y, Z), (C, 1, 3, 3, 3), (C,) -> (B, C, X // 2, Y // 2, Z // 2), channels last, of `dtype`;
    places 0..7 as uint8, x the slowest.
    """
    volumes = _voxels(volumes, weight.dtype)
    n, size_x, size_y, size_z = volumes.shape
    n_channels = len(weight)
    lanes = _lanes(n_channels)
    taps = weight.reshape(-1, len(lanes), 27).transpose(1, 2).contiguous()
    out, which = (
        torch.empty((n, size_x // 2, size_y // 2, size_z // 2, n_channels), dtype=kind)
        for kind in (dtype, torch.uint8)
    )
    arguments = (_array(volumes), *map(_flat, (taps, shift.contiguous(), out, which)), lanes)
    work_on_slabs(n * (size_x // 2), lambda *slabs: convolve_and_pool(*arguments, *slabs))
    return _channels_second(out), _channels_second(which)


class _FirstBlock(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        volumes: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        s, g = _sums_of_patches(_voxels(volumes, weight.dtype))
        n = volumes.numel()
        w = weight.double().reshape(-1, 27)
        mean = w @ (s / n)
        covariance = g / n - torch.outer(s / n, s / n)
        variance = ((w @ covariance) * w).sum(dim=1).clamp(min=0)
        scale = gamma.double() * (variance + eps).rsqrt()
        folded = (w * scale[:, None]).to(weight.dtype)
        shift = (beta.double() - mean * scale).to(weight.dtype)
        out, which = convolve_pool_relu(volumes, folded, shift, dtype)
        ctx.save_for_backward(volumes, weight, gamma, out, which, mean, variance, s, g)
        ctx.eps, ctx.has_bias = eps, bias is not None
        mean = mean if bias is None else mean + bias
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        volumes, weight, gamma, out, which, mean, variance, s, g = ctx.saved_tensors
        t, d_beta = _weighed_patches(volumes, gradient, out, which, weight.dtype)
        n = volumes.numel()
        w = weight.double().reshape(-1, 27)
        inverse_sd = (variance + ctx.eps).rsqrt()
        d_gamma = inverse_sd * ((w * t).sum(dim=1) - mean * d_beta)
        along_y = w @ (g - torch.outer(s, s) / n) * (inverse_sd * d_gamma)[:, None]
        d_weight = t - (torch.outer(d_beta, s) + along_y) / n
        d_weight = d_weight * (gamma.double() * inverse_sd)[:, None]
        return (
            None,
            d_weight.reshape(weight.shape).to(weight.dtype),
            torch.zeros(len(weight), dtype=weight.dtype) if ctx.has_bias else None,
            d_gamma.to(gamma.dtype),
            d_beta.to(gamma.dtype),
            None,
            None,
        )


class _NormPoolReLU(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, values: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = _channels_last(values)
        n, *box, n_channels = y.shape
        lanes = _lanes(n_channels)
        pooled = (n, *(size // 2 for size in box), n_channels)
        n_slabs = n * pooled[1]
        kind = gamma.dtype
        pivot = y[0, 0, 0, 0].to(kind)  # any value of the channel: squares of small numbers
        sign = gamma.sign()
        extremes, which = (torch.empty(pooled, dtype=dtype) for dtype in (y.dtype, torch.uint8))
        sums = np.empty((n_slabs, 2 * n_channels))
        arguments = (*map(_flat, (y, sign, pivot, extremes, which)), sums, tuple(box), lanes)
        work_on_slabs(n_slabs, lambda *slabs: find_extremes(*arguments, *slabs))

        count = y.numel() // n_channels
        moments = torch.from_numpy(sums.sum(axis=0)) / count
        above_pivot, squares = moments[:n_channels], moments[n_channels:]
        mean = pivot.double() + above_pivot
        variance = (squares - above_pivot.square()).clamp(min=0)
        scale = gamma.double() * (variance + eps).rsqrt()
        shift = (beta.double() - mean * scale).to(kind)
        scale = scale.to(kind)
        out = torch.empty(pooled, dtype=y.dtype)
        rectify = (*map(_flat, (extremes, scale, shift, out)), lanes)
        work_on_slabs(
            out.numel() // n_channels, lambda *voxels: scale_and_rectify(*rectify, *voxels)
        )
        ctx.save_for_backward(values, gamma, extremes, which, scale, shift, mean, variance)
        ctx.eps = eps
        mean, variance = mean.to(kind), variance.to(kind)
        ctx.mark_non_differentiable(mean, variance)
        return _channels_second(out), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        values, gamma, extremes, which, scale, shift, mean, variance = ctx.saved_tensors
        y = _channels_last(values)
        n, *box, n_channels = y.shape
        lanes = _lanes(n_channels)
        gradient = _channels_last(gradient.to(y.dtype))
        n_slabs = n * (box[0] // 2)
        kind = gamma.dtype
        pivot = mean.to(kind)
        sums = np.empty((n_slabs, 2 * n_channels))
        arguments = map(_flat, (gradient, extremes, scale, shift, pivot))
        summing = (*arguments, sums, which.numel() // n_channels // n_slabs, lanes)
        work_on_slabs(n_slabs, lambda *slabs: sum_gradient(*summing, *slabs))

        count = y.numel() // n_channels
        totals = torch.from_numpy(sums.sum(axis=0))
        d_beta = totals[:n_channels]
        inverse_sd = (variance + ctx.eps).rsqrt()
        d_gamma = (totals[n_channels:] - (mean - pivot.double()) * d_beta) * inverse_sd
        slope = -gamma.double() * inverse_sd.square() * d_gamma / count
        offset = -gamma.double() * inverse_sd * d_beta / count - mean * slope
        d_values = torch.empty_like(y)
        spreading = (
            *map(_flat, (y, gradient, extremes, which, scale, shift)),
            *map(_flat, (offset.to(kind), slope.to(kind), d_values)),
        )
        boxes = (tuple(box), lanes)
        work_on_slabs(n_slabs, lambda *slabs: spread_gradient(*spreading, *boxes, *slabs))
        return _channels_second(d_values), d_gamma.to(kind), d_beta.to(kind), None


def _weighed_patches(
    volumes: torch.Tensor,
    gradient: torch.Tensor,
    out: torch.Tensor,
    which: torch.Tensor,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """T = g P^T (C, 27) and sum of g (C,), float64."""
    voxels = _voxels(volumes, dtype)
    n_channels = out.shape[1]
    lanes = _lanes(n_channels)
    pooled = [_flat(_channels_last(x)) for x in (gradient.to(out.dtype), out, which)]
    n_slabs = len(voxels) * (voxels.shape[1] // 2)
    weighted, sums = np.empty((n_slabs, n_channels * 27)), np.empty((n_slabs, n_channels))
    like = _flat(torch.zeros(n_channels, dtype=dtype))
    arguments = (_array(voxels), *pooled, weighted, sums, like, lanes)
    work_on_slabs(n_slabs, lambda *slabs: weigh_patches(*arguments, *slabs))
    t = torch.from_numpy(weighted.sum(axis=0)).reshape(-1, 27, len(lanes)).transpose(1, 2)
    return t.reshape(n_channels, 27), torch.from_numpy(sums.sum(axis=0))


def _sums_of_patches(volumes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """s = P 1 (27,) and G = P P^T (27, 27) of the patches P (27, n) of (B, X, Y, Z), float64.

    Two taps meet the same voxels at a lag, except at the faces: a tap at -1 never meets the last voxel.
    """
    n, size_x, *_ = volumes.shape
    per_plane = np.empty((n * size_x, 3, 3, N_LAGS))
    arguments = (_array(volumes), per_plane, _LAG_LANES)
    work_on_slabs(n * size_x, lambda *planes: lagged_products(*arguments, *planes))
    planes = per_plane.reshape(n, size_x, 3, 3, N_LAGS).sum(axis=0)
    faces = np.stack([planes[0], planes[1:-1].sum(axis=0), planes[-1]])  # (3, 3, 3, lags)
    first_others_last = (slice(0, 2), slice(0, 3), slice(1, 3))  # what taps -1, 0, 1 meet
    s, g = np.empty(27), np.empty((27, 27))
    steps = list(np.ndindex(3, 3, 3))
    for i, tap in enumerate(steps):
        met = faces[tuple(first_others_last[t] for t in tap)].sum(axis=(0, 1, 2))
        s[i] = met[-1]
        for j in range(i, 27):
            lag = np.subtract(steps[j], tap)  # the first axis that differs has it above 0
            g[i, j] = g[j, i] = met[(lag[0] * 5 + lag[1] + 2) * 5 + lag[2] + 2]
    return torch.from_numpy(s), torch.from_numpy(g)


def _lanes(n_channels: int) -> tuple[int, ...]:
    return (0,) * next(n for n in _LANES if n_channels % n == 0)


def _voxels(volumes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(B, 1, X, Y, Z) -> (B, X, Y, Z), contiguous."""
    return volumes.detach()[:, 0].to(dtype).contiguous()


def _channels_last(values: torch.Tensor) -> torch.Tensor:
    """(B, C, X, Y, Z) -> (B, X, Y, Z, C), contiguous."""
    return values.permute(0, 2, 3, 4, 1).contiguous()


def _channels_second(values: torch.Tensor) -> torch.Tensor:
    """(B, X, Y, Z, C) -> (B, C, X, Y, Z) in the same memory."""
    return values.permute(0, 4, 1, 2, 3)


def _array(tensor: torch.Tensor) -> np.ndarray:
    """The same numbers for Numba, which knows no bfloat16: its bits."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _flat(tensor: torch.Tensor) -> np.ndarray:
    return _array(tensor).reshape(-1)
