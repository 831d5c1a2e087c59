"""Synchronised batch-norm in several processes, for test_synchronised_norm.py; run by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from BrainAgeNetworks.synchronised_norm import synchronise_norms

# Subjects of each process: parts may differ, and one subject is enough.
PARTS = {2: (3, 1), 3: (2, 1, 3)}
N_STEPS = 3


def layer(dtype: torch.dtype) -> nn.Module:
    """A network of one batch-norm with weights of either sign."""
    norm = nn.BatchNorm3d(4, momentum=0.3)
    if dtype == torch.float64:  # bfloat16 volumes meet float32 weights, as in autocast
        norm.to(dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.5, 0.25, 2.0]))
        norm.bias.copy_(torch.tensor([0.1, -0.2, 0.3, 0.0]))
    return nn.Sequential(norm)


def steps(n: int, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Volumes of all processes, far from zero, and the gradients that come back to them."""
    draw = torch.Generator().manual_seed(n)
    shape = (sum(PARTS[n]), 4, 3, 2, 5)
    offset = torch.tensor([100.0, -3.0, 0.0, 7.0], dtype=torch.float64)[:, None, None, None]

    def drawn() -> torch.Tensor:
        return torch.randn(shape, generator=draw, dtype=torch.float64)

    return [
        ((drawn() * (step + 1) + offset).to(dtype), drawn().to(dtype)) for step in range(N_STEPS)
    ]


def run(network: nn.Module, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> dict:
    """Outputs, gradients and running statistics after a few steps."""
    found: dict = {"outputs": [], "to_volumes": []}
    for volumes, gradient in parts:
        volumes = volumes.to(memory_format=torch.channels_last_3d).requires_grad_()
        output = network(volumes)
        output.backward(gradient)
        found["outputs"].append(output.detach())
        found["to_volumes"].append(volumes.grad)
    found["to_weights"] = [parameter.grad for parameter in network.parameters()]
    found["state"] = network.state_dict()
    with torch.no_grad():
        found["evaluated"] = network.eval()(parts[0][0])
    return found


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    index, n = dist.get_rank(), dist.get_world_size()
    first = sum(PARTS[n][:index])
    mine = slice(first, first + PARTS[n][index])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        network = synchronise_norms(layer(dtype))
        found = run(network, [(volumes[mine], g[mine]) for volumes, g in steps(n, dtype)])
        torch.save(found, Path(sys.argv[1]) / f"{str(dtype)[6:]}_{index}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
