"""What a network costs at least: operations and bytes, counted from its layers; nothing is computed.

Arithmetic: a multiplication and an addition are two operations (FLOP); convolutions and linear layers are
counted, the rest is less than 1 %. A training step costs three times a forward pass: its output, the
gradient of its weights, the gradient of its input; the first layer has no use for the last.

Bytes that have to pass between memory and chip, if nothing stays in a cache from one operation to the next:

- fused: a layer with all that follows it (batch-norm, pooling, ReLU) is one operation. Forward it reads its
  input and writes its output; backward it reads input, output and the output's gradient, and writes the
  input's gradient. What lies between is recomputed, which is not counted as arithmetic. Less is not possible.
- eager: as torch does it, each operation by itself. Forward: convolution, linear, ReLU and upsampling read
  input and write output; batch-norm reads its input twice in training (statistics, then values), once in
  inference; max-pooling writes its positions (int64) beside its values. Backward: the convolution reads its output's
  gradient twice (once for each of its two gradients), its input, and writes the input's gradient; batch-norm
  reads input and gradient twice and writes one; max-pooling reads gradient and positions, and writes its
  gradient twice (cleared, then filled); ReLU reads output and gradient, and writes one.

Weights are read in the forward and the backward pass and their gradients written, once a batch in float32; Adam
reads weights, gradients and its two moments and writes all but the gradients. A sample has its share of that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from BrainAgeNetworks.registry import NetworkPlan, build_network

POSITION_BYTES = 8  # max-pooling keeps int64
WEIGHT_BYTES = 4  # weights, gradients and moments stay float32 whatever the activations are
WEIGHT_PASSES_INFERENCE = 1
WEIGHT_PASSES_TRAINING = 3 + 7  # forward, backward, gradient; Adam: four read, three written
WEIGHTS = "weights, Adam"
_WEIGHTED = (nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Work:
    """Operations and bytes, per sample."""

    flop: float
    fused_bytes: float
    eager_bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flop + other.flop,
            self.fused_bytes + other.fused_bytes,
            self.eager_bytes + other.eager_bytes,
        )


@dataclass(frozen=True)
class Rates:
    """What a machine reaches."""

    flop_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Floor:
    """The shortest time for a sample, ms: layers come one after the other, bytes move while it computes."""

    arithmetic_ms: float
    bytes_ms: float
    ms: float
    layer: str  # the one that takes the longest
    limit: str  # of that layer: "arithmetic" or "bytes"


@dataclass(frozen=True)
class LayerCost:
    """A convolution or linear layer with all that follows it up to the next one."""

    name: str
    inference: Work
    training: Work  # forward and backward


@dataclass(frozen=True)
class NetworkCost:
    """The layers in their order; the last entry stands for weights and optimiser."""

    layers: tuple[LayerCost, ...]

    @property
    def inference(self) -> Work:
        """A forward pass."""
        return sum((layer.inference for layer in self.layers), Work(0, 0, 0))

    @property
    def training(self) -> Work:
        """A training step."""
        return sum((layer.training for layer in self.layers), Work(0, 0, 0))

    def floor(self, rates: Rates, training: bool, fused: bool = True) -> Floor:
        """The shortest time at these rates, with everything fused or as eager torch does it."""
        arithmetic, moved, times = 0.0, 0.0, []
        for layer in self.layers:
            work = layer.training if training else layer.inference
            n_bytes = work.fused_bytes if fused else work.eager_bytes
            own = (1e3 * work.flop / rates.flop_per_s, 1e3 * n_bytes / rates.bytes_per_s)
            arithmetic, moved = arithmetic + own[0], moved + own[1]
            times.append((max(own), layer.name, "arithmetic" if own[0] >= own[1] else "bytes"))
        longest = max(times)
        return Floor(arithmetic, moved, sum(time for time, _, _ in times), *longest[1:])

    def table(self) -> str:
        """A line for each layer, and the totals."""
        head = f"{'per sample':34s} {'GFLOP':>17s} {'MB fused':>17s} {'MB eager':>17s}"
        lines = [head, f"{'':34s}" + f" {'forward':>8s} {'training':>8s}" * 3]
        everything = LayerCost("all", self.inference, self.training)
        for layer in (*self.layers, everything):
            pairs = [
                (getattr(layer.inference, kind) / unit, getattr(layer.training, kind) / unit)
                for kind, unit in (("flop", 1e9), ("fused_bytes", 1e6), ("eager_bytes", 1e6))
            ]
            numbers = " ".join(f"{a:8.2f} {b:8.2f}" for a, b in pairs)
            lines.append(f"{layer.name:34s} {numbers}")
        return "\n".join(lines)


def count_costs(
    plan: NetworkPlan, dtype: torch.dtype = torch.float32, batch_size: int = 12
) -> NetworkCost:
    """Operations and bytes of a network with activations of that type, per sample."""
    with FakeTensorMode():  # shapes without numbers
        network = build_network(plan)
        leaves = _leaves(network, plan)
    first = next(i for i, leaf in enumerate(leaves) if isinstance(leaf.module, _WEIGHTED))
    groups = [leaves[: first + 1]]  # an upsampling belongs to the layer that reads it
    for leaf in leaves[first + 1 :]:
        if isinstance(leaf.module, _WEIGHTED):
            groups.append([leaf])
        else:
            groups[-1].append(leaf)
    layers = [_layer_cost(group, i == 0, dtype.itemsize) for i, group in enumerate(groups)]
    weights = sum(p.numel() for p in network.parameters()) * WEIGHT_BYTES / batch_size
    kept = [weights * passes for passes in (WEIGHT_PASSES_INFERENCE, WEIGHT_PASSES_TRAINING)]
    layers.append(LayerCost(WEIGHTS, *(Work(0, n_bytes, n_bytes) for n_bytes in kept)))
    return NetworkCost(tuple(layers))


@dataclass(frozen=True)
class _Leaf:
    """An operation of the network and the values it reads and writes for one sample."""

    name: str
    module: nn.Module
    n_in: int
    n_out: int


def _leaves(network: nn.Module, plan: NetworkPlan) -> list[_Leaf]:
    """The operations in the order in which a forward pass meets them."""
    leaves: list[_Leaf] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            leaves.append(_Leaf(name, module, given[0].numel(), out.numel()))

        return hook

    network.eval()  # one sample has no statistics of its own, and all blocks are taken apart
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(note(name))
    with torch.no_grad():
        network(torch.empty((1, 1, *plan.box)))
    return leaves


def _layer_cost(group: list[_Leaf], is_first: bool, value_bytes: int) -> LayerCost:
    """Cost of one weighted layer and its followers, by the rules above."""
    weighted = next(leaf for leaf in group if isinstance(leaf.module, _WEIGHTED))
    weight = weighted.module.weight
    assert isinstance(weight, torch.Tensor)
    flop = 2 * weighted.n_out * math.prod(weight.shape[1:])
    n_in, n_out = group[0].n_in, group[-1].n_out
    to_input = 0 if is_first else 1
    fused = (n_in + n_out, n_in + 2 * n_out + to_input * n_in)
    eager = [_eager_bytes(leaf, to_input, leaf is weighted, value_bytes) for leaf in group]
    inference, forward, backward = (sum(passes) for passes in zip(*eager))
    return LayerCost(
        weighted.name.removesuffix(".0"),
        Work(flop, fused[0] * value_bytes, inference),
        Work(flop * (2 + to_input), sum(fused) * value_bytes, forward + backward),
    )


def _eager_bytes(
    leaf: _Leaf, to_input: int, weighted: bool, value_bytes: int
) -> tuple[int, int, int]:
    """Bytes of one operation by itself: forward in inference, forward in training, backward."""
    n_in, n_out = leaf.n_in, leaf.n_out
    positions = 0
    if weighted:  # two gradients, each of which reads that of the output
        values = (n_in + n_out, n_in + n_out, n_out + n_in + to_input * (n_out + n_in))
    elif isinstance(leaf.module, nn.BatchNorm3d):
        values = (n_in + n_out, 2 * n_in + n_out, 2 * (n_in + n_out) + n_in)
    elif isinstance(leaf.module, nn.MaxPool3d):
        values = (n_in + n_out, n_in + n_out, n_out + 2 * n_in)
        positions = n_out * POSITION_BYTES
    elif isinstance(leaf.module, nn.ReLU):
        values = (n_in + n_out, n_in + n_out, 2 * n_out + n_in)
    elif isinstance(leaf.module, nn.Dropout):
        values = (0, n_in + 2 * n_out, 2 * n_out + n_in)  # its mask is as large as a float
    elif isinstance(leaf.module, nn.Identity):
        values = (0, 0, 0)
    elif isinstance(leaf.module, nn.Upsample):  # stands before the first layer: no gradient
        values = (n_in + n_out, n_in + n_out, 0)
    elif isinstance(leaf.module, nn.AvgPool3d):
        values = (n_in + n_out, n_in + n_out, n_out + n_in)
    else:
        raise NotImplementedError(f"costs of {type(leaf.module).__name__} are not known")
    inference, forward, backward = (n * value_bytes + positions for n in values)
    return inference, forward, backward
