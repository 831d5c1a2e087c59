"""Logistic regression and Firth's: statsmodels, R's logistf, tables worked by hand, separation, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from utils.association.inference.logistic import LogisticLimits, odds_ratio_test
from utils.association.inference.logistic_likelihood import LogisticLikelihood
from utils.association.inference.normal_tails import nlog10p_from_normal
from utils.association.inference.shared_rows import SharedRows

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "recheck_reference.json").read_text()
)["logistf"]
EXAMPLES = [(name, i) for name in REFERENCE for i in range(len(REFERENCE[name]["columns"]))]
PLAIN = LogisticLimits(firth_below=0, cases_per_confound=0.01)
FIRTH = LogisticLimits(firth_below=10**9, cases_per_confound=0.01)


def odds(y, d, z, limits=None):
    shared = SharedRows.of(np.arange(len(y)), np.asarray(z, float))
    return odds_ratio_test(np.asarray(y, float), shared.residuals(d), shared, limits)


def simulated(seed, n=400, n_confounds=3, rate=0.3, effect=0.4):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, n_confounds))
    d = 3 * rng.normal(size=n) + z[:, 0]
    predictor = np.log(rate / (1 - rate)) + effect * d / 3 + 0.5 * z[:, 0]
    return (rng.random(n) < 1 / (1 + np.exp(-predictor))).astype(float), d, z


@pytest.mark.parametrize(
    ("seed", "n", "n_confounds", "rate"),
    [(1, 400, 3, 0.3), (2, 1000, 10, 0.1), (3, 250, 1, 0.5), (4, 3000, 20, 0.05), (5, 150, 2, 0.8)],
)
def test_statsmodels_logit(seed, n, n_confounds, rate):
    y, d, z = simulated(seed, n, n_confounds, rate)
    found = odds(y, d, z, PLAIN)
    fit = sm.Logit(y, np.column_stack([d, np.ones(n), z])).fit(disp=0, tol=1e-14, maxiter=100)
    null = sm.Logit(y, np.column_stack([np.ones(n), z])).fit(disp=0, tol=1e-14, maxiter=100)
    assert found.method == "likelihood" and found.reason == ""
    assert found.n_cases == y.sum()
    assert found.log_odds == pytest.approx(fit.params[0], rel=1e-8)
    assert found.se == pytest.approx(fit.bse[0], rel=1e-8)
    np.testing.assert_allclose((found.low, found.high), fit.conf_int()[0], rtol=1e-8)
    assert found.nlog10p_wald == pytest.approx(-np.log10(fit.pvalues[0]), rel=1e-7)
    p = stats.chi2.sf(2 * (fit.llf - null.llf), 1)
    assert found.nlog10p_lr == pytest.approx(-np.log10(p), rel=1e-7)


@pytest.mark.parametrize(("name", "tested"), EXAMPLES)
def test_the_published_examples_of_logistf(name, tested):
    """R's logistf, recorded to about 1e-7; its intervals stop at 1e-5."""
    example = REFERENCE[name]
    table = np.array(example["outcome_values_count"])
    rows = np.repeat(table[:, :-1], table[:, -1].astype(int), axis=0)
    y, x = rows[:, 0], rows[:, 1:]
    found = odds(y, x[:, tested], np.delete(x, tested, axis=1), FIRTH)
    assert found.method == "firth" and found.reason == ""
    assert found.log_odds == pytest.approx(example["coefficients"][tested], rel=2e-6, abs=1e-7)
    assert found.low == pytest.approx(example["low"][tested], rel=2e-5)
    assert found.high == pytest.approx(example["high"][tested], rel=2e-5)
    if "p" in example:
        assert 10**-found.nlog10p_lr == pytest.approx(example["p"][tested], rel=1e-6)


