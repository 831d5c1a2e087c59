"""From settings to subjects, cells and files: lists, exclusions, frozen splits, path templates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.splits import make_split
from datasets.subjects import read_subject_table, subjects_hash
from utils.common.errors import UserError
from utils.common.files import write_json
from utils.common.tables import write_table
from utils.experiment.experiment import Experiment, Options
from utils.settings.reader import read_settings


@pytest.fixture
def experiment(tmp_path):
    """Function: lines of [DATA] -> an experiment in tmp_path."""

    def make(*data: str, sex: str = '("female", "male")', **options) -> Experiment:
        (tmp_path / "x.ini").write_text(
            f'[DATA]\ndataset_sex = {sex}\nmodality_flag = ("swi", "vbm")\n'
            'data_directory = "subjects"\n' + "\n".join(data)
        )
        (tmp_path / "x_eval.ini").write_text("")
        return Experiment(read_settings(str(tmp_path / "x")), Options(**options))

    return make


def write_lists(folder: Path) -> None:
    folder.mkdir()
    ids = iter(range(1, 100))
    for prefix in ("male", "female"):
        for split, n in (("train", 3), ("validation", 2), ("test", 2)):
            chosen = [f"{next(ids):03d}" for _ in range(n)]
            (folder / f"{prefix}_{split}_small.txt").write_text("\n".join(chosen))
            np.save(folder / f"{prefix}_{split}_age_small.npy", np.full(n, 60.0))


LISTS = ('data_folder_name = "lists"', 'dataset_size = "small"')


def test_published_lists_of_a_sex_and_split(experiment, tmp_path):
    write_lists(tmp_path / "lists")
    both = experiment(*LISTS)
    assert both.subjects_of("male", "train")["subject_id"].tolist() == ["001", "002", "003"]
    assert both.subjects_of("female", "test")["subject_id"].tolist() == ["013", "014"]
    assert len(both.subjects) == 14
    assert len(experiment(*LISTS, sex='"female"').subjects) == 7
    pooled = experiment(*LISTS, sex='"both"')
    assert len(pooled.subjects_of("both", "train")) == 6
    assert [cell.name for cell in pooled.grid] == ["swi_both", "vbm_both"]


def test_excluded_subjects_are_nowhere(experiment, tmp_path):
    write_lists(tmp_path / "lists")
    (tmp_path / "withdrawn.csv").write_text("002\r\n013\r\n999\r\n")
    whole, rest = experiment(*LISTS), experiment(*LISTS, 'exclude = "withdrawn.csv"')
    assert set(whole.subjects["subject_id"]) - set(rest.subjects["subject_id"]) == {"002", "013"}
    assert whole.split_hash != rest.split_hash


def test_an_overlap_between_lists_ends_the_run_unless_it_is_excluded(experiment, tmp_path):
    write_lists(tmp_path / "lists")
    (tmp_path / "lists" / "female_train_small.txt").write_text("008\n009\n001")  # 001 is a man
    with pytest.raises(UserError, match=r"1 subject\(s\) occur more than once .*1 in train"):
        experiment(*LISTS).subjects  # noqa: B018
    (tmp_path / "withdrawn.csv").write_text("001\n")
    assert len(experiment(*LISTS, 'exclude = "withdrawn.csv"').subjects) == 12


def test_a_missing_list_is_named(experiment, tmp_path):
    write_lists(tmp_path / "lists")
    (tmp_path / "lists" / "female_test_small.txt").unlink()
    with pytest.raises(
        UserError,
        match=r"no female subject in the test split\. There is no .*female_test_small\.txt",
    ):
        experiment(*LISTS).subjects_of("female", "test")
    with pytest.raises(
        UserError, match=r"no list of subjects is there: .*or set \[DATA\] subjects"
    ):
        experiment('data_folder_name = "nowhere"').subjects  # noqa: B018


def test_a_frozen_split_is_used_and_not_to_be_changed(experiment, tmp_path):
    rows = "\n".join(f"s{i:02d},{45 + i},{'mf'[i % 2]}" for i in range(30))
    (tmp_path / "people.csv").write_text(f"participant_id,age,sex\n{rows}\ncensored,89+,m\n")
    split = experiment('subjects = "people.csv"')
    with pytest.raises(UserError, match=r"no split was made; run .*-m split -n x first"):
        split.subjects  # noqa: B018
    made = make_split(read_subject_table(tmp_path / "people.csv"), (0.6, 0.1, 0.3), 5.0, 0)
    write_table(made, split.paths.splits)
    record = {"split_hash": subjects_hash(made["split"] + ":" + made["subject_id"])}
    write_json(record, split.paths.splits_record)
    frozen = experiment('subjects = "people.csv"')
    assert len(frozen.subjects) == 30
    found = dict(zip(frozen.subjects["subject_id"], frozen.subjects["split"]))
    assert found == dict(zip(made["subject_id"], made["split"]))
    lines = frozen.paths.splits.read_text().splitlines()
    lines[1] = "s00,test" if lines[1].endswith("train") else "s00,train"
    text = "\n".join(lines) + "\n"
    frozen.paths.splits.write_text(text)
    with pytest.raises(UserError, match="was changed after it was made"):
        experiment('subjects = "people.csv"').subjects  # noqa: B018


def test_where_a_volume_lies(experiment, tmp_path):
    made = experiment()
    swi = made.contrasts[0]
    assert made.volume_path(swi, "007") == tmp_path / "subjects/007/SWI/T2star_to_MNI.nii.gz"
    assert made.volume_path(swi, "007", "elsewhere") == (
        tmp_path / "elsewhere/007/SWI/T2star_to_MNI.nii.gz"
    )
    bids = experiment(
        'path_template = "sub-{subject_id}/ses-{session}/swi.nii.gz"', 'session = "01"'
    )
    expected = tmp_path / "subjects/sub-007/ses-01/swi.nii.gz"
    assert bids.volume_path(swi, "007") == expected
    with pytest.raises(UserError, match=r"unknown field 'subject'; known are subject_id"):
        experiment('path_template = "{subject}/x"').volume_path(swi, "007")


def test_cells_of_the_grid(experiment):
    names = [cell.name for cell in experiment().grid]
    assert names == ["swi_female", "swi_male", "vbm_female", "vbm_male"]
    assert [cell.name for cell in experiment(cell="vbm_female").cells] == ["vbm_female"]
    with pytest.raises(UserError, match="no such cell; the grid has swi_female, swi_male"):
        experiment(cell="swi").cells  # noqa: B018
