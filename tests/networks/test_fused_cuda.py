"""The Triton kernels against torch's own modules in float64: on a GPU where there is one, else interpreted."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import pytest
import torch
from torch import nn

from BrainAgeNetworks.fused import cuda, partial_sums

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

ON_GPU = cuda.available()[0]
if not ON_GPU and importlib.metadata.version("triton") < "3.7":
    pytest.skip("Triton's interpreter works with NumPy 2.4 from 3.7 on", allow_module_level=True)
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
gpu = pytest.mark.skipif(not ON_GPU, reason="needs an NVIDIA GPU")

# Without a GPU Triton's interpreter runs the kernels. Triton looks for this word when it is imported,
# and again when a kernel first runs.
with pytest.MonkeyPatch.context() as environment:
    if not ON_GPU:
        environment.setenv("TRITON_INTERPRET", "1")
    import BrainAgeNetworks.fused.triton_convolution
    import BrainAgeNetworks.fused.triton_pooling  # noqa: F401


@pytest.fixture(autouse=True)
def small_and_exact(monkeypatch):
    """Several programs, and several tiles in each, on tiny volumes; float32 not rounded to TF32."""
    if not ON_GPU:
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(partial_sums, "TILES", 2)
    monkeypatch.setattr(cuda, "GATHERING_PROGRAMS", 2)
    monkeypatch.setattr(cuda, "_float32_as_tf32", lambda: False)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def affine_of(n_channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """gamma with both signs and a zero; beta."""
    gamma = 1 + draw(n_channels, seed=5) / 2
    gamma[1::3] *= -1
    gamma[2] = 0
    return gamma, draw(n_channels, seed=6) / 2


def plain(values, gamma, beta, eps):
    """The published order: batch-norm, max-pool, ReLU; with the batch's mean and biased variance."""
    norm = nn.functional.batch_norm(values, None, None, gamma, beta, training=True, eps=eps)
    out = nn.functional.max_pool3d(norm, 2).relu()
    variance, mean = torch.var_mean(values.detach(), dim=(0, 2, 3, 4), correction=0)
    return out, mean, variance


def leaves(*tensors, dtype=torch.float64):
    return [None if t is None else t.detach().to(dtype).requires_grad_() for t in tensors]


def close(fused: torch.Tensor, reference: torch.Tensor, tolerance: float = 2e-5) -> None:
    """Equal within a share of the reference's largest value."""
    assert fused.shape == reference.shape
    error = (fused.double() - reference.double()).abs().max().item()
    assert error <= tolerance * max(reference.abs().max().item(), 1e-3), error


BOXES = [(3, (6, 8, 10)), (2, (7, 5, 9)), (1, (8, 3, 6)), (2, (2, 2, 2))]


