"""-m ensemble from predictions: what its tables and its words say when a part is missing or too small."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.methods import methods_paragraph
from utils.common.files import read_json, write_json
from utils.common.randomness import generator
from utils.common.tables import write_table
from utils.evaluation.cell_metrics import cell_metrics
from utils.evaluation.metrics_table import COLUMNS
from utils.evaluation.predictions import predictions_table
from utils.evaluation.reliability import network_agreement
from utils.experiment.description import description, flags
from utils.experiment.experiment import Experiment
from utils.modes import ensemble
from utils.modes.associate import rounded
from utils.settings.reader import read_settings

AVERAGED = {1: True, 2: True}
SLOPES = {"A": 0.5, "B": 0.7}


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What was said and warned of."""
    lines: list[str] = []
    monkeypatch.setattr("utils.modes.ensemble.say", lines.append)
    monkeypatch.setattr("utils.experiment.experiment.warn", lines.append)
    return lines


@pytest.fixture
def tested(tmp_path):
    """Function: an experiment of contrasts A and B whose cells, but for the absent ones, were tested."""

    def make(
        sexes='("female", "male")', n_validation=120, absent=(), family="", deltas="", retest=None
    ) -> Experiment:
        counts = {"train": 20, "validation": n_validation, "test": 80}
        splits = np.repeat(list(counts), list(counts.values()))
        ids = [f"{split}{i:04d}" for i, split in enumerate(splits)]
        people = pd.DataFrame({"subject_id": ids, "split": splits, "family": family})
        people["age"] = generator("ages").uniform(45, 82, len(people))
        people["sex"] = np.where(np.arange(len(people)) % 2, "male", "female")
        people.to_csv(tmp_path / "people.csv", index=False)
        rows = "".join(f"{name},100,8mm,{name}.nii.gz,18 20 17,1:17 2:20 0:16\n" for name in SLOPES)
        header = "name,scale_factor,resolution,data_file,shape,crop\n"
        (tmp_path / "contrasts.csv").write_text(header + rows)
        (tmp_path / "x.ini").write_text(
            f'[DATA]\ndataset_sex = {sexes}\nmodality_flag = ("A", "B")\nsubjects = "people.csv"\n'
            'scaling_values = "contrasts.csv"\ndata_directory = "."\n'
        )
        (tmp_path / "x_eval.ini").write_text(
            f"[MAPPING]\nbootstrap_resamples = 50\n[DELTAS]\nbootstrap_weights = 50\n{deltas}"
        )
        experiment = Experiment(read_settings(str(tmp_path / "x")))
        for cell in experiment.grid:
            for split in ("validation", "test"):
                if cell.name not in absent:
                    write_cell(experiment, cell, split)
        if retest is not None:
            retest(experiment).to_csv(tmp_path / "again.csv", index=False)
        ensemble.run(experiment)
        return experiment

    return make


def write_cell(experiment, cell, split) -> None:
    """Predictions and metrics as -m test writes them."""
    subjects = experiment.subjects_of(cell.sex, split)
    age = subjects["age_years"].to_numpy()
    draw = generator(cell.name, split)
    predicted = 63 + SLOPES[cell.contrast.name] * (age - 63) + draw.normal(0, 3, len(age))
    table = predictions_table(
        subjects, predicted[:, None] + draw.normal(size=(len(age), 2)), AVERAGED, {}
    )
    write_table(table, experiment.cell_paths(cell).predictions(split))
    metrics = cell_metrics(table, AVERAGED, 63.0, draw, 50)
    for network in metrics["networks"]:
        network["collapsed"] = False
    where = {
        "contrast": cell.contrast.name,
        "sex": cell.sex,
        "split": split,
        "training_mean_age_years": 63.0,
    }
    write_json({**where, **metrics}, experiment.cell_paths(cell).metrics(split))


