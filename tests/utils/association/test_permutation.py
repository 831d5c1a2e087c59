"""Max-T permutations: single ones against least squares, all of them by enumeration, error rates, identities."""

import itertools

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from threadpoolctl import threadpool_limits

from utils.association.inference.family_wise import family_wise
from utils.association.inference.permutation import joint_permutation
from utils.association.scan import PairLimits, residual_targets, scan_pairs
from utils.association.tails import nlog10p_from_t
from utils.common.errors import UserError
from utils.common.randomness import generator

NO_LIMITS = PairLimits(minimum_n=3, minimum_df=1, df_per_rank=0.0)


def cohort(n, n_contrasts, n_nidps, n_confounds, seed, strength=1.0, missing=0.0, absent=0.0):
    """Deltas and nIDPs that have nothing in common but confounds: (S, C), (S, P), (S, K)."""
    rng = generator("permutation test", seed)
    confounds = rng.normal(size=(n, n_confounds))
    shared = strength * confounds @ rng.normal(size=(n_confounds, n_contrasts + n_nidps))
    shared += (
        rng.normal(size=(n, 1))
        @ rng.normal(size=(1, n_contrasts + n_nidps))
        * [1.0 if c < n_contrasts else 0.0 for c in range(n_contrasts + n_nidps)]
    )
    values = shared + rng.normal(size=shared.shape)
    deltas, nidps = values[:, :n_contrasts], values[:, n_contrasts:]
    nidps = np.where(rng.random(nidps.shape) < missing, np.nan, nidps)
    deltas = deltas.copy()
    for c in range(1, n_contrasts):
        deltas[rng.random(n) < absent, c] = np.nan
    return deltas, nidps, confounds


def degrees_of_freedom(deltas, nidps, confounds):
    """(C, P): rows of the pair - rank - 1."""
    n = np.isfinite(deltas).T.astype(float) @ np.isfinite(nidps)
    return n - confounds.shape[1] - 2.0


def permuted_maxima(deltas, nidps, confounds, n_permutations, seed=("test",), labels=None):
    scheme = joint_permutation(deltas, confounds, n_permutations, seed, labels)
    df = degrees_of_freedom(deltas, nidps, confounds)
    return scheme.maxima(residual_targets(nidps, confounds), df)


def observed(deltas, nidps, confounds):
    """-log10 p (C, P) of the exact scan."""
    binary = np.zeros(nidps.shape[1], dtype=bool)
    return scan_pairs(deltas, nidps, confounds, binary, NO_LIMITS).nlog10p


@pytest.mark.parametrize("strength", [0.0, 30.0])
@pytest.mark.parametrize("n_confounds", [1, 40])
@pytest.mark.parametrize("absent", [0.0, 0.3])
def test_a_permutation_is_least_squares_with_the_permuted_delta(strength, n_confounds, absent):
    deltas, nidps, confounds = cohort(120, 2, 4, n_confounds, 1, strength, absent=absent)
    scheme = joint_permutation(deltas, confounds, 3, ("least squares",))
    df = degrees_of_freedom(deltas, nidps, confounds)
    maxima = scheme.maxima(residual_targets(nidps, confounds), df)
    for b, c in itertools.product(range(3), range(2)):
        delta = scheme.predictors[c][scheme.order(b)].astype(float)
        rows = np.isfinite(deltas[:, c])
        largest = 0.0
        for p in range(4):
            design = np.column_stack([delta, np.ones(120), confounds])[rows]
            fit = sm.OLS(nidps[rows, p] / nidps[:, p].std(), design).fit()
            assert fit.df_resid == df[c, p]
            largest = max(largest, float(nlog10p_from_t(fit.tvalues[0], fit.df_resid)))
        assert maxima[b, c] == pytest.approx(largest, rel=2e-4)


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize(("n", "n_confounds"), [(300, 2), (300, 100), (150, 60)])
def test_p_of_a_single_permuted_pair_is_uniform_with_missing_values(n, n_confounds, absent):
    # without the weight w, or with df = n - 2, this fails by far at 100 confounds
    deltas, nidps, confounds = cohort(n, 2, 1, n_confounds, 2, missing=0.25, absent=absent)
    p = 10.0 ** -permuted_maxima(deltas, nidps, confounds, 1500)
    for c in range(2):
        assert stats.kstest(p[:, c], "uniform").pvalue > 0.001


