"""Refuse, reorient, resample: every orientation, the edges of the tolerances, and what is said of each."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from nibabel.processing import resample_from_to
from scipy.spatial.transform import Rotation

from datasets.conforming import Conformed, conformed, grid_difference, volume_index
from datasets.contrasts import PUBLISHED_TABLE, read_contrast_table
from datasets.images import Image, ImageHeader, VolumeError, open_image, read_header
from datasets.volumes import read_crop
from tests.datasets.image_bytes import BOX, CONTRAST, SHAPE, nifti, some_values

IMAGES = Path(__file__).resolve().parents[3] / "shared" / "realdata"
needs_images = pytest.mark.skipif(
    not IMAGES.is_dir(), reason="no scanner images beside the checkout"
)
PAIRS = (("R", "L"), ("A", "P"), ("S", "I"))
ALL_AXES = [
    "".join(letters)
    for order in itertools.permutations(PAIRS)
    for letters in itertools.product(*order)
]
PUBLISHED = read_contrast_table(PUBLISHED_TABLE)
# One contrast of each published grid.
ONE_MM, TWO_MM = PUBLISHED["swi"], PUBLISHED["vbm"]


def image_of(values: np.ndarray, affine: np.ndarray = CONTRAST.affine, **fields) -> Image:
    """An image in memory; its voxel sizes are those of the affine."""
    zooms = tuple(float(size) for size in nib.affines.voxel_sizes(affine))
    plain = {"slope": 1.0, "intercept": 0.0, "positioned": True} | fields
    header = ImageHeader("NIfTI-1", values.shape, values.dtype, affine, zooms, **plain)
    return Image(header, values)


def turned_to(axes: str, values: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    """The same image, its axes stored in another order and direction."""
    image = nib.Nifti1Image(values, affine)
    return image.as_reoriented(ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axes))))


def reason(image: Image, contrast=CONTRAST, conform: str = "strict") -> str:
    with pytest.raises(VolumeError) as caught:
        conformed(image, contrast, conform)
    return str(caught.value)


def empty(contrast, affine: np.ndarray | None = None, **fields) -> Image:
    """An image of zeros on a published grid, which takes no memory."""
    zeros = np.broadcast_to(np.int16(0), contrast.shape)
    return image_of(zeros, contrast.affine if affine is None else affine, **fields)


def moved(contrast, x_mm: float = 0.0, y_mm: float = 0.0, z_mm: float = 0.0) -> np.ndarray:
    affine = contrast.affine.copy()
    affine[:3, 3] += (x_mm, y_mm, z_mm)
    return affine


def tilted(contrast, degrees: float, axis: str) -> np.ndarray:
    """Turned about the world's axis, the corner stays where it is."""
    affine = contrast.affine.copy()
    affine[:3, :3] = Rotation.from_euler(axis, degrees, degrees=True).as_matrix() @ affine[:3, :3]
    return affine


def test_there_are_48_orientations():
    assert len(set(ALL_AXES)) == 48


@pytest.mark.parametrize("axes", ALL_AXES)
@pytest.mark.parametrize("dtype", ["u1", "i2", ">i2", "f4"])
def test_every_orientation_is_reoriented_exactly(axes, dtype):
    values = some_values("axes", axes, dtype=np.dtype(dtype).newbyteorder("=")).astype(dtype)
    turned = turned_to(axes, values, CONTRAST.affine)
    stored = np.asfortranarray(turned.dataobj)
    image = image_of(stored, turned.affine, slope=0.5, intercept=-2.0)
    assert image.header.axes == axes
    found = conformed(image, CONTRAST, "reorient")
    np.testing.assert_array_equal(found.voxels, values)
    assert found.voxels.dtype == stored.dtype
    assert (found.slope, found.intercept) == (0.5, -2.0)
    assert found.done == ("" if axes == "LAS" else f"reoriented from {axes} to LAS")
    # nibabel's own way to RAS and from there to LAS ends at the same voxels
    canonical = nib.as_closest_canonical(turned)
    np.testing.assert_array_equal(np.asarray(canonical.dataobj)[::-1], found.voxels)
    if axes == "LAS":
        assert conformed(image, CONTRAST, "strict").done == ""
    else:
        said = reason(image)
        assert f"orientation {axes}, expected LAS" in said
        assert said.endswith("; conform = strict refuses it")


