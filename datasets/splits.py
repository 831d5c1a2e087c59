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

    Within each stratum (sex x age band of the family's oldest member) families are shuffled and dealt
    to the split that lags furthest behind its share, so the splits agree in age and sex and no family
    is on two sides.

    Returns
    -------
    DataFrame: subject_id, split; sorted by subject_id.
    """
    usable = table[table["age_years"].notna()].copy()
    if len(usable) < len(SPLITS):
        raise UserError(f"{len(usable)} subject(s) with an age: too few to split into three.")
    alone = usable["family"] == ""
    usable["family"] = np.where(alone, "\x00" + usable["subject_id"], usable["family"])
    usable = usable.sort_values(["family", "subject_id"], kind="stable")
    families = usable.groupby("family", sort=True).agg(
        size=("subject_id", "size"), age=("age_years", "max"), sex=("sex", "first")
    )
    families["stratum"] = families["sex"] + (families["age"] // stratum_years).astype(int).astype(
        str
    )
    split_of_family: dict[str, str] = {}
    dealt = np.zeros(len(SPLITS))
    for stratum, members in families.groupby("stratum", sort=True):
        order = generator(seed, "split", str(stratum)).permutation(len(members))
        in_stratum = np.zeros(len(SPLITS))
        for family, size in zip(members.index[order], members["size"].to_numpy()[order]):
            # behind in this stratum first; overall shares decide between equals
            lag = np.array(fractions) * (in_stratum.sum() + size) - in_stratum
            overall = np.array(fractions) * (dealt.sum() + size) - dealt
            chosen = int(np.argmax(lag + 1e-3 * overall))
            split_of_family[str(family)] = SPLITS[chosen]
            in_stratum[chosen] += size
            dealt[chosen] += size
    usable["split"] = usable["family"].map(split_of_family)
    return usable[["subject_id", "split"]].sort_values("subject_id").reset_index(drop=True)
