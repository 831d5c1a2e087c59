"""summary/metrics.csv: a row a predictor, with what is left of the age in its deltas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from utils.evaluation.age_dependence import orthogonal_square
from utils.evaluation.cell_metrics import cell_metrics
from utils.evaluation.metrics_table import COLUMNS, metrics_table, row_of_predictor, rows_of_cell
from utils.evaluation.predictions import predictions_table

WHERE = {"contrast": "A", "sex": "female", "split": "test"}


@pytest.fixture
def cell() -> tuple[dict, pd.DataFrame]:
    draw = np.random.default_rng(0)
    age = draw.uniform(45, 82, 40)
    subjects = pd.DataFrame(
        {"subject_id": [str(i) for i in range(40)], "age_years": age, "note": ""}
    )
    predicted = age[:, None] * 0.7 + 19 + draw.normal(0, 2, (40, 2))
    predicted[7] = np.nan
    averaged = {1: True, 2: True}
    table = predictions_table(subjects, predicted, averaged, {7: "no such file"})
    metrics = cell_metrics(table, averaged, 63.0, np.random.default_rng(1), 50)
    deltas = pd.DataFrame(
        {
            **WHERE,
            "age_years": age,
            "delta_years": table["delta_years"],
            "corrected_delta_years": table["delta_years"] + 0.3 * age,
        }
    )
    return {**WHERE, **metrics}, deltas


def test_a_row_for_each_network_and_the_ensemble(cell):
    metrics, deltas = cell
    table = metrics_table(rows_of_cell(metrics), deltas, "ridge")
    assert list(table.columns) == list(COLUMNS)
    assert table["predictor"].tolist() == ["network_1", "network_2", "ensemble"]
    assert (table["n"] == 39).all() and (table["n_failed"] == 1).all()
    ensemble = table.iloc[2]
    usable = deltas.dropna()
    assert ensemble["mae_years"] == pytest.approx(usable["delta_years"].abs().mean())
    assert ensemble["mae_low_years"] < ensemble["mae_years"] < ensemble["mae_high_years"]
    assert ensemble["null_mae_years"] == pytest.approx((usable["age_years"] - 63).abs().mean())
    for column in ("delta_years", "corrected_delta_years"):
        r = np.corrcoef(usable[column], usable["age_years"])[0, 1]
        assert ensemble[f"r_{column.removesuffix('_years')}_age"] == pytest.approx(r)
        for term, x in (
            ("age", usable["age_years"]),
            ("age2", orthogonal_square(usable["age_years"])),
        ):
            name = f"r_{column.removesuffix('_years')}_{term}"
            expected = stats.pearsonr(usable[column], x)
            low, high = expected.confidence_interval(0.95)
            found = [ensemble[name], ensemble[f"{name}_low"], ensemble[f"{name}_high"]]
            assert found == pytest.approx([expected.statistic, low, high])
    assert ensemble["mae_over_null"] == ensemble["mae_years"] / ensemble["null_mae_years"]
    assert table["r_delta_age"][:2].isna().all()  # deltas are of the ensemble
    assert ensemble["r_delta_age"] < -0.5 < ensemble["r_corrected_delta_age"]


def test_accuracy_is_of_raw_predictions_and_comes_before_anything_corrected():
    columns = list(COLUMNS)
    corrected = [name for name in columns if "corrected" in name]
    assert corrected and all(name.startswith("r_corrected_delta_age") for name in corrected)
    assert max(map(columns.index, ("mae_years", "r", "r2"))) < min(map(columns.index, corrected))


def test_a_mean_age_model_without_error_has_no_ratio(cell):
    metrics, deltas = cell
    table = metrics_table(rows_of_cell({**metrics, "null_mae_years": 0.0}), deltas, "ridge")
    assert table["mae_over_null"].isna().all()


def test_a_combination_row_and_its_null_model_by_subject():
    where = {**WHERE, "contrast": "ensemble", "sex": "all", "predictor": "mean"}
    predicted = np.array([51.0, 62.0, np.nan, 70.0])
    ages = np.array([50.0, 60.0, 70.0, np.nan])
    null = np.array([60.0, 60.0, 62.0, 62.0])  # women and men have means of their own
    row = row_of_predictor(where, predicted, ages, null, np.random.default_rng(0), 10)
    assert (row["n"], row["n_failed"]) == (2, 1)
    assert (row["mae_years"], row["null_mae_years"]) == (1.5, 5.0)
    table = metrics_table([row], pd.DataFrame(columns=[*WHERE, "age_years", "delta_years",
                                                       "corrected_delta_years"]), "mean")  # fmt: skip
    assert table["r_delta_age"].isna().all() and table["contrast"].tolist() == ["ensemble"]


def test_nobody_is_a_row_without_numbers():
    nothing = np.array([np.nan, np.nan])
    row = row_of_predictor({**WHERE, "predictor": "mean"}, nothing, nothing, nothing,
                           np.random.default_rng(0), 10)  # fmt: skip
    assert row["n"] == 0 and row["mae_years"] is None and row["null_mae_years"] is None


def test_deltas_are_of_the_chosen_combination_alone(cell):
    metrics, deltas = cell
    rows = rows_of_cell({**metrics, "contrast": "ensemble"})[-1:] * 2
    rows = [{**row, "predictor": name} for row, name in zip(rows, ("ridge", "mean"))]
    table = metrics_table(rows, deltas.assign(contrast="ensemble"), "mean")
    for column in ("r_delta_age", "r_corrected_delta_age"):
        assert table[column].isna().tolist() == [True, False]
