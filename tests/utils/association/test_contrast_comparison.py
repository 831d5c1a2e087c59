"""Dependent correlations: published examples, simulation with confounds, and what is said of counts of hits."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.utils.association.association_tables import (
    as_categories,
    association_table,
    corrected,
)
from utils.association.inference.contrast_comparison import (
    COLUMNS,
    compare_contrasts,
    compare_dependent,
    compare_hit_counts,
    partial_correlation,
)

# May and Hittner 1997, Psychol Rep 80:475: Meng's Z for n = 50 and r_ab = 0, .1, ... .8. Their 2.24 at .5 is 2.245.
MAY_HITTNER = [
    *[(0.5, 0.2, k / 10, 50, z) for k, z in enumerate([1.62, 1.70, 1.80, 1.91, 2.06, 2.245, 2.50, 2.87, 3.50])],
    *[(0.7, 0.4, k / 10, 50, z) for k, z in enumerate([2.03, 2.10, 2.20, 2.32, 2.47, 2.66, 2.94, 3.35, 4.05])],
]  # fmt: skip
# Meng, Rosenthal and Rubin 1992; Silver, Hittner and May 2006 (program depcor).
MENG = [*MAY_HITTNER, (0.63, -0.03, -0.19, 15, 1.68), (0.3, 0.4, 0.5, 100, -1.0707)]
# Steiger 1980, case A, with the covariance at full precision (he prints -.8913); depcor.
STEIGER = [(0.4, 0.5, 0.1, 103, -0.8887185), (0.3, 0.4, 0.5, 100, -1.0718)]


@pytest.mark.parametrize(("r_a", "r_b", "r_ab", "n", "z"), MENG)
def test_meng_published(r_a, r_b, r_ab, n, z):
    assert compare_dependent(r_a, r_b, r_ab, n - 2).z_meng == pytest.approx(z, abs=0.0051)


@pytest.mark.parametrize(("r_a", "r_b", "r_ab", "n", "z"), STEIGER)
def test_steiger_published(r_a, r_b, r_ab, n, z):
    assert compare_dependent(r_a, r_b, r_ab, n - 2).z_steiger == pytest.approx(z, abs=6e-5)


def test_the_published_interval():
    found = compare_dependent(0.63, -0.03, -0.19, 13)
    margin = stats.norm.ppf(0.975) * found.standard_error
    low, high = found.difference - margin, found.difference + margin
    assert (low, high) == pytest.approx((-0.129, 1.672), abs=5e-4)
    assert stats.norm.sf(found.z_meng) == pytest.approx(0.047, abs=5e-4)


def test_uncorrelated_deltas_of_small_effect_are_nearly_independent_correlations():
    found = compare_dependent(0.02, 0.01, 0.0, 10_000)
    expected = (np.arctanh(0.02) - np.arctanh(0.01)) / np.sqrt(2 / 9999)
    assert found.z_meng == pytest.approx(expected, rel=1e-3)
    assert found.z_steiger == pytest.approx(expected, rel=1e-3)


def test_exchanging_the_contrasts_changes_the_sign_alone():
    rng = np.random.default_rng(0)
    r_a, r_b, r_ab = rng.uniform(-0.4, 0.4, (3, 200))
    one, other = compare_dependent(r_a, r_b, r_ab, 90), compare_dependent(r_b, r_a, r_ab, 90)
    np.testing.assert_allclose(one.z_meng, -other.z_meng)
    np.testing.assert_allclose(one.z_steiger, -other.z_steiger)
    flipped = compare_dependent(-r_a, -r_b, r_ab, 90)
    np.testing.assert_allclose(one.z_meng, -flipped.z_meng)


def test_what_cannot_be_compared_is_missing():
    found = compare_dependent([1.0, 0.2, 0.2, np.nan, 0.2], [0.1, 0.1, -1.0, 0.1, 0.1],
                              [0.3, 1.0, 0.3, 0.3, 0.3], [50, 50, 50, 50, 1])  # fmt: skip
    assert np.isnan(found.z_meng).all() and np.isnan(found.z_steiger).all()


def test_partial_correlation_is_that_of_residuals_where_both_are_present():
    rng = np.random.default_rng(1)
    z = np.column_stack([rng.normal(size=(200, 3)) * [1, 1e5, 1e-4] + [0, 1e6, 0], np.ones(200)])
    a, b = rng.normal(size=(2, 200)) + z[:, 0]
    b = b + 0.5 * a
    a[:20], b[30:40] = np.nan, np.nan
    rows = np.isfinite(a) & np.isfinite(b)
    x = np.column_stack([np.ones(rows.sum()), stats.zscore(z[rows][:, :3])])
    residual = [v[rows] - x @ np.linalg.lstsq(x, v[rows], rcond=None)[0] for v in (a, b)]
    assert partial_correlation(a, b, z) == pytest.approx(np.corrcoef(residual)[0, 1], abs=1e-12)


def simulate(n, q, m, seed, strength=(0.0, 0.0)):
    """Partial r of two correlated deltas with m nIDPs given q confounds that move everything."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, q))
    q_basis = np.linalg.qr(np.column_stack([np.ones(n), z]))[0]

    def residual(values):
        values = values - q_basis @ (q_basis.T @ values)
        return values / np.linalg.norm(values, axis=0)

    shared = rng.normal(size=n)
    own = 0.6 * rng.normal(size=(2, n))
    mixed = z.sum(axis=1)
    deltas = np.column_stack([shared + own[0] + mixed, shared + own[1] - mixed])
    nidps = rng.normal(size=(n, m)) + mixed[:, None]
    nidps += (deltas - mixed[:, None]) @ np.array(strength)[:, None]
    d, y = residual(deltas), residual(nidps)
    return d.T @ y, float(d[:, 0] @ d[:, 1])


