"""SFCN as Peng released it: parameters, names, boxes."""

from __future__ import annotations

import pytest
import torch

from BrainAgeNetworks.registry import NetworkPlan, build_network, count_parameters
from utils.common.errors import UserError


def test_published_parameters_and_names():
    network = build_network(NetworkPlan("sfcn", (160, 192, 160), 40, (), (0.5, 0.0, 0.0)))
    assert count_parameters(network) == 2_952_936
    blocks = [
        f"feature_extractor.conv_{i}.{name}"
        for i in range(6)
        for name in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
                     "1.num_batches_tracked")
    ]  # fmt: skip
    state = network.state_dict()
    assert list(state) == [*blocks, "classifier.conv_6.weight", "classifier.conv_6.bias"]
    widths = [state[f"feature_extractor.conv_{i}.0.weight"].shape[0] for i in range(6)]
    assert widths == [32, 64, 128, 256, 256, 64]
    assert state["feature_extractor.conv_5.0.weight"].shape[2:] == (1, 1, 1)
    assert network.classifier.average_pool.kernel_size == (5, 6, 5)
    assert network.classifier.dropout.p == 0.5


@pytest.mark.parametrize("box", [(8, 8, 8), (16, 18, 16), (9, 23, 12)])
def test_any_box(box):
    network = build_network(NetworkPlan("sfcn", box, 5, (2, 3, 4))).eval()
    assert network(torch.randn(2, 1, *box)).shape == (2, 5)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (NetworkPlan("sfcn", (16, 16, 31)), r"16 x 16 x 31 voxels is too small for 5 poolings"),
        (NetworkPlan("sfcn", (16, 16, 16), widths=(4,)), "sfcn needs at least two"),
        (
            NetworkPlan("sfcn", (16, 16, 16), widths=(4, 4), upsample=True),
            "never published with it",
        ),
    ],
)
def test_plans_that_cannot_be(plan, words):
    with pytest.raises(UserError, match=words):
        build_network(plan)
