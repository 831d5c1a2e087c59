"""The scan against other programs: statsmodels on standardised columns, pingouin's recorded numbers, nilearn."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm

from utils.association.scan import PairLimits, scan_pairs

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "reference" / "association_reference.json").read_text()
)
LOOSE = PairLimits(minimum_n=3, minimum_df=1, df_per_rank=0.0, minimum_class=1)
N_CONTRASTS, N_NIDPS = 3, 3


def scan(d, y, z):
    return scan_pairs(d, y, z, np.zeros(y.shape[1], dtype=bool), LOOSE)


def ordinary(rng, n):
    return rng.normal(size=(n, 6))


def collapsing_sites(rng, n):
    """Four sites, one of three subjects: on a pair's rows it may vanish."""
    site = np.where(np.arange(n) < 3, 3, np.arange(n) % 3)
    return np.column_stack([rng.normal(size=(n, 2)), *(site == s for s in (1, 2, 3))]).astype(float)


def duplicated(rng, n):
    z = rng.normal(size=(n, 3))
    return np.column_stack([z, 2 * z[:, 0] + 5, z @ (1.0, -1.0, 2.0), np.ones(n)])


def raw_age(rng, n):
    age = rng.uniform(45, 82, n)
    return np.column_stack([age, age**2, 20_230_000 + 400 * rng.random(n)])


def nearly_collinear(rng, n):
    z = rng.normal(size=(n, 4))
    return np.column_stack([z, z[:, 0] + 1e-5 * rng.normal(size=n)])


def many(rng, n):
    return rng.normal(size=(n, n // 4))


DESIGNS = (ordinary, collapsing_sites, duplicated, raw_age, nearly_collinear, many)
# Subjects, share of missing nIDPs, share of missing deltas.
SAMPLES = ((30, 0.0, 0.0), (60, 0.3, 0.0), (60, 0.3, 0.3), (400, 0.5, 0.1), (1500, 0.9, 0.2))
N_SEEDS = 5


def standard(values):
    """Mean 0 and SD 1; columns that do not vary are left out."""
    centred = values - values.mean(axis=0)
    varies = np.ptp(values, axis=0) > 0
    return centred[..., varies] / centred[..., varies].std(axis=0)


def oracle(d, y, z):
    """(r, df, t) of the delta in ordinary least squares on standardised columns of these rows."""
    design = np.column_stack([standard(d[:, None]), np.ones(len(d)), standard(z)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a rank below the number of columns is what is asked about
        fit = sm.OLS(standard(y[:, None])[:, 0], design).fit()
    t, df = fit.tvalues[0], fit.df_resid
    return t / np.sqrt(df + t**2), df, t


@pytest.mark.parametrize("seed", range(N_SEEDS))
@pytest.mark.parametrize("sample", SAMPLES, ids=str)
@pytest.mark.parametrize("design", DESIGNS, ids=lambda f: f.__name__)
def test_every_pair_is_the_ordinary_least_squares_of_its_own_rows(design, sample, seed):
    n, y_missing, d_missing = sample
    rng = np.random.default_rng([seed, n])
    z = design(rng, n)
    d = rng.normal(size=(n, N_CONTRASTS)) + z[:, :1] / z[:, 0].std()
    y = 1e3 * (rng.normal(size=(n, N_NIDPS)) + 0.3 * d[:, :1] - z[:, :1] / z[:, 0].std()) + 50
    y[rng.random(y.shape) < y_missing] = np.nan
    d[rng.random(d.shape) < d_missing] = np.nan
    if design is collapsing_sites:
        y[:3, 0] = np.nan
    out = scan(d, y, z)
    # The oracle's pseudo-inverse loses these digits itself on the columns that are nearly one.
    tolerance = 1e-10 if design is nearly_collinear else 1e-12
    for c in range(N_CONTRASTS):
        for j in range(N_NIDPS):
            rows = np.isfinite(d[:, c]) & np.isfinite(y[:, j])
            if rows.sum() <= z.shape[1] + 2:
                assert out.reason[c, j] == "too_few_degrees_of_freedom"
                continue
            r, df, t = oracle(d[rows, c], y[rows, j], z[rows])
            assert out.df[c, j] == df
            assert abs(out.r[c, j] - r) <= tolerance
            assert out.t[c, j] == pytest.approx(t, rel=100 * tolerance, abs=tolerance)


@pytest.mark.parametrize("case", REFERENCE["pingouin"], ids=lambda case: case["name"])
def test_recorded_pingouin_numbers(case):
    d, y, z = (
        np.array([[np.nan if v is None else v for v in row] for row in case[key]], dtype=float)
        for key in ("delta", "nidp", "confounds")
    )
    out = scan(d, y, z)
    assert out.n[0, 0] == case["n"]
    assert out.r[0, 0] == pytest.approx(case["r"], abs=1e-12)
    assert 10 ** -out.nlog10p[0, 0] == pytest.approx(case["p"], rel=1e-9)


@pytest.mark.parametrize("n_confounds", (1, 8, 40))
def test_nilearn_gives_the_same_t_on_complete_data(n_confounds):
    permuted_ols = pytest.importorskip("nilearn.mass_univariate").permuted_ols
    rng = np.random.default_rng(n_confounds)
    z = rng.normal(size=(300, n_confounds))
    d, y = rng.normal(size=(300, 4)) + z[:, :1], rng.normal(size=(300, 7)) - z[:, :1]
    nilearns = permuted_ols(d, y, z, model_intercept=True, n_perm=0, output_type="dict")["t"]
    np.testing.assert_allclose(scan(d, y, z).t, nilearns, rtol=1e-11, atol=1e-13)
