"""What to say when a training step does not fit into memory: how large a batch would."""

from __future__ import annotations

import copy
import traceback

import torch
from torch import nn

from BrainAgeNetworks.blocks import PooledBlock
from BrainAgeNetworks.peak_memory import largest_batch, state_bytes
from BrainAgeNetworks.recomputing import recompute
from utils.common.free_memory import free_memory_bytes

LEAST_BATCH = 2  # or batch-norm would make a volume out of itself
_CPU_SAYS = ("can't allocate memory", "not enough memory")  # torch's allocator: Linux, Windows


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was asked for and not there, on a GPU or in the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_SAYS)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process can still take on a device; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # torch keeps what it once had, and uses it again
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    return free_memory_bytes()


def out_of_memory_message(
    network: nn.Module,
    box: tuple[int, int, int],
    batch_size: int,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    recomputing: bool = False,
    error: BaseException | None = None,
    n_parts: int = 1,
    n_processes: int = 1,
) -> str:
    """The sentences about a step on (batch_size, 1, *box) that did not fit.

    `batch_size` is that of one of `n_parts` parts (accumulation_steps) in one of `n_processes`.

    `network` as it is trained; `recomputing`: whether it recomputes already; `error`: what was raised, so
    that what its frames hold is given back before the free memory is looked at.
    """
    if error is not None:
        traceback.clear_frames(error.__traceback__)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    said = (
        f"a training step on {batch_size} volumes of {' x '.join(map(str, box))} voxels does not fit into the "
        f"memory of the {'GPU' if device.type == 'cuda' else 'machine'}"
    )
    free = free_bytes(device)
    if free is None:
        return f"{said}. {_smaller(None, batch_size, n_parts, n_processes)}."
    # weights, gradients and moments of this network are there already, and are counted again
    step = (box, free + state_bytes(network))
    dtype = _activation_dtype(network, precision, device)
    said += f" ({free / 1e9:.1f} GB are free for it)"
    fits = largest_batch(network, *step, batch_size - 1, dtype)
    ways = [_smaller(fits, batch_size, n_parts, n_processes)]
    if not recomputing:
        fits = largest_batch(recompute(copy.deepcopy(network)), *step, batch_size, dtype)
        if fits >= LEAST_BATCH:
            ways.append(
                f"or set [TRAINING] recompute_activations = True, with which {fits} would fit"
            )
    return f"{said}. {'; '.join(ways)}."


def _activation_dtype(
    network: nn.Module, precision: torch.dtype, device: torch.device
) -> torch.dtype:
    """The type in which most activations are kept: autocast on CPUs lets plain blocks pool in float32."""
    is_plain = any(isinstance(b, PooledBlock) and b.way == "plain" for b in network.modules())
    return torch.float32 if device.type == "cpu" and is_plain else precision


def _smaller(fits: int | None, batch_size: int, n_parts: int, n_processes: int) -> str:
    """How a batch is made smaller; `fits`: the size that would fit, None if unknown."""
    if fits is None:
        return "Set [TRAINING] training_batch_size to a smaller value, or accumulation_steps to a larger one"
    if fits < LEAST_BATCH:
        return (
            f"Not even {LEAST_BATCH} would fit: take a machine with more memory or a smaller crop"
        )
    return (
        f"{fits} would fit: set [TRAINING] training_batch_size = {fits * n_parts * n_processes}; or "
        f"accumulation_steps = {-(-batch_size // fits) * n_parts}, with which a step goes through its volumes "
        "in parts of that size (batch-norm then sees a part at a time)"
    )
