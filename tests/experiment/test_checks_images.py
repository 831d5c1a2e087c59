"""Files and headers: what is missing, damaged or on another grid is named with its remedy, without reading it whole."""

from __future__ import annotations

import ast
import gzip
import inspect
from dataclasses import replace

import numpy as np
import pytest

from datasets import conforming, headers, images, other_files, volumes
from datasets.conforming import conformed
from datasets.contrasts import PUBLISHED_GRIDS, PUBLISHED_TABLE, read_contrast_table
from datasets.images import VolumeError, open_image
from tests.conftest import SHAPE, las_affine, save_volume
from tests.experiment.conftest import brain
from utils.experiment.checks.images import (
    LOOK,
    quick_number,
    remedy_of,
    spread,
    volumes_of,
    why_refused,
)
from utils.experiment.checks.quick import quick_check

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
        ("003", "is empty", "Copy or convert"),
        ("004", "NIfTI", "Convert it to NIfTI"),
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
    checked = checked_study.check(
        'MAPPING.data_directory="elsewhere"', 'MAPPING.dataset_type="test"'
    )
    assert {f.subject_id for f in checked.findings if f.level == "error"} == {"011", "012"}
    assert any(f.level == "warning" and "2 test volumes" in f.reason for f in checked.findings)


def folders(checked_study, *settings: str) -> set[tuple[str, str]]:
    """(subject, folder of the volume) of a cell."""
    experiment = checked_study.experiment(*settings)
    volumes = volumes_of(experiment, experiment.cells[0], experiment.subjects)
    return {(volume.subject_id, volume.path.parent.parent.name) for volume in volumes}


def test_each_split_is_looked_for_where_training_and_testing_read_it(checked_study):
    everybody = {(subject, "subjects") for subject in checked_study.ids}
    validation = {("008", "elsewhere"), ("009", "elsewhere"), ("010", "elsewhere")}
    test = {("011", "elsewhere"), ("012", "elsewhere")}
    in_data = {pair for pair in everybody if pair[0] not in ("011", "012")}
    assert folders(checked_study) == everybody
    elsewhere, alone = 'MAPPING.data_directory="elsewhere"', 'MAPPING.dataset_type="test"'
    assert folders(checked_study, elsewhere, alone) == in_data | test
    both = 'MAPPING.dataset_type=("validation", "test")'
    assert folders(checked_study, both) == everybody
    assert folders(checked_study, elsewhere, both) == in_data | validation | test
    assert folders(checked_study, 'MAPPING.data_directory="subjects"', both) == everybody


def test_a_volume_of_validation_that_only_testing_lacks_does_not_stop(checked_study):
    (checked_study.folder / "elsewhere").mkdir()
    both = ('MAPPING.data_directory="elsewhere"', 'MAPPING.dataset_type=("validation", "test")')
    checked = checked_study.check(*both)
    lacking = {f.subject_id for f in checked.findings if f.level == "error"}
    assert lacking == {"008", "009", "010", "011", "012"}
    assert not any(f.stops for f in checked.findings) and checked.n_headers == 15
    assert any(
        f.level == "warning" and "3 validation volumes" in f.reason for f in checked.findings
    )
    assert all("elsewhere" in f.reason for f in checked.findings if f.level == "error")
    quick_check(checked_study.experiment(*both))  # training does not read them
    for position in range(7, 10):
        checked_study.volume(position).unlink()
    assert any(f.stops for f in checked_study.check(*both).findings)


