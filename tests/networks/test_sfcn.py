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
            NetworkPlan("sfcn", (16, 16, 16), widths=(4, 4, 4), n_poolings=3),
            "3 poolings are asked of 2 blocks that can pool; give a number from 0 to 2",
        ),
    ],
)
def test_plans_that_cannot_be(plan, words):
    with pytest.raises(UserError, match=words):
        build_network(plan)


def test_2mm_volumes_are_upsampled_as_agemapper_does():
    small = build_network(NetworkPlan("sfcn", (8, 9, 8), 5, (4, 8, 4), upsample=True)).eval()
    same = build_network(NetworkPlan("sfcn", (16, 18, 16), 5, (4, 8, 4))).eval()
    same.load_state_dict(small.state_dict())
    volumes = torch.randn(2, 1, 8, 9, 8)
    larger = torch.nn.functional.interpolate(
        volumes, scale_factor=2, mode="trilinear", align_corners=True
    )
    assert torch.equal(small(volumes), same(larger))


def test_one_pooling_fewer_leaves_2mm_volumes_what_1mm_volumes_have():
    box = (160, 192, 160)
    one = build_network(NetworkPlan("sfcn", box, 40))
    two = build_network(NetworkPlan("sfcn", tuple(size // 2 for size in box), 40, n_poolings=4))
    two.load_state_dict(one.state_dict())
    assert one.classifier.average_pool.kernel_size == two.classifier.average_pool.kernel_size
    kinds = [[type(layer).__name__ for layer in block] for block in two.feature_extractor]
    assert kinds[3] == ["Convolution", "BatchNorm3d", "MaxPool3d", "ReLU"]
    assert kinds[4] == ["Convolution", "BatchNorm3d", "ReLU"]
