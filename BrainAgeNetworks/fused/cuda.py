"""The fused blocks on NVIDIA GPUs, with Triton kernels; the plain modules stay the reference.

Why. Trained as published, a block writes its convolution's output y, reads it for the statistics, writes
and reads it normalised, pools it, and does all of it backwards. Counted in bytes for one volume of
160 x 192 x 160, 32 channels, bf16, the first block moves 4.7 GB that way and 0.28 GB this way:

    forward   volume 20 MB, pooled 39 out, positions 20 out; normalise in place 39 in, 39 out
    backward  volume 20 MB, gradient 39, output 39, positions 20 in

and a later block with V = 2 bytes per value of y moves 4.1 V instead of about 13 V:

    forward   y 1 in, pooled 1/8 out, positions 1/16 out; normalise 1/8 in, 1/8 out
    backward  sums 3/8 in; y 1, gradient 1/8, output 1/8, positions 1/16 in, gradient of y 1 out

Two facts carry it. Batch-norm is monotone in y, so max-pooling first and normalising the eighth gives
the same values: gamma > 0 keeps the largest y of a cell, gamma < 0 the smallest, gamma = 0 makes all
equal and the first is taken. And the gradient of batch-norm (Ioffe & Szegedy 2015, arXiv 1502.03167,
section 3), with g the gradient that ReLU let through, scattered to each cell's winner,
xhat = (y - mean) / sd, n values a channel, dbeta = sum g, dgamma = sum g xhat:

    dy = gamma / sd * (g - dbeta / n - xhat dgamma / n)

is sparse plus affine in y. In the first block y = W P with P (27, n) the patches of the input, which
needs no gradient itself, so y is never needed again. With T = g P^T, s = P 1 and G = P P^T:

    dgamma = (sum of W * T over taps - mean dbeta) / sd
    dW     = gamma / sd * (T - dbeta / n s^T - dgamma / n / sd * W (G - s s^T / n))

(mean: of W P, without the convolution's bias, which batch-norm subtracts; the bias's gradient is zero.)
Partial sums are float32 in a kernel, float64 across kernels, in a fixed order: equal bits in every run
on one device. A NaN in y makes its channel's statistics, and so its whole output, NaN, as in the plain way.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from BrainAgeNetworks.fused import partial_sums
from BrainAgeNetworks.fused.neighbourhoods import dropped_patches, expanded_weights, slots
from BrainAgeNetworks.fused.partial_sums import empty_sums, statistics, total

# Registers below: as compiled for Hopper, bf16, 32 channels, even axes, by Triton 3.6, 3.7 and 3.9, which
# spill none. A tile of the convolution is 64 cells: the least that Hopper's matrix units take at once, 48 KB
# of shared memory (32 of them weights) and 235-250 registers a thread at 128 threads, so two programs a
# multiprocessor. Larger tiles spill.
CONVOLUTION_CELLS = 64
# Programs of the first block's backward: each keeps its sums, eight of 64 x 32 and one of 64 x 64, in
# registers (about 210 a thread at 256 threads: one a multiprocessor) and writes them once, 80 KB. Two in
# turn for each of an H200's 132 multiprocessors; a constant, so that the order of sums is the same on every device.
GATHERING_PROGRAMS = 264
GATHERING_CELLS = 64
CHANNELS_AT_ONCE = 32  # the first block's, also the least that fills a 64-byte read of bf16
# Cells times channels of a tile in the pooling kernels: eight values a thread at 128 threads, read by 16
# bytes; 60 to 100 registers, so that five or more programs share a multiprocessor and hide each other's reads.
POOLING_TILE = 1024
FIRST_CAPABILITY = (8, 0)  # bf16 and TF32 matrix units


@functools.cache
def available() -> tuple[bool, str]:
    """Whether the kernels can run here, and a sentence that says on what or why not."""
    if not torch.cuda.is_available():
        return False, "the fused blocks for GPUs are not used: torch sees no CUDA GPU."
    capability = torch.cuda.get_device_capability()
    if torch.version.cuda is None or capability < FIRST_CAPABILITY:
        return False, (
            f"the fused blocks for GPUs are not used: {torch.cuda.get_device_name()} is no NVIDIA GPU of "
            f"compute capability {'.'.join(map(str, FIRST_CAPABILITY))} or later."
        )
    try:
        import triton
    except ImportError as error:
        return False, (
            f"the fused blocks for GPUs are not used: Triton cannot be imported ({error}); "
            "on Linux it comes with torch's CUDA builds, or by `pip install triton`."
        )
    return (
        True,
        f"the fused blocks run on Triton {triton.__version__}, {torch.cuda.get_device_name()}.",
    )


def first_block(
    volumes: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Conv3d 3x3x3 (padding 1) of one channel -> BatchNorm (batch statistics) -> MaxPool 2 -> ReLU.

    Parameters
    ----------
    volumes
        (B, 1, X, Y, Z), taken as float32; gets no gradient.
    weight, bias
        (C, 1, 3, 3, 3), (C,) or None.
    gamma, beta, eps
        Batch-norm's weight (C,), bias (C,) and the number added to the variance.

    Returns
    -------
    out, mean, variance, n
        (B, C, X // 2, Y // 2, Z // 2), channels last, in autocast's type where it is on, else float32;
        the batch's mean and biased variance (C,), float32, without gradient; values per channel.
    """
    if volumes.requires_grad:
        raise ValueError("first_block gives no gradient for its input; use the plain block for one")
    kind = volumes.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    out, mean, variance = _FirstBlock.apply(volumes, weight, bias, gamma, beta, eps, dtype)
    return out, mean, variance, volumes.numel()


