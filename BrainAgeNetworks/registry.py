"""Names of architectures -> the functions that build them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from BrainAgeNetworks.blocks import PooledBlock
from utils.common.errors import UserError

_builders: dict[str, Callable[[NetworkPlan], nn.Module]] = {}


@dataclass(frozen=True)
class NetworkPlan:
    """Everything that decides a network's shape; travels with its weights."""

    network: str
    box: tuple[int, int, int]  # input (X, Y, Z)
    n_outputs: int = 1
    widths: tuple[int, ...] = ()  # channels of each block; (): as published
    dropout_rates: tuple[float, float, float] = (0.0, 0.0, 0.0)
    upsample: bool = False  # x2, trilinear, before the first block
    n_poolings: int | None = None  # so many of the first blocks pool; None: all that can

    @property
    def first_box(self) -> tuple[int, int, int]:
        """(X, Y, Z) of what the first block gets."""
        x, y, z = self.box
        return (2 * x, 2 * y, 2 * z) if self.upsample else self.box

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> NetworkPlan:
        """The plan of a checkpoint."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in content.items()
        }
        return cls(**values)


def register(name: str) -> Callable[[Callable], Callable]:
    """Decorator: the function builds the architecture `name` from a `NetworkPlan`."""

    def add(builder: Callable[[NetworkPlan], nn.Module]) -> Callable[[NetworkPlan], nn.Module]:
        if name in _builders:
            raise ValueError(f"a network called {name!r} is registered already")
        _builders[name] = builder
        return builder

    return add


def network_names() -> list[str]:
    """Registered names."""
    return sorted(_builders)


def build_network(plan: NetworkPlan) -> nn.Module:
    """Build the network of a plan; its weights come from torch's random state.

    Maps (B, 1, X, Y, Z) to (B, n_outputs).

    Raises
    ------
    UserError
        No such architecture, or an input box too small for its number of poolings.
    """
    if plan.network not in _builders:
        raise UserError(
            f"network = {plan.network!r} is not registered; choose from {', '.join(network_names())}."
        )
    return _builders[plan.network](plan)


def with_one_pooling_fewer(plan: NetworkPlan) -> NetworkPlan:
    """The same network whose last pooled block does not pool: for half the resolution, as it is."""
    with torch.device("meta"):
        network = build_network(plan)
    n_poolings = sum(isinstance(module, PooledBlock) for module in network.modules())
    return replace(plan, n_poolings=n_poolings - 1)


def count_parameters(network: nn.Module) -> int:
    """Number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