def metrics_of(experiment) -> pd.DataFrame:
    table = pd.read_csv(experiment.paths.metrics_table)
    return table.set_index(["contrast", "sex", "split", "predictor"])


def words_of(experiment) -> str:
    deltas = pd.read_csv(experiment.paths.deltas("test"))
    return methods_paragraph(description(experiment, None, deltas))


def test_what_is_left_of_age_is_that_of_the_chosen_combination(tested):
    experiment = tested()
    table = metrics_of(experiment)["r_delta_age"]
    deltas = pd.read_csv(experiment.paths.deltas("test"))
    mine = deltas[(deltas["contrast"] == "ensemble") & (deltas["sex"] == "male")]
    r = np.corrcoef(mine["delta_years"], mine["age_years"])[0, 1]
    assert table["ensemble", "male", "test", "ridge"] == pytest.approx(r, abs=1e-5)
    assert np.isnan(table["ensemble", "male", "test", "mean"])


def test_pooled_sexes_are_one_group_and_said_to_be(tested):
    experiment = tested('"both"')
    assert set(metrics_of(experiment).index.get_level_values("sex")) == {"both"}
    assert "each contrast, the sexes together" in words_of(experiment)
    assert "contrast and sex" not in words_of(experiment)


def test_a_contrast_never_tested_has_no_row_and_is_not_the_best(tested):
    experiment = tested(absent=("A_female", "A_male"))
    assert "A" not in metrics_of(experiment).index.get_level_values("contrast")
    record = read_json(experiment.paths.combination)
    assert record["combinations"] == {"female": {}, "male": {}}  # B alone: nothing to combine
    assert record["combination_against_best_contrast"] is None


def test_a_contrast_of_one_sex_has_no_row_of_all_subjects(tested):
    table = metrics_of(tested(absent=("A_male",)))
    assert ("A", "female", "test", "ensemble") in table.index
    assert ("A", "all", "test", "ensemble") not in table.index
    assert ("B", "all", "test", "ensemble") in table.index


def test_an_untested_contrast_leaves_the_combination_of_the_others(tested):
    """A third cell missing must not turn the sex's ridge into a mean, or its deltas into gaps."""
    experiment = tested(absent=("A_male",))
    combinations = read_json(experiment.paths.combination)["combinations"]
    assert combinations["female"]["ridge"]["method"] == "ridge"
    assert combinations["male"] == {}  # one contrast is left: nothing to combine
    deltas = pd.read_csv(experiment.paths.deltas("test"))
    assert set(deltas.loc[deltas["sex"] == "male", "contrast"]) == {"B"}
    assert deltas["corrected_delta_years"].notna().all()


def test_ridge_that_became_the_mean_is_said_everywhere(tested, said):
    experiment = tested(n_validation=30)
    assert "combination female: ridge needs at least 20 validation subjects" in "\n".join(said)
    assert flags(experiment)[0].startswith("Too few validation subjects")
    words = words_of(experiment)
    assert "were combined (mean)." in words and "ridge" not in words
    assert "Deltas were corrected" not in words  # 15 a sex cannot carry it


def test_ridge_and_its_correction_are_in_the_methods(tested):
    experiment = tested()
    assert flags(experiment) == []
    words = words_of(experiment)
    assert "were combined (ridge stacking; fitted on validation subjects)." in words
    assert (
        "Deltas were corrected for their dependence on age (subtract), separately for each contrast and sex"
        in words
    )


def test_families_across_splits_are_not_said_to_be_kept_together(tested, said):
    experiment = tested(family="same")
    assert "Related subjects were kept" not in words_of(experiment)
    assert "Members of one family stand in different splits." in flags(experiment)
    assert "1 families have members in different splits" in "\n".join(said)


def test_a_tiny_q_is_never_written_as_zero():
    table = pd.DataFrame({"r": [0.123456789], "q_bh": [1.23456789e-40], "q_by": [2e-300]})
    assert rounded(table).iloc[0].tolist() == [0.12345679, 1.23457e-40, 2e-300]


