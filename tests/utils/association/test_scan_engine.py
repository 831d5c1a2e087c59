"""The engine: equal to the way by rows on nasty data, the same bits in any company, exact in every edge case."""

import numpy as np
import pytest

from utils.association.scan import (
    PairLimits,
    Scanner,
    residual_targets,
    scan_by_rows,
    scan_pairs,
)
from utils.association.scan.pattern_cache import CACHE_BYTES

LOOSE = PairLimits(minimum_n=5, minimum_df=1, df_per_rank=0.0, minimum_class=1)
FIELDS = ("n", "n_cases", "rank", "df", "r", "beta_per_sd", "delta_years_per_sd")


def nasty(seed):
    """Deltas, nIDPs, confounds and which nIDPs are binary, with everything that a study can bring."""
    rng = np.random.default_rng(seed)
    n, n_contrasts, n_nidps = (int(rng.integers(*span)) for span in ((60, 700), (1, 7), (1, 50)))
    age = rng.uniform(45, 82, n)
    site = np.where(rng.random(n) < 0.9, 0, rng.integers(0, 4, n))
    z = np.column_stack([age, age**2, *(site == s for s in (1, 2, 3)), rng.normal(size=(n, 4))])
    z = np.column_stack([z, z[:, 5] * 3 - z[:, 0]])
    d = rng.normal(size=(n, n_contrasts)) + age[:, None] / 10
    y = (rng.normal(size=(n, n_nidps)) + age[:, None] / 20) * 10.0 ** rng.integers(-6, 7, n_nidps)
    ways = (
        lambda: np.where(site == 1, np.nan, rng.normal(size=n)),
        lambda: np.where(site > 0, np.nan, rng.normal(size=n)),
        lambda: np.where(site == 0, np.nan, rng.normal(size=n)),
        lambda: np.full(n, 3.7),
        lambda: z @ rng.normal(size=z.shape[1]),
        lambda: d[:, 0] * 2 + 1,
        lambda: (rng.random(n) < rng.choice((0.01, 0.1, 0.5))).astype(float),
        lambda: age * 10 + rng.normal(size=n) * 10.0 ** -rng.integers(0, 4),
        lambda: 1e6 + rng.normal(size=n),
    )
    for j in range(n_nidps):
        way = rng.integers(0, 2 * len(ways))
        if way < len(ways):
            y[:, j] = ways[way]()
        y[rng.random(n) < rng.choice((0, 0.2, 0.5, 0.9, 0.98)), j] = np.nan
    for c in range(n_contrasts):
        way = rng.integers(0, 9)
        if way == 0:
            d[:, c] = z[:, 0]
        if way == 1:
            d[:, c] = 2.0
        if way == 2:
            d[site == 0, c] = np.nan
        if way == 3:
            d[rng.random(n) < 0.3, c] = np.nan
        if way == 4:
            d[:, c] = z[:, 1] * 1e-3 + rng.normal(size=n) * 1e-5
        if way == 5:
            d[rng.integers(n), c] = 1e4
        if way == 6:
            d[:, c] = np.nan
    binary = np.array([set(np.unique(v[np.isfinite(v)])) <= {0.0, 1.0} for v in y.T])
    return d, y, z, binary


@pytest.mark.parametrize("limits", (PairLimits(), LOOSE), ids=("default", "loose"))
@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_scan_by_rows(seed, limits):
    data = nasty(seed)
    plain, quick = scan_by_rows(*data, limits), scan_pairs(*data, limits)
    np.testing.assert_array_equal(quick.reason, plain.reason)
    for field in FIELDS[:4]:
        np.testing.assert_array_equal(getattr(quick, field), getattr(plain, field))
    np.testing.assert_allclose(quick.r, plain.r, atol=1e-11)
    for field in FIELDS[5:]:  # slopes are r times lengths: compare beside a correlation of one
        size = np.abs(getattr(plain, field) / plain.r)
        error = np.abs(getattr(quick, field) - getattr(plain, field))
        assert not (error > 1e-10 * size).any()


def ordinary(n=300, n_contrasts=5, n_nidps=150, n_patterns=None, seed=1):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 6))
    d = rng.normal(size=(n, n_contrasts)) + z[:, :1]
    y = rng.normal(size=(n_nidps, n)).T
    missing = rng.random((n_patterns or n_nidps, n)) < 0.2
    y[missing[np.arange(n_nidps) % len(missing)].T] = np.nan
    d[rng.random(n) < 0.3, 1] = np.nan
    d[rng.random(n) < 0.1, 3:] = np.nan
    return d, y, z, np.zeros(n_nidps, dtype=bool)


def assert_same_bits(first, second):
    np.testing.assert_array_equal(first.reason, second.reason)
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))


