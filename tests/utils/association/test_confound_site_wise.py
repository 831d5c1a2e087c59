"""Confounds by site: a worked example, the published steps, and what the columns mean."""

import numpy as np
import pandas as pd
import pytest

from utils.association.confounds import ConfoundRules, build_confounds
from utils.association.site_wise import split_by_site
from utils.common.errors import UserError

RNG = np.random.default_rng(0)
N = 300
AGE = RNG.uniform(45, 82, N)
SITE = RNG.choice(["Reading", "Newcastle", "Cheadle"], N, p=[0.2, 0.3, 0.5])
TABLE = pd.DataFrame(
    {"motion": RNG.exponential(size=N), "head": RNG.normal(1.3, 0.1, N), "site": SITE}
)


def build(table=TABLE, **rules):
    return build_confounds(AGE[: len(table)], None, table, ConfoundRules(**rules), one_sex=True)


def test_worked_example():
    """Site a: 1, 3, 5 -> mean 3, SD 2. Site b: 10, 10, 40 -> mean 20, SD sqrt(300). Site c does not vary."""
    values = np.array([1.0, 10, 3, 10, 5, 40, 7, 7])
    sites = np.array([0, 1, 0, 1, 0, 1, 2, 2])
    a, b, c = split_by_site(values, sites)
    np.testing.assert_allclose(a, [-1, 0, 0, 0, 1, 0, 0, 0])
    np.testing.assert_allclose(b, np.array([0, -10, 0, -10, 0, 20, 0, 0]) / np.sqrt(300))
    np.testing.assert_array_equal(c, np.zeros(8))


def published_steps(values, sites):
    """Median and MAD over all, beyond 8 as the median of the site, then mean 0 and SD 1 with n - 1 in each site."""
    scaled = values - np.nanmedian(values)
    scaled = scaled / (1.48 * np.nanmedian(np.abs(scaled)))
    out = []
    for site in range(sites.max() + 1):
        v = scaled[sites == site]
        median = np.nanmedian(v)
        v = np.where(np.isnan(v) | (np.abs(v) > 8), median, v)
        column = np.zeros(len(values))
        column[sites == site] = (v - v.mean()) / v.std(ddof=1)
        out.append(column)
    return np.column_stack(out)


@pytest.mark.parametrize("seed", range(5))
def test_the_columns_are_those_of_the_published_steps(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(50, 7, 400)
    site = rng.choice(["a", "b", "c"], 400, p=[0.5, 0.3, 0.2])
    x += 3.0 * (site == "b")
    x[rng.random(400) < 0.05] = np.nan
    x[:3] = 1e5, -1e5, 900.0
    table = pd.DataFrame({"x": x, "site": site})
    z = build_confounds(
        rng.uniform(45, 82, 400), None, table,
        ConfoundRules(site_column="site", site_wise=("x",), outlier_sd=8.0, indicator_above=1.0), one_sex=True,
    )  # fmt: skip
    found = z.values[:, [z.names.index(f"confound:x[site={s}]") for s in "abc"]]
    expected = published_steps(x, np.array(["abc".index(s) for s in site]))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_site_wise_columns_span_the_products_with_the_sites():
    wise = build(site_column="site", site_wise=("motion",))
    product = build(terms="motion*site + head")
    for z, other in ((wise, product), (product, wise)):
        x = np.column_stack([np.ones(N), other.values])
        residual = z.values - x @ np.linalg.lstsq(x, z.values, rcond=None)[0]
        assert np.abs(residual).max() < 1e-9
    assert wise.rank == product.rank
    assert wise.names[2:5] == tuple(
        f"confound:motion[site={s}]" for s in ("Cheadle", "Newcastle", "Reading")
    )


def test_all_continuous_columns_their_squares_and_products_by_site():
    z = build(
        site_column="site", site_wise=("*",), squares=("*",), terms="motion + head + motion:head"
    )
    for name in ("motion", "head"):
        for power in ("", "^2"):
            assert {f"confound:{name}[site={s}]{power}" for s in set(SITE)} <= set(z.names)
    products = [n for n in z.names if " x " in n]
    assert len(products) == 3  # of one site each: columns of two sites never meet
    assert "confound 'site': added, since site-wise confounds need their site" in z.notes
    assert "confound:site=Reading" in z.names
    by_name = dict(zip(z.names, z.values.T))
    here = SITE == "Reading"
    column = by_name["confound:head[site=Reading]"]
    assert (column[~here] == 0).all() and abs(column.mean()) < 1e-12
    np.testing.assert_allclose(by_name["confound:head[site=Reading]^2"], column**2)


def test_a_site_that_is_left_out_of_the_formula_on_purpose_stays_out():
    z = build(site_column="site", site_wise=("motion",), terms=". - site")
    assert not any(name.startswith("confound:site") for name in z.names)
    assert not any("added" in note for note in z.notes)


def test_a_site_of_one_subject_or_without_variation_gives_no_column():
    table = TABLE.assign(site=np.where(np.arange(N) == 0, "lone", SITE))
    table.loc[table["site"] == "Reading", "motion"] = 2.0
    z = build(table, site_column="site", site_wise=("motion",))
    assert not {"confound:motion[site=lone]", "confound:motion[site=Reading]"} & set(z.names)
    assert "confound:motion[site=lone]: constant in this analysis, dropped" in z.notes


def test_numbered_sites_and_subjects_without_site():
    codes = pd.Series(np.where(SITE == "Reading", 11026.0, 11025.0))
    codes[:5] = np.nan
    z = build(
        TABLE.assign(site=codes, place=codes).drop(columns="site"),
        site_column="place",
        site_wise=("head",),
    )
    assert "confound:head[place=11025]" in z.names and "confound:head[place=11026]" in z.names
    assert "confound 'place': 5 missing values filled" in z.notes


def test_squares_of_named_columns():
    z = build(squares=("motion",), terms="motion")
    assert z.names[2:] == ("confound:motion", "confound:motion^2")
    both = build(TABLE.assign(flag=SITE == "Reading"), squares=("*",))
    assert "confound:head^2" in both.names and "confound:flag^2" not in both.names
    with pytest.raises(UserError, match="'site\\^2' is a power of a categorical column"):
        build(squares=("site",))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"site_wise": ("motion",)}, "site-wise confounds need the column that holds the site"),
        ({"site_column": "sit"}, r"site column: no such column .*'sit' \(did you mean site\?\)"),
        ({"site_column": "site", "site_wise": ("moton",)}, r"site-wise confounds: no such column.*did you mean motion"),
        ({"site_column": "site", "site_wise": ("site",)}, "site-wise confounds: site categorical; write site:site"),
        ({"site_column": "site", "site_wise": ("motion",), "terms": "head"}, "motion not among the terms"),
        ({"squares": ("x",)}, "squares of confounds: no such column"),
        ({"continuous": ("x",)}, "continuous confounds: no such column"),
        ({"site_column": "site", "continuous": ("site",)}, "cannot be a continuous confound at the same time"),
        ({"age_terms": "cubic"}, "one of quadratic, linear, none, not 'cubic'"),
        ({"pca": 1.0}, "a share of their variance between 0 and 1, such as 0.99, or 0 for none; not 1"),
        ({"pca": float("nan")}, "a share of their variance"),
        ({"outlier_sd": -1.0}, "a positive number of robust SDs"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_followed(rules, message):
    with pytest.raises(UserError, match=message):
        build(**rules)
