"""Small tables of associations with everything the inference reads, made from correlations and degrees of freedom."""

import numpy as np
import pandas as pd

from utils.association.inference.multiplicity import (
    benjamini_hochberg_nlog10,
    bonferroni_nlog10,
    probability,
)
from utils.association.tails import nlog10p_from_t


def association_table(
    r, df, contrast="T1", sex="female", nidp=None, n_confounds=5, categories=None
):
    """Rows for each r (NaN: untested) with a p from its t; corrected over all rows.

    Columns "f.FIELD.INSTANCE.ARRAY" have a field; `categories` gives columns their category.
    """
    r, df = np.broadcast_arrays(np.asarray(r, dtype=float), np.asarray(df, dtype=float))
    nidp = [f"f.{k}.0.0" for k in range(len(r))] if nidp is None else nidp
    with np.errstate(invalid="ignore", divide="ignore"):
        nlog10p = nlog10p_from_t(r * np.sqrt(df / (1 - r**2)), df)
    columns = [str(name).split("=")[0] for name in nidp]
    table = pd.DataFrame(
        {
            "contrast": contrast,
            "sex": sex,
            "nidp": nidp,
            "column": columns,
            "field": [name.split(".")[1] if name.startswith("f.") else "" for name in columns],
            "category": [(categories or {}).get(name, "") for name in columns],
            "n": (df + n_confounds + 2).astype(np.int64),
            "df": df,
            "r": r,
            "nlog10p": nlog10p,
            "flags": "",
            "reason": np.where(np.isfinite(nlog10p), "", "too_few_subjects"),
        }
    )
    return corrected(table)


def corrected(table):
    """With Bonferroni and Benjamini-Hochberg over all rows."""
    values = table["nlog10p"].to_numpy()
    return table.assign(
        nlog10p_bonf=bonferroni_nlog10(values),
        nlog10q_bh=benjamini_hochberg_nlog10(values),
        q_by=probability(benjamini_hochberg_nlog10(values, True)),
    )


def as_categories(table):
    """The texts as the associations of a large study hold them."""
    texts = [name for name in table if table[name].dtype.kind not in "ifb"]
    return table.astype({name: "category" for name in texts})
