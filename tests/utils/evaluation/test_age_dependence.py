"""What is left of age in deltas, and the test of an uneven spread."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.diagnostic import het_breuschpagan

from utils.evaluation.age_dependence import (
    age_dependence,
    dependence_before_and_after,
    heteroscedasticity,
    orthogonal_square,
)
from utils.evaluation.deltas import AgeBiasCorrection


@pytest.mark.parametrize("seed", range(4))
def test_correlations_and_intervals_are_scipys(seed):
    rng = np.random.default_rng(seed)
    age = rng.uniform(45, 82, 150)
    delta = -0.3 * (age - 63) + 0.01 * (age - 63) ** 2 + rng.normal(0, 3, 150)
    found = age_dependence(delta, age)
    residual = sm.OLS((age - age.mean()) ** 2, sm.add_constant(age)).fit().resid
    for name, x in (("age", age), ("age2", residual)):
        expected = stats.pearsonr(delta, x)
        low, high = expected.confidence_interval(0.95)
        assert found[name] == pytest.approx(
            {"value": expected.statistic, "low": low, "high": high}, rel=1e-9
        )


def test_the_square_is_free_of_age_and_ignores_where_years_begin():
    age = np.random.default_rng(0).gamma(3, 5, 80) + 40
    square = orthogonal_square(age)
    assert abs(square.mean()) < 1e-10 and abs(np.corrcoef(square, age)[0, 1]) < 1e-12
    np.testing.assert_allclose(orthogonal_square(age + 1000), square, atol=1e-8)
    assert orthogonal_square(np.array([50.0, 60.0, 50.0])).tolist() == [0, 0, 0]


def test_missing_deltas_are_left_out_and_too_few_give_none():
    age = np.linspace(45, 82, 30)
    delta = np.sin(age)
    delta[5:8] = np.nan
    kept = np.isfinite(delta)
    assert age_dependence(delta, age) == age_dependence(delta[kept], age[kept])
    assert age_dependence([1.0, 2.0], [50.0, 60.0])["age"]["value"] is None
    none = {"value": None, "low": None, "high": None}
    few = age_dependence(delta[:5], age[:5])
    assert few["age"]["value"] is not None
    hidden = dependence_before_and_after(delta[:9], delta[:9], age[:9])
    assert hidden == {key: {"age": none, "age2": none} for key in ("delta", "corrected_delta")}
    shown = dependence_before_and_after(delta, 2 * delta, age)
    assert shown["delta"] == age_dependence(delta, age)


@pytest.mark.parametrize("growth", [0.0, 0.05, 0.3])
def test_uneven_spread_is_statsmodels_breusch_pagan(growth):
    rng = np.random.default_rng(7)
    age = rng.uniform(45, 82, 300)
    residual = rng.normal(size=300) * (1 + growth * (age - 45))
    found = heteroscedasticity(residual, age)
    lm, p, _, _ = het_breuschpagan(residual, sm.add_constant(age))
    assert found["lm"] == pytest.approx(lm)
    assert found["nlog10p"] == pytest.approx(-np.log10(p), rel=1e-9)
    assert (found["sd_ratio"] > 1.5) == (growth > 0)


def test_an_uneven_spread_stands_in_the_record():
    rng = np.random.default_rng(3)
    age = rng.uniform(45, 82, 400)
    even, uneven = (63 + rng.normal(size=400) * s for s in (3.0, 0.2 * (age - 44)))
    ids = [str(k) for k in range(400)]
    found = [
        AgeBiasCorrection().fit(p, age, ids).to_dict()["heteroscedasticity"] for p in (even, uneven)
    ]
    assert found[0]["nlog10p"] < 3 < 10 < found[1]["nlog10p"]


def test_the_record_holds_both_correlations_before_and_after():
    rng = np.random.default_rng(4)
    age = rng.uniform(45, 82, 300)
    predicted = 63 + 0.5 * (age - 63) + rng.normal(0, 2, 300)
    ids = [str(k) for k in range(300)]
    fitted = AgeBiasCorrection().fit(predicted[:150], age[:150], ids[:150])
    done = fitted.correct(predicted[150:], age[150:], ids[150:])
    left = done.record["age_dependence"]
    assert left["delta"]["age"]["high"] < -0.8
    after = left["corrected_delta"]["age"]
    assert after["low"] < 0 < after["high"]
    assert after["value"] == pytest.approx(np.corrcoef(done.corrected_delta_years, age[150:])[0, 1])
