"""NIfTI to network input against numbers worked out by hand, and a reason for every file that is refused."""

from __future__ import annotations

import dataclasses
import gzip

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from datasets.contrasts import PUBLISHED_TABLE, Contrast, read_contrast_table
from datasets.volumes import VolumeError, VolumeReader, auto_scale_factor, open_image, read_crop
from utils.common.randomness import generator

SHAPE = (10, 12, 9)
CONTRAST = Contrast(
    name="tiny", data_file="", scale_factor=2.0, voxel_mm=8.0, shape=SHAPE,
    crop=((1, 9), (2, 12), (0, 8)), volume_index=None, divide_by_mean=False, category="",
)  # fmt: skip
BOX = (slice(1, 9), slice(2, 12), slice(0, 8))


def random_values(*words: int | str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return generator("volumes", *words).integers(-50, 2000, shape).astype(np.int16)


def reason(path, contrast: Contrast = CONTRAST, conform: str = "strict") -> str:
    with pytest.raises(VolumeError) as caught:
        read_crop(path, contrast, conform)
    return str(caught.value)


@pytest.fixture(scope="module")
def published():
    return read_contrast_table(PUBLISHED_TABLE)


def test_published_1mm_steps_by_hand(published, tmp_path, write_volume):
    stored = np.zeros((182, 218, 182), dtype=np.int16)
    stored[10, 12, 0], stored[169, 203, 159], stored[100, 100, 100] = 3, 5, 8
    stored[9, 12, 0] = stored[10, 11, 0] = stored[170, 12, 0] = 1000  # just outside the crop
    stored[10, 204, 0] = stored[10, 12, 160] = 1000
    path = write_volume(tmp_path / "t1.nii.gz", stored, voxel_mm=1.0)
    mean = 16 / (160 * 192 * 160)  # background included
    for name in ("T1_nonlinear", "swi"):
        contrast = published[name]
        volume = VolumeReader(contrast, contrast.scale_factor).read(path)
        assert volume.shape == (160, 192, 160) and volume.dtype == np.float32
        divisor = contrast.scale_factor * (mean if name == "T1_nonlinear" else 1.0)
        assert volume[0, 0, 0] == pytest.approx(3 / divisor, rel=1e-6)
        assert volume[159, 191, 159] == pytest.approx(5 / divisor, rel=1e-6)
        assert volume[90, 88, 100] == pytest.approx(8 / divisor, rel=1e-6)
        assert np.count_nonzero(volume) == 3


def test_published_2mm_steps_by_hand_and_which_contrasts_are_divided_by_their_mean(
    published, tmp_path, write_volume
):
    stored = np.zeros((91, 109, 91), dtype=np.float32)
    stored[5, 6, 0], stored[84, 101, 79] = 2.5, 4.0
    stored[4, 6, 0] = stored[5, 102, 0] = stored[5, 6, 80] = 99.0
    path = write_volume(tmp_path / "vbm.nii", stored, voxel_mm=2.0)
    volume = VolumeReader(published["vbm"], 3.5557272989543303).read(path)
    assert volume.shape == (80, 96, 80) and np.count_nonzero(volume) == 2
    assert volume[0, 0, 0] == pytest.approx(2.5 / 3.5557272989543303, rel=1e-6)
    assert volume[79, 95, 79] == pytest.approx(4.0 / 3.5557272989543303, rel=1e-6)


def test_slope_and_intercept(tmp_path, write_volume):
    stored = random_values("slope")
    path = write_volume(tmp_path / "a.nii.gz", stored, slope=0.25, intercept=-3.0)
    assert np.array_equal(nib.load(path).get_fdata(), stored * 0.25 - 3.0)  # the file says so
    expected = (stored[BOX] * 0.25 - 3.0).astype(np.float32)
    assert np.array_equal(read_crop(path, CONTRAST), expected)


def test_one_volume_of_a_4d_file(tmp_path, write_volume):
    stored = random_values("4d", shape=(*SHAPE, 3))
    path = write_volume(tmp_path / "a.nii.gz", stored)
    for index in range(3):
        contrast = dataclasses.replace(CONTRAST, volume_index=index)
        assert np.array_equal(read_crop(path, contrast), stored[(*BOX, index)])
    assert reason(path) == "holds 3 volumes and the contrast table gives no volume_index"
    outside = dataclasses.replace(CONTRAST, volume_index=3)
    assert reason(path, outside) == "holds 3 volumes, volume_index 3 is not among them"
    single = write_volume(tmp_path / "b.nii.gz", stored[..., :1])
    assert np.array_equal(read_crop(single, CONTRAST), stored[(*BOX, 0)])
    five = write_volume(tmp_path / "c.nii.gz", np.stack([stored, stored], axis=-1))
    assert reason(five) == "has 5 dimensions, expected 3"


def stored_as(axes: str, image: nib.Nifti1Image) -> nib.Nifti1Image:
    transform = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(axes)))
    return image.as_reoriented(transform)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.1, 7.3)])
