"""The contrast table: the 57 published rows, own rows, and every value that cannot be used."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from datasets.contrasts import PUBLISHED_TABLE, choose_contrasts, read_contrast_table
from utils.common.errors import UserError


@pytest.fixture(scope="module")
def published():
    return read_contrast_table(PUBLISHED_TABLE)


def test_the_57_published_rows(published):
    assert len(published) == 57
    with PUBLISHED_TABLE.open() as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        contrast = published[row[""]]
        assert contrast.scale_factor == float(row["scale_factor"])  # to the last digit
        assert contrast.data_file == row["data_file"]
        assert f"{contrast.voxel_mm:g}mm" == row["resolution"]
    divided = {name for name, contrast in published.items() if contrast.divide_by_mean}
    assert divided == {"T1_nonlinear", "T1_linear", "T2_nonlinear"}
    indices = {n: c.volume_index for n, c in published.items() if c.volume_index is not None}
    assert indices == {f"rsfmri_{v}": v for v in range(25)}


@pytest.mark.parametrize(
    ("name", "scale_factor", "voxel_mm", "data_file"),
    [
        ("T1_nonlinear", 5.550105992097339, 1.0, "T1/T1_brain_to_MNI.nii.gz"),
        ("vbm", 3.5557272989543303, 2.0, "T1/T1_vbm/T1_GM_to_template_GM_mod.nii.gz"),
        ("rsfmri_24", 8.34249246943843, 2.0, "fMRI/rfMRI_25.dr/dr_stage2.nii.gz"),
        ("tfmri_c_2", 2192.8854302320715, 2.0, "fMRI/tfMRI.feat/reg_standard/stats/cope2.nii.gz"),
        ("tbss_MD_s", 0.004310516669011668, 1.0, "dMRI/TBSS/stats/all_MD_skeletonised.nii.gz"),
        ("T2_lesions", 1.0, 1.0, "T2_FLAIR/lesions/final_mask_to_MNI.nii.gz"),
    ],
)
def test_hand_picked_rows(published, name, scale_factor, voxel_mm, data_file):
    contrast = published[name]
    assert (contrast.scale_factor, contrast.voxel_mm) == (scale_factor, voxel_mm)
    assert contrast.data_file == data_file


def test_published_crops(published):
    one, two = published["T1_nonlinear"], published["rsfmri_3"]
    assert one.shape == (182, 218, 182) and one.crop == ((10, 170), (12, 204), (0, 160))
    assert one.box == (160, 192, 160)
    assert two.shape == (91, 109, 91) and two.crop == ((5, 85), (6, 102), (0, 80))
    assert two.box == (80, 96, 80)
    assert two.affine.tolist() == [[-2, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]]


def test_own_rows_and_columns(tmp_path):
    path = tmp_path / "own.tsv"
    path.write_text(
        "name\tscale_factor\tresolution\tdata_file\tshape\tcrop\tvolume_index\tdivide_by_mean\tcategory\n"
        "mine\tauto\t3 mm\ta/{session}/b.nii\t46 55x46\t2:42, 3:51 0:40\t4\tTrue\tstructural\n"
        "whole\t2\t3mm\tc.nii.gz\t46x55x46\t\t\t\t\n"
        "T1_linear\t7.5\t1mm\td.nii.gz\t\t\t\tfalse\t\n"
        "rsfmri_3\t1\t2mm\te.nii.gz\t\t\t\t\t\n"
    )
    table = read_contrast_table(path)
    mine, whole = table["mine"], table["whole"]
    assert mine.scale_factor is None and mine.volume_index == 4 and mine.divide_by_mean
    assert mine.box == (40, 48, 40) and mine.category == "structural" and mine.voxel_mm == 3.0
    assert whole.crop == ((0, 46), (0, 55), (0, 46)) and whole.scale_factor == 2.0
    assert not whole.divide_by_mean and whole.volume_index is None
    assert not table["T1_linear"].divide_by_mean
    assert table["rsfmri_3"].volume_index == 3
    assert np.isclose(mine.affine[0, 0], -3.0)


GOOD = {
    "name": "mine", "scale_factor": "2.5", "resolution": "3mm", "data_file": "a.nii.gz",
    "shape": "46 55 46", "crop": "2:42 3:51 0:40", "volume_index": "0", "divide_by_mean": "True",
}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("name", "", "contrast (no name): a name has letters"),
        ("name", "ensemble", "is none of ensemble, null"),
        ("name", "a/b", "a name has letters"),
        ("name", "../a", "a name has letters"),
        ("data_file", "", "data_file is empty"),
        ("scale_factor", "0", "scale_factor is '0.*', not a number above 0 or auto"),
        ("scale_factor", "-1", "not a number above 0"),
        ("scale_factor", "inf", "not a number above 0"),
        ("scale_factor", "", "scale_factor is '', not"),
        ("scale_factor", "much", "scale_factor is 'much'"),
        ("resolution", "1", "resolution is '1', not e.g. 1mm"),
        ("resolution", "0mm", "resolution is '0mm'"),
        ("shape", "46 55", "shape is '46 55', not three numbers"),
        ("shape", "", "at 3 mm the table must give shape"),
        ("crop", "2:42 3:51", "crop is '2:42 3:51', not three ranges"),
        ("crop", "2:47 3:51 0:40", "crop 2:47 does not lie inside 0:46"),
        ("crop", "9:9 3:51 0:40", "crop 9:9 does not lie inside"),
        ("volume_index", "-1", "volume_index is '-1', not a whole number"),
        ("volume_index", "1.5", "volume_index is '1.5'"),
        ("divide_by_mean", "perhaps", "divide_by_mean is 'perhaps'"),
    ],
)
def test_malformed_values_name_file_contrast_and_column(tmp_path, column, value, words):
    row = {**GOOD, column: value}
    path = tmp_path / "bad.csv"
    path.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    with pytest.raises(UserError, match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        read_contrast_table(path)
    assert str(path) in str(caught.value)


def test_missing_columns_and_a_contrast_twice(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("name,scale_factor\na,1\n")
    with pytest.raises(UserError, match=r"lacks the column\(s\) resolution, data_file"):
        read_contrast_table(path)
    path.write_text("name,scale_factor,resolution,data_file\na,1,1mm,x\na,2,1mm,y\n")
    with pytest.raises(UserError, match="contrast a occurs twice"):
        read_contrast_table(path)


def test_choosing_contrasts(published):
    assert len(choose_contrasts(published, "all")) == 57
    chosen = choose_contrasts(published, ("swi", "T1_nonlinear"))
    assert [contrast.name for contrast in chosen] == ["swi", "T1_nonlinear"]
    with pytest.raises(UserError, match="no contrast T3 in the table; it has T1_nonlinear, "):
        choose_contrasts(published, ("swi", "T3"))
    for flag in (("swi", "swi"), ()):
        with pytest.raises(UserError, match="each contrast once, and at least one"):
            choose_contrasts(published, flag)
