"""Counted operations and bytes: against torch's own counter, by hand, and against published totals."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from BrainAgeNetworks.costs import LayerCost, NetworkCost, Rates, Work, count_costs
from BrainAgeNetworks.registry import NetworkPlan, build_network

FULL = (160, 192, 160)


@pytest.mark.parametrize("name", ["agemapper", "sfcn"])
@pytest.mark.parametrize("box", [(16, 18, 16), (33, 17, 21)])
def test_operations_are_those_that_torch_counts(name, box):
    plan = NetworkPlan(name, box, 3, widths=(4, 8, 5))
    cost = count_costs(plan)
    network = build_network(plan)
    counter = FlopCounterMode(display=False)
    with counter:
        outputs = network(torch.randn(2, 1, *box))
    assert 2 * cost.inference.flop == counter.get_total_flops()
    with counter:
        outputs = network(torch.randn(2, 1, *box))
        outputs.sum().backward()
    assert 2 * cost.training.flop == counter.get_total_flops()


def test_totals_and_the_first_layers_share_at_full_size():
    agemapper, sfcn = (
        count_costs(NetworkPlan(name, FULL, n_outputs), torch.bfloat16)
        for name, n_outputs in (("agemapper", 1), ("sfcn", 40))
    )
    assert [round(cost.training.flop / 1e9) for cost in (agemapper, sfcn)] == [279, 386]
    first, whole = sfcn.layers[0].training, sfcn.training
    assert first.eager_bytes / whole.eager_bytes == pytest.approx(0.72, abs=0.005)
    assert first.eager_bytes == pytest.approx(4.7e9, rel=0.005)
    shares = [cost.layers[0].training.flop / cost.training.flop for cost in (agemapper, sfcn)]
    assert [round(share, 2) for share in shares] == [0.06, 0.04]


def test_bytes_of_a_block_by_hand():
    """8 x 8 x 8 voxels, 3 channels: 512 values in, 1536 convolved, 192 pooled; float32."""
    cost = count_costs(NetworkPlan("agemapper", (8, 8, 8), widths=(3,)), batch_size=1)
    block = cost.layers[0]
    assert block.name == "Feature_Extractor.Convolution_0"
    assert block.inference.fused_bytes == 4 * (512 + 192)
    # and backward: input, output, its gradient; nobody wants the input's gradient
    assert block.training.fused_bytes == 4 * (512 + 192) + 4 * (512 + 2 * 192)
    forward = (512 + 1536) + 3 * 1536 + (1536 + 192) + 2 * 192
    backward = (1536 + 512) + 5 * 1536 + (192 + 2 * 1536) + 3 * 192
    assert block.training.eager_bytes == 4 * (forward + backward) + 2 * 8 * 192
    # inference: batch-norm reads once, positions are written and never read
    assert block.inference.eager_bytes == 4 * (forward - 1536) + 8 * 192
    second = cost.layers[1]
    assert second.name == "FullyConnected.FullyConnected_3"
    assert second.training.flop == 3 * second.inference.flop == 3 * 2 * 192 * 96
    n_weights = sum(
        p.numel()
        for p in build_network(NetworkPlan("agemapper", (8, 8, 8), widths=(3,))).parameters()
    )
    assert cost.layers[-1].training == Work(0, 40 * n_weights, 40 * n_weights)


def test_half_precision_halves_what_is_fused_but_not_the_weights():
    plan = NetworkPlan("sfcn", (16, 18, 16), 40, widths=(4, 8, 5))
    single, half = (count_costs(plan, dtype) for dtype in (torch.float32, torch.bfloat16))
    for one, other in zip(single.layers[:-1], half.layers[:-1]):
        assert other.training.fused_bytes * 2 == one.training.fused_bytes
        assert other.training.flop == one.training.flop
        assert other.training.eager_bytes * 2 >= one.training.eager_bytes  # positions stay int64
    assert single.layers[-1] == half.layers[-1]


def test_upsampling_belongs_to_the_layer_that_reads_it():
    whole = count_costs(NetworkPlan("agemapper", (16, 18, 16), widths=(4, 8)))
    upsampled = count_costs(NetworkPlan("agemapper", (8, 9, 8), widths=(4, 8), upsample=True))
    assert upsampled.training.flop == whole.training.flop
    assert len(upsampled.layers) == len(whole.layers)
    fewer = 2 * 4 * (16 * 18 * 16 - 8 * 9 * 8)  # the small volume is read, forward and backward
    assert whole.training.fused_bytes - upsampled.training.fused_bytes == fewer


def test_dropout_is_counted_where_there_is_one():
    with_dropout, without = (
        count_costs(NetworkPlan("sfcn", (16, 18, 16), 1, (4, 8, 5), (rate, 0.0, 0.0)))
        for rate in (0.5, 0.0)
    )
    more = with_dropout.training.eager_bytes - without.training.eager_bytes
    assert more == 4 * 5 * (1 + 2 + 2 + 1)
    assert with_dropout.inference == without.inference


def test_the_floor_is_the_sum_of_what_holds_each_layer_up():
    work = {"a": Work(10.0, 1.0, 40.0), "b": Work(2.0, 6.0, 12.0)}
    cost = NetworkCost(tuple(LayerCost(name, own, own) for name, own in work.items()))
    floor = cost.floor(Rates(flop_per_s=1000.0, bytes_per_s=1000.0), training=True)
    assert (floor.arithmetic_ms, floor.bytes_ms, floor.ms) == (12.0, 7.0, 16.0)
    assert (floor.layer, floor.limit) == ("a", "arithmetic")
    eager = cost.floor(Rates(1000.0, 1000.0), training=True, fused=False)
    assert (eager.ms, eager.layer, eager.limit) == (52.0, "a", "bytes")


def test_the_table_has_a_line_for_each_layer_and_the_sum():
    cost = count_costs(NetworkPlan("sfcn", FULL, 40))
    lines = cost.table().splitlines()
    assert len(lines) == 2 + len(cost.layers) + 1
    assert lines[2].split()[:3] == ["feature_extractor.conv_0", "8.49", "16.99"]
    assert lines[-1].split()[:3] == ["all", "131.65", "386.47"]