@pytest.mark.parametrize("cells", [(10, 0, 12, 15), (3, 30, 9, 20), (1, 99, 0, 60), (5, 5, 5, 5)])
def test_firth_in_a_two_by_two_table_adds_half_to_each_cell(cells):
    a, b, c, d = cells  # cases and others with the factor, cases and others without
    factor = np.repeat([1.0, 1.0, 0.0, 0.0], cells)
    y = np.repeat([1.0, 0.0, 1.0, 0.0], cells)
    found = odds(y, factor, np.empty((len(y), 0)), FIRTH)
    expected = np.log((a + 0.5) * (d + 0.5) / ((b + 0.5) * (c + 0.5)))
    assert found.log_odds == pytest.approx(expected, abs=1e-7)
    assert np.isfinite([found.low, found.high, found.nlog10p_lr]).all()


def test_the_gradient_is_that_of_the_penalised_likelihood():
    y, d, z = simulated(6, n=60, n_confounds=2)
    likelihood = LogisticLikelihood(np.column_stack([np.ones(60), z, d / 3]), y, True)
    at = np.array([-0.3, 0.2, 0.1, 0.7])
    point = likelihood._at(at, likelihood.design @ at)
    for k in range(4):
        step = np.zeros(4)
        step[k] = 1e-5
        ends = [
            likelihood._at(b, likelihood.design @ b).log_likelihood for b in (at + step, at - step)
        ]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(point.score[k], rel=1e-6, abs=1e-8)


def test_at_the_ends_of_the_profile_interval_the_ratio_is_the_95_percent_point():
    y, d, z = simulated(7, n=300, n_confounds=2, rate=0.05)
    found = odds(y, d, z, FIRTH)
    shared = SharedRows.of(np.arange(300), z)
    design = np.column_stack([np.ones(300), z, shared.residuals(d)])
    likelihood = LogisticLikelihood(design, y, True)
    top = likelihood.maximise(np.zeros(4)).log_likelihood
    for end in (found.low, found.high):
        fixed = likelihood.maximise(np.array([-3.0, 0.0, 0.0, end]), 3).log_likelihood
        assert 2 * (top - fixed) == pytest.approx(stats.chi2.isf(0.05, 1), rel=1e-6)


def test_few_cases_bring_firth():
    y, d, z = simulated(8, n=600, n_confounds=2, rate=0.04)
    assert 10 < y.sum() < 50
    assert odds(y, d, z).method == "firth"
    assert odds(1 - y, d, z).log_odds == pytest.approx(-odds(y, d, z).log_odds, rel=1e-6)


@pytest.mark.parametrize("by", ["delta", "site", "almost"])
def test_separation_brings_firth(by):
    """Complete by the delta, quasi-complete by a site without cases, and complete but for one touching value."""
    rng = np.random.default_rng(9)
    d, z = rng.normal(size=200), rng.normal(size=(200, 2))
    y = (d > 0.1).astype(float)
    if by == "almost":
        d = np.where(np.abs(d) < 0.3, 0.0, d)
        y = np.where(d == 0, np.arange(200) % 2, d > 0).astype(float)
    if by == "site":
        y = (rng.random(200) < 0.4).astype(float)
        site = np.arange(200) < 30
        y[site] = 0.0
        z = np.column_stack([z, site])
    found = odds(y, d, z, PLAIN)
    assert found.method == "firth" and found.reason == ""
    assert np.isfinite([found.log_odds, found.low, found.high, found.nlog10p_lr]).all()
    assert found.low < found.log_odds < found.high


def test_a_strong_association_without_separation_stays_with_the_likelihood():
    y, d, z = simulated(10, n=2000, effect=3.0)
    assert odds(y, d, z).method == "likelihood"


def test_firth_comes_to_the_likelihood_in_large_samples():
    y, d, z = simulated(11, n=20_000, n_confounds=2)
    plain, firth = odds(y, d, z, PLAIN), odds(y, d, z, FIRTH)
    assert firth.log_odds == pytest.approx(plain.log_odds, rel=1e-3)
    np.testing.assert_allclose((firth.low, firth.high), (plain.low, plain.high), rtol=5e-3)


