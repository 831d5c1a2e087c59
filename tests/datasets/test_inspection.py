"""Facts and pictures of volumes: of thirty simulated brains and one that is wrong, the wrong one comes first."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, rotate, shift

from datasets.contrasts import read_contrast_table
from datasets.inspection import (
    COARSE_PIXELS,
    SMALLEST_COHORT,
    coarse_of,
    facts_of,
    median_and_mad,
    robust_z,
    thumbnails_of,
    unusualness,
)
from datasets.simulation import CohortSpecification, simulate_cohort

N_NORMAL = 30
NAMED_ABOVE = 6.0  # [CHECK] outlier_z


def in_shape(turned: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The middle of a turned volume in a box of another shape."""
    box = np.zeros(shape, np.float32)
    sizes = [min(a, b) for a, b in zip(turned.shape, shape)]
    source = tuple(slice((a - n) // 2, (a - n) // 2 + n) for a, n in zip(turned.shape, sizes))
    target = tuple(slice((b - n) // 2, (b - n) // 2 + n) for b, n in zip(shape, sizes))
    box[target] = turned[source]
    return box


def with_skull(brain: np.ndarray) -> np.ndarray:
    """A bright scalp about 6 to 14 mm outside of the brain, and air with noise."""
    random = np.random.default_rng(0)
    mask, white = brain > 0, np.percentile(brain[brain > 0], 99)
    scalp = binary_dilation(mask, iterations=4) & ~binary_dilation(mask, iterations=2)
    head = np.where(scalp, 1.2 * white * random.random(brain.shape), brain)
    return head + np.abs(random.normal(0, 0.02 * white, brain.shape))


def like_ct(brain: np.ndarray) -> np.ndarray:
    """Air of -1024, soft tissue of 40, bone of 700."""
    inside = binary_dilation(brain > 0, iterations=4)
    bone = inside & ~binary_dilation(brain > 0, iterations=2)
    noise = np.random.default_rng(0).normal(0, 10, brain.shape)
    return np.where(bone, 700.0, np.where(inside, 40.0, -1024.0)) + noise


WRONG = {
    "rotated by 20 degrees": lambda v: rotate(v, 20, axes=(1, 2), reshape=False, order=1),
    "rotated by 90 degrees": lambda v: in_shape(np.rot90(v, 1, (1, 2)), v.shape),
    "upside down": lambda v: v[:, :, ::-1],
    "back to front": lambda v: v[:, ::-1],
    "left and anterior swapped": lambda v: in_shape(v.transpose(1, 0, 2), v.shape),
    "left and superior swapped": lambda v: in_shape(v.transpose(2, 1, 0), v.shape),
    "not extracted": with_skull,
    "a thousand times": lambda v: 1000 * v,
    "a CT": like_ct,
    "shifted by 16 mm": lambda v: shift(v, (0, 0, 4), order=1),
    "only the lower half": lambda v: np.where(np.arange(v.shape[2]) < 20, v, 0),
    "inverted": lambda v: v.max() - v,
    "noise": lambda v: np.random.default_rng(0).normal(100, 10, v.shape),
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """(contrast, whole volumes, crops) of thirty and more simulated brains at 4 mm."""
    folder = tmp_path_factory.mktemp("inspected")
    simulate_cohort(
        CohortSpecification(
            voxel_mm=4.0, contrasts=("T1_nonlinear",), n_nidps=24,
            n_train_per_sex=14, n_validation_per_sex=1, n_test_per_sex=1,
        ), folder, 1,
    )  # fmt: skip
    contrast = read_contrast_table(folder / "contrasts.csv")["T1_nonlinear"]
    paths = sorted((folder / "subjects").glob(f"*/{contrast.data_file}"))[: N_NORMAL + 1]
    volumes = [np.asarray(nib.load(path).dataobj, dtype=np.float32) for path in paths]
    return contrast, volumes


def cropped(volume: np.ndarray, contrast) -> np.ndarray:
    return np.ascontiguousarray(
        volume[tuple(slice(start, stop) for start, stop in contrast.crop)], dtype=np.float32
    )


def judged(contrast, volumes):
    crops = [cropped(volume, contrast) for volume in volumes]
    facts = [facts_of(crop, contrast) for crop in crops]
    return facts, unusualness(facts, [coarse_of(thumbnails_of(crop)) for crop in crops])


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_volume_is_ranked_first_and_named(cohort, name):
    contrast, volumes = cohort
    wrong = np.asarray(WRONG[name](volumes[N_NORMAL]), dtype=np.float32)
    facts, unusual = judged(contrast, [*volumes[:N_NORMAL], wrong])
    assert unusual.score.argmax() == N_NORMAL
    assert unusual.score[N_NORMAL] > NAMED_ABOVE
    assert sorted(unusual.score)[-2] < NAMED_ABOVE
    assert facts[N_NORMAL].is_ct_like == (name == "a CT")


def test_no_normal_volume_is_named(cohort):
    _, unusual = judged(*cohort)
    assert unusual.score.max() < NAMED_ABOVE


def test_left_and_right_exchanged_cannot_be_seen(cohort):
    contrast, volumes = cohort
    _, unusual = judged(contrast, [*volumes[:N_NORMAL], volumes[N_NORMAL][::-1]])
    assert unusual.score[N_NORMAL] < NAMED_ABOVE


def test_what_is_wrong_with_a_few_does_not_hide_them(cohort):
    contrast, volumes = cohort
    turned = [volume[:, :, ::-1] for volume in volumes[:6]]
    _, unusual = judged(contrast, [*turned, *volumes[6:]])
    assert set(np.argsort(-unusual.score)[:6]) == set(range(6))


def test_a_label_map_is_told_from_an_image(cohort):
    contrast, volumes = cohort
    labels = np.digitize(volumes[0], np.percentile(volumes[0][volumes[0] > 0], (0, 30, 60)))
    assert facts_of(cropped(labels, contrast), contrast).is_label_like
    assert not facts_of(cropped(volumes[0], contrast), contrast).is_label_like


def test_a_small_cohort_cannot_be_compared(cohort):
    contrast, volumes = cohort
    with pytest.raises(ValueError, match="9 volumes cannot be compared"):
        judged(contrast, volumes[: SMALLEST_COHORT - 1])


def test_facts_are_of_the_stored_intensities(tiny_cohort):
    crop = np.zeros(tiny_cohort.contrast.box, np.float32)
    crop[:8] = 50.0
    crop[0, 0, 0] = -3.0
    facts = facts_of(crop, tiny_cohort.contrast)
    assert (facts.minimum, facts.maximum, facts.p99) == (-3.0, 50.0, 50.0)
    assert facts.nonzero_fraction == 0.5
    assert facts.filled_fraction == pytest.approx(0.5)
    assert facts.mean == pytest.approx(crop.mean())
    assert facts.scale == 50.0  # this contrast is not divided by its mean
    summary = median_and_mad([facts, facts])
    assert summary["p99"] == {"median": 50.0, "mad": 0.0}


def test_pictures_show_anterior_and_superior_up_and_right_on_the_left():
    crop = np.zeros((16, 18, 14), np.float32)  # LAS: right, posterior, inferior first
    crop[2, 9, 7] = crop[8, 16, 7] = crop[8, 9, 12] = 9.0
    axial, coronal, sagittal = thumbnails_of(crop)
    assert (axial.shape, coronal.shape, sagittal.shape) == ((18, 16), (14, 16), (14, 18))
    assert axial[8, 2] == 255  # right: on the left of the picture
    assert axial[1, 8] == 255  # anterior: up
    assert coronal[1, 8] == 255 and sagittal[1, 9] == 255  # superior: up
    assert sagittal[6, 16] == 255  # anterior: on the right of the picture


def test_large_pictures_are_made_smaller():
    shapes = [picture.shape for picture in thumbnails_of(np.ones((160, 192, 160), np.float32))]
    assert shapes == [(96, 80), (80, 80), (80, 96)]


def test_the_coarse_form_is_small_and_means_of_the_pictures():
    crop = np.random.default_rng(0).random((160, 192, 160)).astype(np.float32)
    pictures = thumbnails_of(crop)
    coarse = coarse_of(pictures)
    assert [picture.shape for picture in coarse] == [(24, 20), (20, 20), (20, 24)]
    assert coarse[0][0, 0] == round(float(pictures[0][:4, :4].mean()))
    assert sum(picture.nbytes for picture in coarse) == 1360
    small = thumbnails_of(crop[:7, :9, :5])
    assert all(np.array_equal(a, b) for a, b in zip(coarse_of(small), small))
    flat = coarse_of(thumbnails_of(crop[:2, :100, :1]))
    assert all(min(p.shape) > 0 and max(p.shape) <= COARSE_PIXELS for p in flat)


def test_pictures_of_hostile_numbers_are_pictures():
    for values in (0.0, -5.0, 3e38):
        crop = np.full((4, 4, 4), values, np.float32)
        crop[0] = 0
        assert all(picture.dtype == np.uint8 for picture in thumbnails_of(crop))


def test_robust_z_has_a_floor():
    values = np.array([1.0] * 10 + [1.5])
    assert robust_z(values, 0.1)[-1] == pytest.approx(5.0)