def norm_pool_relu(
    values: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """BatchNorm (batch statistics) -> MaxPool 2 -> ReLU of a convolution's output.

    values (B, C, X, Y, Z), float32, bf16 or float16, best channels last (else copied so); the rest
    and what is returned as for `first_block`, out in the type of values.
    """
    out, mean, variance = _NormPoolReLU.apply(values, gamma, beta, eps)
    return out, mean, variance, values.numel() // values.shape[1]


class _FirstBlock(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        volumes: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        from BrainAgeNetworks.fused.triton_convolution import convolve_and_pool

        volumes = volumes.float().contiguous()
        with _on(volumes):
            batch, _, x, y, z = volumes.shape
            n_channels = weight.shape[0]
            sign = torch.where(gamma < 0, -1.0, 1.0)  # gamma on W is |gamma| on -W
            signed = (weight * sign[:, None, None, None, None]).to(dtype)
            out = _empty_pooled(volumes, n_channels, dtype)
            positions = torch.empty_like(out, dtype=torch.uint8)
            n_cells = batch * -(-x // 2) * -(-y // 2) * -(-z // 2)
            sums = empty_sums(volumes, n_cells, CONVOLUTION_CELLS, n_channels)
            block = _block_of_channels(n_channels, least=16, most=CHANNELS_AT_ONCE)
            convolve_and_pool[len(sums[0]), -(-n_channels // block)](
                volumes, expanded_weights(signed), gamma.float(), out, positions, *sums, n_cells,
                X=x, Y=y, Z=z, C=n_channels, CELLS=CONVOLUTION_CELLS, TILES=partial_sums.TILES, CHANNELS=block,
                **_operands(volumes, dtype), num_warps=4, num_stages=1,
            )  # fmt: skip
            mean, variance = statistics(*sums)
            inverse_sd = (variance + eps).rsqrt()
            _normalise_and_rectify(out, mean, gamma.abs() * inverse_sd, beta, into=out)
            mean = mean * sign
        ctx.save_for_backward(volumes, weight, bias, gamma, out, positions, mean, inverse_sd)
        mean, variance = (mean if bias is None else mean + bias).float(), variance.float()
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out_gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        from BrainAgeNetworks.fused.triton_convolution import gather_gradients

        volumes, weight, bias, gamma, out, positions, mean, inverse_sd = ctx.saved_tensors
        with _on(volumes):
            _, _, x, y, z = volumes.shape
            n_channels = weight.shape[0]
            n_cells = out.numel() // n_channels
            programs = min(-(-n_cells // GATHERING_CELLS), GATHERING_PROGRAMS)
            products = volumes.new_empty(programs, 64, 8, n_channels)
            moments = volumes.new_empty(programs, 64, 64)
            neighbour_sums = volumes.new_empty(programs, 64)
            gradient_sums = volumes.new_empty(programs, n_channels)
            block = _block_of_channels(n_channels, least=16, most=CHANNELS_AT_ONCE)
            gather_gradients[programs, -(-n_channels // block)](
                volumes, _channels_last(out_gradient), out, positions,
                products, moments, neighbour_sums, gradient_sums, n_cells,
                X=x, Y=y, Z=z, C=n_channels, CELLS=GATHERING_CELLS, CHANNELS=block,
                **_operands(volumes, out.dtype), num_warps=8, num_stages=1,
            )  # fmt: skip

            # From neighbourhoods to taps: sum over positions of what each tap meets there.
            meets = slots(volumes.device)
            positions_of_taps = torch.arange(8, device=volumes.device)[:, None]
            t = total(products)[meets, positions_of_taps].sum(dim=0).T  # (C, 27)
            g = total(moments)[meets[:, :, None], meets[:, None, :]].sum(dim=0)  # (27, 27)
            s = total(neighbour_sums)[meets].sum(dim=0)  # (27,)
            for patches in dropped_patches(volumes.to(out.dtype)):
                g = g + patches.T @ patches
                s = s + patches.sum(dim=0)

            n = volumes.numel()
            w = weight.to(out.dtype).double().reshape(n_channels, 27)
            d_beta = total(gradient_sums)
            d_gamma = inverse_sd * ((w * t).sum(dim=1) - mean * d_beta)
            along_y = w @ (g - torch.outer(s, s) / n) * (inverse_sd * d_gamma)[:, None]
            d_weight = t - (torch.outer(d_beta, s) + along_y) / n
            d_weight = d_weight * (gamma * inverse_sd)[:, None]
        return (
            None,
            d_weight.reshape(weight.shape).to(weight.dtype),
            None if bias is None else torch.zeros_like(bias),
            d_gamma.to(gamma.dtype),
            d_beta.to(gamma.dtype),
            None,
            None,
        )


class _NormPoolReLU(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, values: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        from BrainAgeNetworks.fused.triton_pooling import pool_and_sum

        values = _channels_last(values)
        with _on(values):
            batch, n_channels, x, y, z = values.shape
            pooled = _empty_pooled(values, n_channels, values.dtype)
            positions = torch.empty_like(pooled, dtype=torch.uint8)
            n_cells = batch * -(-x // 2) * -(-y // 2) * -(-z // 2)
            block = _block_of_channels(n_channels)
            cells = POOLING_TILE // block
            sums = empty_sums(values, n_cells, cells, n_channels)
            pool_and_sum[len(sums[0]), -(-n_channels // block)](
                values, gamma.float(), pooled, positions, *sums, n_cells,
                X=x, Y=y, Z=z, C=n_channels, CELLS=cells, TILES=partial_sums.TILES, CHANNELS=block, num_warps=4,
            )  # fmt: skip
            mean, variance = statistics(*sums)
            inverse_sd = (variance + eps).rsqrt()
            out = torch.empty_like(pooled)
            _normalise_and_rectify(pooled, mean, gamma * inverse_sd, beta, into=out)
        ctx.save_for_backward(values, gamma, pooled, out, positions, mean, inverse_sd)
        mean, variance = mean.float(), variance.float()
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, out_gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        from BrainAgeNetworks.fused.triton_pooling import spread_gradients, sum_gradients

        values, gamma, pooled, out, positions, mean, inverse_sd = ctx.saved_tensors
        with _on(values):
            batch, n_channels, x, y, z = values.shape
            out_gradient = _channels_last(out_gradient)
            block = _block_of_channels(n_channels)
            rows = POOLING_TILE // block
            blocks = -(-n_channels // block)
            n_rows = out.numel() // n_channels
            programs = -(-n_rows // (rows * partial_sums.TILES))
            gradient_sums = values.new_empty(programs, n_channels, dtype=torch.float32)
            value_sums = torch.empty_like(gradient_sums)
            centre = mean.float()
            sum_gradients[programs, blocks](
                out_gradient, out, pooled, centre, gradient_sums, value_sums, n_rows,
                C=n_channels, ROWS=rows, TILES=partial_sums.TILES, CHANNELS=block, num_warps=4,
            )  # fmt: skip
            d_beta = total(gradient_sums)
            d_gamma = inverse_sd * total(value_sums)
            n = values.numel() // n_channels
            scale = gamma * inverse_sd
            gradient = torch.empty_like(values)
            n_cells = batch * -(-x // 2) * -(-y // 2) * -(-z // 2)
            spread_gradients[-(-n_cells // rows), blocks](
                values, out_gradient, out, positions, centre, scale.float(),
                (-scale * d_beta / n).float(), (-scale * inverse_sd * d_gamma / n).float(),
                gradient, n_cells,
                X=x, Y=y, Z=z, C=n_channels, CELLS=rows, CHANNELS=block, num_warps=4,
            )  # fmt: skip
        return gradient, d_gamma.to(gamma.dtype), d_beta.to(gamma.dtype), None


@contextlib.contextmanager
def _on(tensor: torch.Tensor):
    """On the tensor's device (Triton launches on the current one), in the types as written."""
    device = torch.cuda.device_of(tensor) if tensor.is_cuda else contextlib.nullcontext()
    with device, torch.autocast(tensor.device.type, enabled=False):
        yield


def _operands(like: torch.Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """How matrix products are done: rounded to dtype; float32 as TF32 where torch's convolutions are."""
    import triton.language as tl

    names = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
    return {
        "OPERANDS": names[dtype],
        "TF32": _float32_as_tf32(),
        "EMULATED": not like.is_cuda,  # on the CPU only Triton's interpreter runs them
    }


def _float32_as_tf32() -> bool:
    """Whether torch's own convolutions may round float32 to TF32."""
    return torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]


def _block_of_channels(n_channels: int, least: int = 1, most: int = 64) -> int:
    """A power of two, which Triton's tiles need."""
    return min(max(least, 1 << (n_channels - 1).bit_length()), most)


def _channels_last(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous(memory_format=torch.channels_last_3d)


def _empty_pooled(like: torch.Tensor, n_channels: int, dtype: torch.dtype) -> torch.Tensor:
    """(B, C, X // 2, Y // 2, Z // 2), channels last."""
    batch, _, x, y, z = like.shape
    return torch.empty(
        (batch, n_channels, x // 2, y // 2, z // 2),
        dtype=dtype, device=like.device, memory_format=torch.channels_last_3d,
    )  # fmt: skip


def _normalise_and_rectify(
    pooled: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    beta: torch.Tensor,
    into: torch.Tensor,
) -> None:
    from BrainAgeNetworks.fused.triton_pooling import normalise_and_rectify

    n_channels = pooled.shape[1]
    n_rows = pooled.numel() // n_channels
    block = _block_of_channels(n_channels)
    rows = POOLING_TILE // block
    normalise_and_rectify[-(-n_rows // rows), -(-n_channels // block)](
        pooled, mean.float(), scale.float(), beta.float(), into, n_rows,
        C=n_channels, ROWS=rows, CHANNELS=block, num_warps=4,
    )  # fmt: skip
