"""How much memory a training step takes at its worst moment: the step is rehearsed without numbers.

Torch's fake tensors have a shape, a type and a layout, and no content. Forward and backward pass are run on
them; each new storage is counted until it is given back, so what the backward pass keeps, its gradients, and
blocks that recompute are all seen as they are. Fused blocks, whose kernels want numbers, are stood in for by
what they keep. Not seen is the memory in which a convolution rearranges what it is given and what it
makes: it is taken to be twice the larger of the two, which is what oneDNN was found to need. Everything
else, fragments above all, is in `bytes_needed`.
"""

from __future__ import annotations

import copy
import types
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from BrainAgeNetworks.blocks import PooledBlock

# Adam keeps weights, gradients and two moments, all float32.
STATE_BYTES_PER_PARAMETER = 4 * 4
# Steps on a CPU took 0.92 to 1.19 times what is counted here, and up to 0.1 GB where that is little.
MARGIN, MARGIN_BYTES = 1.25, 100_000_000
_WORKSPACE = 2  # times the largest tensor of a convolution
_CONVOLUTIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)


def state_bytes(network: nn.Module) -> int:
    """Bytes of a network that is being trained, without activations: weights, gradients, Adam's moments."""
    return STATE_BYTES_PER_PARAMETER * sum(p.numel() for p in network.parameters())


def bytes_for_backward(
    network: nn.Module,
    box: tuple[int, int, int],
    batch_size: int,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Bytes at the worst moment of a training step on (batch_size, 1, *box), `dtype` being the activations'.

    Counted: the batch in float32, activations, gradients, weights and optimiser; without a margin.
    `network` is not touched.
    """
    rehearsed = _rehearsable(network, dtype)
    with FakeTensorMode():
        _take_numbers_from(rehearsed)
        volumes = torch.empty((batch_size, 1, *box))
        with _counted_storages() as peak:
            outputs = rehearsed(volumes.to(dtype))
            outputs.float().square().mean().backward()
            del outputs
        most = peak()
    gradients = sum(p.numel() * p.element_size() for p in rehearsed.parameters())
    # these were counted as they arose, and are in the state as well
    return state_bytes(network) - gradients + volumes.nbytes + most


def bytes_needed(n_bytes: int) -> int:
    """What should be free for a step of that many counted bytes."""
    return round(MARGIN * n_bytes) + MARGIN_BYTES


def largest_batch(
    network: nn.Module,
    box: tuple[int, int, int],
    bytes_free: int,
    most: int,
    dtype: torch.dtype = torch.float32,
) -> int:
    """The largest batch of at most `most` samples whose training step fits; 0 if none does.

    `bytes_free` is what the step, the network and its optimiser may take together.
    """
    # the worst moment is another one for large batches, so bytes are no straight line in samples
    fits, too_many = 0, most + 1
    while too_many - fits > 1:
        tried = (fits + too_many) // 2
        if bytes_needed(bytes_for_backward(network, box, tried, dtype)) <= bytes_free:
            fits = tried
        else:
            too_many = tried
    return fits


def _rehearsable(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy whose blocks convolve in `dtype`, and whose fused blocks need no numbers."""
    rehearsed = copy.deepcopy(network).cpu().train()
    for block in rehearsed.modules():
        convolution, *others = *block.children(), None
        if convolution is None or not isinstance(others[0], nn.BatchNorm3d):
            continue
        convolution.to(dtype)  # as autocast does it; batch-norm and the last layers keep float32
        if isinstance(block, PooledBlock) and block.way == "fused":
            recomputes = "forward" in vars(block)
            if not recomputes or convolution.in_channels == 1:
                block.forward = types.MethodType(_fused, block)  # type: ignore[method-assign]
    return rehearsed


def _take_numbers_from(network: nn.Module) -> None:
    """Replace weights and buffers by fake ones of their shapes."""
    for module in network.modules():
        for name, value in module.named_parameters(recurse=False):
            empty = torch.empty(tuple(value.shape), dtype=value.dtype)
            setattr(module, name, nn.Parameter(empty, requires_grad=value.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(tuple(buffer.shape), dtype=buffer.dtype))


def _fused(block: PooledBlock, volumes: torch.Tensor) -> torch.Tensor:
    """The fused block with nothing computed; what it keeps is as large as in `fused/cpu.py` and `fused/cuda.py`."""
    convolution = block[0]
    assert isinstance(convolution, nn.Conv3d)
    if convolution.in_channels == 1 and not volumes.requires_grad:
        return _FusedFirst.apply(volumes, convolution.weight)
    return _FusedPooling.apply(convolution(volumes))


def _pooled(values: torch.Tensor, n_channels: int, dtype: torch.dtype) -> torch.Tensor:
    box = [size // 2 for size in values.shape[2:]]
    return values.new_empty((len(values), n_channels, *box), dtype=dtype)


class _FusedFirst(torch.autograd.Function):
    """Keeps volumes, output and a byte for each position."""

    @staticmethod
    def forward(ctx: Any, volumes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        output, which = (_pooled(volumes, len(weight), t) for t in (weight.dtype, torch.uint8))
        ctx.save_for_backward(volumes, weight, output, which)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:  # type: ignore[override]
        return None, torch.empty_like(ctx.saved_tensors[1])


class _FusedPooling(torch.autograd.Function):
    """Keeps the convolution's output, the pooled values, output and a byte for each position."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        n_channels = values.shape[1]
        output, pooled, which = (
            _pooled(values, n_channels, t) for t in (values.dtype, values.dtype, torch.uint8)
        )
        ctx.save_for_backward(values, pooled, output, which)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return torch.empty_like(ctx.saved_tensors[0])


@contextmanager
def _counted_storages() -> Iterator[Callable[[], int]]:
    """Count what is made inside; gives a function that says the most bytes that were there at once."""
    mode = _StorageCount()
    with mode:
        yield lambda: mode.most


class _StorageCount(TorchDispatchMode):
    """Adds every new storage and subtracts it when the last tensor that uses it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(
        self, operation: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        made = operation(*arguments, **(named or {}))
        tensors = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        for tensor in tensors:
            self._add(tensor.untyped_storage())
        if operation in _CONVOLUTIONS:
            tensors += [leaf for leaf in arguments if isinstance(leaf, torch.Tensor)]
            workspace = _WORKSPACE * max(tensor.nbytes for tensor in tensors)
            self.most = max(self.most, self.live + workspace)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        self.live += storage.nbytes()
        self.most = max(self.most, self.live)
        weakref.finalize(storage, self._subtract, storage.nbytes())

    def _subtract(self, n_bytes: int) -> None:
        self.live -= n_bytes
