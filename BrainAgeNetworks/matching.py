"""Weights of other origin into a network: name by name, and never partly without a word."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from BrainAgeNetworks.pretrained import (
    Architecture,
    Pretrained,
    PretrainedError,
    architecture_of,
)
from BrainAgeNetworks.targets import BinsTarget, Target, YearsTarget
from utils.common.text import shown

KEEP, NEW = "keep", "new"  # what becomes of the output layer
_NAMES_SHOWN, _LONGEST_SHOWN = 20, 150
_COUNTER = ".num_batches_tracked"


@dataclass(frozen=True)
class Match:
    """Names in weights against names in a network."""

    matched: list[str]
    missing: list[str]  # in the network alone
    unexpected: list[str]  # in the weights alone
    reshaped: list[str]  # with both shapes
    new: list[str]  # of the output layer, that is drawn anew
    counters: list[
        str
    ]  # of batch-norm; files of early torch have none, and nothing depends on them

    @property
    def fits(self) -> bool:
        """Whether every name has its partner, but for what is meant to be new."""
        return not (self.missing or self.unexpected or self.reshaped)

    def sentence(self) -> str:
        """How many names matched, and which did not."""
        parts = [f"{len(self.matched)} names matched"]
        for what, names in (
            ("missing in the file", self.missing),
            ("not in the network", self.unexpected),
            ("of another shape", self.reshaped),
            ("drawn anew", self.new),
        ):
            if names:
                parts.append(f"{len(names)} {what}: {_listed(names)}")
        if self.counters:
            parts.append(f"{len(self.counters)} counters of batch-norm start at 0")
        return "; ".join(parts)


def match(
    weights: dict[str, torch.Tensor], network: dict[str, torch.Tensor], new_head: str = ""
) -> Match:
    """Compare weights with a network's state dict; the layer `new_head` is left as the network has it."""
    head = [name for name in network if new_head and name.startswith(f"{new_head}.")]
    there = [n for n in weights if not (new_head and n.startswith(f"{new_head}."))]
    wanted = [name for name in network if name not in head]
    counters = [name for name in wanted if name.endswith(_COUNTER)]
    if any(name.endswith(_COUNTER) for name in weights):
        counters = []  # some are there: then all must be
    both = [name for name in there if name in network]
    differ = [name for name in both if weights[name].shape != network[name].shape]
    return Match(
        matched=[name for name in both if name not in differ],
        missing=[name for name in wanted if name not in weights and name not in counters],
        unexpected=[name for name in there if name not in network],
        reshaped=[
            f"{name} ({_times(weights[name])} in the file, {_times(network[name])} in the network)"
            for name in differ
        ],
        new=head,
        counters=counters,
    )


def weights_for(
    pretrained: Pretrained, network: dict[str, torch.Tensor], target: Target, head: str
) -> tuple[dict[str, torch.Tensor], Match]:
    """A whole state dict for a network, from pre-trained weights, and how the names matched.

    network : state dict of the fresh network; a new output layer is taken from it.
    target : what its outputs shall mean. The bias of a kept output layer is moved by the difference of the
        mean ages, so that the predicted ages stay as they were.
    head : "keep" or "new" output layer.

    Raises
    ------
    PretrainedError
        Anything is missing, unexpected or of another shape; or the kept outputs mean something else.
    """
    layer = pretrained.architecture.output_layer
    found = match(pretrained.weights, network, layer if head == NEW else "")
    remedy = _remedy_for_shape(pretrained.architecture, architecture_of(network))
    whole = not (found.missing or found.unexpected)
    if head == KEEP and whole and not remedy:
        _refuse_other_meaning(pretrained, target)
    if not found.fits:
        raise PretrainedError(
            f"{pretrained.path}: its weights do not fit the network that is set: {found.sentence()}. "
            f"{remedy or 'It is not whole, or not as it was released: get it anew.'}"
        )
    state = {name: pretrained.weights[name] for name in found.matched}
    state |= {name: network[name] for name in (*found.new, *found.counters)}
    if head == KEEP:
        state[f"{layer}.bias"] = _moved_bias(pretrained, state[f"{layer}.bias"], target)
    return {name: state[name] for name in network}, found


def _moved_bias(pretrained: Pretrained, bias: torch.Tensor, target: Target) -> torch.Tensor:
    """The output layer's bias for years about another mean age."""
    known = pretrained.target
    if isinstance(known, YearsTarget) and isinstance(target, YearsTarget):
        return (bias.double() + (known.mean_age_years - target.mean_age_years)).to(bias.dtype)
    return bias


def _remedy_for_shape(known: Architecture, wanted: Architecture | None) -> str:
    """What to set so that the network has the shape of the weights; "" where it has."""
    if wanted is None or (known.network, known.widths) != (wanted.network, wanted.widths):
        return f'Set [NETWORK] network = "{known.network}" and widths = {known.widths}.'
    if known.n_features is not None and known.n_features != wanted.n_features:
        return (
            "Its first Linear is for another input box: use a contrast whose crop has the box of its training, "
            "and the same [NETWORK] resolution_2mm."
        )
    return ""


def _refuse_other_meaning(pretrained: Pretrained, target: Target) -> None:
    """Outputs that mean something else than the settings ask for."""
    known = pretrained.target
    if known is not None and _meaning(known) == _meaning(target):
        return
    raise PretrainedError(
        f"{pretrained.path}: its outputs are {_meaning(known)}, and the settings ask for "
        f"{_meaning(target)}. {_remedy(known)}"
    )


def _meaning(target: Target | None) -> str:
    if isinstance(target, BinsTarget):
        return (
            f"age bins of {target.width_years:g} year(s) over "
            f"{target.first_years:g}-{target.last_years:g}"
        )
    return "years" if target else "of a meaning that is not known"


def _remedy(known: Target | None) -> str:
    new = 'pre_trained_head = "new" to train another output layer.'
    if isinstance(known, BinsTarget):
        return (
            f'Set loss_function = "kl" with age_bins = ({known.first_years:g}, {known.last_years:g}) and '
            f"bin_width_years = {known.width_years:g}; or {new}"
        )
    return f'Set loss_function = "mse" or "mae"; or {new}' if known else f"Set {new}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(shown(name, _LONGEST_SHOWN) for name in names[:_NAMES_SHOWN]) + more


def _times(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one value"
