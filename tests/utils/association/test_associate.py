"""The whole analysis: planted effects found, invariances, families, reasons, and messages when nothing matches."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from utils.association.analysis import associate, conclude, scan_study
from utils.association.confounds import ConfoundRules
from utils.association.deltas_table import recognise_deltas
from utils.association.phenotype_tables import table_in_memory
from utils.association.phenotypes import PhenotypeRules
from utils.association.results import COLUMNS, ukb_field
from utils.association.rules import AssociationRules
from utils.association.study import plan_study
from utils.common.errors import UserError

N = 400
SMALL = AssociationRules(phenotypes=PhenotypeRules(headline_n=150))


def tables(seed=0):
    rng = np.random.default_rng(seed)
    ids = [f"{1000000 + k}" for k in range(N)]
    age, sex = rng.uniform(45, 82, N), np.where(np.arange(N) % 2 == 0, "female", "male")
    true = rng.normal(size=N)
    rows = []
    for contrast in ("T1", "T2"):
        predicted = 63 + 0.7 * (age - 63) + 2 * true + rng.normal(size=N)
        rows.append(
            pd.DataFrame(
                {"subject_id": ids, "sex": sex, "contrast": contrast, "age_years": age, "predicted_years": predicted,
                 "delta_years": predicted - age}
            )
        )  # fmt: skip
    nidps = pd.DataFrame(
        {
            "subject_id": ids,
            "f.31.2.0": np.exp(0.8 * true + rng.normal(size=N)) + age,
            "noise": rng.normal(size=N),
            "disease": (true + rng.normal(size=N) > 1).astype(int),
            "empty": np.nan,
            "age_again": age * 365.25,
            "diet": rng.choice(["meat", "fish", "none"], N),
        }
    )
    nidps.loc[rng.random(N) < 0.1, "noise"] = np.nan
    confounds = pd.DataFrame(
        {"subject_id": ids, "head_size": rng.normal(size=N), "site": rng.choice(list("ab"), N)}
    )
    dictionary = pd.DataFrame({"nidp": ["f.31.2.0", "noise"], "category": ["Blood", "Noise"]})
    return pd.concat(rows, ignore_index=True), nidps, dictionary, confounds


STATISTICS = ["n", "df", "r", "t", "nlog10p", "nlog10p_bonf", "nlog10q_bh"]


def assert_same(first, second, atol=0.0, columns=STATISTICS):
    for column in columns:
        np.testing.assert_allclose(first[column], second[column], rtol=0, atol=atol, err_msg=column)


def test_a_planted_effect_is_found_and_every_row_has_a_p_or_a_reason():
    result = associate(*tables(), SMALL)
    table = result.table
    assert list(table.columns) == list(COLUMNS)
    hits = table[(table["nlog10p_bonf"] > 1.3)]
    assert set(hits["column"]) == {"f.31.2.0", "disease"}
    assert ((table["reason"] == "") == table["nlog10p"].notna()).all()
    by_nidp = table.drop_duplicates("nidp").set_index("nidp")["reason"]
    assert by_nidp["empty"] == "all_missing"
    assert by_nidp["age_again"] == "collinear_with_confounds"
    assert by_nidp["diet"] == "tested_as_indicators"
    assert len(table) == 2 * 2 * 9  # sexes x contrasts x (6 columns + 3 levels)
    first = table.iloc[0]
    assert (first["field"], first["instance"], first["category"]) == ("31", "2", "Blood")
    assert first["n"] == 200 and first["rank_conf"] == 5 and first["df"] == 194
    assert first["ci_lo"] < first["r"] < first["ci_hi"]


def test_summary_counts_add_up():
    result = associate(*tables(), SMALL)
    s = result.summary
    assert s["n_tested"] + s["n_untested"] == s["n_rows"] == len(result.table)
    assert s["n_untested"] == sum(s["untested_by_reason"].values())
    assert s["families"][0]["n_tests"] == s["n_tested"]
    assert (
        s["families"][0]["family_id"]
        == f"all contrasts x all tested nIDPs x sexes (N = {s['n_tested']})"
    )
    assert s["families"][0]["bonferroni_threshold_nlog10p"] == pytest.approx(
        np.log10(s["n_tested"] / 0.05)
    )
    assert s["unique_nidps"]["bonferroni"] == {"union": 2, "female": 2, "male": 2}
    assert s["subjects"]["analysed"] == N
    assert s["n_bonferroni"] == (result.table["nlog10p_bonf"] >= -np.log10(0.05)).sum()
    assert len(result.fates) == 2 * 9


def test_a_linear_bias_correction_changes_nothing():
    deltas, nidps, dictionary, confounds = tables()
    raw = associate(deltas, nidps, dictionary, confounds, SMALL).table
    p, a = deltas["predicted_years"], deltas["age_years"]
    for corrected in (p - 19 - 0.7 * a, (p - 19) / 0.7 - a, p):
        other = associate(
            deltas.assign(corrected_delta_years=corrected), nidps, dictionary, confounds, SMALL
        ).table
        assert_same(raw, other, atol=1e-12, columns=["r", "z", "beta_per_sd"])
        assert_same(raw, other, atol=1e-11)


def test_the_order_of_subjects_does_not_matter():
    deltas, nidps, dictionary, confounds = tables()
    expected = associate(deltas, nidps, dictionary, confounds, SMALL).table
    shuffled = associate(
        deltas.groupby("contrast", sort=False).sample(frac=1, random_state=1),
        nidps.sample(frac=1, random_state=2), dictionary, confounds.sample(frac=1, random_state=3), SMALL,
    ).table  # fmt: skip
    pd.testing.assert_frame_equal(shuffled, expected, check_exact=True)


def test_strictly_increasing_changes_of_a_continuous_nidp_do_not_matter():
    deltas, nidps, dictionary, confounds = tables()
    rules = AssociationRules(phenotypes=PhenotypeRules(outlier_sd=1e9))
    expected = associate(deltas, nidps, dictionary, confounds, rules).table
    changed = nidps.assign(**{"f.31.2.0": np.log(nidps["f.31.2.0"])})
    assert_same(
        associate(deltas, changed, dictionary, confounds, rules).table, expected, atol=1e-12
    )


def test_a_family_per_contrast_is_smaller_and_labelled():
    rules = AssociationRules(phenotypes=SMALL.phenotypes, family="per_contrast")
    result = associate(*tables(), rules)
    assert len(result.summary["families"]) == 4
    assert result.table["family_id"].nunique() == 4
    assert result.table["family_id"].iloc[0] == "per contrast: T1, female (N = 6)"
    np.testing.assert_allclose(
        result.table["nlog10p_bonf"].max(), result.table["nlog10p"].max() - np.log10(6)
    )


def test_pooled_sexes_adjust_for_sex_and_can_find_it_in_the_confounds():
    deltas, nidps, dictionary, confounds = tables()
    rules = AssociationRules(sexes="pooled", phenotypes=SMALL.phenotypes)
    pooled = associate(deltas, nidps, dictionary, confounds, rules)
    assert set(pooled.table["sex"]) == {"both"}
    assert "sex_x_age_squared" in pooled.summary["analyses"][0]["confounds"]
    sexes = deltas.drop_duplicates("subject_id")["sex"].map({"female": 0, "male": 1}).to_numpy()
    without = associate(
        deltas.assign(sex="both"), nidps, dictionary, confounds.assign(sex=sexes), SMALL
    )
    assert_same(pooled.table, without.table, atol=1e-12)
    unknown = associate(deltas.drop(columns="sex"), nidps, dictionary, confounds, SMALL)
    assert "sex unknown for 400 of 400" in unknown.summary["analyses"][0]["notes"][0]


def test_a_contrast_that_some_subjects_lack_and_one_of_a_single_sex():
    deltas, nidps, dictionary, confounds = tables()
    lacking = (deltas["contrast"] == "T2") & (
        (deltas["sex"] == "male") | (deltas["subject_id"] < "1000100")
    )
    result = associate(deltas[~lacking], nidps, dictionary, confounds, SMALL)
    n = result.table[result.table["nidp"] == "disease"].set_index(["sex", "contrast"])["n"]
    assert n.to_dict() == {("female", "T1"): 200, ("female", "T2"): 150, ("male", "T1"): 200}


def test_subjects_without_confounds_are_left_out_and_counted():
    deltas, nidps, dictionary, confounds = tables()
    counts = associate(deltas, nidps.iloc[:350], dictionary, confounds.iloc[50:], SMALL).summary[
        "subjects"
    ]
    assert counts["with_delta_without_nidps"] == 50
    assert counts["left_out_without_confounds"] == 50
    assert counts["analysed"] == 300


def test_nothing_in_common_names_counts_and_forms_but_no_id():
    deltas, nidps, dictionary, _ = tables()
    other = nidps.assign(subject_id=[f"sub-{k}" for k in range(5000, 5000 + N)])
    with pytest.raises(
        UserError,
        match=r"deltas: 400 subjects \(7 digits\); nIDPs: 400 subjects \('sub-' and 4 digits",
    ):
        associate(deltas, other, dictionary)
    zeros = nidps.assign(subject_id="0" + nidps["subject_id"])
    with pytest.raises(UserError, match="they match without leading zeros") as error:
        associate(deltas, zeros, dictionary)
    assert "1000000" not in str(error.value)
    with pytest.raises(UserError, match="none of them is in the table of confounds"):
        associate(deltas, nidps, None, pd.DataFrame({"subject_id": ["x1"], "head": [1.0]}))


def test_nothing_testable_says_why():
    deltas, nidps, dictionary, confounds = tables()
    with pytest.raises(
        UserError, match=r"none of 6 nIDPs could be tested in 60 analysed.*too_few_subjects"
    ):
        associate(deltas, nidps.iloc[:60], dictionary, confounds)
    with pytest.raises(UserError, match="no column besides the subject"):
        associate(deltas, nidps[["subject_id"]], None)
    with pytest.raises(UserError, match="nIDPs has 1 rows whose subject already has a row"):
        associate(deltas, pd.concat([nidps, nidps.iloc[:1]]), None)
    with pytest.raises(
        UserError, match=r"the table of nIDPs has no subject column\. Columns found: who"
    ):
        associate(deltas, nidps.rename(columns={"subject_id": "who"}), None)


def test_unknown_choices_are_refused():
    with pytest.raises(ValueError, match="family is one of all, per_sex, per_contrast, not 'each'"):
        AssociationRules(family="each")
    with pytest.raises(ValueError, match="sexes is one of separate, pooled, not 'any'"):
        AssociationRules(sexes="any")


@pytest.mark.parametrize(
    ("column", "expected"),
    [("f.31.0.0", ("31", "0")), ("31-2.0", ("31", "2")), ("x31_0_0", ("31", "0")), ("p31_i0", ("31", "0")),
     ("p31_i2_a4", ("31", "2")), ("p31", ("31", "")), ("grip_strength", ("", "")), ("nidp_0001", ("", ""))],
)  # fmt: skip
def test_field_and_instance_of_a_column_name(column, expected):
    assert ukb_field(column) == expected


@pytest.mark.parametrize("n", [10, 21, 22, 24])
def test_fewer_subjects_than_confounds_is_no_collinearity(n):
    deltas, nidps, _, confounds = tables()
    noise = np.random.default_rng(5).normal(size=(N, 18))
    confounds = confounds.join(pd.DataFrame(noise).add_prefix("c"))
    few = np.where(np.arange(N) < 2 * n, np.arange(N) % 7 + noise[:, 0] ** 2, np.nan)
    rules = AssociationRules(phenotypes=PhenotypeRules(minimum_n=5), minimum_df=1)
    table = associate(deltas, nidps.assign(few=few), None, confounds, rules).table
    assert set(table.loc[table["nidp"] == "few", "reason"]) == {"too_few_degrees_of_freedom"}


def test_halves_replicate_a_planted_effect_and_hits_are_looked_at_twice():
    rules = AssociationRules(
        phenotypes=PhenotypeRules(headline_n=150, minimum_n=40),
        minimum_df=30,
        replication="halves",
        recheck_hits=4,
        compared_contrasts=("T1", "T2"),
        permutations=99,
    )
    result = associate(*tables(), rules)
    found = result.summary["replication"]
    assert found["n_discoveries"] >= 2 and found["n_same_sign"] == found["n_discoveries_tested"]
    assert set(result.tables["replicated"]["column"]) <= {"f.31.2.0", "disease"}
    rechecked = result.tables["rechecked"]
    assert len(rechecked) == 4 and (rechecked["hc3_ratio"] > 0.5).all()
    merged = rechecked.merge(result.table, on=["contrast", "sex", "nidp"])
    np.testing.assert_allclose(merged["r_x"], merged["r_y"], rtol=0, atol=1e-12)
    assert set(result.tables["contrasts_compared"]["sex"]) == {"female", "male"}
    assert result.table.loc[result.table["reason"] == "", "p_fwer_perm"].between(0, 1).all()
    assert set(result.tables["by_contrast"]["contrast"]) == {"T1", "T2"}
    meta = result.tables["sexes_combined"]
    assert len(meta) == len(result.table) / 2


def test_the_joint_test_of_a_nominal_nidp_counts_its_levels_that_were_no_hits():
    deltas, nidps, *others = tables()
    true = nidps["disease"] + np.random.default_rng(3).normal(size=N) / 2
    levels = np.select([true > 0.9, true > 0.2, true > -0.3], ["often", "some", "few"], "none")
    rules = replace(SMALL, recheck_hits=30, phenotypes=PhenotypeRules(minimum_n=40), minimum_df=30)
    rechecked = associate(deltas, nidps.assign(drink=levels), *others, rules).tables["rechecked"]
    found = rechecked[rechecked["nidp"].str.startswith("drink=")]
    assert 0 < found["nidp"].nunique() < 4 and (found["nominal_df_levels"] == 3).all()
    assert rechecked.loc[~rechecked["nidp"].str.contains("="), "nominal_f"].isna().all()


@pytest.mark.parametrize("statistic", ["pearson", "spearman"])
def test_contrasts_that_others_lack_are_compared_on_the_subjects_who_have_both(statistic):
    deltas, *others = tables()
    number = deltas["subject_id"].astype(int) % 100
    some = deltas[(deltas["contrast"] == "T1") | (number >= 30)]
    rules = replace(SMALL, statistic=statistic, compared_contrasts=("T1", "T2"))
    compared = associate(some, *others, rules).tables["contrasts_compared"]
    both = associate(deltas[number >= 30], *others, SMALL).table
    n = both[both["contrast"] == "T1"].set_index(["sex", "nidp"])["n"]
    tested = compared[compared["reason"] == ""]
    assert len(tested) == 12 and not (compared["reason"] == "other_subjects").any()
    assert (tested.set_index(["sex", "nidp"])["n"] == n.reindex(tested[["sex", "nidp"]])).all()
    assert tested["r_ab"].between(0.6, 0.9).all()


def test_two_contrasts_that_nobody_has_are_refused():
    rules = AssociationRules(phenotypes=SMALL.phenotypes, compared_contrasts=("T1", "T9"))
    with pytest.raises(UserError, match="no sex has deltas of both; contrasts found: T1, T2"):
        associate(*tables(), rules)
    with pytest.raises(UserError, match="names 1 contrasts; name two, or none"):
        AssociationRules(compared_contrasts=("T1",))


def test_relatives_are_left_out_and_counted():
    deltas, nidps, dictionary, confounds = tables()
    confounds = confounds.assign(kin=[k // 2 if k < 100 else None for k in range(N)])
    rules = AssociationRules(phenotypes=SMALL.phenotypes, family_column="kin")
    result = associate(deltas, nidps, dictionary, confounds, rules)
    assert result.summary["subjects"]["analysed"] == N - 50
    assert any("50 of 400 subjects left out" in note for note in result.summary["notes"])


def of_few_men(n):
    """The tables with all women and some men."""
    deltas, *others = tables()
    men = deltas.loc[deltas["sex"] == "male", "subject_id"].unique()[:n]
    return deltas[(deltas["sex"] == "female") | deltas["subject_id"].isin(men)], *others


@pytest.mark.parametrize("n", [2, 30])
def test_a_sex_too_small_for_any_test_does_not_stop_the_permutations(n):
    result = associate(*of_few_men(n), replace(SMALL, permutations=99))
    tested = result.table[result.table["reason"] == ""]
    assert set(tested["sex"]) == {"female"} and tested["p_fwer_perm"].notna().all()
    alone = associate(*of_few_men(0), replace(SMALL, permutations=99)).table
    np.testing.assert_array_equal(
        tested["p_fwer_perm"], alone.loc[alone["reason"] == "", "p_fwer_perm"]
    )


@pytest.mark.parametrize("family", ["all", "per_sex", "per_contrast"])
def test_a_contrast_whose_subjects_cannot_change_places_has_no_threshold(family):
    """Eight contrasts of half of the subjects each: their patterns are all but unique."""
    deltas, *others = tables()
    whole = deltas[deltas["contrast"] == "T1"]
    has = np.random.default_rng(1).random((8, N)) < 0.5
    has[:, :100] = False
    scattered = [whole[rows].assign(contrast=f"s{k}") for k, rows in enumerate(has)]
    rules = replace(SMALL, family=family, permutations=99, statistic="pearson")
    result = associate(pd.concat([whole, *scattered]), *others, rules)
    table, families = result.table, result.summary["families"]
    tested = table[table["reason"] == ""]
    assert (tested["p_fwer_perm"].notna() == (tested["contrast"] == "T1")).all()
    thresholds = [f["permutation"]["threshold_nlog10p"] for f in families if "permutation" in f]
    assert len(thresholds) == {"all": 1, "per_sex": 2, "per_contrast": 2}[family]
    assert min(thresholds) > 1.5
    notes = [note for note in result.summary["notes"] if "no family-wise p for s0, s1" in note]
    assert [note.split(":")[0] for note in notes] == ["female", "male"]


def test_ranks_instead_of_values():
    rules = AssociationRules(phenotypes=SMALL.phenotypes, statistic="spearman")
    table = associate(*tables(), rules).table
    assert set(table.loc[table["nlog10p_bonf"] > 1.3, "column"]) == {"f.31.2.0", "disease"}
    assert (table["reason"][table["nidp"] == "age_again"] == "collinear_with_confounds").all()
    assert table["delta_years_per_sd"].isna().all()


def test_with_ranks_the_same_pairs_are_tested_and_their_cases_counted():
    values = associate(*tables(), SMALL).table
    ranks = associate(*tables(), replace(SMALL, statistic="spearman")).table
    for name in ("nidp", "reason", "n", "n_cases", "df", "flags"):
        pd.testing.assert_series_equal(ranks[name], values[name])


def test_the_published_degrees_of_freedom_are_n_minus_2():
    rules = AssociationRules(
        phenotypes=SMALL.phenotypes, family="per_contrast", degrees_of_freedom="published"
    )
    table = associate(*tables(), rules).table
    tested = table[table["reason"] == ""]
    assert (tested["df"] == tested["n"] - 2).all()


def test_hits_carry_reliability_and_image_quality():
    deltas, nidps, dictionary, confounds = tables()
    confounds = confounds.assign(motion=np.random.default_rng(4).random(N))
    rules = AssociationRules(phenotypes=SMALL.phenotypes, recheck_hits=3, quality_column="motion")
    study = plan_study(
        recognise_deltas(deltas), table_in_memory(nidps), dictionary, confounds, rules
    )
    reliability = pd.DataFrame(
        {"contrast": ["T1", "T2"] * 2, "sex": ["female"] * 2 + ["male"] * 2, "value": 0.64, "low": 0.5, "high": 0.8}
    )  # fmt: skip
    result = conclude(study, scan_study(study), reliability)
    rows = result.tables["rechecked"]
    np.testing.assert_allclose(rows["r_disattenuated"], rows["r"] / 0.8)
    assert rows["r_quality_lower"].notna().all()
    effective = result.summary["analyses"][0]["effective_contrasts"]
    assert 1 <= effective["li_ji"] <= 2
    with pytest.raises(UserError, match="quality_column = 'blur': the table of confounds has no"):
        associate(deltas, nidps, dictionary, confounds, AssociationRules(quality_column="blur"))


def test_a_published_table_is_repeated_from_tables_that_are_deconfounded_already():
    """Plain Pearson correlations per contrast, n - 2, Bonferroni over the nIDPs of a contrast: scipy gives the same."""
    deltas, nidps, _, _ = tables()
    nidps = nidps[["subject_id", "f.31.2.0", "noise"]]
    rules = AssociationRules(
        phenotypes=PhenotypeRules(transform="none", outlier_sd=1e9),
        confounds=ConfoundRules(age_terms="none"),
        family="per_contrast",
    )
    table = associate(deltas, nidps, None, None, rules).table
    for _, row in table.iterrows():
        chosen = (deltas["sex"] == row["sex"]) & (deltas["contrast"] == row["contrast"])
        both = deltas[chosen].merge(nidps, on="subject_id").dropna(subset=[row["nidp"]])
        r, p = stats.pearsonr(both["delta_years"], both[row["nidp"]])
        assert row["df"] == len(both) - 2
        assert row["r"] == pytest.approx(r, abs=1e-12)
        assert row["nlog10p"] == pytest.approx(-np.log10(p), rel=1e-9)
        assert row["nlog10p_bonf"] == pytest.approx(max(-np.log10(2 * p), 0), rel=1e-9)