@pytest.mark.parametrize("limits", [PLAIN, FIRTH])
def test_units_and_dependent_confounds_do_not_matter(limits):
    y, d, z = simulated(12, n=300)
    first = odds(y, d, z, limits)
    doubled = np.column_stack([1000 * z, z @ [1.0, 2.0, 3.0], np.full(300, 7.0)])
    other = odds(3 * y - 1, 12 * d + 5 + z[:, 1], doubled, limits)  # months instead of years
    assert 12 * other.log_odds == pytest.approx(first.log_odds, rel=1e-8)
    assert other.delta_sd == pytest.approx(12 * first.delta_sd, rel=1e-10)
    np.testing.assert_allclose(
        (12 * other.low, 12 * other.high), (first.low, first.high), rtol=1e-7
    )
    assert other.nlog10p_lr == pytest.approx(first.nlog10p_lr, rel=1e-7)


def test_refusals_have_a_reason():
    y, d, z = simulated(13, n=200, n_confounds=60)
    assert odds(y, d, z).reason == "too_few_cases_for_the_confounds"
    assert odds(np.ones(200), d, z).reason == "one_class_only"
    assert odds(y, 2 * z[:, 3], z).reason == "delta_explained_by_confounds"
    assert np.isnan(odds(y, d, z).log_odds)


def test_p_is_uniform_without_effect_for_few_cases():
    """Firth's penalised likelihood ratio with 30 cases and 5 confounds: false alarms within the binomial interval."""
    rng = np.random.default_rng(14)
    z = rng.normal(size=(1000, 5))
    shared = SharedRows.of(np.arange(1000), z)
    alarms = 0
    for _ in range(300):
        y = np.zeros(1000)
        y[rng.permutation(1000)[:30]] = 1.0
        test = odds_ratio_test(y, shared.residuals(rng.normal(size=1000)), shared)
        alarms += test.nlog10p_lr > -np.log10(0.05)
    low, high = stats.binom.interval(0.999, 300, 0.05)
    assert low <= alarms <= high


@pytest.mark.parametrize("z", [0.0, 0.3, 0.49, 0.51, 1.0, 1.96, 5.0, 37.0])
def test_two_sided_normal_p(z):
    assert nlog10p_from_normal(z) == pytest.approx(
        -np.log10(2 * stats.norm.sf(z)), rel=1e-12, abs=1e-17
    )
    assert nlog10p_from_normal(-z) == nlog10p_from_normal(z)


def test_normal_p_keeps_its_digits_at_both_ends():
    """At z = 1e-9 1 - p is 2 phi(0) z; at z = 100 the tail is phi(z) / z (1 - 1 / z^2 + 3 / z^4 - ...)."""
    near_one = 2e-9 / np.sqrt(2 * np.pi) / np.log(10)
    assert nlog10p_from_normal(1e-9) == pytest.approx(near_one, rel=1e-8)
    log_p = np.log(2) - 5000 - np.log(100 * np.sqrt(2 * np.pi)) + np.log(1 - 1e-4 + 3e-8 - 15e-12)
    assert nlog10p_from_normal(100.0) == pytest.approx(-log_p / np.log(10), rel=1e-13)


@pytest.mark.parametrize("seed", range(12))
def test_the_estimate_lies_inside_its_interval_whatever_the_data(seed):
    """Heavy tails, a rare site and few cases: Newton's steps along the profile must not cross to the other side."""
    rng = np.random.default_rng(seed)
    d = rng.standard_t(2, size=250)
    z = np.column_stack([rng.random(250) < 0.1, 100 * rng.normal(size=(250, 2))])
    y = rng.random(250) < 1 / (1 + np.exp(2 - rng.choice([0.0, 1.0]) * np.clip(d, -50, 50)))
    for limits in (PLAIN, FIRTH):
        found = odds(y, d, z, limits)
        assert found.reason == "" and found.low < found.log_odds < found.high
        significant = found.nlog10p_lr > -np.log10(0.05)
        if found.method == "firth":
            assert significant == (found.low > 0 or found.high < 0)
