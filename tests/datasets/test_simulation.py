"""The simulated cohort: its files, its determinism, and whether the planted truth is really in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from datasets.simulation import (
    CohortSpecification,
    Grid,
    cohort_is_complete,
    histogram_features,
    ridge_baseline_mae,
    simulate_cohort,
)
from datasets.simulation.anatomy import build_atlas
from datasets.simulation.people import draw_people
from datasets.simulation.phenotypes import draw_phenotypes
from datasets.simulation.rendering import build_brain, render
from utils.common.errors import SettingsError, UserError
from utils.common.files import read_json
from utils.common.tables import read_table

SMALL = CohortSpecification(
    n_train_per_sex=4, n_validation_per_sex=2, n_test_per_sex=2, sibling_fraction=0.5, n_nidps=30
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "cohort"
    assert not cohort_is_complete(folder, SMALL)
    summary = simulate_cohort(SMALL, folder, n_workers=1)
    assert (summary.n_subjects, summary.reused) == (16, False)
    return folder


@pytest.fixture(scope="module")
def atlas():
    return build_atlas(4.0)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_specification_same_bytes_whatever_the_number_of_workers(cohort, tmp_path):
    simulate_cohort(SMALL, tmp_path / "again", n_workers=2)
    assert digests(tmp_path / "again") == digests(cohort)


def test_second_call_finds_the_cohort_and_changes_nothing(cohort):
    before = {path: path.stat().st_mtime_ns for path in cohort.rglob("*")}
    assert cohort_is_complete(cohort, SMALL)
    assert simulate_cohort(SMALL, cohort).reused
    assert {path: path.stat().st_mtime_ns for path in cohort.rglob("*")} == before


def test_another_specification_is_refused(cohort):
    other = dataclasses.replace(SMALL, seed=2)
    assert not cohort_is_complete(cohort, other)
    with pytest.raises(UserError, match="another specification"):
        simulate_cohort(other, cohort)


def test_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"not a simulated cohort \(thesis.txt\)"):
        simulate_cohort(SMALL, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_interrupted_simulation_is_recognised_and_finished(cohort, tmp_path):
    tiny = dataclasses.replace(
        SMALL, n_train_per_sex=1, n_validation_per_sex=1, n_test_per_sex=1, contrasts=("swi",)
    )
    folder = tmp_path / "cohort"
    simulate_cohort(tiny, folder, n_workers=1)
    whole = digests(folder)
    mark = {
        "simulated": True,
        **{k: read_json(folder / "cohort.json")[k] for k in ("simulator_version", "specification")},
    }
    (folder / "simulation_started.json").write_text(json.dumps(mark))
    (folder / "cohort.json").unlink()
    next(folder.rglob("T2star_to_MNI.nii.gz")).unlink()
    assert not cohort_is_complete(folder, tiny)
    simulate_cohort(tiny, folder, n_workers=1)
    assert digests(folder) == whole


@pytest.mark.parametrize(
    ("voxel_mm", "shape", "crop"),
    [
        (1.0, (182, 218, 182), "10:170 12:204 0:160"),
        (2.0, (91, 109, 91), "5:85 6:102 0:80"),
        (4.0, (46, 55, 46), "2:42 3:51 0:40"),
    ],
)
def test_grid_is_the_published_one(voxel_mm, shape, crop):
    assert (Grid(voxel_mm).shape, Grid(voxel_mm).crop_text) == (shape, crop)


def test_volumes_are_stored_as_in_uk_biobank(cohort):
    table = read_table(cohort / "contrasts.csv")
    assert list(table["crop"]) == ["2:42 3:51 0:40"] * 3
    assert set(table["scale_factor"]) == {"auto"}
    participants = read_table(cohort / "participants.csv")
    for data_file in table["data_file"]:
        for subject_id in participants["subject_id"]:
            image = nibabel.load(cohort / "subjects" / subject_id / data_file)
            assert image.shape == (46, 55, 46)
            assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
            np.testing.assert_array_equal(image.affine[:3, 3], (90, -126, -72))
            assert image.get_data_dtype() == np.int16
            data = np.asarray(image.dataobj)
            assert data.min() == 0 and 0.2 < np.mean(data > 0) < 0.6  # a brain on empty background


def test_ids_are_text_and_lists_are_the_published_form(cohort):
    participants = read_table(cohort / "participants.csv")
    assert participants["subject_id"].str.fullmatch(r"sim-\d{7}").all()
    assert participants["subject_id"].str.startswith("sim-0").all()
    for (sex, split), rows in participants.groupby(["sex", "split"]):
        ids = (cohort / "lists" / f"{sex}_{split}.txt").read_text().split()
        assert ids == list(rows["subject_id"])
        np.testing.assert_allclose(
            np.load(cohort / "lists" / f"{sex}_{split}_age.npy"), rows["age_years"]
        )


def test_families_stay_within_one_split():
    people = draw_people(CohortSpecification())
    families = people.groupby("family")
    assert families["split"].nunique().max() == 1
    assert set(families.size()) == {1, 2} and (families.size() == 2).sum() >= 40
    assert people["age_years"].between(45, 82).all()
    assert set(people["site"]) == {"Northfield", "Eastwick", "Southmoor"}


def test_deltas_are_defined_as_said(cohort):
    truth = read_table(cohort / "truth.csv").set_index("subject_id")
    age = read_table(cohort / "participants.csv").set_index("subject_id")["age_years"]
    for contrast in SMALL.contrasts:
        total = truth["shared_delta_years"] + truth[f"own_delta_{contrast}_years"]
        np.testing.assert_allclose(truth[f"delta_{contrast}_years"], total, atol=3e-6)
        np.testing.assert_allclose(truth[f"brain_age_{contrast}_years"], age + total, atol=3e-6)
    assert not truth.isna().any(axis=None)
    people = draw_people(CohortSpecification())
    assert people["shared_delta_years"].std() == pytest.approx(4.0, rel=0.1)
    assert abs(people[["age_years", "shared_delta_years"]].corr().iloc[0, 1]) < 0.1


@pytest.mark.parametrize("contrast", SMALL.contrasts)
def test_fluid_at_the_ventricles_grows_with_brain_age_in_the_image(atlas, contrast):
    quiet = dataclasses.replace(SMALL, noise_fraction=0, gain_sd_fraction=0, site_sd_fraction=0)
    fluid_voxels, truth_ml = [], []
    for brain_age in (45.0, 57.0, 69.0, 81.0):
        person = {
            "subject_id": "one", "sex": "female", "site": "Northfield", "head_size_percent": 0.0,
            "motion_z": 0.0, f"brain_age_{contrast}_years": brain_age,
        }  # fmt: skip
        rendered = render(build_brain(person, quiet, atlas), person, contrast, quiet, atlas)
        centre = rendered.volume[12:34, 18:40, 15:28].astype(float)  # lateral ventricles inside
        middle = np.median(centre)
        far = centre > 1.4 * middle if contrast == "swi" else centre < 0.65 * middle
        fluid_voxels.append(far.sum())
        truth_ml.append(rendered.ventricle_ml)
    assert np.all(np.diff(fluid_voxels) > 0) and np.all(np.diff(truth_ml) > 3)
    assert 10 < truth_ml[0] < 30 and 30 < truth_ml[-1] < 70


def test_phenotypes_follow_their_drivers():
    specification = CohortSpecification(n_train_per_sex=1500)
    people = draw_people(specification)
    phenotypes = draw_phenotypes(people, specification)
    truth = phenotypes.truth.set_index("nidp")
    values = phenotypes.values.set_index("subject_id")
    shared = people.set_index("subject_id")["shared_delta_years"]
    r = values.corrwith(shared)
    planted = truth["driver"] == "shared"
    assert planted.sum() == 48
    assert (np.sign(r[planted]) == np.sign(truth["effect"][planted])).all()
    np.testing.assert_allclose(r[truth["driver"].isin(["none", "age"])], 0, atol=0.12)
    own = people.set_index("subject_id")
    for contrast in specification.contrasts:
        mine = truth.index[truth["driver"] == f"contrast:{contrast}"]
        r_own = values[mine].corrwith(own[f"own_delta_{contrast}_years"])
        assert len(mine) == 16 and (np.sign(r_own) == np.sign(truth.loc[mine, "effect"])).all()


def test_phenotypes_have_kinds_gaps_and_a_dictionary(cohort):
    values = read_table(cohort / "nidps.csv")
    dictionary = read_table(cohort / "nidp_dictionary.csv")
    assert list(values.columns[1:]) == list(dictionary["nidp"])
    assert "driver" not in dictionary.columns  # the truth is in a file of its own
    assert set(dictionary["kind"]) == {"continuous", "ordinal", "binary"}
    assert dictionary[["name", "category"]].duplicated().sum() == 0
    for entry in dictionary.itertuples():
        if entry.kind == "binary":
            assert set(values[entry.nidp].dropna()) <= {0, 1}
    truth = read_table(cohort / "nidp_truth.csv").set_index("nidp")
    sex = read_table(cohort / "participants.csv")["sex"]
    one_sex = truth.index[truth["sex"] == "female"]
    assert len(one_sex) and values.loc[sex == "male", one_sex].isna().all(axis=None)


def test_confounds_have_a_site_in_words_and_no_gap(cohort):
    confounds = read_table(cohort / "confounds.csv")
    assert not confounds.isna().any(axis=None)
    assert pd.api.types.is_numeric_dtype(confounds["head_size_scale"])
    assert set(confounds["site"]) <= {"Northfield", "Eastwick", "Southmoor"}


def test_region_map_lies_on_the_grid(cohort):
    image = nibabel.load(cohort / "regions.nii.gz")
    table = read_table(cohort / "regions.csv")
    assert image.shape == (46, 55, 46)
    assert set(np.unique(np.asarray(image.dataobj))) == {0, *table["label"]}


def test_resting_state_contrasts_share_one_file(tmp_path):
    specification = dataclasses.replace(
        SMALL, n_train_per_sex=1, n_validation_per_sex=1, n_test_per_sex=1, voxel_mm=8.0,
        contrasts=("rsfmri_0", "rsfmri_2"),
    )  # fmt: skip
    simulate_cohort(specification, tmp_path / "cohort", n_workers=1)
    path = next((tmp_path / "cohort").rglob("dr_stage2.nii.gz"))
    data = np.asarray(nibabel.load(path).dataobj)
    assert data.shape == (23, 28, 23, 3)
    assert data[..., 0].any() and data[..., 2].any() and not data[..., 1].any()


def test_unknown_contrast_gives_the_nearest_name(tmp_path):
    with pytest.raises(SettingsError, match="Did you mean 'T1_nonlinear'"):
        simulate_cohort(CohortSpecification(contrasts=("T1_nonlinaer",)), tmp_path / "cohort")
    assert not (tmp_path / "cohort").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"voxel_mm": 0.5}, "choose 1 to 8"),
        ({"noise_fraction": -0.1}, "noise_fraction = -0.1"),
        ({"noise_fraction": float("nan")}, "noise_fraction = nan"),
        ({"contrasts": ("swi", "swi")}, "occurs twice"),
        ({"age_minimum_years": 90.0}, "is not below"),
        ({"n_test_per_sex": 0}, "at least one subject"),
    ],
)
def test_impossible_specifications_are_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        CohortSpecification(**change)


def test_ridge_baseline_reads_intensity_but_not_place():
    random = np.random.default_rng(1)
    ages = random.uniform(45, 82, 120)
    volumes = [np.concatenate([np.zeros(500), random.normal(100 + age, 5, 500)]) for age in ages]
    features = [histogram_features(volume.reshape(10, 10, 10)) for volume in volumes]
    shuffled = [histogram_features(random.permutation(volume)) for volume in volumes]
    np.testing.assert_allclose(features, shuffled)
    assert ridge_baseline_mae(features[:80], ages[:80], features[80:], ages[80:]) < 1.5
