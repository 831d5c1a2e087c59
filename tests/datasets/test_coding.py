"""What a prepared volume promises about values: whole numbers and float32 as they are, uint16 within 1e-4 SD."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datasets import kernels
from datasets.augmentation import NO_AUGMENTATION
from datasets.cache.coding import MOST_EXACT_FRACTION, encoded
from datasets.cache.index import CacheKey, Prepared
from datasets.cache.reading import ContrastCache, Parts
from datasets.compression import crc32
from datasets.contrasts import Contrast
from datasets.images import Image, ImageHeader, VolumeError
from datasets.volumes import Crop, crop_of
from utils.common.randomness import generator

SHAPE = (12, 14, 13)
CONTRAST = Contrast(
    name="tiny", data_file="", scale_factor=2.0, voxel_mm=8.0, shape=SHAPE,
    crop=((1, 11), (2, 14), (0, 12)), volume_index=None, divide_by_mean=False, category="",
)  # fmt: skip
STEPS = ("uint16", "uint8", "float16")
# A share of the values' SD in the mask.
MOST_OFF_SD = {"uint16": 1e-4, "uint8": 1 / 40}


def crop_of_array(values: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> Crop:
    """The crop of stored values on the tiny grid."""
    header = ImageHeader(
        "NIfTI-1", SHAPE, values.dtype, CONTRAST.affine, (8.0,) * 3, slope, intercept, True
    )
    return crop_of(Image(header, np.asfortranarray(values)), CONTRAST, "strict")


def entry_of(parts: Parts, coding: dict) -> tuple[Prepared, bytes]:
    payload = parts.packed()
    return Prepared("", 0, 0, "", n_bytes=len(payload), checksum=crc32(payload), **coding), payload


def decoded(crop: Crop, storage: str, divisor: float = 1.0, by=NO_AUGMENTATION):
    """(the box a cache gives, the box the file gives, what is known of the volume)."""
    entry, payload = entry_of(*encoded(crop, storage))
    cache = ContrastCache(Path(), CacheKey.of(CONTRAST, "strict", storage))
    cache.payload = lambda entry: memoryview(payload)
    found, expected = (np.full(crop.box, np.nan, dtype=np.float32) for _ in range(2))
    cache.expand(entry, divisor, by, found)
    crop.fill(expected, divisor, by)
    return found, expected, entry


def off_in_sd(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, in SD of the mask; background must be 0, and a mask stay inside."""
    mask = expected != 0
    assert not found[~mask].any(), "voxels outside the mask"
    spread = expected[mask].astype(np.float64).std()
    return float(np.abs(found.astype(np.float64) - expected).max() / spread)


def sparse(values: np.ndarray, *words) -> np.ndarray:
    """With a background, and single zeros inside."""
    draw = generator("sparse", *words)
    values[:, :, :2] = 0
    values[draw.random(SHAPE) < 0.03] = 0
    return values


def nasty_values() -> dict[str, np.ndarray]:
    """Names of distributions -> float32 volumes."""
    draw = generator("nasty")
    normal = draw.normal(0, 1, SHAPE)
    found = {
        "normal": normal,
        "heavy tails": draw.standard_t(1.5, SHAPE),
        "very heavy tails": draw.standard_cauchy(SHAPE),
        "log-normal": np.exp(3 * normal),
        "negative": -np.abs(normal) - 1,
        "both signs, skewed": draw.gamma(0.2, 1, SHAPE) - 0.1,
        "one outlier of 1e4 SD": np.where(
            np.arange(normal.size).reshape(SHAPE) == 900, 1e4, normal
        ),
        "many outliers": np.where(draw.random(SHAPE) < 0.05, 1e4, normal),
        "few outliers both ways": np.where(
            draw.random(SHAPE) < 0.005, 1e4 * np.sign(normal), normal
        ),
        "tiny": 1e-30 * (normal + 5),
        "tinier": 1e-36 * (normal + 5),
        "huge": 1e30 * (normal + 5),
        "nearly too large": 1e38 * np.clip(normal, -3, 3),
        "two values": np.where(normal > 0, 0.25, 0.75),
        "two close values": np.where(normal > 0, 1.0, 1.0 + 1e-6),
        "whole numbers as float": np.round(normal * 50 + 200),
        "a wide range": 10.0 ** draw.uniform(-20, 20, SHAPE),
        "one far voxel and noise": np.where(normal > 3, 3e5, 1e-3 * normal + 1),
    }
    for far in (3, 10, 20, 25, 30, 40, 100, 300, 1000, 3000, 1e4, 1e5, 1e6):
        spread = normal.copy()
        spread[3, 4:10, 5] = (-30, 30, -25, 25, -6, 6)  # so that steps are as wide as they get
        found[f"{far:g} SD from 0"] = spread + far
        found[f"{-far:g} SD from 0"] = spread - far
    return {name: sparse(values.astype(np.float32), name) for name, values in found.items()}


