"""Batch-norm whose training statistics are those of all processes; torch's own refuses the CPU.

With S the sum over all subjects and voxels of all processes, N their number, m = S(x) / N,
v = S((x - m)^2) / N and x' = (x - m) / sqrt(v + eps), the output is y = weight * x' + bias, and

    dL/dx = weight / sqrt(v + eps) * (g - S(g) / N - x' * S(g * x') / N),   g = dL/dy.

Each process adds up its own part of S; one exchange of 2 C + 1 numbers forward and 2 C backward does the
rest. Gradients of weight and bias stay this process's part, as those of all other layers do.

Source: Ioffe & Szegedy 2015, arXiv:1502.03167, section 3.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class SynchronisedNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.BatchNorm3d` over the subjects of all processes; names, weights and running statistics are its.

    Processes may have different numbers of subjects. Not a subclass of `nn.BatchNorm3d`: whatever computes
    such a layer in its own way, with this process's statistics, must not take it for one.
    """

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        """(B, C, X, Y, Z) of this process; in training every process has to come here in the same order."""
        self._check_input_dim(volumes)
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(volumes)
        return _Normalised.apply(volumes, self.weight, self.bias, self)

    def _check_input_dim(self, volumes: torch.Tensor) -> None:
        if volumes.dim() != 5:
            raise ValueError(f"expected 5 axes, not {volumes.dim()}")

    @torch.no_grad()
    def track(self, mean: torch.Tensor, variance: torch.Tensor, n: torch.Tensor) -> None:
        """Move the running statistics towards those of a batch of `n` values a channel, unbiased."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * (n / (n - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        volumes: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        norm: SynchronisedNorm,
    ) -> torch.Tensor:
        mean, variance, n = _statistics_of_all(volumes, weight.dtype)
        norm.track(mean, variance, n)
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        context.save_for_backward(volumes, weight, mean, variance, n)
        context.eps = norm.eps
        # with given statistics batch-norm is one pass over the volumes
        return functional.batch_norm(volumes, mean, variance, weight, bias, eps=norm.eps)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        volumes, weight, mean, variance, n = context.saved_tensors
        # as if the statistics were constants: weight / sd * g, S(g * x') and S(g) of this process
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, volumes, weight, mean, variance, None, None, False, context.eps, [True] * 3
        )
        sums = torch.stack([to_weight, to_bias]).double()
        dist.all_reduce(sums)
        along, constant = (sums / n).to(weight.dtype)
        # what the statistics add is linear in the volumes: -weight / sd * (constant + x' * along)
        per_sd = torch.rsqrt(variance + context.eps)
        slope = -weight * per_sd.square() * along
        offset = -weight * per_sd * constant - slope * mean
        dtype = direct.dtype
        direct.addcmul_(volumes, _a_channel(slope).to(dtype)).add_(_a_channel(offset).to(dtype))
        return direct, to_weight, to_bias, None


def _statistics_of_all(
    volumes: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean and variance (C,), and the number of values, over all processes; float64.

    `dtype` is that of the layer's weights: statistics of bfloat16 volumes are formed in float32.
    """
    n_channels = volumes.shape[1]
    # its running statistics are not wanted, but say in which type to compute
    unused = volumes.new_zeros((2, n_channels), dtype=dtype)
    mean, variance = torch.batch_norm_update_stats(volumes, unused[0], unused[1], 0.0)
    mean, variance = mean.double(), variance.double()
    n_here = volumes.numel() // n_channels
    # in float64 the mean square less the squared mean loses nothing that float32 has
    count = mean.new_full((1,), n_here)
    sums = torch.cat([n_here * mean, n_here * (variance + mean.square()), count])
    dist.all_reduce(sums)
    n = sums[-1]
    mean, square = (sums[:-1] / n).split(n_channels)
    return mean, (square - mean.square()).clamp_min(0), n


def _a_channel(values: torch.Tensor) -> torch.Tensor:
    """(C,) against (B, C, X, Y, Z)."""
    return values[:, None, None, None]


def synchronise_norms(network: nn.Module) -> nn.Module:
    """Put a SynchronisedNorm in the place of every BatchNorm3d, with its parameters; the network is returned."""
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.BatchNorm3d):
                setattr(parent, name, _synchronised(layer))
    return network


def _synchronised(layer: nn.BatchNorm3d) -> SynchronisedNorm:
    norm = SynchronisedNorm(layer.num_features, layer.eps, layer.momentum)
    # the same parameters, which an optimiser may hold already, and the same buffers
    norm.weight, norm.bias = layer.weight, layer.bias
    norm.running_mean, norm.running_var = layer.running_mean, layer.running_var
    norm.num_batches_tracked = layer.num_batches_tracked
    return norm.train(layer.training)
