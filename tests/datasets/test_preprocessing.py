"""Each preprocessing crops where it should and divides by the mean it should, from the file and from the cache."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from datasets.cache.index import CacheKey, other_caches, source_of
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.contrasts import (
    PUBLISHED_TABLE,
    Contrast,
    described_contrast,
    preprocessed,
    read_contrast_table,
)
from datasets.volumes import VolumeError, VolumeReader, auto_scale_factor, open_crop
from utils.common.randomness import generator

SMALL = Contrast(
    name="small", data_file="", scale_factor=None, voxel_mm=8.0, shape=(11, 14, 12),
    crop=((0, 8), (1, 11), (0, 8)), volume_index=None, divide_by_mean=False, category="",
)  # fmt: skip


@pytest.fixture(scope="module")
def published():
    return read_contrast_table(PUBLISHED_TABLE)


def test_where_each_preprocessing_crops(published):
    by_hand = {
        ("T1_nonlinear", "agemapper"): ((10, 170), (12, 204), (0, 160)),
        ("T1_nonlinear", "peng"): ((11, 171), (13, 205), (11, 171)),
        ("vbm", "agemapper"): ((5, 85), (6, 102), (0, 80)),
        ("vbm", "peng"): ((5, 85), (6, 102), (5, 85)),
    }
    for (name, preprocessing), crop in by_hand.items():
        contrast = preprocessed(published[name], preprocessing)
        assert contrast.crop == crop and contrast.box == published[name].box
        assert contrast.describe()["preprocessing"] == preprocessing
    assert preprocessed(SMALL, "peng").crop == ((1, 9), (2, 12), (2, 10))


def test_peng_is_divided_by_the_mean_alone_and_agemapper_stays_the_tables(published):
    for contrast in (*published.values(), SMALL):
        assert preprocessed(contrast, "agemapper") is contrast
        peng = preprocessed(contrast, "peng")
        assert peng.scale_factor == 1.0 and peng.divide_by_mean


@pytest.mark.parametrize(
    ("preprocessing", "first", "divisor"),
    # a voxel's place in the crop is its place in the file less the crop's start, worked out by hand
    [
        ("agemapper", (0, 0, 0), lambda c, total: c.scale_factor * total / (160 * 192 * 160)),
        ("peng", (1, 1, 11), lambda c, total: 1e6 / (182 * 218 * 182)),
    ],
)
def test_bright_voxels_of_a_1mm_volume_end_where_they_should(
    published, tmp_path, write_volume, preprocessing, first, divisor
):
    contrast = preprocessed(published["T1_nonlinear"], preprocessing)
    stored = np.zeros((182, 218, 182), dtype=np.float32)
    corners = [(10 + a, 12 + b, c) for a, b, c in (first, np.add(first, (159, 191, 159)))]
    stored[90, 100, 80] = 500.0
    for corner in corners:
        stored[corner] = 1000.0
    stored[0, 0, 181] = 1e6 - 2500.0  # outside of both crops, inside the whole volume
    path = write_volume(tmp_path / "t1.nii.gz", stored, voxel_mm=1.0)
    volume = VolumeReader(contrast, contrast.scale_factor).read(path)
    by = divisor(contrast, 2500.0)
    middle = (80 - first[0], 88 - first[1], 80 - first[2])
    for place, value in (((0, 0, 0), 1000), ((159, 191, 159), 1000), (middle, 500)):
        assert volume[place] == pytest.approx(value / by, rel=1e-6)
    assert np.count_nonzero(volume) == 3


@pytest.mark.parametrize("preprocessing", ["agemapper", "peng"])
def test_one_bright_voxel_of_a_small_volume(tmp_path, write_volume, preprocessing):
    contrast = preprocessed(SMALL, preprocessing)
    for number in range(12):
        draw = generator("bright voxel", number)
        place = tuple(
            int(draw.integers(a, b)) for a, b in ((1, 8), (2, 11), (2, 8))
        )  # in both crops
        stored = np.ones(SMALL.shape, dtype=np.int16)
        stored[place] = 4000
        path = write_volume(tmp_path / f"{number}.nii.gz", stored)
        volume = VolumeReader(contrast, 1.0).read(path)
        start = (0, 1, 0) if preprocessing == "agemapper" else (1, 2, 2)
        assert np.unravel_index(volume.argmax(), volume.shape) == tuple(np.subtract(place, start))
        mean = 1.0 if preprocessing == "agemapper" else (11 * 14 * 12 - 1 + 4000) / (11 * 14 * 12)
        assert volume.max() == pytest.approx(4000 / mean, rel=1e-6)
        assert volume.min() == pytest.approx(1 / mean, rel=1e-6)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.25, 3.0)])
def test_the_mean_is_that_of_the_whole_volume_after_slope_and_reorienting(
    tmp_path, write_volume, slope, intercept
):
    contrast = preprocessed(SMALL, "peng")
    stored = generator("whole mean").integers(0, 900, SMALL.shape).astype(np.int16)
    path = write_volume(tmp_path / "a.nii.gz", stored, slope=slope, intercept=intercept)
    mean = np.mean(stored * slope + intercept)
    assert open_crop(path, contrast).mean == pytest.approx(mean, rel=1e-6)
    box = tuple(slice(a, b) for a, b in contrast.crop)
    expected = (stored * slope + intercept)[box] / mean
    assert np.allclose(VolumeReader(contrast, 1.0).read(path), expected, rtol=1e-5)


@pytest.mark.parametrize("storage", ["uint16", "float32"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_cache_gives_what_the_file_gives(tmp_path, write_volume, storage, whole):
    contrast = preprocessed(SMALL, "peng")
    draw = generator("cache", storage, int(whole))
    values = draw.gamma(3, 50, SMALL.shape) * (draw.random(SMALL.shape) < 0.6)
    stored = values.astype(np.int16 if whole else np.float32)
    path = write_volume(tmp_path / "a.nii.gz", stored)
    plan = plan_contrast(tmp_path / "cache", contrast, "strict", storage, [path])
    assert carry_out([plan], 1, lambda finished, n: finished).n_volumes == 1
    key = CacheKey.of(contrast, "strict", storage)
    cache = ContrastCache.open(tmp_path / "cache" / key.folder_name, key)
    entry = cache.entry(path)
    assert entry.mean == pytest.approx(stored.mean(dtype=np.float64), rel=1e-6)
    from_file = VolumeReader(contrast, 1.0).read(path)
    from_cache = VolumeReader(contrast, 1.0, "strict", cache).read(path)
    if whole or storage == "float32":
        assert np.array_equal(from_cache, from_file)
    else:  # steps of at most 1e-4 of the standard deviation in the mask
        within = 1e-4 * entry.mask_sd / entry.mean
        assert np.abs(from_cache - from_file).max() <= within * (1 + 1e-6)


def test_agemapper_caches_keep_their_names_and_peng_has_its_own(published, tmp_path):
    contrast = published["T1_nonlinear"]
    key = CacheKey.of(contrast, "strict", "uint16")
    # as written before there was a second preprocessing
    assert sorted(key.plain()) == [
        "conform", "contrast", "crop", "format_version", "shape", "storage", "volume_index", "voxel_mm",
    ]  # fmt: skip
    assert key.folder_name == "T1_nonlinear-fce6345a"
    peng = CacheKey.of(preprocessed(contrast, "peng"), "strict", "uint16")
    assert peng.plain()["preprocessing"] == "peng" and peng.folder_name != key.folder_name
    assert "preprocessing was 'peng' and is 'agemapper'" in key.differences(peng.plain())
    assert "preprocessing was 'agemapper' and is 'peng'" in peng.differences(key.plain())
    assert key.differences(json.loads(json.dumps(key.plain()))) == []


def test_the_crop_alone_does_not_tell_the_two_apart(tmp_path, write_volume):
    centred = dataclasses.replace(preprocessed(SMALL, "peng"), preprocessing="agemapper")
    values = np.arange(11 * 14 * 12, dtype=np.int16).reshape(11, 14, 12)
    path = write_volume(tmp_path / "a.nii.gz", values)
    plan = plan_contrast(tmp_path / "cache", centred, "strict", "uint16", [path])
    carry_out([plan], 1, lambda finished, n: finished)
    key = CacheKey.of(preprocessed(SMALL, "peng"), "strict", "uint16")
    others = other_caches(tmp_path / "cache", key, {source_of(path)})
    assert [differences for _, differences in others] == [
        ["preprocessing was 'agemapper' and is 'peng'"]
    ]


def test_records_of_before_mean_agemapper():
    old = SMALL.describe()
    del old["preprocessing"]
    assert described_contrast(old) == SMALL.describe()
    new = preprocessed(SMALL, "peng").describe()
    assert described_contrast(new) == new


def test_a_scale_factor_of_auto_is_not_worked_out_for_peng(tmp_path, write_volume):
    values = generator("auto").integers(1, 99, SMALL.shape).astype(np.int16)
    path = write_volume(tmp_path / "a.nii.gz", values)
    plan = plan_contrast(tmp_path / "c", preprocessed(SMALL, "peng"), "strict", "uint16", [path])
    carry_out([plan], 1, lambda finished, n: finished)
    (entry,) = ContrastCache.open(plan.cache.folder, plan.cache.key).entries.values()
    assert entry.percentile is None
    assert auto_scale_factor([path], SMALL, "strict") > 1  # the same table under agemapper


def test_what_cannot_be_divided_by_its_whole_mean_has_a_reason(tmp_path, write_volume):
    contrast = preprocessed(SMALL, "peng")
    values = np.full(SMALL.shape, 5.0, np.float32)
    values[5, 5, 5] = 7
    values[0, 0, 11] = np.nan  # outside of the crop
    path = write_volume(tmp_path / "nan.nii.gz", values)
    with pytest.raises(
        VolumeError, match=r"1 voxel\(s\) are NaN .* outside the crop, and it is div"
    ):
        open_crop(path, contrast)
    open_crop(path, SMALL)  # does no harm there
    values[0, 0, 11] = -1e6
    path = write_volume(tmp_path / "negative.nii.gz", values)
    with pytest.raises(VolumeError, match=r"mean intensity of the whole volume is -.* peng cannot"):
        VolumeReader(contrast, 1.0).read(path)