@pytest.mark.parametrize("n_confounds", [3, 100])
def test_permuted_statistics_with_missing_nidps_follow_the_exact_ones(n_confounds):
    deltas, nidps, confounds = cohort(300, 1, 1, n_confounds, 3, missing=0.2)
    scheme = joint_permutation(deltas, confounds, 60, ("exact",))
    df = degrees_of_freedom(deltas, nidps, confounds)
    ours = scheme.maxima(residual_targets(nidps, confounds), df)[:, 0]
    shuffled = np.column_stack([scheme.predictors[0][scheme.order(b)] for b in range(60)])
    exact = observed(shuffled.astype(float), nidps, confounds)[:, 0]
    assert np.corrcoef(ours, exact)[0, 1] > 0.999
    assert np.abs(ours - exact).max() < (0.02 if n_confounds == 3 else 0.15)


def test_nilearn_has_the_same_distribution_of_maxima():
    from nilearn.mass_univariate import permuted_ols

    deltas, nidps, confounds = cohort(80, 1, 30, 4, 4, strength=3.0)
    ours = permuted_maxima(deltas, nidps, confounds, 800)[:, 0]
    found = permuted_ols(
        deltas, nidps, confounds, n_perm=800, random_state=1, output_type="dict", verbose=0
    )
    theirs = nlog10p_from_t(np.ravel(found["h0_max_t"]), 80 - 6)
    assert stats.ks_2samp(ours, theirs).pvalue > 0.001
    adjusted = family_wise(ours).nlog10(observed(deltas, nidps, confounds))
    np.testing.assert_allclose(
        10.0 ** -adjusted[0], 10.0 ** -found["logp_max_t"][0], atol=0.07
    )  # both from 800 permutations


@pytest.mark.parametrize("labels", [None, ["a", "b", "a", "b", "a", "b"]])
def test_all_permutations_of_six_subjects(labels):
    deltas, nidps, confounds = cohort(6, 2, 3, 0, 5)
    maxima = permuted_maxima(deltas, nidps, confounds, 4000, labels=labels).max(axis=1)
    groups = np.array(labels if labels else ["a"] * 6)
    every = [
        np.array(order)
        for order in itertools.permutations(range(6))
        if (groups[list(order)] == groups).all()
    ]
    permuted = np.hstack([deltas[order] for order in every])
    exact = observed(permuted, nidps, confounds).reshape(len(every), -1).max(axis=1)
    assert len(every) == (36 if labels else 720)
    for quantile in (0.2, 0.5, 0.8, 0.95):
        value = np.quantile(exact, quantile) * (1 + 1e-3)
        count = int((maxima >= value).sum())
        assert stats.binomtest(count, 4000, float((exact >= value).mean())).pvalue > 1e-4
    largest = observed(deltas, nidps, confounds).max()
    share = (exact >= largest * (1 - 1e-9)).mean()  # the observed order is one of them
    found = float(family_wise(maxima, refine=False).p(largest))
    assert found == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4000) + 1e-3)


@pytest.mark.parametrize(
    ("missing", "absent", "n_confounds"),
    [(0.0, 0.0, 3), (0.2, 0.0, 3), (0.2, 0.0, 40), (0.2, 0.2, 40)],
)
def test_family_wise_error_is_what_it_claims(missing, absent, n_confounds):
    n_runs, p = 100, []
    for run in range(n_runs):
        tables = cohort(130, 2, 12, n_confounds, 1000 + run, 2.0, missing, absent)
        maxima = permuted_maxima(*tables, 99, ("error rate", run)).max(axis=1)
        p.append(float(family_wise(maxima).p(observed(*tables)).min()))
    errors = int((np.array(p) <= 0.05).sum())
    assert stats.binomtest(errors, n_runs, 0.05).pvalue > 0.001
    # p lie on the grid 0.01 ... 1; spread over its steps they are uniform
    spread = np.array(p) - generator("spread").uniform(0, 0.01, n_runs)
    assert stats.kstest(spread, "uniform").pvalue > 0.001