@pytest.mark.parametrize("axes", ["LAS", "RAS", "PSR", "SAL"])
def test_a_reoriented_file_gives_the_crop_of_the_original(tmp_path, axes):
    values = some_values("file", axes)
    turned = turned_to(axes, values, CONTRAST.affine)
    fields = {"pixdim": [-1, 8, 8, 8, 0, 0, 0, 0], "qform_code": 0}
    rows = dict(zip(("srow_x", "srow_y", "srow_z"), turned.affine))
    path = tmp_path / "a.nii"
    path.write_bytes(nifti(np.asarray(turned.dataobj), **fields, **rows))
    np.testing.assert_array_equal(read_crop(path, CONTRAST, "reorient"), values[BOX])


@pytest.mark.parametrize("contrast", [ONE_MM, TWO_MM], ids=["1 mm", "2 mm"])
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("conform", ["strict", "reorient"])
def test_the_mni_box_may_lie_one_voxel_off(contrast, axis, sign, conform):
    for share, is_fine in ((0.0, True), (0.9, True), (1.1, False), (20.0, False)):
        shift = [0.0, 0.0, 0.0]
        shift[axis] = sign * share * contrast.voxel_mm
        image = empty(contrast, moved(contrast, *shift))
        if is_fine:
            assert conformed(image, contrast, conform).done == ""
            assert grid_difference(image.header, contrast) == ""
        else:
            said = reason(image, contrast, conform)
            off = ", ".join(f"{value:+.1f}" for value in shift)
            assert said.startswith(f"it lies ({off}) mm off the MNI box")
            assert f"conform = {conform} refuses it" in said


@pytest.mark.parametrize("contrast", [ONE_MM, TWO_MM], ids=["1 mm", "2 mm"])
@pytest.mark.parametrize("axis", "xyz")
@pytest.mark.parametrize("sign", [-1, 1])
def test_axes_may_be_tilted_by_a_degree(contrast, axis, sign):
    for degrees, is_fine in ((0.5, True), (2.0, False), (10.0, False)):
        image = empty(contrast, tilted(contrast, sign * degrees, axis))
        if is_fine:
            assert grid_difference(image.header, contrast) == ""
        else:
            assert f"its axes are tilted by {degrees:.1f} degrees" in reason(image, contrast)


@pytest.mark.parametrize("contrast", [ONE_MM, TWO_MM], ids=["1 mm", "2 mm"])
@pytest.mark.parametrize("share", [0.992, 1.008, 0.98, 1.02, 2.0, 1000.0])
def test_voxels_may_differ_by_a_hundredth(contrast, share):
    affine = contrast.affine.copy()
    affine[:3, :3] *= share
    said = grid_difference(empty(contrast, affine).header, contrast)
    if abs(share - 1) < 0.01:
        assert said == ""
    else:
        assert said.startswith("voxels of ") and f"expected {contrast.voxel_mm:g} mm" in said


def test_voxel_sizes_that_the_header_gives_twice_must_agree(tmp_path):
    affine = TWO_MM.affine.copy()
    affine[:3, :3] *= 1.5
    header = dataclasses.replace(empty(TWO_MM, affine).header, zooms=(2.0, 2.0, 2.0))
    said = grid_difference(header, TWO_MM)
    assert said == "its sform gives voxels of 3 x 3 x 3 mm, and its pixdim others"


def test_a_header_that_does_not_say_where_it_lies():
    image = empty(ONE_MM, positioned=False)
    for conform in ("strict", "reorient"):
        said = reason(image, ONE_MM, conform)
        assert said.startswith("its header does not say where it lies")
        assert f"conform = {conform} refuses it" in said
    assert "it cannot be resampled: its header does not say where it lies" in reason(
        image, ONE_MM, "resample"
    )
    # a grid of one's own has no known place
    assert conformed(image_of(some_values("x"), positioned=False), CONTRAST, "strict").done == ""


def test_a_grid_that_is_no_mni_box_is_not_checked_for_its_place():
    own = dataclasses.replace(ONE_MM, shape=(182, 218, 181))
    assert ONE_MM.in_mni_box and TWO_MM.in_mni_box and not own.in_mni_box
    for affine in (moved(own, 500.0), tilted(own, 20.0, "x")):
        assert grid_difference(empty(own, affine).header, own) == ""
        assert grid_difference(empty(ONE_MM, affine).header, ONE_MM)


