"""Frozen layers stay as they are to the last bit; groups learn at their own rates."""

from __future__ import annotations

import copy

import pytest
import torch

from BrainAgeNetworks.registry import NetworkPlan, build_network
from utils.common.errors import UserError
from utils.training.fine_tuning import (
    freeze,
    keep_frozen_statistics,
    layer_names,
    parameter_groups,
)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return build_network(NetworkPlan("agemapper", (16, 18, 16), 1, (2, 3, 4)))


def learn(network, groups, n_steps: int = 3) -> None:
    optimiser = torch.optim.Adam(groups)
    network.train()
    keep_frozen_statistics(network)
    for step in range(n_steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        network(torch.randn(3, 1, 16, 18, 16)).square().mean().backward()
        optimiser.step()


def test_frozen_layers_stay_with_their_statistics_and_the_others_learn(network):
    before = copy.deepcopy(network.state_dict())
    freeze(network, ("Feature_Extractor.Convolution_0", "FullyConnected.FullyConnected_3.weight"))
    learn(network, parameter_groups(network, 0.01))
    for name, value in network.state_dict().items():
        frozen = name.startswith("Feature_Extractor.Convolution_0.") or name.endswith("_3.weight")
        assert torch.equal(value, before[name]) == frozen, name


def test_batch_norm_of_a_frozen_layer_normalises_with_its_statistics(network):
    freeze(network, ("Feature_Extractor",))
    network.train()
    keep_frozen_statistics(network)
    volumes = torch.randn(4, 1, 16, 18, 16)
    together = network.Feature_Extractor(volumes)
    alone = torch.cat([network.Feature_Extractor(volume[None]) for volume in volumes])
    assert torch.allclose(together, alone, atol=1e-6)  # no subject depends on the others
    assert network.FullyConnected.training  # e.g. its dropout


def test_nothing_frozen_changes_nothing(network):
    other = copy.deepcopy(network)
    freeze(network, ())
    learn(network, parameter_groups(network, 0.01))
    optimiser = torch.optim.Adam(other.parameters(), lr=0.01)
    learn(other, [{"params": optimiser.param_groups[0]["params"], "lr": 0.01}])
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    groups = parameter_groups(network, 0.01)
    assert len(groups) == 1 and groups[0]["lr"] == 0.01
    assert all(a is b for a, b in zip(groups[0]["params"], network.parameters(), strict=True))


def test_the_longest_name_decides_the_factor(network):
    factors = (
        ("Feature_Extractor", 0.1),
        ("FullyConnected.FullyConnected_1", 2.0),
        ("Feature_Extractor.Convolution_2", 0.5),
    )
    groups = parameter_groups(network, 0.02, factors)
    rate_of = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        expected = 0.02
        if name.startswith("Feature_Extractor"):
            expected = 0.01 if "Convolution_2" in name else 0.002
        elif "FullyConnected_1." in name:
            expected = 0.04
        assert rate_of[id(parameter)] == pytest.approx(expected), name
    assert [group["lr"] for group in groups] == pytest.approx([0.02, 0.002, 0.04, 0.01])
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_a_group_learns_as_a_run_with_its_rate_does(network):
    """Adam's first step moves a weight by its rate, whatever the gradient."""
    before = copy.deepcopy(network.state_dict())
    groups = parameter_groups(network, 0.01, (("FullyConnected.FullyConnected_1", 0.1),))
    learn(network, groups, n_steps=1)
    moved = {
        name: (value - before[name]).abs().max().item()
        for name, value in network.named_parameters()
    }
    assert moved["FullyConnected.FullyConnected_1.bias"] == pytest.approx(0.001, rel=1e-3)
    assert moved["FullyConnected.FullyConnected_2.bias"] == pytest.approx(0.01, rel=1e-3)


def test_frozen_parameters_are_in_no_group(network):
    freeze(network, ("Feature_Extractor",))
    groups = parameter_groups(network, 0.01, (("Feature_Extractor", 0.1),))
    learning = [p for p in network.parameters() if p.requires_grad]
    assert [len(group["params"]) for group in groups] == [len(learning)]


def test_unknown_layers_are_refused_with_those_there_are(network):
    said = (
        r"the network has no layer 'Convolution_0'; it has Feature_Extractor, Feature_Extractor\.C"
    )
    with pytest.raises(UserError, match=rf"frozen_layers: {said}"):
        freeze(network, ("Convolution_0",))
    with pytest.raises(UserError, match=rf"layer_learning_rates: {said}"):
        parameter_groups(network, 0.01, (("Convolution_0", 0.5),))
    with pytest.raises(UserError, match="a layer is named twice"):
        parameter_groups(network, 0.01, (("FullyConnected", 0.5), ("FullyConnected", 0.1)))
    with pytest.raises(UserError, match="every layer is frozen, none is left to learn"):
        freeze(network, ("Feature_Extractor", "FullyConnected"))


def test_a_name_means_whole_words():
    network = torch.nn.Sequential()
    for name in ("conv_1", "conv_10"):
        network.add_module(name, torch.nn.Linear(2, 2))
    freeze(network, ("conv_1",))
    assert [p.requires_grad for p in network.parameters()] == [False, False, True, True]
    with pytest.raises(UserError, match="no layer 'conv'; it has conv_1, conv_10"):
        freeze(network, ("conv",))


def test_layers_of_a_network(network):
    assert layer_names(network) == [
        "Feature_Extractor", "Feature_Extractor.Convolution_0", "Feature_Extractor.Convolution_1",
        "Feature_Extractor.Convolution_2", "FullyConnected", "FullyConnected.FullyConnected_3",
        "FullyConnected.FullyConnected_2", "FullyConnected.FullyConnected_1",
    ]  # fmt: skip
