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
from utils.evaluation.predictions import predictions_table
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

    def make(sexes='("female", "male")', n_validation=120, absent=(), family="") -> Experiment:
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
        (tmp_path / "x_eval.ini").write_text("[MAPPING]\nbootstrap_resamples = 50\n")
        experiment = Experiment(read_settings(str(tmp_path / "x")))
        for cell in experiment.grid:
            for split in ("validation", "test"):
                if cell.name not in absent:
                    write_cell(experiment, cell, split)
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
    assert flags(experiment)[0].startswith("Too few validation subjects with all contrasts")
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
