"""Whole blocks of a network in few kernels, a file per kind of device, each with the same functions.

`first_block` and `norm_pool_relu` (see `cpu` and `cuda`) train; what they compute is what the plain
modules compute, within rounding.
"""

from __future__ import annotations

from types import ModuleType

import torch


def backend_for(values: torch.Tensor, n_channels: int, weights: torch.dtype) -> ModuleType | None:
    """The kernels for the device that values are on, or None where only the plain modules will do."""
    if torch.compiler.is_compiling():
        return None
    if values.device.type == "cpu":
        from BrainAgeNetworks.fused import cpu  # compiles when first used

        return cpu if cpu.fits(n_channels, values.dtype, weights) else None
    if values.device.type == "cuda" and weights == torch.float32:
        from BrainAgeNetworks.fused import cuda

        return cuda if cuda.available()[0] else None
    return None