@pytest.mark.parametrize("divisor", [1.0, 733.1, 3.3e-4])
@pytest.mark.parametrize("storage", ["uint16", "uint8"])
@pytest.mark.parametrize("name", list(nasty_values()))
def test_steps_keep_their_promise_on_nasty_values(name, storage, divisor):
    crop = crop_of_array(nasty_values()[name])
    if crop.largest / divisor > 3e38 or crop.smallest / divisor < -3e38:
        pytest.skip("refused when it is read")
    found, expected, entry = decoded(crop, storage, divisor)
    assert off_in_sd(found, expected) <= MOST_OFF_SD[storage], entry
    assert entry.coding in (storage, "float32")
    if entry.coding == "float32":
        assert np.array_equal(found, expected) and entry.lossless


def test_ordinary_volumes_do_become_steps():
    """The promise would be kept by float32 alone; it would not save anything."""
    for name in ("normal", "one outlier of 1e4 SD", "few outliers both ways", "3 SD from 0",
                 "10 SD from 0", "-20 SD from 0", "huge", "two values"):  # fmt: skip
        crop = crop_of_array(nasty_values()[name])
        for storage in ("uint16", "uint8"):
            assert encoded(crop, storage)[1]["coding"] == storage, name
    for name in ("1000 SD from 0", "-1e+06 SD from 0", "tiny"):
        assert encoded(crop_of_array(nasty_values()[name]), "uint16")[1]["coding"] == "float32"


def test_voxels_too_far_out_are_kept_exactly():
    values = nasty_values()["few outliers both ways"]
    found, expected, entry = decoded(crop_of_array(values), "uint16")
    far = np.abs(expected) == 1e4
    assert 0 < far.sum() <= entry.n_exact <= MOST_EXACT_FRACTION * entry.n_mask
    assert np.array_equal(found[far], expected[far])


@given(
    st.lists(
        st.floats(-(2.0**124), 2.0**124, width=32).map(lambda v: v if v == 0 or abs(v) > 1e-30 else 0.0),
        min_size=2, max_size=60,
    ),
    st.sampled_from(["uint16", "uint8"]),
    st.floats(0.01, 100),
)  # fmt: skip
@example([1.0, 2.0], "uint16", 1.0)
@example([0.0, 5.0], "uint16", 3.0)
@example([1e30, 1e-30, -1e30], "uint16", 1.0)
@example([1.452783744783141e37, -6.739809850901944e36], "uint16", 0.0625)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_steps_keep_their_promise_on_whatever_is_found(numbers, storage, divisor):
    values = np.resize(np.array(numbers, dtype=np.float32), SHAPE)
    try:
        crop = crop_of_array(values)
    except VolumeError:
        return  # constant or zero
    if max(abs(crop.smallest), abs(crop.largest)) / divisor > 3e38:
        return  # refused when it is read
    found, expected, entry = decoded(crop, storage, divisor)
    if np.ptp(expected[expected != 0].astype(float)) == 0:
        assert np.array_equal(found, expected)
    else:
        assert off_in_sd(found, expected) <= MOST_OFF_SD[storage], entry


def shapes_of_masks() -> dict[str, np.ndarray]:
    """Names of masks -> bool volumes."""
    where = np.indices(SHAPE).sum(axis=0)
    one, row, full_but_one = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool), np.ones(SHAPE, bool)
    one[5, 6, 7] = row[5, 6] = True
    full_but_one[5, 6, 7] = False
    corners = np.zeros(SHAPE, bool)
    corners[[1, 1, 10, 10], [2, 13, 2, 13], [0, 11, 11, 0]] = True
    return {
        "one voxel": one,
        "one row": row,
        "all": np.ones(SHAPE, bool),
        "all but one": full_but_one,
        "checkerboard": where % 2 == 0,
        "isolated zeros": where % 3 != 0,
        "corners": corners,
    }


