"""Contents: what cannot be used, what is unlike the cohort, and intensities against the scale factor."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from datasets.inspection import mni_brain
from tests.conftest import save_volume
from tests.experiment.conftest import brain
from utils.experiment.checks import album, images, opening
from utils.experiment.checks import contents as contents_of_check
from utils.experiment.checks.album import MOST_PICTURES, Album
from utils.experiment.checks.contents import ContentsOfContrast, check_contents
from utils.experiment.checks.opening import Volume, in_order
from utils.experiment.checks.pictures import check_page, chosen
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
        checked.contents[f"other{number}"] = ContentsOfContrast(seen=sample, n_looked_at=12)
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


def opened(monkeypatch) -> list[str]:
    """The names of files that are opened whole from now on."""
    names: list[str] = []
    original = opening.open_image

    def counted(path):
        names.append(f"{path.parent.name}/{path.name}")
        return original(path)

    monkeypatch.setattr(opening, "open_image", counted)
    return names


def test_pictures_that_were_not_kept_are_made_anew_for_the_page(checked_study, monkeypatch):
    replace(checked_study, 4, lambda v: v[:, ::-1])
    experiment = checked_study.experiment()
    whole = check_page(experiment, checked_study.check())
    monkeypatch.setattr(album, "MOST_KEPT", 5)
    checked = checked_study.check()
    assert len(checked.album.kept) == 5
    names = opened(monkeypatch)
    page = check_page(experiment, checked)
    assert len(names) == 7 and len(page.pictures) == 12
    for first, second in zip(page.pictures, whole.pictures):
        assert (first.subject_id, first.reasons) == (second.subject_id, second.reasons)
        assert all(np.array_equal(a, b) for a, b in zip(first.slices, second.slices))


def test_a_file_that_went_away_before_its_picture_was_made_is_not_shown(checked_study, monkeypatch):
    monkeypatch.setattr(album, "MOST_KEPT", 0)
    checked = checked_study.check()
    checked_study.volume(3).unlink()
    page = check_page(checked_study.experiment(), checked)
    assert {picture.subject_id for picture in page.pictures} == set(checked_study.ids) - {"004"}


def test_only_the_most_unusual_of_a_contrast_are_held_after_it_was_compared(
    checked_study, monkeypatch
):
    replace(checked_study, 4, lambda v: v[:, ::-1])
    monkeypatch.setattr("utils.experiment.checks.contents.MOST_PICTURES", 3)
    checked = checked_study.check()
    found = checked.contents["tiny"]
    assert [len(found.seen), len(checked.album.kept), found.n_looked_at] == [3, 3, 12]
    assert found.seen[0].volume.subject_id == "005"
    assert found.to_dict()["n_looked_at"] == 12 and "p99" in found.to_dict()["facts"]
    page = check_page(checked_study.experiment(), checked)
    assert (len(page.pictures), page.n_looked_at) == (3, 12)


def test_the_album_is_bounded(checked_study, monkeypatch):
    monkeypatch.setattr(album, "MOST_KEPT", 4)
    checked = checked_study.check("CHECK.volumes=0")
    sizes = [sum(p.nbytes for p in pictures) for pictures in checked.album.kept.values()]
    assert len(sizes) == 4 and max(sizes) < 3 * 96**2
    assert album.MOST_PICTURES < 2000 and isinstance(checked.album, Album)


def test_the_memory_of_a_large_check_is_a_fraction_of_its_pictures(checked_study, monkeypatch):
    n, slices = 2000, ((96, 80), (80, 80), (80, 96))  # those of a 1 mm crop
    contrast = checked_study.experiment().contrasts[0]
    template = brain("x")[1:17, 2:20, :16].astype(np.float32)
    monkeypatch.setattr(
        contents_of_check, "crops", lambda here, conform: ((volume, template) for volume in here)
    )
    monkeypatch.setattr(
        contents_of_check, "thumbnails_of",
        lambda crop: tuple(np.full(shape, 7, np.uint8) for shape in slices),
    )  # fmt: skip
    monkeypatch.setattr(album, "MOST_KEPT", 50)
    volumes = [Volume(contrast, f"{i}", "female", "train", Path(f"{i}.nii")) for i in range(n)]
    bytes_of_pictures = n * sum(math.prod(shape) for shape in slices)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = check_contents([contrast], volumes, 6.0, Album("strict"), "tiny")
        now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(found["tiny"].seen), found["tiny"].n_looked_at) == (MOST_PICTURES, n)
    assert (
        peak - before < bytes_of_pictures / 4
    )  # coarse pictures and numbers, twice while compared
    assert now - before < bytes_of_pictures / 20


def write_two_contrasts_in_one_file(checked_study) -> None:
    head, row = (checked_study.folder / "contrasts.csv").read_text().splitlines()
    rows = [f"{row.replace('tiny,', f'tiny{i},', 1)},{i}" for i in range(2)]
    text = "\n".join([f"{head},volume_index", *rows]) + "\n"
    (checked_study.folder / "contrasts.csv").write_text(text)
    ini = checked_study.folder / "x.ini"
    ini.write_text(ini.read_text().replace('"tiny"\n', '("tiny0", "tiny1")\n', 1))
    for position, subject_id in enumerate(checked_study.ids):
        values = brain(subject_id)
        both = [values, values[:, ::-1] if position == 4 else values]
        save_volume(checked_study.volume(position), np.stack(both, axis=-1))


def test_one_opening_serves_all_contrasts_of_a_file(checked_study, monkeypatch):
    write_two_contrasts_in_one_file(checked_study)
    names = opened(monkeypatch)
    headers: list = []
    original = images.read_header

    def counted(path):
        headers.append(path)
        return original(path)

    monkeypatch.setattr(images, "read_header", counted)
    checked = checked_study.check()
    assert checked.n_headers == 24 and len(headers) == len(set(headers)) == 12
    assert sorted(names) == sorted(f"{i}/tiny.nii.gz" for i in checked_study.ids)
    assert [found.n_looked_at for found in checked.contents.values()] == [12, 12]
    odd = [f for f in checked.findings if f.part == "contents"]
    assert [(f.contrast, f.subject_id) for f in odd] == [("tiny1", "005")]
    before = len(names)
    monkeypatch.setattr(checked.album, "kept", {})
    page = check_page(checked_study.experiment(), checked)
    assert len(page.pictures) == 24 and len(names) == before + 12


def test_a_file_that_fails_fails_for_all_its_contrasts(checked_study):
    write_two_contrasts_in_one_file(checked_study)
    checked_study.volume(2).write_bytes(b"")
    values = brain("x")
    save_volume(checked_study.volume(3), np.stack([values], axis=-1))
    found = [f for f in checked_study.check().findings if f.level == "error"]
    assert {(f.contrast, f.subject_id) for f in found} == {
        ("tiny0", "003"), ("tiny1", "003"), ("tiny1", "004"),
    }  # fmt: skip


def test_threads_are_those_of_the_job_and_bounded(monkeypatch):
    for cores, decoding, headers in ((1, 1, 2), (6, 6, 12), (500, 16, 32)):
        monkeypatch.setattr(opening, "n_cores", lambda cores=cores: cores)
        assert (opening.n_decoding(), opening.n_reading_headers()) == (decoding, headers)


def test_results_come_in_order_and_never_pile_up():
    started, ahead = 0, []

    def numbers():
        nonlocal started
        for number in range(500):
            started += 1
            yield number

    for taken, number in enumerate(in_order(int, numbers(), 2)):
        assert number == taken
        ahead.append(started - taken)
    assert len(ahead) == 500 and max(ahead) <= 2 * opening.RESULTS_A_THREAD + 1


def test_a_divisor_that_training_would_refuse_is_an_error(checked_study):
    checked_study.write_contrast(scale_factor="1e-44")
    found = [f for f in checked_study.check().findings if f.part == "contents"]
    assert {f.subject_id for f in found if f.level == "error"} == set(checked_study.ids)
    assert all("scale_factor" in f.remedy for f in found if f.level == "error")
