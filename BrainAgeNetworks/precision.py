"""In which precision convolutions are computed, and how a device is set up for it.

Weights, batch-norm statistics, losses and the optimiser are float32 in any case; bfloat16 has float32's
range, so that losses need no scaling.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it is emulated, and slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
    return False


def precision_of(choice: str, device: torch.device) -> torch.dtype:
    """`float32`, `bfloat16`, or `auto`: bfloat16 where it is quick."""
    if choice == "auto":
        return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[choice]


def precision_name(precision: torch.dtype) -> str:
    """`float32` or `bfloat16`, for records."""
    return str(precision).removeprefix("torch.")


def computing_in(precision: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Convolutions and matrix products of the block in this precision."""
    # A cache of weights cast to bfloat16 would be shared by the threads of members side by side.
    return torch.autocast(
        device.type, torch.bfloat16, enabled=precision == torch.bfloat16, cache_enabled=False
    )


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """float32 convolutions on a GPU that are not rounded to TF32, cuDNN's faster kind."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def set_up_device(device: torch.device, deterministic: bool) -> None:
    """Let cuDNN look for its quickest algorithm, or, `deterministic`, take those that repeat their bits."""
    if device.type != "cuda":
        return  # the CPU's operations that are used here repeat their bits in any case
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = not deterministic
