"""Plain or fused blocks on a GPU: tried on a batch of the training itself, compared, timed.

The fused way is taken where it is as right as the plain one and faster. As right: on a few volumes, its
output and gradients lie no further from the plain way in float32 than the plain way does in the
training's own precision, with some room for chance. That needs no tolerance per precision: where
training is in bf16, the plain way's own rounding is the measure.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from BrainAgeNetworks.blocks import set_blocks
from BrainAgeNetworks.fused.cuda import available
from BrainAgeNetworks.precision import exact_convolutions

N_COMPARED_VOLUMES = 2  # float32 needs twice the memory of the batch, which may fill the GPU
N_WARM_UPS = 2
N_REPEATS = 5
# The fused way's distance from float32 may be the plain way's times this, plus this: two roundings of the
# same size differ by chance (one ReLU that opens instead of closing moves all gradients before it by a tenth),
# and where the plain way is float32 itself its distance is zero.
ROOM_FACTOR = 3.0
ROOM = 1e-3


@dataclass(frozen=True)
class BlockChoice:
    """Which way the blocks compute, and a sentence that says why."""

    way: str  # "plain" or "fused"
    reason: str
    plain_ms: float | None = None  # a training step, milliseconds; inf: out of memory
    fused_ms: float | None = None


def way_of_blocks(choice: str, device: torch.device) -> str:
    """`plain` or `fused`; `auto` is fused on a CPU, and on a GPU plain until `choose_blocks` has tried both."""
    if choice == "auto":
        return "fused" if device.type == "cpu" else "plain"
    return choice


def milliseconds(step: Callable[[], None]) -> float:
    """Time of a step on the current GPU, by its own clock."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    step()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def choose_blocks(
    network: nn.Module,
    volumes: torch.Tensor,
    targets: torch.Tensor,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    autocast: torch.dtype | None,
    time_of: Callable[[Callable[[], None]], float] = milliseconds,
) -> BlockChoice:
    """Try both ways of a network's pooled blocks; the network itself and all random states stay as they are.

    Parameters
    ----------
    network, volumes, targets, loss_of
        What a training step takes, on the GPU: loss_of(network(volumes), targets) is a number;
        volumes (B, 1, X, Y, Z), targets (B, ...).
    autocast
        The type that training computes in, or None for float32.
    time_of
        Runs a step and gives its milliseconds.
    """
    usable, reason = available()
    if not usable:
        return BlockChoice("plain", reason)
    trial = copy.deepcopy(network)
    few = slice(N_COMPARED_VOLUMES)

    def outcome(way: str, dtype: torch.dtype | None) -> tuple[torch.Tensor, torch.Tensor]:
        return _outcome(set_blocks(trial, way), volumes[few], targets[few], loss_of, dtype)

    devices = [volumes.device] if volumes.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        with exact_convolutions():
            exact = outcome("plain", None)
        plain = _distances(outcome("plain", autocast), exact)
        try:
            fused = _distances(outcome("fused", autocast), exact)
        except Exception as error:  # whatever a compiler says on a GPU it was not tried on
            why = str(error).strip().splitlines() or [""]
            return BlockChoice(
                "plain",
                f"blocks: plain, because the fused ones fail here ({type(error).__name__}: {why[0]}).",
            )
        equal = (
            f"output and gradients {fused[0]:.1e} and {fused[1]:.1e} from float32, "
            f"plain {plain[0]:.1e} and {plain[1]:.1e}"
        )
        if not all(mine <= ROOM_FACTOR * theirs + ROOM for mine, theirs in zip(fused, plain)):
            return BlockChoice(
                "plain", f"blocks: plain, because the fused ones are too far off ({equal})."
            )

        def step(way: str) -> Callable[[], None]:
            def run() -> None:
                _backward(set_blocks(trial, way), volumes, targets, loss_of, autocast)

            return run

        plain_ms, fused_ms = _times(step("plain"), step("fused"), time_of)
    return _faster(plain_ms, fused_ms, equal)


def _faster(plain_ms: float, fused_ms: float, equal: str) -> BlockChoice:
    """The choice between two ways that are equally right."""
    if math.isinf(plain_ms) and math.isinf(fused_ms):
        reason = f"blocks: plain; the batch fits the GPU's memory in neither way ({equal})."
    elif math.isinf(plain_ms):
        reason = (
            f"blocks: fused, because the batch does not fit the GPU's memory otherwise ({equal})."
        )
    elif math.isinf(fused_ms):
        reason = f"blocks: plain, because the batch does not fit the GPU's memory fused ({equal})."
    else:
        reason = (
            f"blocks: {'fused' if fused_ms < plain_ms else 'plain'}, the faster: a step of "
            f"{fused_ms:.1f} ms fused, {plain_ms:.1f} ms plain ({equal})."
        )
    return BlockChoice("fused" if fused_ms < plain_ms else "plain", reason, plain_ms, fused_ms)


def _backward(
    network: nn.Module,
    volumes: torch.Tensor,
    targets: torch.Tensor,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    dtype: torch.dtype | None,
) -> torch.Tensor:
    """A training step without the optimiser; gives the outputs, leaves the gradients."""
    network.train()
    network.zero_grad(set_to_none=True)
    with torch.autocast(volumes.device.type, dtype, enabled=dtype is not None):
        outputs = network(volumes)
        loss = loss_of(outputs, targets)
    loss.backward()
    return outputs.detach()


def _outcome(
    network: nn.Module,
    volumes: torch.Tensor,
    targets: torch.Tensor,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    dtype: torch.dtype | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and all gradients as two vectors, float64; the same voxels dropped out every time."""
    torch.manual_seed(0)
    outputs = _backward(network, volumes, targets, loss_of, dtype)
    gradients = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    return outputs.flatten().double(), torch.cat(gradients).double()


def _distances(
    vectors: tuple[torch.Tensor, torch.Tensor], exact: tuple[torch.Tensor, torch.Tensor]
) -> tuple[float, float]:
    """Of outputs and of gradients: |vector - exact| / |exact|; not a number passes no comparison."""
    return (
        ((vectors[0] - exact[0]).norm() / exact[0].norm()).item(),
        ((vectors[1] - exact[1]).norm() / exact[1].norm()).item(),
    )


def _times(
    plain: Callable[[], None],
    fused: Callable[[], None],
    time_of: Callable[[Callable[[], None]], float],
) -> tuple[float, float]:
    """Medians of repeats in turn, so that a change of the GPU's clock meets both."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(N_WARM_UPS + N_REPEATS):
        for step, taken in zip((plain, fused), times):
            if taken and math.isinf(taken[0]):
                continue
            try:
                ms = time_of(step)
            except torch.OutOfMemoryError:
                ms = math.inf
            if math.isinf(ms):
                taken[:] = [ms]
            elif repeat >= N_WARM_UPS:
                taken.append(ms)
    return median(times[0]), median(times[1])
