"""Blocks that recompute: the plain block's numbers, its names, a fraction of its memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from BrainAgeNetworks.blocks import pooled_block
from BrainAgeNetworks.peak_memory import bytes_for_backward
from BrainAgeNetworks.recomputing import recompute
from BrainAgeNetworks.registry import NetworkPlan, build_network

BOX = (17, 18, 19)


def pair(name: str, dtype: torch.dtype, layout: torch.memory_format) -> tuple[nn.Module, nn.Module]:
    """The plain network, with batch-norm weights of both signs, and its copy that recomputes."""
    torch.manual_seed(3)
    network = build_network(NetworkPlan(name, BOX, widths=(4, 6, 5))).to(dtype)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    network.to(memory_format=layout)
    return network, recompute(copy.deepcopy(network))


def step(network: nn.Module, volumes: torch.Tensor) -> torch.Tensor:
    outputs = network(volumes)
    outputs.float().square().sum().backward()
    return outputs.detach()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("name", ["agemapper", "sfcn"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_outputs_gradients_and_statistics_are_the_plain_ones(name, dtype, tolerance, layout):
    plain, recomputing = pair(name, dtype, layout)
    for _ in range(2):  # statistics move once a step, not twice
        volumes = torch.randn(3, 1, *BOX, dtype=dtype)
        expected, found = step(plain, volumes), step(recomputing, volumes)
        assert torch.allclose(found, expected, rtol=tolerance, atol=tolerance)
    for (parameter_name, one), other in zip(plain.named_parameters(), recomputing.parameters()):
        largest = max(float(one.grad.abs().max()), 1.0)  # a bias before batch-norm has gradient 0
        assert torch.allclose(other.grad, one.grad, rtol=0, atol=tolerance * largest), (
            parameter_name
        )
    for one, other in zip(plain.buffers(), recomputing.buffers()):
        assert torch.allclose(other.to(dtype), one.to(dtype), rtol=tolerance, atol=tolerance)
    assert {int(b) for n, b in recomputing.named_buffers() if n.endswith("tracked")} == {2}


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(1)
    block = recompute(pooled_block(2, 3, bias=True).double())
    norm = block[1]
    nn.init.normal_(norm.weight)
    volumes = torch.randn(2, 2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]

    def output(volumes: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(block, dict(zip(names, values)), (volumes,))

    values = [block.get_parameter(name) for name in names]
    assert torch.autograd.gradcheck(output, (volumes, *values), atol=1e-6)


def test_the_same_step_twice_has_the_same_bits():
    _, first = pair("sfcn", torch.float32, torch.channels_last_3d)
    _, second = pair("sfcn", torch.float32, torch.channels_last_3d)
    volumes = torch.randn(3, 1, *BOX)
    assert torch.equal(step(first, volumes), step(second, volumes))
    for one, other in zip(first.parameters(), second.parameters()):
        assert torch.equal(one.grad, other.grad)


def test_names_stay_and_evaluation_is_the_plain_one():
    plain, recomputing = pair("agemapper", torch.float32, torch.contiguous_format)
    assert list(plain.state_dict()) == list(recomputing.state_dict())
    volumes = torch.randn(2, 1, *BOX)
    assert torch.equal(plain.eval()(volumes), recomputing.eval()(volumes))
    with torch.no_grad():
        assert torch.equal(plain.train()(volumes), recomputing.train()(volumes))


def test_a_copy_runs_its_own_blocks():
    _, first = pair("sfcn", torch.float32, torch.contiguous_format)
    second = copy.deepcopy(first)
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.fill_(float("nan"))
    outputs = step(second, torch.randn(2, 1, *BOX))
    assert outputs.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in second.parameters())
    assert all(p.grad is None for p in first.parameters())


def test_mixed_precision_keeps_float32_weights_and_gradients():
    plain, recomputing = pair("agemapper", torch.float32, torch.channels_last_3d)
    volumes = torch.randn(4, 1, *BOX)
    with torch.autocast("cpu", torch.bfloat16):
        expected, found = step(plain, volumes), step(recomputing, volumes)
    assert torch.allclose(found, expected, atol=0.05 * float(expected.float().abs().max()))
    assert {p.grad.dtype for p in recomputing.parameters()} == {torch.float32}


def test_no_block_meets_onednns_fault():
    """With bfloat16 and a first axis of 2, oneDNN's weight gradient reads memory that was never written."""
    block = recompute(pooled_block(32, 32, bias=False))
    volumes = torch.randn(4, 32, 2, 4, 4)
    expected = None
    for _ in range(3):
        left_over = [torch.full((1 << n,), float("nan")) for n in range(10, 20)]
        del left_over
        block.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            step(block, volumes)
        expected = block[0].weight.grad.clone() if expected is None else expected
        assert torch.equal(block[0].weight.grad, expected) and expected.isfinite().all()


def test_a_frozen_block_gets_no_gradient():
    _, network = pair("agemapper", torch.float32, torch.contiguous_format)
    first = next(iter(network.Feature_Extractor))
    first.requires_grad_(False)
    step(network, torch.randn(2, 1, *BOX))
    assert all(p.grad is None for p in first.parameters())
    assert all(p.grad is not None for p in network.FullyConnected.parameters())


def test_a_batch_takes_a_fraction_of_the_memory():
    box = (160, 192, 160)
    network = build_network(NetworkPlan("agemapper", box))
    plain = bytes_for_backward(network, box, 12)
    assert bytes_for_backward(recompute(network), box, 12) < plain / 3.9