def test_everything_that_differs_is_said():
    affine = np.diag([4.0, -4.0, 4.0, 1.0])
    said = grid_difference(image_of(np.zeros((5, 6, 7)), affine).header, CONTRAST)
    assert said == (
        "shape 5 x 6 x 7, expected 10 x 12 x 9; orientation RPS, expected LAS; "
        "voxels of 4 x 4 x 4 mm, expected 8 mm"
    )


def test_reorienting_cannot_mend_shape_or_voxel_size():
    turned = turned_to("PSR", some_values("shape", shape=(10, 12, 8)), CONTRAST.affine)
    image = image_of(np.asarray(turned.dataobj), turned.affine)
    assert reason(image, conform="reorient") == (
        "shape 10 x 12 x 8, expected 10 x 12 x 9 after reorienting; conform = reorient refuses it"
    )
    small = CONTRAST.affine / 2
    assert "voxels of 4 x 4 x 4 mm, expected 8 mm after reorienting" in reason(
        image_of(some_values("size"), small), conform="reorient"
    )
    # an MNI box that is turned and lies elsewhere as well
    far = nib.Nifti1Image(np.broadcast_to(np.int16(0), ONE_MM.shape), moved(ONE_MM, z_mm=30))
    ras = turned_to("RAS", np.asarray(far.dataobj), far.affine)
    said = reason(image_of(np.asarray(ras.dataobj), ras.affine), ONE_MM, "reorient")
    assert said.startswith("it lies (+0.0, +0.0, +30.0) mm off the MNI box after reorienting")


def test_a_singular_affine_is_refused_in_every_way():
    affine = CONTRAST.affine.copy()
    affine[:3, 1] = affine[:3, 0]
    header = dataclasses.replace(image_of(some_values("x")).header, affine=affine)
    image = Image(header, some_values("x"))
    for conform in ("strict", "reorient", "resample"):
        assert "orientation" in reason(image, conform=conform)


@pytest.mark.parametrize("axes", ["LAS", "RAS", "PSR", "IPR"])
@pytest.mark.parametrize("dtype", ["u1", ">i2", "f4", "f8"])
def test_resampling_is_nibabels(axes, dtype):
    affine = np.diag([-5.0, 6.0, 7.0, 1.0])
    affine[:3, 3] = (95.0, -120.0, -80.0)
    affine[:3, :3] = Rotation.from_euler("z", 10, degrees=True).as_matrix() @ affine[:3, :3]
    values = some_values("resample", shape=(20, 18, 14), dtype=np.dtype(dtype).newbyteorder("="))
    turned = turned_to(axes, values, affine)
    stored = np.asarray(turned.dataobj).astype(dtype)
    found = conformed(
        image_of(stored, turned.affine, slope=2.0, intercept=10.0), CONTRAST, "resample"
    )
    expected = resample_from_to(
        nib.Nifti1Image((values * 2.0 + 10.0).astype(np.float32), affine),
        (SHAPE, CONTRAST.affine),
        1,
    ).get_fdata()
    np.testing.assert_allclose(
        found.voxels, expected, rtol=1e-5, atol=1e-4 * np.abs(expected).max()
    )
    assert np.count_nonzero(expected) > 500
    assert (found.slope, found.intercept) == (1.0, 0.0) and found.voxels.dtype == np.float32
    shape = " x ".join(map(str, stored.shape))
    sizes = " x ".join(f"{size:g}" for size in nib.affines.voxel_sizes(turned.affine))
    was = f"resampled from {shape} voxels of {sizes} mm"
    assert found.done == (was if axes == "LAS" else f"reoriented from {axes} to LAS, {was}")


def test_what_is_on_the_grid_already_is_never_resampled():
    values = some_values("untouched")
    found = conformed(image_of(values, slope=3.0), CONTRAST, "resample")
    assert found == Conformed(found.voxels, 3.0, 0.0, "") and found.voxels is values


def test_resampling_what_lies_elsewhere_leaves_nothing_and_that_is_said(tmp_path):
    affine = CONTRAST.affine.copy()
    affine[0, 0], affine[0, 3] = 8.0, 5000.0
    rows = dict(zip(("srow_x", "srow_y", "srow_z"), affine))
    (tmp_path / "a.nii").write_bytes(nifti(some_values("far"), **rows))
    with pytest.raises(VolumeError, match="is zero everywhere in the crop"):
        read_crop(tmp_path / "a.nii", CONTRAST, "resample")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_resampling_keeps_what_is_no_number_and_warns_of_nothing(tmp_path, value):
    affine = CONTRAST.affine.copy()
    affine[0, 0], affine[0, 3] = 8.0, affine[0, 3] - 72.0
    values = some_values("nan", dtype="f8")
    values[5, 6, 4] = value
    rows = dict(zip(("srow_x", "srow_y", "srow_z"), affine))
    (tmp_path / "a.nii").write_bytes(nifti(values, **rows))
    with pytest.raises(VolumeError, match="NaN or infinite"):
        read_crop(tmp_path / "a.nii", CONTRAST, "resample")


