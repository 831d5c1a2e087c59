"""Networks with batch-norm folded in give the ages of the networks they came from."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from BrainAgeNetworks.folding import folded
from BrainAgeNetworks.registry import NetworkPlan, build_network

PLANS = [
    NetworkPlan("agemapper", (16, 18, 16), 1, (8, 16)),
    NetworkPlan("agemapper", (9, 11, 8), 2, (6, 8), (0.5, 0.0, 0.5), n_poolings=1),
    NetworkPlan("sfcn", (8, 9, 8), 5, (8, 16, 8), upsample=True),
    NetworkPlan("sfcn", (17, 12, 16), 5, (8, 16, 8), (0.5, 0.0, 0.0)),
]


def trained(plan: NetworkPlan) -> nn.Module:
    """A network whose statistics and slopes are those of no fresh one."""
    torch.manual_seed(4)
    network = build_network(plan)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.normal_(layer.weight, 0.5, 1.0)
            nn.init.normal_(layer.bias)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.2, 3.0)
    return network


def inputs(plan: NetworkPlan) -> torch.Tensor:
    return 1 + torch.rand(3, 1, *plan.box)


@pytest.mark.parametrize("plan", PLANS)
def test_outputs_are_those_of_evaluation(plan):
    network, volumes = trained(plan), inputs(plan)
    before = copy.deepcopy(network.state_dict())
    quick = folded(network)
    with torch.inference_mode():
        assert torch.allclose(quick(volumes), network.eval()(volumes), rtol=1e-5, atol=1e-5)
    assert not quick.training and not any(p.requires_grad for p in quick.parameters())
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in quick.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("plan", PLANS)
def test_bfloat16_stays_near_and_gives_float32(plan):
    network, volumes = trained(plan), inputs(plan)
    quick = folded(network, torch.bfloat16)
    with torch.inference_mode():
        expected, outputs = network.eval()(volumes), quick(volumes)
    assert outputs.dtype == torch.float32
    assert (outputs - expected).abs().max() < 0.03 * expected.abs().max()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert (folded(network)(volumes) - outputs).abs().max() < 0.03 * expected.abs().max()


def test_a_fold_by_hand():
    plan = NetworkPlan("sfcn", (4, 4, 4), 1, (4, 4))
    network = trained(plan)
    convolution, norm = network.feature_extractor.conv_1[:2]
    quick = folded(network).feature_extractor.conv_1
    factor = norm.weight[2] / (norm.running_var[2] + norm.eps).sqrt()
    assert torch.allclose(quick.convolution.weight[2], convolution.weight[2] * factor)
    expected = (convolution.bias[2] - norm.running_mean[2]) * factor + norm.bias[2]
    assert torch.allclose(quick.shift[2], expected)