def test_reorienting_is_exact(tmp_path, write_volume, slope, intercept):
    values = random_values("psr")
    path = write_volume(tmp_path / "las.nii.gz", values, slope=slope, intercept=intercept)
    las = nib.Nifti1Image(values, nib.load(path).affine)
    turned = stored_as("PSR", las)
    assert turned.shape != las.shape and nib.aff2axcodes(turned.affine) == ("P", "S", "R")
    psr = write_volume(
        tmp_path / "psr.nii.gz",
        np.asarray(turned.dataobj),
        affine=turned.affine,
        slope=slope,
        intercept=intercept,
    )
    assert np.array_equal(read_crop(psr, CONTRAST, "reorient"), read_crop(path, CONTRAST))
    assert np.array_equal(read_crop(path, CONTRAST, "reorient"), read_crop(path, CONTRAST))
    said = reason(psr)
    assert "shape 12 x 9 x 10, expected 10 x 12 x 9" in said
    assert "orientation PSR, expected LAS" in said and "conform = strict refuses it" in said


def test_reorienting_a_4d_file_takes_its_volume(tmp_path, write_volume):
    values = random_values("psr4", shape=(*SHAPE, 3))
    path = write_volume(tmp_path / "las.nii.gz", values)
    turned = stored_as("RPI", nib.load(path))
    psr = write_volume(
        tmp_path / "rpi.nii.gz", np.asarray(turned.dataobj, np.int16), affine=turned.affine
    )
    contrast = dataclasses.replace(CONTRAST, volume_index=2)
    assert np.array_equal(read_crop(psr, contrast, "reorient"), values[(*BOX, 2)])


def test_what_reorienting_cannot_mend_is_refused_and_resampled_when_asked(tmp_path):
    # a ramp along the world's axes on a finer, shifted RAS grid: its resampled values are known
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-20.0, -140.0, -90.0)
    grid = np.indices((40, 50, 40)).reshape(3, -1)
    world = affine[:3, :3] @ grid + affine[:3, 3:]
    ramp = (0.5 * world[0] + 0.25 * world[1] - world[2] + 500).reshape(40, 50, 40)
    path = tmp_path / "fine.nii.gz"
    nib.save(nib.Nifti1Image(ramp.astype(np.float32), affine), path)
    said = reason(path, conform="reorient")
    assert "voxels of 4 x 4 x 4 mm, expected 8 mm after reorienting" in said
    crop = read_crop(path, CONTRAST, "resample")
    i, j, k = np.indices(SHAPE)[(slice(None), *BOX)]
    expected = 0.5 * (90 - 8 * i) + 0.25 * (-126 + 8 * j) - (-72 + 8 * k) + 500
    assert np.allclose(crop, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(SHAPE, np.float32), "is zero everywhere in the crop"),
        (np.full(SHAPE, 7, np.int16), "is constant (7) everywhere in the crop"),
        (np.full(SHAPE, np.nan, np.float32), "640 voxel(s) are NaN or infinite"),
        (np.ones((9, 12, 9), np.int16), "shape 9 x 12 x 9, expected 10 x 12 x 9"),
        (np.ones((10, 12), np.int16), "has 2 dimensions"),
    ],
)
def test_unusable_values_have_a_reason(tmp_path, write_volume, values, words):
    assert words in reason(write_volume(tmp_path / "a.nii.gz", values))


@pytest.mark.parametrize("conform", ["strict", "reorient", "resample"])
def test_odd_images_have_a_reason(tmp_path, write_volume, conform):
    flat = write_volume(tmp_path / "flat.nii.gz", np.ones((10, 12), np.int16))
    assert reason(flat, conform=conform)
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"][2, 3, 4] = 9
    assert "hold no plain numbers" in reason(
        write_volume(tmp_path / "rgb.nii.gz", colours), conform=conform
    )
    waves = np.zeros(SHAPE, dtype=np.complex64)
    waves[2, 3, 4] = 1j
    assert "hold no plain numbers" in reason(
        write_volume(tmp_path / "complex.nii.gz", waves), conform=conform
    )
    huge = np.full(SHAPE, 1e300)
    assert "NaN or infinite" in reason(
        write_volume(tmp_path / "huge.nii.gz", huge), conform=conform
    )
    nowhere = np.zeros((4, 4))
    nowhere[3, 3] = 1
    singular = nib.Nifti1Image(random_values("singular"), None)
    singular.header.set_sform(nowhere, code=1)
    nib.save(singular, tmp_path / "singular.nii.gz")
    assert reason(tmp_path / "singular.nii.gz", conform=conform)


