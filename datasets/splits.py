"""Making a split: seeded, stratified by age and sex, families kept on one side."""

from __future__ import annotations

import numpy as np
import pandas as pd

from datasets.subjects import SPLITS
from utils.common.errors import UserError
from utils.common.randomness import generator


def make_split(
    table: pd.DataFrame, fractions: tuple[float, float, float], stratum_years: float, seed: int
) -> pd.DataFrame:
    """Assign every subject with an age to train, validation or test.

    Families are put in order of their stratum (sex x age band of the oldest member), shuffled within
    it, and dealt one after the other to the split that lags furthest behind its share. Neighbours in
    that order are alike, so every stretch of it, and with it every stratum, is divided by the shares;
    a family is never on two sides.

    Returns
    -------
    DataFrame: subject_id, split; sorted by subject_id.
    """
    usable = table[table["age_years"].notna()].copy()
    if len(usable) < len(SPLITS):
        raise UserError(f"{len(usable)} subject(s) with an age: too few to split into three.")
    alone = usable["family"] == ""
    usable["family"] = np.where(alone, "\x00" + usable["subject_id"], usable["family"])
    families = (
        usable.sort_values(["family", "subject_id"], kind="stable")
        .groupby("family", sort=True)
        .agg(size=("subject_id", "size"), age=("age_years", "max"), sex=("sex", "first"))
    )
    families["band"] = (families["age"] // stratum_years).astype(int)
    families["chance"] = generator(seed, "split").permutation(len(families))
    families = families.sort_values(["sex", "band", "chance"], kind="stable")
    shares = np.array(fractions) / sum(fractions)
    dealt = np.zeros(len(SPLITS))
    split_of_family: dict[str, str] = {}
    for family, size in families["size"].items():
        lag = shares * (dealt.sum() + size) - dealt
        chosen = int(np.argmax(lag))
        split_of_family[str(family)] = SPLITS[chosen]
        dealt[chosen] += size
    usable["split"] = usable["family"].map(split_of_family)
    return usable[["subject_id", "split"]].sort_values("subject_id").reset_index(drop=True)