def second_scans(experiment) -> pd.DataFrame:
    """Every test subject two years later; the networks' noise is new."""
    parts = []
    for cell in experiment.grid:
        table = pd.read_csv(experiment.cell_paths(cell).predictions("test"))
        noise = generator("second", cell.name).normal(size=len(table))
        second = table[["subject_id"]].assign(contrast=cell.contrast.name)
        second["age_years"] = table["age_years"] + 2
        second["predicted_years"] = (
            table["predicted_years"] + 2 * SLOPES[cell.contrast.name] + noise
        )
        parts.append(second)
    return pd.concat(parts)


def test_the_networks_agreement_is_a_table(tested):
    experiment = tested()
    table = pd.read_csv(experiment.paths.reliability)
    assert len(table) == 2 * 2 * 2 * 2  # contrasts, sexes, splits, quantities
    row = table.query("contrast == 'A' & sex == 'male' & split == 'test'").set_index("quantity")
    predictions = pd.read_csv(experiment.paths.cell("A_male").predictions("test"))
    networks = predictions[["predicted_years_1", "predicted_years_2"]].to_numpy()
    expected = network_agreement(networks - predictions[["age_years"]].to_numpy())
    for name in ("n", "k", "icc_2_1", "icc_2_1_low", "icc_3_1", "sd_between_networks_years"):
        assert row.loc["delta", name] == pytest.approx(expected[name], abs=1e-5)
    # noise of SD 3 in common and 1 apart; the raw delta agrees on its age bias besides
    assert row.loc["corrected_delta", "icc_2_1"] == pytest.approx(0.9, abs=0.06)
    assert row.loc["delta", "icc_2_1"] > row.loc["corrected_delta", "icc_2_1"]
    assert table.query("split == 'validation' & quantity == 'corrected_delta'")["in_sample"].all()
    assert table["in_sample"].sum() == 4


def test_no_small_group_is_in_the_table_of_reliability(tested):
    experiment = tested(n_validation=16)  # eight of each sex: no correction, no agreement
    table = pd.read_csv(experiment.paths.reliability)
    few = table[table["split"] == "validation"]
    assert few["n"].isna().all() and few["icc_2_1"].isna().all()
    assert table.query("split == 'test'")["icc_2_1"].notna().all()
    assert set(table["quantity"]) == {"delta"}


def test_second_scans_are_compared_with_the_first(tested):
    experiment = tested(deltas='retest = "again.csv"\n', retest=second_scans)
    table = pd.read_csv(experiment.paths.test_retest)
    assert set(table["contrast"]) == {"A", "B", "ensemble"} and (table["n"] == 40).all()
    assert not table["in_sample"].any()
    corrected = table.query("quantity == 'corrected_delta' & contrast != 'ensemble'")
    assert corrected["sem_years"].to_numpy() == pytest.approx(np.sqrt(0.5), rel=0.3)
    assert corrected["mdc_years"].to_numpy() == pytest.approx(
        1.96 * np.sqrt(2) * corrected["sem_years"], rel=1e-4
    )
    assert (corrected["bias_low_years"] < 0).all() and (corrected["bias_high_years"] > 0).all()
    raw = table.query("quantity == 'delta' & contrast == 'A'")
    assert (raw["bias_high_years"] < 0).all()  # two years of age, one year of prediction


def test_second_scans_of_strangers_are_left_out_and_said(tested, said):
    def strangers(experiment):
        table = second_scans(experiment)
        return pd.concat([table, table[:2].assign(subject_id=["nobody1", "nobody2"])])

    experiment = tested(deltas='retest = "again.csv"\n', retest=strangers)
    assert "2 of 162 rows are of subjects without a first scan" in "\n".join(said)
    assert (pd.read_csv(experiment.paths.test_retest)["n"] == 40).all()


