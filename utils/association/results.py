"""The table of associations: its columns, and the rows of each analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals

from utils.association.dictionary import NidpDictionary
from utils.association.inference.hierarchical import COLUMNS as HIERARCHICAL_COLUMNS
from utils.association.phenotypes import Fate, PhenotypeRules
from utils.association.scan import PairStatistics
from utils.association.ukb_names import ukb_field

# Every column of the table of associations, with its meaning.
COLUMNS = {
    "contrast": "contrast (or other predictor) whose delta is tested",
    "sex": "female, male, or both (sexes pooled, with sex terms among the confounds)",
    "nidp": "tested variable; 'column=level' is an indicator of one level, 'column>0' of a count above 0",
    "column": "column of the nIDP table it comes from: the unit in which unique nIDPs are counted",
    "field": "UK Biobank field of the column, where its name gives one",
    "instance": "UK Biobank instance (visit), where the name gives one",
    "category": "category of the dictionary",
    "kind": "continuous, ordinal, binary or nominal; multiple: the answers of a field with several, tested by code",
    "n": "subjects of this row: with delta, nIDP and confounds",
    "n_cases": "subjects in the smaller class (binary nIDPs)",
    "rank_conf": "rank of [1, confounds] on these subjects",
    "df": "degrees of freedom: n - rank_conf - 1 (n - 2 where the published ones were asked for)",
    "r": "partial correlation of delta and nIDP given the confounds, age and age squared",
    "z": "Fisher's z of r; standard error 1 / sqrt(df - 1)",
    "ci_lo": "lower end of the 95 % confidence interval of r",
    "ci_hi": "upper end of the 95 % confidence interval of r",
    "beta_per_sd": "adjusted change of the nIDP, in its SDs, per SD of the delta (given the confounds)",
    "delta_years_per_sd": "adjusted change of the delta, in years, per SD of the nIDP",
    "t": "t of the partial correlation",
    "nlog10p": "-log10 of the two-sided p",
    "nlog10p_bonf": "the same after Bonferroni over the family",
    "nlog10p_holm": "the same after Holm's steps over the family",
    "nlog10p_fwer": "the same by joint permutations over the family (max-T)",
    "p_fwer_perm": "the last as a number (never 0)",
    "nlog10q_bh": "-log10 of the Benjamini-Hochberg q over the family",
    "q_bh": "the same q as a number (never 0)",
    "q_by": "Benjamini-Yekutieli q over the family (any dependence)",
    "nlog10q_storey": "-log10 of Storey's q over the family",
    **HIERARCHICAL_COLUMNS,
    "flags": "few_cases: 10-49 in the smaller class; small_n: below the headline n; female_only, male_only: tested "
    "within that sex, which alone has the nIDP (sexes pooled)",
    "family_id": "the family of tests that the corrections count",
    "split_id": "which subjects the deltas are of",
    "correction_id": "which bias correction the deltas carry",
    "reason": "why there is no p; empty where there is one",
}


@dataclass(frozen=True)
class AssociationResult:
    """What an analysis gives.

    table: the associations (COLUMNS). fates: what became of every nIDP. summary: counts, families and thresholds.
    tables: further tables by name (sexes combined, replication, rechecks, summaries), those that were made.
    """

    table: pd.DataFrame
    fates: pd.DataFrame
    summary: dict
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


def analysis_rows(
    sex: str,
    contrasts: Sequence[str],
    fates: Sequence[Fate],
    statistics: PairStatistics,
    rules: PhenotypeRules,
) -> pd.DataFrame:
    """One row for every contrast and nIDP of one analysis, tested or not; nIDPs in the order of their table.

    `statistics` (C, P) are those of the nIDPs that were kept. Texts are categories: a column of two million rows
    holds its distinct texts once.
    """
    kept = np.array([fate.kept for fate in fates], dtype=bool)
    shape = len(contrasts), len(fates)
    tested = statistics.reason == ""
    low, high = statistics.interval()

    def spread(values: NDArray) -> NDArray[np.float64]:
        full = np.full(shape, np.nan)
        full[:, kept] = values
        return full.ravel()

    def of_nidp(name: str) -> pd.Categorical:
        return repeated([getattr(fate, name) for fate in fates], shape[0])

    n = np.tile(np.array([fate.n for fate in fates], dtype=np.int64), (shape[0], 1))
    n[:, kept] = statistics.n
    reason = np.full(shape, "", dtype=object)
    reason[:] = np.array([fate.reason for fate in fates], dtype=object)
    reason[:, kept] = statistics.reason
    table = pd.DataFrame(
        {
            "contrast": pd.Categorical.from_codes(
                np.repeat(np.arange(shape[0]), shape[1]), list(contrasts)
            ),
            "sex": pd.Categorical.from_codes(np.zeros(shape[0] * shape[1], dtype=np.int8), [sex]),
            "nidp": of_nidp("nidp"),
            "column": of_nidp("column"),
            "kind": of_nidp("kind"),
            "n": n.ravel(),
            "n_cases": spread(statistics.n_cases),
            "rank_conf": spread(statistics.rank),
            "df": spread(statistics.df),
            "r": spread(statistics.r),
            "z": spread(np.where(tested, statistics.fisher_z, np.nan)),
            "ci_lo": spread(np.where(tested, low, np.nan)),
            "ci_hi": spread(np.where(tested, high, np.nan)),
            "beta_per_sd": spread(statistics.beta_per_sd),
            "delta_years_per_sd": spread(statistics.delta_years_per_sd),
            "t": spread(np.where(tested, statistics.t, np.nan)),
            "nlog10p": spread(statistics.nlog10p),
            "reason": pd.Categorical(reason.ravel()),
        }
    )
    table["flags"] = _flags(table, rules, [fate.sex for fate in fates])
    return table


def repeated(texts: Sequence[str], times: int) -> pd.Categorical:
    """The texts, so many times one after the other, as categories in order of appearance."""
    codes, categories = pd.factorize(np.array(texts, dtype=object))
    return pd.Categorical.from_codes(np.tile(codes, times), categories)


def _flags(table: pd.DataFrame, rules: PhenotypeRules, sexes: Sequence[str]) -> pd.Categorical:
    """The flags of each row, joined by ';'; `sexes` of the nIDPs: the one that has it in an analysis of both."""
    tested = (table["reason"] == "").to_numpy()
    of_sex = np.tile(np.array(sexes, dtype=object), len(table) // len(sexes)) if sexes else ""
    raised = {
        "few_cases": tested & (table["n_cases"] < rules.headline_class).to_numpy(),
        "small_n": tested & (table["n"] < rules.headline_n).to_numpy(),
        "female_only": tested & (of_sex == "female"),
        "male_only": tested & (of_sex == "male"),
    }
    names = list(raised)
    texts = [
        ";".join(name for bit, name in enumerate(names) if number >> bit & 1)
        for number in range(2 ** len(names))
    ]
    codes = sum(rows.astype(np.int8) << bit for bit, rows in enumerate(raised.values()))
    return pd.Categorical.from_codes(codes, texts).remove_unused_categories()


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables of the same columns below each other, categories united."""
    if len(tables) == 1:
        return tables[0].reset_index(drop=True)
    columns = {
        name: union_categoricals([table[name] for table in tables])
        if isinstance(tables[0][name].dtype, pd.CategoricalDtype)
        else np.concatenate([table[name].to_numpy() for table in tables])
        for name in tables[0].columns
    }
    return pd.DataFrame(columns)


def add_dictionary(table: pd.DataFrame, dictionary: NidpDictionary) -> None:
    """Add category, field and instance of each row's column, in place."""
    columns = table["column"].cat.categories
    codes = table["column"].cat.codes.to_numpy()
    parsed = [ukb_field(column) for column in columns]
    for name, texts in (
        ("field", [found[0] for found in parsed]),
        ("instance", [found[1] for found in parsed]),
        ("category", [dictionary.facts(column).category for column in columns]),
    ):
        places, distinct = pd.factorize(np.array(texts, dtype=object))
        table[name] = pd.Categorical.from_codes(places[codes], distinct)


def add_constant(table: pd.DataFrame, name: str, text: str) -> None:
    """Add a column that holds one text, in place."""
    table[name] = pd.Categorical.from_codes(np.zeros(len(table), dtype=np.int8), [text])
