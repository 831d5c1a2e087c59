"""The fused blocks on the CPU equal the plain modules: values, gradients, statistics, in every corner."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from BrainAgeNetworks.blocks import PooledBlock, pooled_block, set_blocks
from BrainAgeNetworks.fused import backend_for, cpu
from BrainAgeNetworks.fused.slabs import work_on_slabs
from BrainAgeNetworks.registry import NetworkPlan, build_network

BOXES = [(8, 6, 10), (7, 9, 5), (2, 3, 2)]


def block(n_in: int, n_out: int, dtype=torch.float64, bias: bool = True) -> PooledBlock:
    """A block whose slopes are of both signs, one of them 0."""
    torch.manual_seed(5)
    made = pooled_block(n_in, n_out, bias).to(dtype)
    with torch.no_grad():
        made[1].weight.copy_(torch.linspace(-1.5, 1.5, n_out))
        made[1].weight[1] = 0.0
        made[1].bias.copy_(torch.linspace(-0.5, 1.0, n_out).flip(0))
    return made


def fused(plain: PooledBlock) -> PooledBlock:
    return set_blocks(copy.deepcopy(plain), "fused")


def volumes(box, n_channels=1, n=3, dtype=torch.float64) -> torch.Tensor:
    torch.manual_seed(6)
    values = 1.0 + torch.rand(n, n_channels, *box, dtype=dtype)
    return values.contiguous(memory_format=torch.channels_last_3d)


def assert_same(ours: torch.Tensor, reference: torch.Tensor, tolerance: float) -> None:
    assert (ours - reference).abs().max() <= tolerance * reference.abs().max().clamp(min=1.0)


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("n_in", "bias"), [(1, False), (1, True), (4, True)])
def test_values_gradients_and_statistics_are_those_of_the_plain_modules(box, n_in, bias):
    plain = block(n_in, 8, bias=bias)
    ours = fused(plain)
    given = volumes(box, n_in)
    results = []
    for made in (plain, ours):
        x = given.clone().requires_grad_(n_in > 1)
        out = made(x)
        gradient = torch.randn(
            out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1)
        )
        out.backward(gradient)
        results.append((out, x.grad, *(p.grad for p in made.parameters())))
    assert results[1][0].grad_fn.name() != results[0][0].grad_fn.name()  # it was another way
    assert results[1][0].is_contiguous(memory_format=torch.channels_last_3d)
    for a, b in zip(results[1], results[0]):
        assert (a is None) == (b is None)
        if b is not None:
            assert_same(a, b, 1e-12)
    for (name, a), (_, b) in zip(ours.state_dict().items(), plain.state_dict().items()):
        assert_same(a.double(), b.double(), 1e-12)
        assert name != "1.num_batches_tracked" or a == 1


def test_gradients_are_those_of_differences():
    given, made = volumes((4, 5, 4), n=2), block(1, 8)
    weight, _, gamma, beta = (p.detach().clone().requires_grad_() for p in made.parameters())
    torch.manual_seed(2)
    with torch.no_grad():
        gamma.copy_(
            torch.tensor([0.7, -1.1, 0.4, 1.3, -0.2, 0.9, 1.0, -0.5])
        )  # at 0 there is no derivative
    assert torch.autograd.gradcheck(
        lambda *p: cpu.first_block(given, p[0], None, p[1], p[2], 1e-5)[0], (weight, gamma, beta)
    )
    values = torch.randn(2, 8, 2, 3, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *p: cpu.norm_pool_relu(*p, 1e-5)[0], (values, gamma, beta)
    )


def test_in_float32_it_is_no_further_from_the_truth_than_the_plain_way():
    given = volumes((16, 18, 16), dtype=torch.float32)
    plain = block(1, 16, torch.float32)
    truth = copy.deepcopy(plain).double()(given.double())
    error = (fused(plain)(given) - truth).abs().max()
    assert error <= 3e-6
    # and where the mean is a thousand times the spread, squares do not cancel
    values = (1000 + torch.randn(2, 16, 8, 9, 8)).contiguous(memory_format=torch.channels_last_3d)
    ones, zeros = torch.ones(16), torch.zeros(16)
    _, mean, variance, n = cpu.norm_pool_relu(values, ones, zeros, 1e-5)
    expected = torch.var_mean(values.double(), (0, 2, 3, 4), correction=0)
    assert torch.allclose(variance.double(), expected[0], rtol=1e-5)
    assert torch.allclose(mean.double(), expected[1], rtol=1e-6)
    assert n == 2 * 8 * 9 * 8


def test_sums_over_patches_are_those_of_the_patches():
    given = volumes((5, 2, 7), n=2)
    padded = nn.functional.pad(given[:, 0], (1,) * 6)
    taps = itertools.product(range(3), repeat=3)
    patches = torch.stack(
        [padded[:, x : x + 5, y : y + 2, z : z + 7].flatten() for x, y, z in taps]
    )
    s, g = cpu._sums_of_patches(given[:, 0].contiguous())
    assert torch.allclose(s, patches.sum(dim=1), rtol=1e-13)
    assert torch.allclose(g, patches @ patches.T, rtol=1e-13)


def test_of_equal_voxels_the_first_wins_as_in_torch():
    given = torch.zeros(1, 1, 4, 4, 4)
    given[0, 0, 0, 0, 1] = 1.0
    weight = torch.zeros(8, 1, 3, 3, 3)
    weight[:4, 0, 1, 1, 1] = torch.tensor([1.0, -1.0, 0.0, 2.0])
    _, which = cpu.convolve_pool_relu(given, weight, torch.zeros(8), torch.float32)
    assert which[0, :4, 0, 0, 0].tolist() == [1, 0, 0, 1]
    convolved = nn.functional.conv3d(given, weight, padding=1)
    _, places = nn.functional.max_pool3d(convolved, 2, return_indices=True)
    x, y, z = np.unravel_index(places.numpy(), (4, 4, 4))
    assert np.array_equal(which.numpy(), x % 2 * 4 + y % 2 * 2 + z % 2)


def test_what_is_not_a_number_stays_so():
    given = volumes((6, 6, 6), dtype=torch.float32)
    given[1, 0, 3, 3, 3] = torch.nan
    made = fused(block(1, 8, torch.float32))
    assert made(given).isnan().all()
    values = volumes((6, 6, 6), 8, dtype=torch.float32)
    values[0, 2, 1, 1, 1] = torch.nan
    out = cpu.norm_pool_relu(values, torch.ones(8), torch.zeros(8), 1e-5)[0]
    assert out[:, 2].isnan().all() and out[:, [0, 1, 3, 4, 5, 6, 7]].isfinite().all()


def test_under_autocast_it_is_float32_within_the_rounding_of_bfloat16():
    given = volumes((8, 9, 8), dtype=torch.float32)
    network = nn.Sequential(block(1, 8, torch.float32), block(8, 24, torch.float32))
    half = set_blocks(copy.deepcopy(network), "fused")
    expected = network(given)
    with torch.autocast("cpu", torch.bfloat16):
        first = half[0](given)
        out = half[1](first)
    assert first.dtype == out.dtype == torch.bfloat16
    assert_same(out.float(), expected, 0.03)
    for made, loss in ((network, expected), (half, out.float())):
        loss.square().mean().backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in made.parameters())
    assert half[0][1].running_var.dtype == torch.float32
    assert torch.allclose(half[0][1].running_var, network[0][1].running_var, rtol=1e-5)
    flat = [torch.cat([p.grad.flatten() for p in n.parameters()]) for n in (network, half)]
    assert nn.functional.cosine_similarity(*flat, dim=0) > 0.99


def test_in_bfloat16_only_what_is_written_is_rounded():
    # A whole network's gradients jump where a rounding lets another voxel win or opens a ReLU, in both
    # ways alike; of one block, with its values and the gradient of its output given, none does.
    torch.manual_seed(3)
    given = torch.randn(3, 8, 7, 6, 9).bfloat16().contiguous(memory_format=torch.channels_last_3d)
    gradient = torch.randn(3, 8, 3, 3, 4).bfloat16()
    plain = block(4, 8)[1:]
    exact = given.double().requires_grad_()
    expected = plain(exact)
    expected.backward(gradient.double())
    values = given.clone().requires_grad_()
    gamma, beta = (p.detach().float().requires_grad_() for p in plain[0].parameters())
    out = cpu.norm_pool_relu(values, gamma, beta, plain[0].eps)[0]
    out.backward(gradient)
    half_a_unit = 2.0**-8  # of a number's last place in bfloat16, relative to the number
    for ours, reference in ((out, expected), (values.grad, exact.grad)):
        assert ours.dtype == torch.bfloat16
        assert torch.allclose(ours.double(), reference, rtol=1.01 * half_a_unit, atol=1e-6)
    for ours, reference in zip((gamma.grad, beta.grad), plain[0].parameters()):
        assert torch.allclose(ours.double(), reference.grad, rtol=1e-5, atol=1e-5)


def test_bits_do_not_depend_on_the_number_of_threads():
    given = volumes((12, 9, 8), n=2, dtype=torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for n_threads in (1, 2, 3, 1):
            torch.set_num_threads(n_threads)
            weight = torch.linspace(-1, 1, 8 * 27).reshape(8, 1, 3, 3, 3).requires_grad_()
            gamma, beta = (torch.linspace(-1, 2, 8).requires_grad_() for _ in range(2))
            out = cpu.first_block(given, weight, None, gamma, beta, 1e-5)[0]
            values = given.expand(-1, 8, -1, -1, -1).clone().requires_grad_()
            second = cpu.norm_pool_relu(values, gamma, beta, 1e-5)[0]
            (out.square().sum() + (second * 0.3).exp().sum()).backward()
            found.append((out, second, values.grad, weight.grad, gamma.grad, beta.grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_an_error_in_one_piece_of_work_is_raised():
    done = []

    def work(first: int, behind: int) -> None:
        done.extend(range(first, behind))
        if behind == 10:
            raise ValueError("the last slab")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(ValueError, match="the last slab"):
            work_on_slabs(10, work)
    finally:
        torch.set_num_threads(before)
    assert sorted(done) == list(range(10))


@pytest.mark.parametrize("name", ["agemapper", "sfcn"])
def test_a_network_learns_the_same_in_both_ways(name):
    plan = NetworkPlan(name, (8, 12, 8), widths=(8, 8, 8))
    torch.manual_seed(1)
    plain = build_network(plan).double()
    ours = set_blocks(copy.deepcopy(plain), "fused")
    assert list(ours.state_dict()) == list(plain.state_dict())
    for network in (plain, ours):
        optimiser = torch.optim.SGD(network.parameters(), lr=0.05)
        for step in range(4):
            given = volumes((8, 12, 8), n=4) + step
            optimiser.zero_grad()
            (network(given) - torch.arange(4.0)[:, None]).square().mean().backward()
            optimiser.step()
    for a, b in zip(ours.state_dict().values(), plain.state_dict().values()):
        assert_same(a.double(), b.double(), 1e-9)


class _Synchronised(nn.BatchNorm3d):
    pass


def _frozen(made: PooledBlock) -> None:
    made[1].eval()


def _evaluated(made: PooledBlock) -> None:
    made.eval()


def _synchronised(made: PooledBlock) -> None:
    norm = _Synchronised(8).double()
    norm.load_state_dict(made[1].state_dict())
    made[1] = norm


@pytest.mark.parametrize("change", [_frozen, _evaluated, _synchronised])
def test_where_statistics_are_not_those_of_the_batch_the_plain_way_is_taken(change):
    plain = block(1, 8)
    ours = fused(plain)
    given = volumes((6, 6, 6))
    change(plain)
    change(ours)
    assert torch.equal(ours(given), plain(given))
    for a, b in zip(ours.state_dict().values(), plain.state_dict().values()):
        assert torch.equal(a, b)


def test_widths_that_no_vector_fits_take_the_plain_way():
    plain = block(1, 6)
    given = volumes((6, 6, 6))
    assert torch.equal(fused(plain)(given), plain(given))
    assert backend_for(given, 8, torch.float32) is None  # values wider than weights
    assert backend_for(given.to("meta"), 8, torch.float64) is None


def test_an_input_that_needs_a_gradient_gets_it():
    plain = block(1, 8)
    given = [volumes((6, 7, 6)).requires_grad_() for _ in range(2)]
    for made, x in zip((plain, fused(plain)), given):
        made(x).square().sum().backward()
    assert_same(given[1].grad, given[0].grad, 1e-12)


def test_a_way_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"no way called 'quick' .* plain, fused"):
        set_blocks(nn.Sequential(), "quick")
