"""Predictions of a cell: every subject has a row, collapsed networks are shown and not averaged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from BrainAgeNetworks.registry import NetworkPlan, build_network
from BrainAgeNetworks.targets import BinsTarget, YearsTarget
from datasets.loaders import CellVolumes
from datasets.volumes import VolumeReader
from utils.evaluation.cell_metrics import cell_metrics
from utils.evaluation.prediction import predict_years
from utils.evaluation.predictions import predictions_table

NAN = float("nan")
SUBJECTS = pd.DataFrame(
    {
        "subject_id": ["007", "b", "c", "d"],
        "age_years": [60.0, NAN, 70.0, 50.0],
        "note": ["", "age 89+ is censored", None, ""],
    }
)
PREDICTED = np.array([[61.0, 90.0, 64.0], [71.0, 90.0, 72.0], [NAN, NAN, NAN], [50.0, 90.0, 54.0]])
REASONS = {2: "no such file"}


def test_a_collapsed_network_is_shown_and_not_averaged():
    table = predictions_table(SUBJECTS, PREDICTED, {1: True, 2: False, 5: True}, REASONS)
    assert list(table.columns) == [
        "subject_id", "age_years", "predicted_years_1", "predicted_years_2", "predicted_years_5",
        "predicted_years", "predicted_sd_years", "delta_years", "status", "note",
    ]  # fmt: skip
    single = [name for name in table if name.removeprefix("predicted_years_").isdigit()]
    assert single == ["predicted_years_1", "predicted_years_2", "predicted_years_5"]
    assert table["subject_id"].tolist() == ["007", "b", "c", "d"]
    assert np.array_equal(table["predicted_years"], [62.5, 71.5, NAN, 52.0], equal_nan=True)
    assert np.allclose(
        table["predicted_sd_years"], [3 / 2**0.5, 0.5**0.5, NAN, 8**0.5], equal_nan=True
    )
    assert np.array_equal(table["delta_years"], [2.5, NAN, NAN, 2.0], equal_nan=True)
    assert table["predicted_years_2"].tolist()[0] == 90.0
    assert table["status"].tolist() == ["ok", "ok", "failed", "ok"]
    collapsed = "network 2 collapsed and is not averaged"
    assert table["note"].tolist() == [
        collapsed, f"age 89+ is censored; {collapsed}", f"no such file; {collapsed}", collapsed,
    ]  # fmt: skip


def test_identical_networks_are_the_network_and_one_has_no_spread():
    one = predictions_table(SUBJECTS, PREDICTED[:, :1], {1: True}, REASONS)
    three = predictions_table(
        SUBJECTS, PREDICTED[:, [0, 0, 0]], {1: True, 2: True, 3: True}, REASONS
    )
    assert one["predicted_years"].equals(three["predicted_years"])
    assert one["predicted_sd_years"].isna().all()
    assert three["predicted_sd_years"].dropna().tolist() == [0.0, 0.0, 0.0]
    assert one["note"].tolist() == ["", "age 89+ is censored", "no such file", ""]


def test_metrics_are_of_subjects_with_age_and_prediction():
    averaged = {1: True, 2: False, 5: True}
    table = predictions_table(SUBJECTS, PREDICTED, averaged, REASONS)
    metrics = cell_metrics(table, averaged, 58.0, np.random.default_rng(0), 20)
    assert (metrics["n"], metrics["n_failed"]) == (2, 1)
    assert (metrics["age_mean_years"], metrics["age_min_years"]) == (55.0, 50.0)
    assert metrics["null_mae_years"] == 5.0
    found = {entry["network"]: entry["mae_years"]["value"] for entry in metrics["networks"]}
    assert found == {1: 0.5, 2: 35.0, 5: 4.0}
    assert metrics["ensemble"]["mae_years"] == {"value": 2.25, "low": None, "high": None}
    assert metrics["gain_over_average_network_years"] == 0.0  # of networks 1 and 5 alone
    nobody = cell_metrics(table.iloc[1:3], averaged, 58.0, np.random.default_rng(0), 20)
    assert nobody["n"] == 0 and nobody["ensemble"]["mae_years"]["value"] is None


@pytest.fixture
def volumes(tiny_cohort) -> CellVolumes:
    reader = VolumeReader(tiny_cohort.contrast, 100.0)
    return CellVolumes(tiny_cohort.subject_ids, tiny_cohort.paths, tiny_cohort.ages_years, reader)


def test_volumes_to_years_in_the_order_of_the_subjects(volumes):
    torch.manual_seed(0)
    plan = {"box": (16, 18, 16), "widths": (2, 3), "dropout_rates": (0.5, 0.5, 0.0)}
    networks = [
        (build_network(NetworkPlan("agemapper", n_outputs=1, **plan)), YearsTarget(60.0)),
        (build_network(NetworkPlan("sfcn", n_outputs=40, **plan)), BinsTarget(60.0)),
    ]
    volumes.paths[5].unlink()
    predicted = predict_years(networks, volumes, 4, torch.device("cpu"))
    assert predicted.shape == (13, 2)
    assert np.isnan(predicted[5]).all() and np.isfinite(np.delete(predicted, 5, axis=0)).all()
    assert list(volumes.failures) == [5]
    again = predict_years(networks, volumes, 13, torch.device("cpu"))
    assert np.allclose(predicted, again, atol=1e-4, equal_nan=True)
    with torch.inference_mode():
        volume = torch.from_numpy(volumes.read(9))[None, None]
        by_hand = [target.years(network.eval()(volume)).item() for network, target in networks]
    assert predicted[9] == pytest.approx(by_hand, abs=1e-4)
    assert len(np.unique(predicted[:, 0])) > 10
