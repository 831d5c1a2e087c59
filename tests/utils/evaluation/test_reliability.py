"""Agreement of networks and of scans: by hand, against statsmodels, and what too few subjects give."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from utils.evaluation.intraclass import intraclass_correlations
from utils.evaluation.reliability import (
    NETWORK_COLUMNS,
    RETEST_COLUMNS,
    network_agreement,
    scan_agreement,
)


def test_network_agreement_by_hand():
    """Two networks that differ by 0, 1 and 2 years in turn: within-subject variances 0, 0.5 and 2."""
    first = np.arange(12.0)
    deltas = np.column_stack([first, first + np.tile([0.0, 1.0, 2.0], 4)])
    found = network_agreement(deltas)
    assert (found["n"], found["k"]) == (12, 2)
    assert found["sd_between_networks_years"] == pytest.approx(np.sqrt(2.5 / 3))
    icc = intraclass_correlations(deltas)
    for name, interval in icc.items():
        assert found[name] == interval["value"]
        assert [found[f"{name}_low"], found[f"{name}_high"]] == [interval["low"], interval["high"]]
    assert set(found) < set(NETWORK_COLUMNS)


def test_the_icc_is_of_deltas_not_of_ages():
    """Networks that know the age and nothing else agree on it, and on no delta."""
    rng = np.random.default_rng(0)
    age = rng.uniform(45, 82, 400)
    predicted = age[:, None] + rng.normal(0, 3, (400, 3))
    assert intraclass_correlations(predicted)["icc_2_1"]["value"] > 0.9
    assert abs(network_agreement(predicted - age[:, None])["icc_2_1"]) < 0.1


@pytest.mark.parametrize("seed", range(4))
def test_bland_altman_is_statsmodels(seed):
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 3, 60)
    first, second = true + rng.normal(0, 1, 60), 0.4 + 1.1 * true + rng.normal(0, 1, 60)
    found = scan_agreement(first, second)
    difference, middle = second - first, (first + second) / 2
    mean = sm.stats.DescrStatsW(difference)
    assert found["bias_years"] == pytest.approx(mean.mean)
    low, high = mean.tconfint_mean()
    assert [found["bias_low_years"], found["bias_high_years"]] == pytest.approx([low, high])
    fit = sm.OLS(difference, sm.add_constant(middle)).fit()
    assert found["slope"] == pytest.approx(fit.params[1])
    assert [found["slope_low"], found["slope_high"]] == pytest.approx(list(fit.conf_int()[1]))
    assert found["slope_t"] == pytest.approx(fit.tvalues[1])
    sd = difference.std(ddof=1)
    assert found["limit_low_years"] == pytest.approx(mean.mean - 1.96 * sd)
    assert found["limit_high_years"] == pytest.approx(mean.mean + 1.96 * sd)
    half = stats.t.ppf(0.975, 59) * sd * np.sqrt(1 / 60 + 1.96**2 / 118)
    for limit in ("low", "high"):
        ends = [found[f"limit_{limit}_{end}_years"] for end in ("low", "high")]
        assert ends == pytest.approx([found[f"limit_{limit}_years"] + s * half for s in (-1, 1)])
    assert set(found) < set(RETEST_COLUMNS)


def test_sem_and_smallest_detectable_change_by_hand():
    """Differences of 1 and 3 years in turn: mean 2, SD 1.0445; a shift enters the within-subject SD alone."""
    first = np.arange(12.0)
    difference = np.tile([1.0, 3.0], 6)
    found = scan_agreement(first, first + difference)
    sd = np.sqrt(12 / 11)
    assert found["sem_years"] == pytest.approx(sd / np.sqrt(2))
    assert found["mdc_years"] == pytest.approx(1.96 * sd)
    assert found["within_subject_sd_years"] == pytest.approx(np.sqrt(5 / 2))
    assert found["bias_years"] == pytest.approx(2.0)


def test_the_smallest_detectable_change_is_exceeded_by_chance_in_five_per_cent():
    rng = np.random.default_rng(1)
    true = rng.normal(0, 4, 20_000)
    first, second = (true + rng.normal(0, 1.5, 20_000) for _ in range(2))
    found = scan_agreement(first, second)
    assert found["sem_years"] == pytest.approx(1.5, rel=0.02)
    assert found["icc_3_1"] == pytest.approx(16 / (16 + 2.25), abs=0.01)
    assert np.mean(np.abs(second - first) > found["mdc_years"]) == pytest.approx(0.05, abs=0.006)


def test_few_subjects_give_their_number_alone():
    rng = np.random.default_rng(2)
    assert network_agreement(rng.normal(size=(9, 3))) == {"n": 9, "k": 3}
    assert scan_agreement(rng.normal(size=9), rng.normal(size=9)) == {"n": 9}


def test_missing_values_leave_a_subject_out():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 20))
    first[0], second[1] = np.nan, np.nan
    assert scan_agreement(first, second) == scan_agreement(first[2:], second[2:])
    assert scan_agreement(first, second)["n"] == 18


def test_a_repeated_scan_that_changes_nothing():
    values = np.random.default_rng(4).normal(size=30)
    found = scan_agreement(values, values)
    assert found["icc_2_1"] == 1.0 and found["mdc_years"] == 0.0 and found["slope"] is None