@pytest.mark.parametrize(("n_volumes", "box"), BOXES)
@pytest.mark.parametrize(
    ("n_channels", "has_bias"), [(8, True), (16, False), (32, True), (40, False)]
)
def test_first_block(n_volumes, box, n_channels, has_bias):
    volumes = 1 + draw(n_volumes, 1, *box, seed=1)
    weight = draw(n_channels, 1, 3, 3, 3, seed=2) / 5
    bias = 3 + draw(n_channels, seed=3) if has_bias else None
    parameters = (weight, bias, *affine_of(n_channels))
    out_gradient = draw(n_volumes, n_channels, *(size // 2 for size in box), seed=4)

    exact = leaves(*parameters)
    convolved = nn.functional.conv3d(volumes.double(), exact[0], exact[1], padding=1)
    expected, expected_mean, expected_variance = plain(convolved, exact[2], exact[3], 1e-5)
    expected.backward(out_gradient.double())

    fused = leaves(*parameters, dtype=torch.float32)
    out, mean, variance, n = cuda.first_block(volumes, *fused, 1e-5)
    out.backward(out_gradient)
    assert n == volumes.numel()
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    assert not (mean.requires_grad or variance.requires_grad)
    close(out, expected)
    close(mean, expected_mean)
    close(variance, expected_variance)
    for mine, theirs in zip(fused, exact):
        if theirs is exact[1]:  # a bias before batch-norm does nothing; float64 leaves 1e-16
            assert mine is None or not mine.grad.any()
        else:
            close(mine.grad, theirs.grad)


@pytest.mark.parametrize(("n_volumes", "box"), BOXES)
@pytest.mark.parametrize(
    ("n_channels", "channels_last"), [(4, True), (16, False), (64, True), (72, True)]
)
def test_norm_pool_relu(n_volumes, box, n_channels, channels_last):
    values = 10 + draw(n_volumes, n_channels, *box, seed=1)
    if channels_last:
        values = values.contiguous(memory_format=torch.channels_last_3d)
    out_gradient = draw(n_volumes, n_channels, *(size // 2 for size in box), seed=4)

    exact = leaves(values, *affine_of(n_channels))
    expected, expected_mean, expected_variance = plain(*exact, 1e-3)
    expected.backward(out_gradient.double())

    fused = leaves(values, *affine_of(n_channels), dtype=torch.float32)
    out, mean, variance, n = cuda.norm_pool_relu(*fused, 1e-3)
    out.backward(out_gradient)
    assert n == values.numel() // n_channels
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    close(out, expected)
    close(mean, expected_mean)
    close(variance, expected_variance)
    for mine, theirs in zip(fused, exact):
        close(mine.grad, theirs.grad)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_equal_values_the_first_wins(sign):
    """Multiples of 1/2: full of ties, and exact in float32. The gradient shows who won."""
    values = (2 * draw(2, 4, 6, 5, 8)).round().clamp(-1, 1) / 2
    gamma = torch.full((4,), sign, device=DEVICE)
    beta = torch.ones(4, device=DEVICE)
    exact = leaves(values, gamma, beta)
    fused = leaves(values, gamma, beta, dtype=torch.float32)
    out_gradient = draw(2, 4, 3, 2, 4, seed=4)
    plain(*exact, 1e-5)[0].backward(out_gradient.double())
    cuda.norm_pool_relu(*fused, 1e-5)[0].backward(out_gradient)
    for mine, theirs in zip(fused, exact):
        close(mine.grad, theirs.grad)


def test_constant_volumes_first_block():
    """Inside, all voxels tie (the sums are of small integers, exact in any order)."""
    volumes = torch.ones(2, 1, 10, 12, 11, device=DEVICE)
    weight = draw(8, 1, 3, 3, 3, seed=2).sign()
    parameters = (weight, None, *affine_of(8))
    exact, fused = leaves(*parameters), leaves(*parameters, dtype=torch.float32)
    out_gradient = draw(2, 8, 5, 6, 5, seed=4)
    convolved = nn.functional.conv3d(volumes.double(), exact[0], padding=1)
    expected = plain(convolved, exact[2], exact[3], 1e-5)[0]
    expected.backward(out_gradient.double())
    out = cuda.first_block(volumes, *fused, 1e-5)[0]
    out.backward(out_gradient)
    close(out, expected)
    for i in (0, 2, 3):
        close(fused[i].grad, exact[i].grad)


def test_constant_values_have_no_variance():
    values = torch.full((1, 4, 4, 4, 4), 1e4 + 1 / 3, device=DEVICE)
    gamma, beta = affine_of(4)
    out, mean, variance, _ = cuda.norm_pool_relu(values, gamma, beta, 1e-5)
    assert not variance.any()
    assert (mean == values[0, 0, 0, 0, 0]).all()
    assert (out == beta.relu()[None, :, None, None, None]).all()


def test_a_mean_far_from_zero_does_not_cost_the_variance():
    """Mean 1e4, standard deviation 1, and a corner of zeros: E[y^2] - E[y]^2 in float32 would say 8."""
    values = 1e4 + draw(2, 4, 12, 12, 12)
    values[0, :, :4, :4, :4] = 0
    gamma, beta = affine_of(4)
    variance = cuda.norm_pool_relu(values, gamma, beta, 1e-5)[2]
    close(variance, values.double().var(dim=(0, 2, 3, 4), correction=0), 1e-5)
    values[0, :, :4, :4, :4] = 1e4
    variance = cuda.norm_pool_relu(values, gamma, beta, 1e-5)[2]
    close(variance, values.double().var(dim=(0, 2, 3, 4), correction=0), 1e-3)


def test_not_a_number_is_not_hidden():
    values = draw(1, 4, 6, 6, 6)
    values[0, 1, 5, 5, 5] = float("nan")
    gamma, beta = affine_of(4)
    out = cuda.norm_pool_relu(values, gamma, beta, 1e-5)[0]
    assert out[0, 1].isnan().all()
    assert not out[0, [0, 2, 3]].isnan().any()


def test_strided_volumes_and_gradients():
    """A crop of a larger volume, and a gradient that was expanded from one number."""
    volumes = draw(2, 1, 9, 9, 9)[..., 1:, 2:8, ::2]
    parameters = (draw(8, 1, 3, 3, 3, seed=2), None, *affine_of(8))
    exact, fused = leaves(*parameters), leaves(*parameters, dtype=torch.float32)
    convolved = nn.functional.conv3d(volumes.double(), exact[0], padding=1)
    plain(convolved, exact[2], exact[3], 1e-5)[0].sum().backward()
    cuda.first_block(volumes, *fused, 1e-5)[0].sum().backward()
    for i in (0, 2, 3):
        close(fused[i].grad, exact[i].grad)


def test_bf16_is_as_near_float64_as_the_plain_way_in_bf16():
    volumes = 1 + draw(2, 1, 12, 10, 14, seed=1)
    parameters = (draw(16, 1, 3, 3, 3, seed=2) / 5, None, *affine_of(16))
    out_gradient = draw(2, 16, 6, 5, 7, seed=4)

    def gradients(way, dtype):
        weight, _, gamma, beta = tensors = leaves(*parameters, dtype=dtype)
        out = way(weight, gamma, beta)
        out.backward(out_gradient.to(out.dtype))
        return [out.detach(), *(t.grad for t in tensors if t is not None)]

    def by_torch(weight, gamma, beta):
        values = nn.functional.conv3d(volumes.to(weight.dtype), weight, padding=1)
        return plain(values, gamma, beta, 1e-5)[0]

    def by_kernels(weight, gamma, beta):
        return cuda.first_block(volumes, weight, None, gamma, beta, 1e-5)[0]

    exact = gradients(by_torch, torch.float64)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        rounded = gradients(by_torch, torch.float32)
        fused = gradients(by_kernels, torch.float32)
    assert fused[0].dtype == torch.bfloat16
    for mine, theirs, truth in zip(fused, rounded, exact):
        distance = (mine.double() - truth).norm() / truth.norm()
        assert distance <= 1.5 * (theirs.double() - truth).norm() / truth.norm() + 2e-3


def test_bf16_values_round_only_what_is_written():
    values = (10 + draw(2, 8, 6, 7, 8)).bfloat16()
    gamma, beta = affine_of(8)
    exact, fused = leaves(values, gamma, beta), leaves(gamma, beta, dtype=torch.float32)
    fused = [values.clone().requires_grad_(), *fused]
    out_gradient = draw(2, 8, 3, 3, 4, seed=4).bfloat16()
    expected, expected_mean, expected_variance = plain(*exact, 1e-5)
    expected.backward(out_gradient.double())
    out, mean, variance, _ = cuda.norm_pool_relu(*fused, 1e-5)
    out.backward(out_gradient)
    assert out.dtype == fused[0].grad.dtype == torch.bfloat16
    close(mean, expected_mean)
    close(variance, expected_variance)
    close(out, expected, 2**-7)  # a unit of bf16: the interpreter cuts where a GPU rounds
    close(fused[0].grad, exact[0].grad, 2**-7)
    close(fused[1].grad, exact[1].grad, 2**-7)
    close(fused[2].grad, exact[2].grad, 2**-7)


def test_input_that_needs_a_gradient_is_refused():
    volumes = draw(1, 1, 4, 4, 4).requires_grad_()
    with pytest.raises(ValueError, match="no gradient for its input"):
        cuda.first_block(volumes, draw(8, 1, 3, 3, 3), None, *affine_of(8), 1e-5)


def test_available_says_why_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    usable, reason = cuda.available.__wrapped__()
    assert not usable
    assert "torch sees no CUDA GPU" in reason


def test_available_names_an_old_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    usable, reason = cuda.available.__wrapped__()
    assert not usable
    assert "Tesla T4 is no NVIDIA GPU of compute capability 8.0" in reason


@gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_runs_give_equal_bits(dtype):
    volumes = draw(2, 1, 80, 96, 80)

    def run():
        parameters = leaves(draw(32, 1, 3, 3, 3, seed=2), *affine_of(32), dtype=torch.float32)
        later = leaves(*affine_of(32), dtype=torch.float32)
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            out = cuda.first_block(volumes, parameters[0], None, *parameters[1:], 1e-5)[0]
            out = cuda.norm_pool_relu(out, *later, 1e-5)[0]
        out.float().square().sum().backward()
        return [out.detach(), *(t.grad for t in (*parameters, *later))]

    for first, second in zip(run(), run()):
        assert first.equal(second)


@gpu
def test_more_values_than_int32_counts():
    """Beyond 2^31: the last volume's result is that of the volume alone where it decides everything."""
    values = torch.zeros(
        (70, 32, 100, 100, 100), dtype=torch.bfloat16, device=DEVICE,
        memory_format=torch.channels_last_3d,
    )  # fmt: skip
    values[-1] = draw(32, 100, 100, 100).bfloat16()
    gamma, beta = torch.ones(32, device=DEVICE), torch.zeros(32, device=DEVICE)
    out, mean, variance, _ = cuda.norm_pool_relu(values, gamma, beta, 1e-5)
    spread = (variance[None, :, None, None, None] + 1e-5).sqrt()
    expected = nn.functional.max_pool3d(values[-1:].float(), 2) - mean[None, :, None, None, None]
    close(out[-1:], (expected / spread).relu(), 2**-8)
