"""Fine-tuning: layers that do not learn, and layers that learn at a rate of their own.

A layer is named as in the network's state dict, by its first words: `Feature_Extractor` is every convolution
of AgeMapper, `Feature_Extractor.Convolution_0` the first of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from utils.common.errors import UserError
from utils.common.text import listed

# All kinds of batch-norm, that over several processes too.
_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm


def freeze(network: torch.nn.Module, frozen_layers: tuple[str, ...]) -> None:
    """The parameters of these layers no longer learn; see `keep_frozen_statistics` for their batch-norm.

    Raises
    ------
    UserError
        A layer that the network does not have (those it has are listed), or nothing is left to learn.
    """
    _refuse_unknown(network, frozen_layers, "frozen_layers")
    for name, parameter in network.named_parameters():
        if any(_is_in(name, layer) for layer in frozen_layers):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UserError("[TRAINING] frozen_layers: every layer is frozen, none is left to learn.")


def keep_frozen_statistics(network: torch.nn.Module) -> None:
    """Batch-norm of frozen layers normalises with the statistics it has; call it after `network.train()`."""
    for module in network.modules():
        if isinstance(module, _BATCH_NORM):
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()


def parameter_groups(
    network: torch.nn.Module,
    learning_rate: float,
    layer_learning_rates: tuple[tuple[str, float], ...] = (),
) -> list[dict[str, Any]]:
    """Groups for an optimiser: the learning rate, and that times the factor of each named layer.

    Of several layers that a parameter lies in, the one with the longest name decides. Frozen parameters
    are in no group; the layers without a factor, where there are any, are the first.

    Raises
    ------
    UserError
        A layer that the network does not have; those it has are listed.
    """
    names = [layer for layer, _ in layer_learning_rates]
    _refuse_unknown(network, names, "layer_learning_rates")
    if len(set(names)) < len(names):
        raise UserError("[TRAINING] layer_learning_rates: a layer is named twice.")
    factors = dict(layer_learning_rates)
    groups: dict[str, list[torch.nn.Parameter]] = {"": [], **{layer: [] for layer in factors}}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            layers = [layer for layer in factors if _is_in(name, layer)]
            groups[max(layers, key=len, default="")].append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * factors.get(layer, 1.0)}
        for layer, parameters in groups.items()
        if parameters
    ]


def layer_names(network: torch.nn.Module) -> list[str]:
    """Layers that have parameters, each after the parts of the network that it lies in."""
    found: dict[str, None] = {}
    for name, _ in network.named_parameters():
        words = name.split(".")
        found.update((".".join(words[:end]), None) for end in (1, 2) if end < len(words))
    return list(found)


def _refuse_unknown(network: torch.nn.Module, layers: Iterable[str], key: str) -> None:
    names = [name for name, _ in network.named_parameters()]
    for layer in layers:
        if not any(_is_in(name, layer) for name in names):
            raise UserError(
                f"[TRAINING] {key}: the network has no layer {layer!r}; it has "
                f"{listed(layer_names(network))}."
            )


def _is_in(name: str, layer: str) -> bool:
    """Whether a parameter lies in a layer: `conv_1` is no beginning of `conv_10.weight`."""
    return name == layer or name.startswith(f"{layer}.")