@pytest.mark.parametrize("n_patterns", (None, 7))
def test_blocks_threads_and_memory_do_not_change_a_bit(n_patterns):
    d, y, z, binary = ordinary(n_patterns=n_patterns)
    together = Scanner(d, z, LOOSE, n_threads=1).scan(y, binary)
    for n_threads, cache_bytes in ((2, CACHE_BYTES), (3, 20_000), (1, 1)):
        again = Scanner(d, z, LOOSE, n_threads=n_threads, cache_bytes=cache_bytes)
        assert_same_bits(again.scan(y, binary), together)
    scanner = Scanner(d, z, LOOSE)
    for block in (slice(0, 1), slice(1, 4), slice(4, 77), slice(77, 150)):
        part = scanner.scan(y[:, block], binary[block])
        whole = together.__class__.empty(d.shape[1], block.stop - block.start)
        for field in (*FIELDS, "reason"):
            setattr(whole, field, getattr(together, field)[:, block])
        assert_same_bits(part, whole)


def test_the_layout_of_the_targets_does_not_change_a_bit():
    d, y, z, binary = ordinary()
    assert_same_bits(
        scan_pairs(d, np.ascontiguousarray(y), z, binary, LOOSE),
        scan_pairs(d, np.asfortranarray(y), z, binary, LOOSE),
    )


def test_order_of_rows_and_columns_does_not_matter():
    d, y, z, binary = ordinary(n_nidps=40)
    rng = np.random.default_rng(0)
    rows, contrasts, nidps, confounds = (rng.permutation(k) for k in (len(d), 5, 40, 6))
    expected = scan_pairs(d, y, z, binary, LOOSE)
    shuffled = scan_pairs(
        d[np.ix_(rows, contrasts)],
        y[np.ix_(rows, nidps)],
        z[np.ix_(rows, confounds)],
        binary,
        LOOSE,
    )
    np.testing.assert_allclose(shuffled.r, expected.r[np.ix_(contrasts, nidps)], atol=1e-13)
    np.testing.assert_array_equal(shuffled.df, expected.df[np.ix_(contrasts, nidps)])


@pytest.mark.parametrize("scale", (1e-9, 1.0, 1e9))
@pytest.mark.parametrize("shift", (0.0, 1e3))
def test_constants_scales_and_combinations_of_confounds_do_not_matter(scale, shift):
    d, y, z, binary = ordinary(n_nidps=40)
    rng = np.random.default_rng(0)
    expected = scan_pairs(d, y, z, binary, LOOSE)
    changed = scan_pairs(
        scale * (d + z @ rng.normal(size=(6, 5)) + shift),
        scale * (y + z @ rng.normal(size=(6, 40)) + shift),
        scale * (z @ rng.normal(size=(6, 6)) + shift),
        binary,
        LOOSE,
    )
    np.testing.assert_allclose(changed.r, expected.r, atol=1e-10 if shift else 1e-12)
    np.testing.assert_array_equal(changed.df, expected.df)
    years = changed.delta_years_per_sd / scale  # of another nIDP: only its sign has to stay
    np.testing.assert_array_equal(np.sign(years), np.sign(expected.delta_years_per_sd))


def edge_case(name):
    """An nIDP and the reason that it is to get, with 200 subjects and 3 confounds."""
    rng = np.random.default_rng(5)
    z = rng.normal(size=(200, 3))
    d = rng.normal(size=(200, 2))
    y = rng.normal(size=200)
    if name == "all missing":
        y[:] = np.nan
    if name == "infinite":
        y[:150] = np.inf
    if name == "one row":
        y[1:] = np.nan
    if name == "rank plus one rows":
        y[5:] = np.nan
    if name == "constant":
        y[:] = 0.1
    if name == "constant where present":
        y = np.where(rng.random(200) < 0.5, 1 / 3, np.nan)
    if name == "a confound":
        y = z[:, 1] * 7 - 2
    if name == "the delta":
        y = d[:, 0].copy()
    if name == "minus the delta and confounds":
        y = -3 * d[:, 0] + z @ (1.0, 2.0, 3.0)
    return d, y[:, None], z


@pytest.mark.parametrize(
    ("name", "reason"),
    (
        ("all missing", "too_few_subjects"),
        ("infinite", "too_few_subjects"),
        ("one row", "too_few_subjects"),
        ("rank plus one rows", "too_few_degrees_of_freedom"),
        ("constant", "constant"),
        ("constant where present", "constant"),
        ("a confound", "collinear_with_confounds"),
        ("the delta", "degenerate"),
        ("minus the delta and confounds", "degenerate"),
    ),
)
def test_edge_cases_have_their_reasons(name, reason):
    d, y, z = edge_case(name)
    limits = PairLimits(minimum_n=51 if reason == "too_few_subjects" else 2, minimum_df=1)
    out = scan_pairs(d, y, z, np.zeros(1, dtype=bool), limits)
    assert out.reason[0, 0] == reason
    assert np.isnan(out.nlog10p[0, 0])
    if reason == "degenerate":
        assert abs(out.r[0, 0]) == pytest.approx(1.0, abs=1e-12)
        assert out.reason[1, 0] == ""