def test_a_truncated_file_that_needs_conforming_has_a_reason(tmp_path, write_volume):
    turned = stored_as("RAS", nib.Nifti1Image(random_values("cut"), CONTRAST.affine))
    path = tmp_path / "a.nii"
    nib.save(turned, path)
    path.write_bytes(path.read_bytes()[:600])
    assert "is damaged or truncated" in reason(path, conform="reorient")


def test_a_surface_is_no_volume(tmp_path):
    nib.save(nib.gifti.GiftiImage(), tmp_path / "a.surf.gii")
    assert reason(tmp_path / "a.surf.gii") == "is a GiftiImage, not a volume with an affine"


def test_one_bad_voxel_outside_the_crop_does_no_harm(tmp_path, write_volume):
    values = random_values("nan").astype(np.float32)
    values[0, 0, 8] = np.nan
    assert np.isfinite(read_crop(write_volume(tmp_path / "a.nii.gz", values), CONTRAST)).all()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.nii.gz", b"not an image", "is not a NIfTI image"),
        ("text.nii", b"not an image", "is not a NIfTI image"),
        ("empty.nii.gz", b"", "is empty (0 bytes)"),
        ("empty.nii", b"", "is empty (0 bytes)"),
        ("gzip_of_text.nii.gz", gzip.compress(b"not an image"), "is not a NIfTI image"),
        ("gzip_of_nothing.nii.gz", gzip.compress(b""), "nothing can be decompressed"),
        ("picture.png", b"\x89PNG\r\n", "cannot be read as an image"),
    ],
)
def test_no_images(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert words in reason(tmp_path / name)


def test_missing_files_and_folders(tmp_path):
    assert reason(tmp_path / "none.nii.gz") == "no such file"
    assert reason(tmp_path) == "is a folder, not an image"


def test_truncated_files(tmp_path, write_volume):
    for name in ("a.nii.gz", "a.nii"):
        whole = write_volume(tmp_path / name, random_values("short")).read_bytes()
        for share in (0.999, 0.9, 0.5, 0.1, 0.01):
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
            said = reason(tmp_path / name)
            assert "damaged or truncated" in said or "cannot be read" in said


def test_flipped_bits_of_a_compressed_file_never_change_a_value_in_silence(tmp_path, write_volume):
    values = random_values("flip")
    path = write_volume(tmp_path / "a.nii.gz", values)
    whole = path.read_bytes()
    places = generator("flips").choice(len(whole) * 8, 200, replace=False).tolist()
    places += list(range(80)) + list(range(len(whole) * 8 - 64, len(whole) * 8))  # header, checksum
    n_noticed = 0
    for place in places:
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(flipped))
        try:
            crop = read_crop(path, CONTRAST)
        except VolumeError as error:
            assert str(error)
            n_noticed += 1
        else:
            assert np.array_equal(crop, values[BOX])
            assert place < 80, "only the gzip header holds bits that do not matter"
    assert n_noticed > 200


def test_the_compressed_form_is_known_by_its_first_bytes(tmp_path, write_volume):
    values = random_values("names")
    plain = write_volume(tmp_path / "a.nii", values)
    renamed = tmp_path / "b.nii"
    renamed.write_bytes(gzip.compress(plain.read_bytes()))
    assert np.array_equal(read_crop(renamed, CONTRAST), values[BOX])
    assert np.array_equal(open_image(plain).voxels, values)


def test_the_mean_cannot_be_divided_by_when_it_is_not_above_zero(tmp_path, write_volume):
    contrast = dataclasses.replace(CONTRAST, divide_by_mean=True)
    path = write_volume(tmp_path / "a.nii.gz", -np.abs(random_values("negative")))
    with pytest.raises(VolumeError, match="it cannot be divided by"):
        VolumeReader(contrast, 1.0).read(path)


def test_auto_scale_factor_is_the_mean_of_the_99th_percentiles(tmp_path, write_volume):
    heights, paths = [], []
    for number in range(3):
        values = random_values("auto", number)
        heights.append(np.percentile(values[BOX].astype(np.float32), 99))
        paths.append(write_volume(tmp_path / f"{number}.nii.gz", values))
    paths.append(tmp_path / "none.nii.gz")  # passed over
    assert auto_scale_factor(paths, CONTRAST, "strict") == pytest.approx(np.mean(heights), rel=1e-6)
    with pytest.raises(VolumeError, match="no training volume with intensities above 0"):
        auto_scale_factor(paths[3:], CONTRAST, "strict")