def test_labels_protect_from_a_block_effect_that_is_no_confound():
    free, within = 0, 0
    for run in range(60):
        rng = generator("blocks", run)
        site = np.repeat([0, 1, 2], 40)
        shift = rng.normal(size=(3, 1))[site]
        deltas = shift + 0.5 * rng.normal(size=(120, 1))
        nidps = shift + 0.5 * rng.normal(size=(120, 5))
        confounds = np.empty((120, 0))
        largest = observed(deltas, nidps, confounds).max()
        for labels in (None, site):
            maxima = permuted_maxima(deltas, nidps, confounds, 99, (run,), labels).max(axis=1)
            rejects = float(family_wise(maxima).p(largest)) <= 0.05
            if labels is None:
                free += rejects
            else:
                within += rejects
    assert free > 30
    assert stats.binomtest(within, 60, 0.05).pvalue > 0.001


def blocks_of(nidps, size):
    return [slice(first, first + size) for first in range(0, nidps.shape[1], size)]


def test_blocks_of_targets_merge_to_the_whole_in_any_order():
    deltas, nidps, confounds = cohort(200, 3, 40, 5, 6, missing=0.1, absent=0.2)
    whole = permuted_maxima(deltas, nidps, confounds, 50)
    parts = [permuted_maxima(deltas, nidps[:, b], confounds, 50) for b in blocks_of(nidps, 16)]
    merged = np.maximum.reduce(parts)
    np.testing.assert_array_equal(merged, np.maximum.reduce(parts[::-1]))
    np.testing.assert_allclose(merged, whole, rtol=1e-4)


def test_a_block_gives_the_same_bits_again():
    tables = cohort(200, 3, 40, 5, 7, missing=0.1, absent=0.2)
    np.testing.assert_array_equal(permuted_maxima(*tables, 60), permuted_maxima(*tables, 60))


def test_the_number_of_threads_changes_nothing_but_rounding():
    tables = cohort(400, 3, 60, 5, 8, missing=0.1)
    with threadpool_limits(1):
        one = permuted_maxima(*tables, 40)
    with threadpool_limits(2):
        two = permuted_maxima(*tables, 40)
    np.testing.assert_allclose(one, two, rtol=1e-4)


def test_permutations_are_a_function_of_the_seed_and_their_number():
    tables = cohort(100, 2, 5, 2, 9)
    first = permuted_maxima(*tables, 40)
    np.testing.assert_allclose(permuted_maxima(*tables, 10), first[:10], rtol=1e-4)
    assert not np.allclose(permuted_maxima(*tables, 40, ("other",)), first)


def test_copies_add_nothing_to_the_maximum():
    deltas, nidps, confounds = cohort(150, 2, 6, 3, 10, missing=0.2)
    once = permuted_maxima(deltas, nidps, confounds, 80)
    twice = permuted_maxima(np.hstack([deltas, -deltas]), np.hstack([nidps, nidps]), confounds, 80)
    np.testing.assert_allclose(twice[:, :2], once, rtol=1e-4)
    np.testing.assert_allclose(twice[:, 2:], once, rtol=1e-4)


def test_units_and_confounds_added_to_either_side_change_nothing():
    deltas, nidps, confounds = cohort(150, 2, 6, 3, 11, missing=0.2, absent=0.2)
    rng = generator("added")
    moved = permuted_maxima(
        7.0 - 1000.0 * deltas + 5.0 * confounds @ rng.normal(size=(3, 2)),
        3.0 + 0.01 * nidps + confounds @ rng.normal(size=(3, 6)),
        confounds,
        40,
    )
    np.testing.assert_allclose(moved, permuted_maxima(deltas, nidps, confounds, 40), rtol=1e-3)


