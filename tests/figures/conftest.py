"""A made-up study with planted values, for the tests of the figures and the report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from figures.tables import StudyTables
from utils.common.randomness import generator

SEXES = ("female", "male")
FAMILY = "all contrasts x all tested nIDPs x both sexes"
ODD_NAMES = (
    'quoted "name"',
    "<b>bold</b>",
    "</script><script>alert(1)</script>",
    "Größe µ 脑 $x^2$",
    "a,b;c",
)


def subject_ids(n: int, sex: str) -> list[str]:
    first = 7_100_000 if sex == "female" else 7_600_000
    return [str(first + 37 * step) for step in range(n)]


def make_persons(n: int, contrasts: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    predictions, deltas = [], []
    for sex in SEXES:
        draw = generator("figures", sex, n)
        age = draw.uniform(45, 82, n)
        for place, contrast in enumerate((*contrasts, "ensemble")):
            slope = 0.6 + 0.08 * (place % 4)
            predicted = 63 + slope * (age - 63) + draw.normal(0, 4 - 0.5 * (place % 4), n)
            fitted = 63 + slope * (age - 63)
            table = pd.DataFrame(
                {
                    "subject_id": subject_ids(n, sex),
                    "contrast": contrast,
                    "sex": sex,
                    "split": "test",
                    "age_years": age,
                    "predicted_years": predicted,
                    "delta_years": predicted - age,
                }
            )
            deltas.append(table.assign(corrected_delta_years=predicted - fitted, note=""))
            if contrast != "ensemble":
                predictions.append(table.assign(status="ok", note=""))
    return pd.concat(predictions, ignore_index=True), pd.concat(deltas, ignore_index=True)


def make_metrics(n: int, contrasts: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for sex in SEXES:
        for place, contrast in enumerate((*contrasts, "ensemble")):
            names = ["ridge", "mean"]
            if contrast != "ensemble":
                names = ["network_1", "network_2", "network_3", "ensemble"]
            for step, name in enumerate(names):
                mae = 4.2 - 0.4 * (place % 4) - 0.05 * step
                rows.append((contrast, sex, "test", name, n, mae))
    table = pd.DataFrame(rows, columns=["contrast", "sex", "split", "predictor", "n", "mae_years"])
    mae = table["mae_years"]
    return table.assign(
        age_mean_years=63.2,
        age_sd_years=10.7,
        age_min_years=45.31,
        age_max_years=81.87,
        null_mae_years=9.21,
        mae_low_years=mae - 0.2,
        mae_high_years=mae + 0.2,
        rmse_years=mae * 1.25,
        r=0.9 - 0.05 * mae,
        r_low=0.85 - 0.05 * mae,
        r_high=0.93 - 0.05 * mae,
        r2=0.7,
        r_delta_age=-0.55,
        r_corrected_delta_age=0.01,
    )


def make_history(contrasts: tuple[str, ...], n_epochs: int = 30) -> pd.DataFrame:
    rows = []
    for contrast in contrasts:
        for sex in SEXES:
            for network in (1, 2, 3):
                draw = generator("history", contrast, sex, network)
                for epoch in range(1, n_epochs + 1):
                    loss = 20 + 90 * np.exp(-epoch / 6) + draw.normal(0, 1)
                    rows.append(
                        (contrast, sex, network, epoch, loss * 0.9, loss, np.sqrt(loss) * 0.8, 1e-3)
                    )
    columns = (
        "contrast sex network epoch train_loss validation_loss validation_mae_years learning_rate"
    )
    return pd.DataFrame(rows, columns=columns.split())


def make_associations(n_nidps: int, contrasts: tuple[str, ...], n: int) -> pd.DataFrame:
    """Null correlations with a planted effect for every 40th nIDP; one row without p, some rare cases."""
    categories = ["heart", "blood", "cognition", "diet & <lifestyle>", "bone"]
    deltas = [(c, s) for c in (*contrasts, "ensemble") for s in SEXES]
    parts = []
    for contrast, sex in deltas:
        draw = generator("associations", contrast, sex, n_nidps)
        step = np.arange(n_nidps)
        r = draw.normal(0, 1 / np.sqrt(n), n_nidps) + np.where(
            step % 40 == 3, 0.35 * (-1.0) ** (step // 40), 0
        )
        rows = pd.DataFrame(
            {
                "contrast": contrast,
                "sex": sex,
                "nidp": [_nidp(i) for i in step],
                "category": [categories[i * len(categories) // n_nidps] for i in step],
                "kind": np.where(step % 3 == 0, "binary", "continuous"),
                "n": n - (step % 7),
                "n_cases": np.where(step % 3 == 0, 4 + 9 * step, np.nan),
                "r": np.clip(r, -0.99, 0.99),
            }
        )
        rows.loc[rows.index == 5, "n"] = 7
        rows["n_cases"] = np.minimum(rows["n_cases"], rows["n"])
        rows["rank_conf"], rows["family_id"], rows["reason"] = 6, "all", ""
        parts.append(rows)
        rows.loc[rows.index == 11, "r"] = np.nan
        rows.loc[rows.index == 11, "reason"] = "collinear_with_confounds"
    table = pd.concat(parts, ignore_index=True)
    table["df"] = table["n"] - table["rank_conf"] - 1
    table["z"] = np.arctanh(table["r"])
    half = 1.959964 / np.sqrt(np.maximum(table["df"] - 1, 1))
    table["ci_lo"], table["ci_hi"] = np.tanh(table["z"] - half), np.tanh(table["z"] + half)
    table["beta_per_sd"] = table["r"]
    table["t"] = table["r"] * np.sqrt(np.maximum(table["df"], 1) / (1 - table["r"] ** 2))
    table["nlog10p"] = _nlog10p(table["t"].abs().to_numpy())
    return _adjusted(table)


def _nidp(step: int) -> str:
    return ODD_NAMES[step] if step < len(ODD_NAMES) else f"{20000 + step}-2.0"


def _nlog10p(t: np.ndarray) -> np.ndarray:
    from scipy.special import log_ndtr

    return -(np.log(2) + log_ndtr(-t)) / np.log(10)


def _adjusted(table: pd.DataFrame) -> pd.DataFrame:
    p = table["nlog10p"]
    m = int(p.notna().sum())
    table["nlog10p_bonf"] = np.maximum(p - np.log10(m), 0).where(p.notna())
    order = p[p.notna()].sort_values(ascending=False).index
    q = 10.0 ** -p[order].to_numpy() * m / np.arange(1, m + 1)
    table["q_bh"] = np.nan
    table.loc[order, "q_bh"] = np.minimum(np.minimum.accumulate(q[::-1])[::-1], 1)
    return table


def made_up(
    n: int = 400,
    n_nidps: int = 240,
    contrasts: tuple[str, ...] = ("T1_nonlinear", "T2_FLAIR", "dMRI_FA"),
) -> StudyTables:
    """A study of two sexes with planted accuracy, deltas and associations."""
    predictions, deltas = make_persons(n, contrasts)
    counts = {split: n for split in ("train", "validation", "test")}
    return StudyTables(
        experiment="made_up_study",
        description={
            "simulated": True,
            "split": "test",
            "contrasts": list(contrasts),
            "counts": {sex: dict(counts) for sex in SEXES},
            "age_range_years": [45, 82],
            "network": "AgeMapper",
            "n_parameters": 1_313_345,
            "n_networks": 3,
            "loss": "mean squared error",
            "optimiser": "Adam",
            "learning_rate": 5e-3,
            "batch_size": 12,
            "n_epochs": 30,
            "correction": "linear",
            "combination": "ridge",
            "confounds": ["age", "age squared", "head size"],
            "n_nidps": n_nidps,
        },
        metrics=make_metrics(n, contrasts),
        predictions=predictions,
        deltas=deltas,
        history=make_history(contrasts),
        associations=make_associations(n_nidps, contrasts, n),
        association_summary={"family": FAMILY, "alpha": 0.05},
        dictionary=pd.DataFrame(
            {
                "nidp": [_nidp(i) for i in range(n_nidps)],
                "name": [
                    _nidp(i) if i < len(ODD_NAMES) else f"measure {i} of the body"
                    for i in range(n_nidps)
                ],
                "description": "made up",
            }
        ),
        bias_correction={
            "method": "linear",
            "fitted_on": "validation",
            "subject_ids": subject_ids(3, "male"),
        },
        provenance={
            "versions": {"python": "3.11"},
            "settings": {"seed": 7},
            "note": f"{subject_ids(1, 'male')[0]}",
        },
        flags=(f"One network collapsed; see subject {subject_ids(1, 'female')[0]}.",),
    )


@pytest.fixture(scope="session")
def study() -> StudyTables:
    return made_up()


@pytest.fixture(scope="session")
def make_study():
    return made_up


@pytest.fixture
def no_pictures(monkeypatch):
    """Pages without their static pictures, for the tests of words and tables: drawing takes most of the time."""
    monkeypatch.setattr("figures.report.inlined_pictures", lambda *_: {})