def test_a_table_of_second_scans_that_is_no_longer_asked_for_is_removed(tested):
    experiment = tested(deltas='retest = "again.csv"\n', retest=second_scans)
    assert experiment.paths.test_retest.is_file()
    assert not tested().paths.test_retest.is_file()


def test_weights_are_a_table(tested):
    experiment = tested()
    table = pd.read_csv(experiment.paths.combination_weights)
    assert table[["sex", "contrast"]].to_numpy().tolist() == [
        ["female", "A"], ["female", "B"], ["male", "A"], ["male", "B"],
    ]  # fmt: skip
    weights = read_json(experiment.paths.combination)["combinations"]["male"]["ridge"]["weights"]
    assert table["weight"][2:].tolist() == pytest.approx(list(weights.values()), abs=1e-5)
    assert (table["low"] < table["weight"]).all() and (table["weight"] < table["high"]).all()


@pytest.mark.parametrize("method", ["inverse_variance", "gls", "nonnegative", "elastic_net"])
def test_another_combination_stands_beside_ridge_and_mean(tested, method):
    experiment = tested(deltas=f'combination = "{method}"\n')
    table = metrics_of(experiment)
    for predictor in ("ridge", "mean", method):
        assert np.isfinite(table.loc[("ensemble", "male", "test", predictor), "mae_years"])
        left = table.loc[("ensemble", "male", "test", predictor), "r_delta_age"]
        assert np.isfinite(left) == (predictor == method)


@pytest.mark.parametrize("method", ["subtract", "divide", "quadratic", "age_level"])
def test_every_correction_is_written_with_what_is_left_of_age(tested, method):
    experiment = tested(deltas=f'bias_correction = "{method}"\n')
    record = read_json(experiment.paths.bias_correction)
    assert record["method"] == method and record["cross_fit"] is True
    table = metrics_of(experiment)
    for contrast, predictor in (("A", "ensemble"), ("B", "ensemble"), ("ensemble", "ridge")):
        entry = record["corrections"]["male"]["test"][contrast]
        row = table.loc[(contrast, "male", "test", predictor)]
        for quantity in ("delta", "corrected_delta"):
            for term in ("age", "age2"):
                left = entry["age_dependence"][quantity][term]
                name = f"r_{quantity}_{term}"
                found = [row[name], row[f"{name}_low"], row[f"{name}_high"]]
                assert found == pytest.approx(list(left.values()), abs=2e-6)
        alone = contrast != "ensemble"
        assert ("debiased_accuracy" in entry) == (method == "divide" and alone)
    deltas = pd.read_csv(experiment.paths.deltas("test"))
    assert " ".join(deltas) == (
        "subject_id sex contrast age_years predicted_years delta_years corrected_delta_years delta_z note"
    )
    assert set(metrics_of(experiment).columns) - set(COLUMNS) == set()


def test_stamps_and_ages_outside_the_fit_are_said(tested, said):
    experiment = tested(deltas='bias_correction = "quadratic"\n')
    text = "\n".join(said)
    assert "validation deltas are in-sample: the corrections were fitted on these subjects" in text
    deltas = pd.read_csv(experiment.paths.deltas("test"))
    mine = deltas[(deltas["contrast"] == "A") & (deltas["sex"] == "male")]
    n = int(mine["corrected_delta_years"].isna().sum())
    assert n and f"no corrected delta for {n} subject" in text and "male, test: A" in text
    assert "outside the ages of the fit: 'quadratic' does not extrapolate." in text


def test_it_says_which_combination_was_made_and_how_good_it_is(tested, said):
    experiment = tested(deltas='combination = "gls"\n')
    row = metrics_of(experiment).loc[("ensemble", "male", "test", "gls")]
    words = f"MAE {row['mae_years']:.2f} y (mean age: {row['null_mae_years']:.2f} y)"
    assert f"ensemble (gls) male test: n {row['n']:.0f}, {words}" in said
    assert not [line for line in said if line.startswith("ensemble (") and "(gls)" not in line]