def test_with_many_confounds_the_z_is_standard_normal_under_the_null():
    r, r_ab = simulate(n=160, q=80, m=4000, seed=3)
    found = compare_dependent(r[0], r[1], r_ab, 160 - 81 - 1)
    for z in (found.z_meng, found.z_steiger):
        assert z.std() == pytest.approx(1.0, abs=0.05)  # n - 3 in place of df - 1 would give 1.43
        assert abs(z.mean()) < 0.06


def two_contrasts(r_a, r_b, df=400, **more):
    table = pd.concat(
        [association_table(r_a, df, "T1", **more), association_table(r_b, df, "T2", **more)],
        ignore_index=True,
    )
    return corrected(table)


def test_the_table_of_two_contrasts():
    table = two_contrasts([0.5, 0.1, np.nan, -0.4, 0.3], [0.1, 0.1, 0.2, 0.4, 0.31])
    table.loc[9, ["n", "df"]] -= 1
    found = compare_contrasts(table, "T1", "T2", {"female": 0.6})
    assert list(found.columns) == list(COLUMNS)
    assert found["reason"].tolist() == ["", "", "untested", "", "other_subjects"]
    assert found["stronger"].tolist() == ["a", "", "", "", ""]
    expected = compare_dependent(0.5, 0.1, 0.6, 400)
    first = found.iloc[0]
    assert first["z_meng"] == expected.z_meng and first["r_ab"] == 0.6
    p = 2 * stats.norm.sf(expected.z_meng)
    assert first["nlog10p"] == pytest.approx(-np.log10(p))
    assert first["ci_lo"] < first["difference"] < first["ci_hi"]
    swapped = compare_contrasts(as_categories(table), "T2", "T1", {"female": 0.6})
    np.testing.assert_allclose(swapped["z_meng"], -found["z_meng"])
    assert swapped["stronger"].astype(str).tolist() == ["b", "", "", "", ""]


@pytest.mark.parametrize("name", ["n", "df"])
def test_rows_on_other_subjects_are_not_compared(name):
    table = two_contrasts([0.5, 0.1], [0.1, 0.1])
    table.loc[3, name] += 1
    found = compare_contrasts(table, "T1", "T2", {"female": 0.6})
    assert found["reason"].tolist() == ["", "other_subjects"]
    assert np.isnan(found["z_meng"][1]) and np.isnan(found["z_strength"][1])


def test_strength_is_compared_apart_from_direction():
    table = two_contrasts([0.3, 0.3, -0.3], [-0.3, -0.01, 0.4])
    found = compare_contrasts(table, "T1", "T2", {"female": 0.5})
    assert found["z_meng"].abs().min() > 5
    assert found["z_strength"][0] == 0.0
    expected = compare_dependent(-0.3, -0.4, -0.5, 400).z_meng  # the second delta turned round
    assert found["z_strength"][2] == pytest.approx(-expected)
    assert found["stronger"].tolist() == ["", "a", ""]


def test_deltas_that_are_the_same_and_a_sex_without_their_correlation():
    table = two_contrasts([0.5, 0.1], [0.5, 0.1])
    assert set(compare_contrasts(table, "T1", "T2", {"female": 1.0})["reason"]) == {"same_delta"}
    with pytest.raises(ValueError, match="no correlation of the deltas of T1 and T2 for: female"):
        compare_contrasts(table, "T1", "T2", {"male": 0.3})
    with pytest.raises(ValueError, match="contrast T9 has no row"):
        compare_contrasts(table, "T1", "T9", {"female": 0.3})


def test_counts_of_hits_stand_side_by_side_without_a_p():
    table = two_contrasts([0.5, 0.3, 0.0, -0.4, 0.3], [0.1, 0.31, 0.3, 0.4, 0.0])
    comparison = compare_contrasts(table, "T1", "T2", {"female": 0.6})
    counts = compare_hit_counts(table, comparison)
    note = counts.pop("note")
    assert counts == {
        "criterion": "nlog10p_bonf >= -log10 0.05", "contrast_a": "T1", "contrast_b": "T2", "n_rows_compared": 5,
        "n_hits_a": 4, "n_hits_b": 3, "n_hits_both": 2, "n_hits_a_only": 2, "n_hits_b_only": 1,
        "n_stronger_a": 2, "n_stronger_b": 1, "n_different": 4,
    }  # fmt: skip
    assert "not valid" in note and not any("p_value" in key for key in counts)


def test_mcnemar_over_dependent_nidps_would_be_wrong():
    """Two equal contrasts, 200 copies of one nIDP's signal: McNemar's test of the hits rejects far too often."""
    rejected, by_z = 0, 0
    n_runs = 60
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        n, m = 300, 200
        shared = rng.normal(size=n)
        deltas = shared[:, None] + rng.normal(size=(n, 2))
        factor = shared + 2 * rng.normal(size=n)
        nidps = factor[:, None] + rng.normal(size=(n, m))
        d, y = (stats.zscore(v) / np.sqrt(n) for v in (deltas, nidps))
        r, r_ab = d.T @ y, float(d[:, 0] @ d[:, 1])
        table = two_contrasts(r[0], r[1], n - 2)
        comparison = compare_contrasts(table, "T1", "T2", {"female": r_ab})
        counts = compare_hit_counts(table, comparison)
        a, b = counts["n_hits_a_only"], counts["n_hits_b_only"]
        rejected += a + b > 0 and stats.binomtest(a, a + b).pvalue < 0.05
        by_z += counts["n_stronger_a"] + counts["n_stronger_b"] > 0
    assert rejected > 0.3 * n_runs and by_z <= 0.15 * n_runs
