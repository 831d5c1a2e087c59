"""AgeMapper as published: parameters, names, boxes, dropout, the x2 upsampling of 2 mm contrasts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from BrainAgeNetworks.registry import NetworkPlan, build_network, count_parameters
from utils.common.errors import UserError

PUBLISHED = NetworkPlan("agemapper", (160, 192, 160))
TINY = NetworkPlan("agemapper", (16, 18, 16), widths=(4, 8))


def build(plan: NetworkPlan) -> nn.Module:
    torch.manual_seed(3)
    return build_network(plan)


def test_published_parameters_and_names():
    network = build(PUBLISHED)
    assert count_parameters(network) == 1_313_345
    blocks = [
        f"Feature_Extractor.Convolution_{i}.{name}"
        for i in range(5)
        for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var",
                     "1.num_batches_tracked")
    ]  # fmt: skip
    layers = [
        f"FullyConnected.FullyConnected_{i}.{w}" for i in (3, 2, 1) for w in ("weight", "bias")
    ]
    state = network.state_dict()
    assert list(state) == blocks + layers
    convolutions = [state[f"Feature_Extractor.Convolution_{i}.0.weight"] for i in range(5)]
    assert [tuple(w.shape[:2]) for w in convolutions] == [
        (32, 1), (64, 32), (64, 64), (64, 64), (64, 64),
    ]  # fmt: skip
    sizes = [tuple(state[f"FullyConnected.FullyConnected_{i}.weight"].shape) for i in (3, 2, 1)]
    assert sizes == [(96, 9600), (32, 96), (1, 32)]


def test_a_block_is_convolution_norm_pool_relu():
    network = build(TINY).eval()
    volumes = torch.randn(2, 1, 16, 18, 16)
    convolution, norm = network.Feature_Extractor[0][:2]
    expected = nn.functional.conv3d(volumes, convolution.weight, padding=1)
    expected = nn.functional.batch_norm(
        expected, norm.running_mean, norm.running_var, norm.weight, norm.bias
    )
    expected = nn.functional.max_pool3d(expected, 2).clamp(min=0)
    assert torch.allclose(network.Feature_Extractor[0](volumes), expected, atol=1e-6)
    kinds = [type(layer).__name__ for layer in network.FullyConnected]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]


@pytest.mark.parametrize("box", [(8, 8, 8), (16, 18, 16), (33, 17, 21), (4, 5, 64)])
def test_any_box_that_the_poolings_leave_something_of(box):
    network = build(NetworkPlan("agemapper", box, n_outputs=3, widths=(2, 3))).eval()
    assert network(torch.randn(2, 1, *box)).shape == (2, 3)


def test_a_box_that_is_too_small_says_how_large_it_must_be():
    with pytest.raises(
        UserError, match=r"16 x 31 x 32 voxels is too small for 5 poolings .* needs 32\)"
    ):
        build(NetworkPlan("agemapper", (16, 31, 32)))


def test_2mm_contrasts_are_upsampled_with_aligned_corners():
    two = build(NetworkPlan("agemapper", (80, 96, 80), upsample=True))
    assert count_parameters(two) == 1_313_345
    small = build(NetworkPlan("agemapper", (8, 9, 8), widths=(4, 8), upsample=True)).eval()
    same = build(TINY).eval()
    same.load_state_dict(small.state_dict())
    volumes = torch.randn(2, 1, 8, 9, 8)
    larger = nn.functional.interpolate(
        volumes, scale_factor=2, mode="trilinear", align_corners=True
    )
    assert torch.equal(small(volumes), same(larger))


def test_one_pooling_fewer_leaves_2mm_volumes_what_1mm_volumes_have():
    two = build(NetworkPlan("agemapper", (80, 96, 80), n_poolings=4))
    two.load_state_dict(build(PUBLISHED).state_dict())
    kinds = [[type(layer).__name__ for layer in block] for block in two.Feature_Extractor]
    assert kinds[3] == ["Convolution", "BatchNorm3d", "MaxPool3d", "ReLU"]
    assert kinds[4] == ["Convolution", "BatchNorm3d", "ReLU"]
    none = build(NetworkPlan("agemapper", (3, 4, 5), widths=(4, 8), n_poolings=0)).eval()
    assert none(torch.randn(2, 1, 3, 4, 5)).shape == (2, 1)
    with pytest.raises(UserError, match="-1 poolings are asked of 2 blocks"):
        build(NetworkPlan("agemapper", (8, 8, 8), widths=(4, 8), n_poolings=-1))


def test_dropout_stands_before_each_linear_whose_rate_is_above_zero():
    network = build(NetworkPlan("agemapper", (16, 18, 16), 1, (4, 8), (0.5, 0.0, 0.25)))
    layers = list(network.FullyConnected)
    dropouts = {i: layer.p for i, layer in enumerate(layers) if isinstance(layer, nn.Dropout)}
    assert dropouts == {0: 0.5, 5: 0.25}
    assert isinstance(layers[1], nn.Linear) and isinstance(layers[6], nn.Linear)
    assert set(network.state_dict()) == set(build(TINY).state_dict())
    volumes = torch.randn(4, 1, 16, 18, 16)
    network.train()
    assert not torch.equal(network(volumes), network(volumes))
    network.eval()
    assert torch.equal(network(volumes), network(volumes))


@pytest.mark.parametrize("name", ["agemapper", "sfcn"])
def test_in_evaluation_a_subject_alone_is_the_subject_in_a_batch(name):
    network = build(NetworkPlan(name, (16, 18, 16), widths=(4, 8, 4))).eval()
    volumes = torch.randn(5, 1, 16, 18, 16)
    together = network(volumes)
    alone = torch.cat([network(volumes[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-6)
    assert len(torch.unique(together)) == 5
