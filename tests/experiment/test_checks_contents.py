"""Contents: what cannot be used, what is unlike the cohort, and intensities against the scale factor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from datasets.inspection import mni_brain
from tests.conftest import save_volume
from tests.experiment.conftest import brain
from utils.experiment.checks.contents import ContentsOfContrast
from utils.experiment.checks.pictures import MOST_PICTURES, check_page, chosen
from utils.experiment.checks.record import check_record


def contents(checked_study, *settings: str) -> list[str]:
    return [
        f"{f.level} {f.subject_id} {f.reason}".replace("  ", " ")
        for f in checked_study.check(*settings).findings
        if f.part == "contents"
    ]


def replace(checked_study, position: int, change) -> None:
    values = brain(checked_study.ids[position])
    save_volume(checked_study.volume(position), np.asarray(change(values)))


def test_nothing_is_said_of_contents_that_are_right(checked_study):
    assert contents(checked_study) == []


def test_volumes_that_cannot_be_used_are_errors(checked_study):
    replace(checked_study, 0, lambda v: v * np.int16(0))
    replace(checked_study, 1, lambda v: v * np.int16(0) + np.int16(7))
    replace(checked_study, 2, lambda v: np.where(v > 130, np.nan, v).astype(np.float32))
    found = contents(checked_study)
    assert any(s.startswith("error 001") and "zero everywhere" in s for s in found)
    assert any(s.startswith("error 002") and "constant (7)" in s for s in found)
    assert any(s.startswith("error 003") and "NaN" in s for s in found)


def test_a_mean_that_cannot_be_divided_by(checked_study):
    checked_study.write_contrast(divide_by_mean="True", scale_factor="5")
    replace(checked_study, 3, lambda v: v - np.int16(1000))
    found = contents(checked_study)
    assert any(s.startswith("error 004") and "cannot be divided by" in s for s in found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v[:, ::-1], "slice is unlike the cohort's: turned, flipped"),
        (lambda v: v[:, :, ::-1], "slice is unlike the cohort's: turned, flipped"),
        (lambda v: (v * 100).astype(np.int16), "times the cohort's median (z +"),
        (lambda v: v + np.int16(60), "it fills 100 % of the crop"),
        (lambda v: np.where(v > 0, v, -1024).astype(np.int16), "looks like a CT"),
        (lambda v: (v > 0).astype(np.uint8), "a label map or a mask"),
    ],
    ids=["back to front", "upside down", "x100", "unmasked", "CT", "mask"],
)
def test_an_outlier_is_named_and_shown_first(checked_study, change, said):
    replace(checked_study, 4, change)
    checked = checked_study.check()
    found = [f for f in checked.findings if f.part == "contents" and f.level == "warning"]
    assert any(said in f.reason and f.subject_id == "005" for f in found)
    assert {f.subject_id for f in found} == {"005"}
    first = chosen(checked)[0]
    assert first.volume.subject_id == "005" and any(said in reason for reason in first.reasons)


def test_the_threshold_is_a_setting(checked_study):
    assert not contents(checked_study)
    assert contents(checked_study, "CHECK.outlier_z=0.5")


def test_a_small_cohort_says_that_it_cannot_be_compared(checked_study):
    checked = checked_study.check("CHECK.volumes=4")
    found = [f.reason for f in checked.findings if f.part == "contents"]
    assert found == ["4 volume(s) were looked at; a comparison with the cohort needs 10"]
    assert all(math.isnan(seen.score) for seen in checked.contents["tiny"].seen)


@pytest.mark.parametrize(
    ("factor", "said"), [("100", ""), ("5.55", "times what scale_factor 5.55 expects")]
)
def test_intensities_against_the_scale_factor(checked_study, factor, said):
    checked_study.write_contrast(scale_factor=factor)
    found = contents(checked_study)
    assert found == [] if not said else (len(found) == 1 and said in found[0])
    checked_study.write_contrast(scale_factor="auto")
    assert contents(checked_study) == []


def test_heads_that_are_not_extracted_are_noted(checked_study):
    for position in range(12):
        replace(checked_study, position, lambda v: v + np.int16(60))
    assert any("seem not to be brain-extracted" in said for said in contents(checked_study))


@pytest.mark.parametrize(("margin", "warned"), [(0, False), (2, True)], ids=["brain", "head"])
def test_heads_in_the_mni_box_are_compared_with_its_brain(checked_study, margin, warned):
    shape, crop = "23 28 23", "1:22 1:26 0:20"
    checked_study.write_contrast(shape=shape, crop=crop)
    contrast = checked_study.experiment().contrasts[0]
    brain_mask = mni_brain(contrast)
    assert brain_mask is not None and 0.3 < brain_mask.mean() < 0.5
    inside = binary_dilation(brain_mask, iterations=margin) if margin else brain_mask
    for position in range(12):
        volume = np.zeros((23, 28, 23), np.int16)
        noise = np.random.default_rng(position).integers(60, 140, inside.shape)
        volume[1:22, 1:26, 0:20] = np.where(inside, noise, 0)
        save_volume(checked_study.volume(position), volume)
    found = contents(checked_study)
    assert len(found) == warned
    assert not warned or "outside of the MNI152 brain: not brain-extracted" in found[0]


def test_a_grid_of_its_own_is_not_compared_with_it(checked_study):
    assert mni_brain(checked_study.experiment().contrasts[0]) is None


def test_the_record_is_the_same_for_the_same_inputs_and_holds_the_cohort(checked_study):
    replace(checked_study, 4, lambda v: v[:, ::-1])
    experiment = checked_study.experiment()
    first = check_record(experiment, checked_study.check())
    assert first == check_record(checked_study.experiment(), checked_study.check())
    facts = first["contents"]["tiny"]
    assert facts["n_looked_at"] == 12 and 80 < facts["facts"]["p99"]["median"] < 200
    assert first["counts"]["warning"] == {"contents": 1}
    assert [row["subject_id"] for row in first["findings"] if row["part"] == "contents"] == ["005"]
    assert set(first["findings"][0]) == {
        "level",
        "part",
        "contrast",
        "subject_id",
        "reason",
        "remedy",
    }


def test_the_page_is_bounded_and_every_contrast_has_its_share(checked_study):
    checked = checked_study.check()
    sample = checked.contents["tiny"].seen
    for number in range(30):
        checked.contents[f"other{number}"] = ContentsOfContrast(seen=sample)
    taken = chosen(checked)
    assert len(taken) == MOST_PICTURES
    assert [seen.score for seen in taken] == sorted((seen.score for seen in taken), reverse=True)
    checked.contents = {"tiny": ContentsOfContrast(seen=sample * 50)}
    assert len(chosen(checked)) == MOST_PICTURES


def test_the_page_has_every_volume_of_a_small_study(checked_study):
    experiment = checked_study.experiment()
    page = check_page(experiment, checked_study.check())
    assert (len(page.pictures), page.n_looked_at, page.n_headers) == (12, 12, 12)
    assert page.simulated is False and page.pictures[0].about.startswith("female, ")
