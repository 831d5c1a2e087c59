"""Networks for inference: each batch-norm is put into the convolution before it.

With its statistics fixed, batch-norm multiplies each channel by gamma / sd and adds beta - mean gamma / sd
(Jacob et al. 2018, arXiv 1712.05877, section 3.2): weights and a bias that are worked out once, in
float64. The result has other names than the network and is not for training or keeping.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional

from BrainAgeNetworks.blocks import PooledBlock
from BrainAgeNetworks.fused import backend_for


def folded(network: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of a network for inference, its convolutions in `dtype` (None: that of its weights).

    Input and output stay float32, and so does what follows the blocks (fully connected layers, the
    classifier): it costs nothing, and the age is read from there. In float32 the output is that of
    network.eval() within rounding.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(False)
    for parent in list(copied.modules()):
        children = dict(parent.named_children())
        if not any(map(_is_block, children.values())):
            continue
        for name, block in children.items():
            if _is_block(block):
                setattr(parent, name, _folded_block(block, dtype))
    return copied


def _is_block(module: nn.Module) -> bool:
    layers = list(module.children())
    return (
        isinstance(module, nn.Sequential)
        and len(layers) > 1
        and isinstance(layers[0], nn.Conv3d)
        and isinstance(layers[1], nn.BatchNorm3d)
    )


def _folded_block(block: nn.Module, wanted: torch.dtype | None) -> nn.Module:
    convolution, norm, *others = block.children()
    assert isinstance(convolution, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)
    assert norm.running_mean is not None and norm.running_var is not None
    kept = norm.weight.dtype
    dtype = wanted or kept
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    weight = convolution.weight.double() * scale[:, None, None, None, None]
    if isinstance(block, PooledBlock) and convolution.in_channels == 1:
        return _FoldedFirstBlock(weight.to(kept), shift.to(kept), dtype)
    convolution.weight = nn.Parameter(
        weight.to(dtype).contiguous(memory_format=torch.channels_last_3d), requires_grad=False
    )
    convolution.bias = None
    pool = others[0] if isinstance(block, PooledBlock) else nn.Identity()
    return _FoldedBlock(convolution, pool, shift.to(kept))


class _FoldedBlock(nn.Module):
    """Convolution, pooling, ReLU; the bias is added after the pooling, to an eighth, unrounded.

    In bfloat16 a rounded bias would move all ages in one direction.
    """

    shift: torch.Tensor

    def __init__(self, convolution: nn.Module, pool: nn.Module, shift: torch.Tensor):
        super().__init__()
        self.convolution, self.pool = convolution, pool
        self.register_buffer("shift", shift)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        values = self.pool(self.convolution(values))
        return (values + self.shift[:, None, None, None]).relu_().to(values.dtype)


class _FoldedFirstBlock(nn.Module):
    """Convolution of one channel, max-pool 2 and ReLU; in one kernel where there is one for the device."""

    weight: torch.Tensor
    shift: torch.Tensor

    def __init__(self, weight: torch.Tensor, shift: torch.Tensor, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight", weight)
        self.register_buffer("shift", shift)

    def forward(self, volumes: torch.Tensor) -> torch.Tensor:
        kind = volumes.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype
        kernels = backend_for(volumes, len(self.weight), self.weight.dtype)
        if kernels is not None and hasattr(kernels, "convolve_pool_relu"):
            return kernels.convolve_pool_relu(volumes, self.weight, self.shift, dtype)[0]
        weight, shift = self.weight.to(dtype), self.shift.to(dtype)
        values = functional.conv3d(volumes.to(dtype), weight, shift, padding=1)
        return functional.max_pool3d(values, 2).relu_()