def test_a_predictor_that_nobody_has_and_no_targets_at_all():
    d, y, z, binary = ordinary(n_nidps=3)
    d[:, 2] = np.nan
    out = scan_pairs(d, y, z, binary, PairLimits())
    assert set(out.reason[2]) == {"too_few_subjects"} and (out.n[2] == 0).all()
    assert set(out.reason[0]) == {""}
    assert scan_pairs(d, y[:, :0], z, binary[:0], PairLimits()).r.shape == (5, 0)
    d[:] = np.nan
    assert set(scan_pairs(d, y, z, binary, PairLimits()).reason.ravel()) == {"too_few_subjects"}


def test_published_degrees_of_freedom_are_n_minus_2():
    d, y, z, binary = ordinary(n_nidps=10)
    exact = scan_pairs(d, y, z, binary, LOOSE)
    published = scan_pairs(d, y, z, binary, LOOSE, degrees_of_freedom="published")
    np.testing.assert_array_equal(published.df, exact.n - 2)
    np.testing.assert_array_equal(published.r, exact.r)
    with pytest.raises(ValueError, match="degrees_of_freedom is rank or published, not 'n'"):
        scan_pairs(d, y, z, binary, LOOSE, degrees_of_freedom="n")


def test_a_vanished_site_goes_without_rows(monkeypatch):
    """The quick way itself drops the direction; the rows are not asked."""
    d, y, z, binary = ordinary(n=600, n_nidps=20)
    site = (np.arange(600) < 30).astype(float)
    y[:30] = np.nan
    z = np.column_stack([z, site])
    expected = scan_by_rows(d, y, z, binary, LOOSE)
    monkeypatch.delattr("utils.association.scan.engine.scan_rows")
    out = scan_pairs(d, y, z, binary, LOOSE)
    assert (out.rank == 7).all()
    np.testing.assert_allclose(out.r, expected.r, atol=1e-14)


def test_predictors_whose_subjects_hardly_differ_in_a_confound_keep_their_digits(monkeypatch):
    """They get a basis of their own; the others share one, also those without one of the sites."""
    d, y, z, binary = ordinary(n=900, n_nidps=20)
    site = (np.arange(900) < 300).astype(float)
    z[site == 1, 0] *= 1e-4
    z = np.column_stack([z, site])
    d[site == 0, 2] = np.nan
    d[site == 1, 0] = np.nan
    expected = scan_by_rows(d, y, z, binary, LOOSE)
    monkeypatch.delattr("utils.association.scan.engine.scan_rows")
    out = scan_pairs(d, y, z, binary, LOOSE)
    np.testing.assert_array_equal(out.rank[:, 0], [7, 8, 7, 8, 8])
    np.testing.assert_array_equal(out.df, expected.df)
    np.testing.assert_allclose(out.r, expected.r, atol=1e-14)
    np.testing.assert_allclose(out.delta_years_per_sd, expected.delta_years_per_sd, rtol=1e-10)


@pytest.mark.parametrize("seed", range(12))
def test_residual_targets_are_the_residuals_of_least_squares(seed):
    _, y, z, _ = nasty(seed)
    found = residual_targets(y, z, n_threads=2)
    np.testing.assert_array_equal(found.present, np.isfinite(y.T))
    assert not found.values[~found.present].any()
    for j in range(y.shape[1]):
        rows = found.present[j]
        if not found.usable[j]:
            assert not found.values[j].any()
            continue
        centred = z[rows] - z[rows].mean(axis=0)
        scaled = centred / np.maximum(np.sqrt((centred**2).mean(axis=0)), 1e-12)
        target = y[rows, j] - y[rows, j].mean()
        slopes = np.linalg.lstsq(scaled, target, rcond=1e-9)[0]
        residual = target - scaled @ slopes
        expected = residual / np.linalg.norm(residual)
        np.testing.assert_allclose(found.values[j, rows], expected, atol=2e-6)


def test_residual_targets_with_nothing_left_are_not_usable():
    _, y, z, _ = ordinary(n_nidps=4)
    y[:, 0] = np.nan
    y[:, 1] = 2.5
    y[:, 2] = z[:, 0] - 3 * z[:, 1]
    found = residual_targets(y, z)
    np.testing.assert_array_equal(found.usable, [False, False, False, True])
    assert found.values.dtype == np.float32 and found.values.shape == (4, 300)
    assert np.linalg.norm(found.values[3]) == pytest.approx(1.0, abs=1e-6)
