"""Principal components against scikit-learn, rank, and the advice when confounds are too many."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from utils.association.confound_reduction import (
    advise,
    principal_components,
    rank_of,
    refuse_too_many,
)
from utils.association.confounds import ConfoundRules, build_confounds
from utils.association.scan import PairLimits, scan_pairs
from utils.common.errors import UserError

LIMITS = PairLimits(minimum_n=5, minimum_df=1, df_per_rank=0.0, minimum_class=1)


def correlated(seed=0, n=300, k=20, latent=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, latent)) @ rng.normal(size=(latent, k)) + 0.5 * rng.normal(size=(n, k))
    return x * 10.0 ** rng.integers(-4, 5, k) + rng.normal(size=k) * 100


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
@pytest.mark.parametrize(("n", "k"), [(300, 20), (40, 60)])
def test_components_are_scikit_learns(share, n, k):
    x = correlated(n=n, k=k)
    expected = PCA(n_components=share, svd_solver="full").fit_transform(
        StandardScaler().fit_transform(x)
    )
    found = principal_components(x, share)
    assert found.shape == expected.shape
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-8 * np.abs(expected).max())


def test_redundant_constant_and_empty_columns_change_nothing():
    x = correlated()
    twice = np.column_stack([x, x])
    constant = np.column_stack([x, np.full(len(x), 7.0)])
    scores = principal_components(x, 0.95)
    np.testing.assert_allclose(principal_components(constant, 0.95), scores, atol=1e-10)
    np.testing.assert_allclose(principal_components(twice, 0.95), np.sqrt(2) * scores, atol=1e-8)
    assert principal_components(np.empty((10, 0)), 0.9).shape == (10, 0)
    assert principal_components(np.ones((10, 2)), 0.9).shape == (10, 0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        principal_components(x, 1.0)


def test_signs_do_not_depend_on_the_order_of_subjects_or_on_mirrored_copies():
    x = correlated(1)
    order = np.random.default_rng(2).permutation(len(x))
    scores = principal_components(x, 0.9)
    np.testing.assert_allclose(principal_components(x[order], 0.9), scores[order], atol=1e-9)
    mirrored = np.column_stack([x, -x])
    np.testing.assert_allclose(
        principal_components(mirrored[order], 0.9),
        principal_components(mirrored, 0.9)[order],
        atol=1e-8,
    )


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(0, 6), st.floats(0.05, 0.99))
@settings(max_examples=40, deadline=None)
def test_components_are_uncorrelated_and_keep_the_share_with_none_to_spare(seed, k, copies, share):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(50, k))
    x = np.column_stack([x, x[:, rng.integers(0, k, copies)]])
    scores = principal_components(x, share)
    variances = scores.var(axis=0)
    covariance = scores.T @ scores / 50
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-9 * k)
    total = x.shape[1]
    assert variances.sum() >= share * total - 1e-9
    assert variances[:-1].sum() < share * total + 1e-9


def test_age_and_sex_terms_stay_and_all_else_is_reduced():
    rng = np.random.default_rng(0)
    n = 400
    age, sex = rng.uniform(45, 82, n), rng.choice(["female", "male"], n)
    table = pd.DataFrame(correlated(n=n)).add_prefix("c").assign(site=rng.choice(["a", "b"], n))
    full = build_confounds(age, sex, table, ConfoundRules(terms=". + age:site"))
    z = build_confounds(age, sex, table, ConfoundRules(terms=". + age:site", pca=0.9))
    assert z.names[:5] == ("age", "age_squared", "sex", "sex_x_age", "sex_x_age_squared")
    assert z.names[5:] == tuple(f"pc{k + 1}" for k in range(len(z.names) - 5))
    np.testing.assert_array_equal(z.minimal_values, full.minimal_values)
    np.testing.assert_array_equal(z.values[:, 5:], principal_components(full.values[:, 5:], 0.9))
    assert z.minimal == full.minimal == (0, 1, 2, 3, 4)
    assert z.n_before_reduction == full.values.shape[1] == 5 + 20 + 1 + 1
    assert z.n_columns_read == 21
    assert (
        f"confounds: 22 columns reduced to {len(z.names) - 5} principal components (0.9 of their variance); "
        "age and sex terms stay as they are" in z.notes
    )


def test_nothing_to_reduce_is_left_alone():
    age = np.linspace(45, 82, 60)
    plain = build_confounds(age, None, None, ConfoundRules(), one_sex=True)
    z = build_confounds(age, None, None, ConfoundRules(pca=0.99), one_sex=True)
    np.testing.assert_array_equal(z.values, plain.values)
    assert z.notes == plain.notes == ()


def test_a_reduction_that_keeps_nearly_all_leaves_partial_correlations():
    rng = np.random.default_rng(1)
    n = 300
    x = rng.normal(size=(n, 6))
    table = pd.DataFrame(np.column_stack([x, x @ rng.normal(size=(6, 30))])).add_prefix("c")
    d, y = x @ rng.normal(size=(6, 2)) + rng.normal(size=(n, 2)), x[:, :1] + rng.normal(size=(n, 3))
    age = rng.uniform(45, 82, n)
    full = build_confounds(age, None, table, ConfoundRules(), one_sex=True)
    reduced = build_confounds(age, None, table, ConfoundRules(pca=1 - 1e-9), one_sex=True)
    assert len(full.names) == 38 and len(reduced.names) == 8 and full.rank == reduced.rank == 8
    a, b = (scan_pairs(d, y, z.values, np.zeros(3, bool), LIMITS) for z in (full, reduced))
    np.testing.assert_allclose(a.r, b.r, atol=1e-10)
    np.testing.assert_array_equal(a.df, b.df)


@pytest.mark.parametrize(
    ("n", "k", "copies"), [(100, 8, 0), (100, 8, 5), (12, 8, 8), (6, 20, 0), (5, 0, 0)]
)
def test_rank_is_that_of_the_scan(n, k, copies):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, k)) * 10.0 ** rng.integers(-5, 6, k) + 1e3
    x = np.column_stack([x, x[:, :copies] @ rng.normal(size=(copies, copies)), np.ones(n)])
    assert rank_of(x) == np.linalg.matrix_rank(
        x[:, :k] - x[:, :k].mean(0) if k else x[:, :0], tol=1e-9
    )


def test_two_nearly_equal_columns_count_twice_until_the_scan_calls_them_one():
    x = np.random.default_rng(0).normal(size=(500, 2))
    for gap, rank in ((1e-2, 2), (1e-6, 2), (1e-12, 1)):
        assert rank_of(np.column_stack([x[:, 0], x[:, 0] + gap * x[:, 1]])) == rank


@pytest.mark.parametrize(
    ("n", "q", "n_pair", "reduced", "said"),
    [
        (1000, 100, 0, False, ""),
        (1000, 101, 0, False, "101 independent columns for 1,000 subjects, more than one for 10 subjects"),
        (1000, 100, 990, False, r"\(990 in the smallest pair\).*set confound_pca = 0.99"),
        (1000, 50, 5000, False, ""),
        (1000, 300, 0, True, "keep a smaller share of their variance"),
        (100, 97, 0, False, "more than one for 10"),
        (100, 98, 0, False, "98 independent columns leave no degrees of freedom in 100 subjects"),
    ],
)  # fmt: skip
def test_advice(n, q, n_pair, reduced, said):
    text = advise(n, q, n_pair, reduced)
    assert re.search(said, text) if said else text == ""


def test_confounds_that_leave_no_degree_of_freedom_are_refused():
    refuse_too_many(100, 97)  # df = 100 - 97 - 2 = 1
    with pytest.raises(
        UserError, match="98 independent columns leave no degrees of freedom in 100"
    ):
        refuse_too_many(100, 98)


def test_the_matrix_carries_the_advice_and_says_that_columns_repeat():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(100, 12))).add_prefix("c")
    table["again"] = table["c0"] + table["c1"]
    z = build_confounds(rng.uniform(45, 82, 100), None, table, ConfoundRules(), one_sex=True)
    assert len(z.names) == 15 and z.rank == 14
    assert any(note.startswith("confounds: 15 columns span 14 dimensions") for note in z.notes)
    assert "set confound_pca = 0.99" in z.notes[-1]
    few = build_confounds(
        rng.uniform(45, 82, 100), None, table[["c0"]], ConfoundRules(), one_sex=True
    )
    assert few.notes == () and few.rank == 3


def test_a_small_share_leaves_confounding_behind_and_the_advised_one_does_not():
    """600 tests without association beyond confounds that explain 30 % of both sides."""
    rng = np.random.default_rng(1)
    n, q = 400, 120
    p_values = {0.0: [], 0.7: [], 0.99: []}
    for _ in range(12):
        x = rng.normal(size=(n, 20)) @ rng.normal(size=(20, q)) + 1.5 * rng.normal(size=(n, q))
        shared = x @ rng.normal(size=q)
        shared *= np.sqrt(0.3 / 0.7) / shared.std()
        d, y = (rng.normal(size=(n, k)) + shared[:, None] for k in (5, 10))
        age = rng.uniform(45, 82, n)
        for share, found in p_values.items():
            z = build_confounds(age, None, pd.DataFrame(x), ConfoundRules(pca=share), one_sex=True)
            out = scan_pairs(d, y, z.values, np.zeros(10, bool), LIMITS)
            found.append(10.0 ** -out.nlog10p.ravel())
    rates = {share: np.mean(np.concatenate(found) < 0.05) for share, found in p_values.items()}
    assert rates[0.7] > 0.2
    assert 0.02 < rates[0.0] < 0.09 and 0.02 < rates[0.99] < 0.10