def turned(values: np.ndarray, axes: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A volume with its axes in another order, and the affine that says so."""
    return values.transpose(axes), las_affine(8.0)[:, [*axes, 3]]


HEADS = {
    "right": lambda v: (v, las_affine(8.0)),
    "mirrored": lambda v: (v[::-1], las_affine(8.0) @ MIRROR),
    "axes swapped": lambda v: turned(v, (1, 2, 0)),
    "other shape": lambda v: (v[:-1], las_affine(8.0)),
    "other voxels": lambda v: (v, las_affine(7.0)),
    "swapped, other shape": lambda v: turned(v[:, :-2], (2, 0, 1)),
    "not positioned": lambda v: (v[:, :-1], None),
}


@pytest.mark.parametrize("conform", ["strict", "reorient", "resample"])
@pytest.mark.parametrize("name", HEADS)
def test_headers_are_refused_for_the_reason_that_conforming_has(
    tiny_cohort, tmp_path, name, conform
):
    values, affine = HEADS[name](brain("x"))
    path = save_volume(tmp_path / "x.nii", np.ascontiguousarray(values), affine=affine)
    if affine is None:
        plain = bytearray(path.read_bytes())
        plain[252:256] = bytes(4)  # qform_code and sform_code
        path.write_bytes(bytes(plain))
    image = open_image(path)
    try:
        conformed(image, tiny_cohort.contrast, conform)
        reason = ""
    except VolumeError as error:
        reason = str(error)
    assert why_refused(image.header, tiny_cohort.contrast, conform) == reason


def test_the_place_in_the_mni_box_counts_after_reorienting_too(tmp_path):
    contrast = replace(read_contrast_table(PUBLISHED_TABLE)["swi"], voxel_mm=2.0)
    shape, crop = PUBLISHED_GRIDS[2.0]
    contrast = replace(contrast, shape=shape, crop=crop)
    affine = contrast.affine @ np.diag([-1.0, 1, 1, 1])  # as far off as the box is wide
    path = save_volume(tmp_path / "x.nii", np.ones(shape, np.uint8), affine=affine)
    image = open_image(path)
    said = why_refused(image.header, contrast, "reorient")
    assert "off the MNI box after reorienting" in said
    with pytest.raises(VolumeError) as error:
        conformed(image, contrast, "reorient")
    assert str(error.value) == said


RAISED = ("VolumeError", "ReadFaultError", "kind")


def sentences() -> list[str]:
    """Every sentence that the readers of images raise, with 1 for what is filled in."""
    found = []
    for module in (headers, images, conforming, volumes, other_files):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            raised = isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED
            if raised and isinstance(node.args[0], (ast.Constant, ast.JoinedStr)):
                found.append(_filled(node.args[0]))
    found += [words for _, words in other_files._BEGINNINGS]
    return found + [words for _, _, words in other_files._MAGIC]


def _filled(node: ast.expr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(part.value if isinstance(part, ast.Constant) else "1" for part in parts)


# Said of a training set and of the cache; sentences that begin with what differs are in the table below.
NOT_OF_A_FILE = ("scale_factor = auto", "is not prepared", "1")


def test_every_sentence_of_the_readers_has_a_remedy_of_its_own():
    found = [sentence for sentence in sentences() if not sentence.startswith(NOT_OF_A_FILE)]
    assert len(found) > 70
    assert [sentence for sentence in found if remedy_of(sentence) == LOOK] == []


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("no such file", "data_directory"),
        ("is a symbolic link to NaN/damaged, which does not exist", "Restore"),
        ("is one file of a pair; its header file damaged.hdr is not there", "pair"),
        ("shape 1 x 1 x 1, expected 2 x 2 x 2; conform = strict refuses it", '= "resample"'),
        ("orientation RAS, expected LAS; conform = strict refuses it", '"reorient" or "resample"'),
        ("shape 1, expected 2 after reorienting; conform = reorient refuses it", '= "resample"'),
        (f"{conforming.NOT_POSITIONED}; conform = strict refuses it", "sform"),
        (f"shape 1; it cannot be resampled: {conforming.NOT_POSITIONED}", "sform"),
        ("it lies (+9.0, +0.0, +0.0) mm off the MNI box; conform = strict refuses it", "resample"),
        ("holds 3 volumes and the contrast table gives no volume_index", "a volume_index"),
        ("holds 3 volumes, volume_index 5 is not among them", "Correct volume_index"),
        ("is damaged or truncated (it has 3 bytes)", "Copy or convert"),
        ("must not be read (permission denied)", "permission"),
        ("is a git-annex link whose content is not here; fetch it (git annex get)", "git"),
        ("7 voxel(s) are NaN or infinite", "fill its NaN with 0"),
        ("7 voxel(s) are too large for float32, i.e. NaN or infinite in it", "smaller numbers"),
        (
            "the mean intensity of the crop is -1, it cannot be divided by",
            "divide_by_mean to False",
        ),
        ("would be divided by 1e+50, which is too small or large for float32", "scale_factor"),
        ("is too large for the scale factor 1e-30", "scale_factor"),
        ("is constant (7) everywhere in the crop", "crop"),
        ("its slope and intercept are nan and 0", "malformed"),
        ("is a web page, not an image; the download went wrong", "Download"),
        ("is a zip archive, not an image; unpack it", "Do as it says"),
    ],
)
def test_the_remedy_fits_the_reason(reason, remedy):
    assert remedy in remedy_of(reason)


@pytest.mark.parametrize(("n", "expected"), [(0, 10), (3, 3), (10, 10), (99, 10), (1, 1)])
def test_a_sample_is_spread_over_the_list(n, expected):
    found = spread(list(range(10)), n)
    assert len(found) == expected and found[0] == 0
    assert expected < 2 or found[-1] == 9


def test_the_quick_part_opens_a_bounded_number():
    assert quick_number([None] * 2) == 20
    assert quick_number([None] * 114) == 3
    assert quick_number([]) == 20
