"""Files and headers: what is missing, damaged or on another grid is named with its remedy, without reading it whole."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from tests.conftest import SHAPE, las_affine, save_volume
from tests.experiment.conftest import brain
from utils.experiment.checks.images import quick_number, spread

MIRROR = np.diag([-1.0, 1.0, 1.0, 1.0])  # of the first axis, which then runs to the right
MIRROR[0, 3] = SHAPE[0] - 1


def about(checked_study, *settings: str) -> dict[str, tuple[str, str, str]]:
    """Subject -> (part, reason, remedy) of errors; "" -> the last that stops."""
    findings = checked_study.check(*settings).findings
    return {f.subject_id: (f.part, f.reason, f.remedy) for f in findings if f.level == "error"}


def notes(checked_study, *settings: str) -> list[str]:
    return [
        f"{f.level} {f.part} {f.reason}"
        for f in checked_study.check(*settings).findings
        if f.level != "error" and f.part in ("headers", "files")
    ]


def test_nothing_is_said_of_volumes_that_are_right(checked_study):
    assert about(checked_study) == {} and notes(checked_study) == []


def test_files_that_cannot_be_used(checked_study):
    volume = checked_study.volume
    volume(0).unlink()
    content = volume(1).read_bytes()
    volume(1).write_bytes(content[: len(content) // 2])
    volume(2).write_bytes(b"")
    volume(3).write_text("hello")
    volume(4).unlink()
    volume(4).symlink_to("nowhere.nii.gz")
    found = about(checked_study)
    assert set(found) == {"001", "002", "003", "004", "005"}
    assert {part for part, _, _ in found.values()} == {"files"}
    for subject, said, remedy in (
        ("001", "001/tiny.nii.gz: no such file", "data_directory"),
        ("002", "is damaged or truncated", "Copy or convert"),
        ("003", "is empty", "Look at the file"),
        ("004", "NIfTI", "Look at the file"),
        ("005", "symbolic link", "Restore"),
    ):
        assert said in found[subject][1] and remedy in found[subject][2], subject


def test_a_cut_file_is_found_among_those_that_are_not_opened_whole(checked_study):
    content = checked_study.volume(5).read_bytes()
    checked_study.volume(5).write_bytes(content[:-9])
    found = about(checked_study, "CHECK.volumes=1")
    assert set(found) == {"006"} and "damaged or truncated" in found["006"][1]


def test_members_of_gzip_and_bytes_behind_the_voxels_are_no_fault(checked_study):
    plain = gzip.decompress(checked_study.volume(5).read_bytes())
    half = len(plain) // 2
    checked_study.volume(5).write_bytes(gzip.compress(plain[:half]) + gzip.compress(plain[half:]))
    checked_study.volume(6).write_bytes(gzip.compress(plain + bytes(100)))
    assert about(checked_study) == {}


def test_headers_on_another_grid(checked_study):
    values = brain("001")
    save_volume(checked_study.volume(0), values[:-1])
    save_volume(checked_study.volume(1), values, voxel_mm=7.0)
    ras = las_affine(8.0) @ np.diag([-1, 1, 1, 1])
    save_volume(checked_study.volume(2), values, affine=ras)
    save_volume(checked_study.volume(3), np.stack([values] * 3, axis=-1))
    found = about(checked_study)
    assert {part for part, _, _ in found.values()} == {"headers"}
    for subject, said in (
        ("001", "shape 17 x 20 x 17, expected 18 x 20 x 17"),
        ("002", "voxels of 7 x 7 x 7 mm, expected 8 mm"),
        ("003", "orientation RAS, expected LAS"),
        ("004", "holds 3 volumes and the contrast table gives no volume_index"),
    ):
        assert said in found[subject][1], subject
    assert "reorient" in found["003"][2] and "volume_index" in found["004"][2]


def test_an_index_that_a_4d_file_does_not_have(checked_study):
    checked_study.write_contrast(volume_index="2")
    for position in range(12):
        values = np.stack([brain("x")] * (2 if position == 4 else 3), axis=-1)
        save_volume(checked_study.volume(position), values)
    found = about(checked_study)
    assert set(found) == {"005"} and "volume_index 2 is not among them" in found["005"][1]
    save_volume(checked_study.volume(4), np.stack([brain("x")] * 5, axis=-1))
    assert any("volumes a file: 3 11, 5 1" in note for note in notes(checked_study))


def test_what_reorienting_can_do_is_a_note_and_what_it_cannot_an_error(checked_study):
    values = brain("001")
    save_volume(checked_study.volume(0), values[::-1], affine=las_affine(8.0) @ MIRROR)
    save_volume(checked_study.volume(1), values[:-1])
    reorient = 'DATA.conform="reorient"'
    found = about(checked_study, reorient)
    assert set(found) == {"002"} and "conform = reorient refuses it" in found["002"][1]
    assert any(
        "1 of 11 volumes will be reoriented (stored 1 RAS)" in n
        for n in notes(checked_study, reorient)
    )
    resample = 'DATA.conform="resample"'
    assert about(checked_study, resample) == {}
    assert any(
        "2 of 12 volumes will be reoriented and resampled" in n
        for n in notes(checked_study, resample)
    )


def test_headers_that_do_not_say_where_they_lie_and_mixtures_are_noticed(checked_study):
    for position in range(2):
        plain = bytearray(gzip.decompress(checked_study.volume(position).read_bytes()))
        plain[252:256] = bytes(4)  # qform_code and sform_code
        plain[76:80] = np.array([1.0], "<f4").tobytes()
        checked_study.volume(position).write_bytes(gzip.compress(bytes(plain)))
    save_volume(checked_study.volume(5), brain("006").astype(np.float32))
    save_volume(checked_study.volume(6), brain("007"), slope=0.5)
    found = notes(checked_study, 'DATA.conform="resample"')
    assert any("warning headers" in n and "2 of 12 headers do not say where" in n for n in found)
    assert any("the kind of stored number: int16 11, float32 1" in n for n in found)
    assert any("a slope or intercept: none 11, one 1" in n for n in found)


def test_a_set_without_a_usable_volume_stops_the_run(checked_study):
    for position in range(7, 10):
        checked_study.volume(position).unlink()
    checked = checked_study.check()
    stopping = [finding.sentence for finding in checked.findings if finding.stops]
    assert len(stopping) == 1
    assert stopping[0].startswith(
        "tiny_female: none of the 3 validation volumes can be used; the first:"
    )
    assert "no such file" in stopping[0]


def test_a_test_set_in_another_folder(checked_study):
    (checked_study.folder / "elsewhere").mkdir()
    checked = checked_study.check('MAPPING.data_directory="elsewhere"')
    assert {f.subject_id for f in checked.findings if f.level == "error"} == {"011", "012"}
    assert any(f.level == "warning" and "2 test volumes" in f.reason for f in checked.findings)


@pytest.mark.parametrize(("n", "expected"), [(0, 10), (3, 3), (10, 10), (99, 10), (1, 1)])
def test_a_sample_is_spread_over_the_list(n, expected):
    found = spread(list(range(10)), n)
    assert len(found) == expected and found[0] == 0
    assert expected < 2 or found[-1] == 9


def test_the_quick_part_opens_a_bounded_number():
    assert quick_number([None] * 2) == 20
    assert quick_number([None] * 114) == 3
    assert quick_number([]) == 20