@pytest.mark.parametrize(
    ("n_volumes", "index", "expected"),
    [
        (1, None, 0), (1, 0, 0), (3, 0, 0), (3, 2, 2),
        (3, None, "holds 3 volumes and the contrast table gives no volume_index"),
        (3, 3, "holds 3 volumes, volume_index 3 is not among them"),
        (1, 1, "holds 1 volume, volume_index 1 is not among them"),
        (1, 24, "holds 1 volume, volume_index 24 is not among them"),
    ],
)  # fmt: skip
def test_which_volume(n_volumes, index, expected):
    shape = (*SHAPE, n_volumes) if n_volumes > 1 else SHAPE
    image = image_of(some_values("volumes", shape=shape))
    contrast = dataclasses.replace(CONTRAST, volume_index=index)
    if isinstance(expected, str):
        assert reason(image, contrast) == expected
        return
    assert volume_index(image.header, contrast) == expected
    values = image.voxels[..., expected] if n_volumes > 1 else image.voxels
    np.testing.assert_array_equal(conformed(image, contrast, "strict").voxels, values)


@pytest.mark.parametrize("conform", ["reorient", "resample"])
def test_one_volume_of_a_turned_4d_file(conform):
    values = some_values("4d", shape=(*SHAPE, 4), dtype="i2")
    turned = turned_to("PIR", values, CONTRAST.affine)
    contrast = dataclasses.replace(CONTRAST, volume_index=3)
    image = image_of(np.asfortranarray(turned.dataobj), turned.affine)
    found = conformed(image, contrast, conform)
    np.testing.assert_allclose(found.voxels, values[..., 3], atol=1e-2)


@needs_images
@pytest.mark.parametrize("kind", ["T1", "T2", "FLAIR"])
def test_a_patient_in_mni_space_passes_as_it_is(kind):
    path = IMAGES / "ms_mni" / f"patient07_{kind}.nii.gz"
    header = read_header(path)
    assert header.axes == "LAS" and header.positioned
    assert grid_difference(header, ONE_MM) == ""
    assert "expected 91 x 109 x 91" in grid_difference(header, TWO_MM)
    if kind == "T1":
        image = open_image(path)
        for conform in ("strict", "reorient", "resample"):
            assert conformed(image, ONE_MM, conform).done == ""
        np.testing.assert_array_equal(image.voxels, np.asarray(nib.load(path).dataobj))


@needs_images
def test_ten_heads_from_scanners_are_refused_reoriented_and_resampled():
    paths = sorted((IMAGES / "ixi10").glob("*.nii.gz"))
    assert len(paths) == 10
    for path in paths:
        said = grid_difference(read_header(path), TWO_MM)
        assert "orientation PSR, expected LAS" in said and "expected 91 x 109 x 91" in said
    image, stored = open_image(paths[0]), nib.load(paths[0])
    assert "conform = strict refuses it" in reason(image, TWO_MM)
    assert "after reorienting; conform = reorient refuses it" in reason(image, TWO_MM, "reorient")
    shape = (90, 120, 120)
    own = dataclasses.replace(
        TWO_MM, shape=shape, crop=tuple((0, n) for n in shape), voxel_mm=image.header.zooms[0]
    )
    found = conformed(image, own, "reorient")
    assert found.done == "reoriented from PSR to LAS" and found.voxels.dtype == np.uint8
    las = nib.as_closest_canonical(stored).get_fdata()[::-1]
    np.testing.assert_array_equal(found.voxels * found.slope + found.intercept, las)
    found = conformed(image, TWO_MM, "resample")
    assert found.done.startswith("reoriented from PSR to LAS, resampled from 120 x 120 x 90")
    expected = resample_from_to(stored, (TWO_MM.shape, TWO_MM.affine), order=1).get_fdata()
    assert np.abs(found.voxels - expected).max() < 1e-3 * expected.max()