@pytest.mark.parametrize("storage", ["uint16", "uint8", "float16", "float32"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("name", list(shapes_of_masks()))
def test_masks_of_every_shape(name, binary, storage):
    mask = shapes_of_masks()[name]
    real = generator("masks").normal(5, 1, SHAPE) if not binary else np.ones(SHAPE)
    values = np.where(mask, real, 0).astype(np.float32)
    if binary and name == "all":
        values[4, 4, 4] = 2  # else it is refused as constant
    found, expected, entry = decoded(crop_of_array(values), storage)
    assert np.array_equal(found != 0, expected != 0)
    assert entry.n_mask == np.count_nonzero(expected)
    if (binary and name != "all") or (name == "one voxel" and storage != "float16"):
        assert np.array_equal(found, expected), "one value is exact"
    elif name == "one voxel":
        assert np.allclose(found, expected, rtol=1e-3)
    else:
        assert off_in_sd(found, expected) <= {**MOST_OFF_SD, "float32": 0}.get(storage, 1e-2)


@pytest.mark.parametrize("storage", ["uint16", "uint8", "float16", "float32"])
@pytest.mark.parametrize("scaling", [(1.0, 0.0), (0.25, -3.0), (1e-3, 0.1), (-2.0, 7.0)])
@pytest.mark.parametrize(
    ("dtype", "low", "high", "coding"),
    [
        ("uint8", 0, 255, "uint8"),
        ("int8", -128, 127, "int8"),
        ("int16", 0, 200, "uint8"),
        ("int16", -32768, 32767, "int16"),
        ("int16", -100, 100, "int8"),
        ("uint16", 0, 65535, "uint16"),
        ("int32", 0, 60000, "uint16"),
        ("int32", -20000, 20000, "int16"),
        ("int32", -5, 100_000, "float32"),
        ("int32", -(2**31), 2**31 - 1, "float32"),
        ("uint32", 0, 2**32 - 1, "float32"),
        ("int64", 0, 2**40, "float32"),
        ("int64", 0, 300, "uint16"),
    ],
)
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_whole_numbers_are_identical_in_every_storage(
    dtype, low, high, coding, scaling, storage, byte_order
):
    draw = generator("whole", dtype, low)
    values = draw.integers(low, high, SHAPE, endpoint=True).astype(dtype)
    values[:, :, :3] = 0
    values[4, 5, 6:8] = (low, high)
    values = values.astype(np.dtype(dtype).newbyteorder(byte_order))
    found, expected, entry = decoded(crop_of_array(values, *scaling), storage, 7.3)
    assert np.array_equal(found, expected)
    assert entry.coding == coding and entry.lossless


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4"])
@pytest.mark.parametrize("scaling", [(1.0, 0.0), (0.1, -2.0)])
@pytest.mark.parametrize("name", list(nasty_values()))
def test_float32_is_identical(name, scaling, dtype):
    values = nasty_values()[name].astype(dtype)
    if scaling != (1.0, 0.0):
        if name.startswith("tin"):
            pytest.skip("is constant once the intercept is added")
        values = values / 10
    for divisor in (1.0, 733.1):
        found, expected, entry = decoded(crop_of_array(values, *scaling), "float32", divisor)
        assert np.array_equal(found, expected) and entry.lossless


@pytest.mark.parametrize("name", list(nasty_values()))
def test_float16_is_off_by_a_thousandth_of_a_voxel(name):
    """Or by next to nothing of the largest voxel, where a voxel is 2^29 times smaller than that."""
    found, expected, _ = decoded(crop_of_array(nasty_values()[name]), "float16")
    most = np.maximum(np.abs(expected) * 1e-3, np.abs(expected).max() * 2.0**-38)
    assert (np.abs(found.astype(np.float64) - expected) <= most).all()


@pytest.mark.parametrize("storage", STEPS)
def test_encoding_is_a_function_of_the_values_alone(storage):
    for values in (nasty_values()["normal"], nasty_values()["heavy tails"]):
        (one, coding_one), (other, coding_other) = (
            encoded(crop_of_array(values), storage) for _ in range(2)
        )
        assert one.packed() == other.packed() and coding_one == coding_other


def test_a_code_is_the_nearest_step():
    values = np.array([-3.0, -0.26, 0.0, 0.24, 0.26, 9.0], dtype=np.float32)
    codes = np.empty(6, dtype=np.uint8)
    assert kernels.quantise(values, 0.5, -1.0, codes) == 1
    assert codes.tolist() == [0, 0, 1, 1, 2, 19]


def test_statistics_travel_with_the_volume():
    values = nasty_values()["both signs, skewed"]
    crop = crop_of_array(values)
    _, expected, entry = decoded(crop, "uint16")
    mask = expected[expected != 0].astype(np.float64)
    assert entry.mean == pytest.approx(expected.mean(dtype=np.float64), rel=1e-9)
    assert entry.mask_mean == pytest.approx(mask.mean(), rel=1e-9)
    assert entry.mask_sd == pytest.approx(mask.std(), rel=1e-6)
    assert (entry.smallest, entry.largest) == (mask.min(), mask.max())
    assert dataclasses.asdict(entry)["n_mask"] == mask.size