def test_a_confound_given_twice_costs_nothing():
    deltas, nidps, confounds = cohort(150, 2, 6, 3, 12, missing=0.2, absent=0.2)
    df = degrees_of_freedom(deltas, nidps, confounds)
    targets = residual_targets(nidps, confounds)
    once = joint_permutation(deltas, confounds, 20, ("x",)).maxima(targets, df)
    copied = np.hstack([confounds, confounds[:, :1] * 9.0 + 2.0])
    again = joint_permutation(deltas, copied, 20, ("x",)).maxima(targets, df)
    np.testing.assert_allclose(again, once, rtol=1e-3)


def test_a_confound_that_vanishes_from_the_rows_of_a_contrast():
    deltas, nidps, confounds = cohort(200, 2, 5, 2, 13)
    site = np.zeros((200, 1))
    site[:30] = 1.0
    deltas[:30, 1] = np.nan  # the second contrast was never acquired at that site
    design = np.hstack([confounds, site])
    df = degrees_of_freedom(deltas, nidps, design)
    df[1] += 1
    maxima = joint_permutation(deltas, design, 400, ("site",)).maxima(
        residual_targets(nidps, design), df
    )
    alone = joint_permutation(deltas[30:, 1:], confounds[30:], 400, ("site",)).maxima(
        residual_targets(nidps[30:], confounds[30:]), df[1:]
    )
    assert stats.ks_2samp(maxima[:, 1], alone[:, 0]).pvalue > 0.001
    assert (maxima[:, 1] > 0).all()


def test_pairs_without_a_test_and_predictors_without_a_rest_stay_out():
    deltas, nidps, confounds = cohort(150, 3, 6, 3, 14)
    deltas[:, 1] = confounds[:, 0]
    nidps[:, 5] = 4.0
    df = degrees_of_freedom(deltas, nidps, confounds)
    df[2, :] = np.nan
    df[0, 3:] = np.nan
    scheme = joint_permutation(deltas, confounds, 30, ("out",))
    np.testing.assert_array_equal(scheme.takes_part, [True, False, True])
    maxima = scheme.maxima(residual_targets(nidps, confounds), df)
    assert (maxima[:, 1:] == 0).all()
    kept = scheme.maxima(residual_targets(nidps[:, :3], confounds), df[:, :3])
    np.testing.assert_allclose(maxima[:, 0], kept[:, 0], rtol=1e-4)


def test_rare_patterns_leave_the_statistic_with_a_note():
    deltas, nidps, confounds = cohort(150, 2, 6, 3, 15)
    deltas[:5, 1] = np.nan
    scheme = joint_permutation(deltas, confounds, 5, ("rare",))
    assert "5 subjects are left out" in scheme.notes[0]
    assert (scheme.predictors[:, :5] == 0).all() and scheme.takes_part.all()
    df = degrees_of_freedom(deltas, nidps, confounds)
    p = 10.0 ** -permuted_maxima(deltas, nidps[:, :1], confounds, 1000)
    assert df.shape == (2, 6) and stats.kstest(p[:, 0], "uniform").pvalue > 0.001


def test_progress_counts_permutations():
    deltas, nidps, confounds = cohort(100, 2, 3, 2, 16)
    done = []
    scheme = joint_permutation(deltas, confounds, 300, ("progress",))
    scheme.maxima(
        residual_targets(nidps, confounds),
        degrees_of_freedom(deltas, nidps, confounds),
        advance=done.append,
    )
    assert sum(done) == 300 and len(done) > 1


def test_refusals():
    deltas, nidps, confounds = cohort(50, 2, 3, 2, 17)
    with pytest.raises(UserError, match="0 were asked for; at least 1"):
        joint_permutation(deltas, confounds, 0, ("x",))
    with pytest.raises(UserError, match="no subject could move"):
        joint_permutation(deltas, confounds, 5, ("x",), np.arange(50))
    with pytest.raises(ValueError, match="confounds must be complete"):
        joint_permutation(deltas, np.where(confounds > 1, np.nan, confounds), 5, ("x",))
    scheme = joint_permutation(deltas, confounds, 5, ("x",))
    with pytest.raises(ValueError, match="do not fit 2 predictors"):
        scheme.maxima(residual_targets(nidps, confounds), np.ones((3, 2)))
