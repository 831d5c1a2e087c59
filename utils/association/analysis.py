"""The association analysis from tables to results: match, prepare, scan, correct, count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.confounds import ConfoundRules, build_confounds
from utils.association.decoding import DecodedColumn, decode_columns, kinds_of_dictionary
from utils.association.deltas_table import SEX_COLUMNS, recognise_deltas
from utils.association.matching import MatchedTables, match_subjects
from utils.association.phenotypes import (
    PhenotypeRules,
    PreparedPhenotypes,
    prepare_phenotypes,
)
from utils.association.recognition import find_column, read_sex
from utils.association.results import (
    COLUMNS,
    FAMILIES,
    AssociationResult,
    add_dictionary,
    add_multiplicity,
    analysis_rows,
    summarise,
)
from utils.association.scan import (
    COLLINEAR,
    PairLimits,
    explained_by_confounds,
    group_by_mask,
    scan_pairs,
)
from utils.common.errors import UserError

SEXES = ("separate", "pooled")


@dataclass(frozen=True)
class AssociationRules:
    """Everything that decides about an association analysis.

    family: 'all' (contrasts x nIDPs x sexes, one family) or 'per_contrast'. sexes: 'separate', or 'pooled' with sex
    terms among the confounds. minimum_df, df_per_rank: a pair needs df >= max(minimum_df, df_per_rank x rank).
    split_id, correction_id: written into every row.
    """

    phenotypes: PhenotypeRules = field(default_factory=PhenotypeRules)
    confounds: ConfoundRules = field(default_factory=ConfoundRules)
    family: str = "all"
    sexes: str = "separate"
    alpha: float = 0.05
    minimum_df: int = 50
    df_per_rank: float = 2.0
    split_id: str = ""
    correction_id: str = ""

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family is one of {', '.join(FAMILIES)}, not {self.family!r}")
        if self.sexes not in SEXES:
            raise ValueError(f"sexes is one of {', '.join(SEXES)}, not {self.sexes!r}")


@dataclass(frozen=True)
class _SexGroup:
    """The deltas of one analysis: rows of the matched tables, and sex where it is to be adjusted for."""

    name: str
    rows: NDArray[np.intp]
    age_years: NDArray[np.float64]
    deltas: NDArray[np.float64]
    contrasts: list[str]
    sex: NDArray | None
    notes: tuple[str, ...] = ()


def associate(
    deltas: pd.DataFrame,
    nidps: pd.DataFrame,
    dictionary: pd.DataFrame | None = None,
    confounds: pd.DataFrame | None = None,
    rules: AssociationRules | None = None,
) -> AssociationResult:
    """Partial correlation of every delta with every nIDP given age, age squared and the confounds, by sex.

    Parameters
    ----------
    deltas : DataFrame
        This program's deltas or predictions, or another tool's table (see `recognise_deltas`).
    nidps : DataFrame
        A subject column and a column for each nIDP; empty cells are missing.
    dictionary : DataFrame, optional
        nidp, category, and optionally kind.
    confounds : DataFrame, optional
        A subject column and confounds; text columns are categories. Subjects without a row are left out.
    rules : AssociationRules, optional
        Defaults where not given.

    Returns
    -------
    AssociationResult
        table: one row for every sex, contrast and nIDP, tested or with a reason (columns: `results.COLUMNS`), in the
        order of sexes, contrasts and nIDPs. fates: what became of every nIDP. summary: counts, families, thresholds.

    Raises
    ------
    UserError
        A table is not understood, no subject is in all tables, or no nIDP can be tested; counts say why.
    """
    rules = rules or AssociationRules()
    read = recognise_deltas(deltas)
    matched = match_subjects(read.table, nidps, confounds)
    columns = decode_columns(matched.nidps, kinds_of_dictionary(dictionary))
    tables, fates, analyses = [], [], []
    for group in _sex_groups(matched, rules.sexes):
        rows, fate, described = _analyse(group, columns, matched.confounds, rules)
        tables.append(rows)
        fates.append(fate)
        analyses.append(described)
    table = pd.concat(tables, ignore_index=True)
    _require_a_test(table, matched.counts, rules)
    table["split_id"], table["correction_id"] = rules.split_id, rules.correction_id
    add_dictionary(table, dictionary)
    families = add_multiplicity(table, rules.family, rules.alpha)
    summary = {
        "subjects": matched.counts,
        "recognised": read.recognised,
        "notes": list(read.notes),
        "analyses": analyses,
        "rules": asdict(rules),
        **summarise(table, families, rules.alpha),
    }
    return AssociationResult(table[list(COLUMNS)], pd.concat(fates, ignore_index=True), summary)


def _analyse(
    group: _SexGroup,
    columns: list[DecodedColumn],
    confounds: pd.DataFrame | None,
    rules: AssociationRules,
) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """Rows, fates and description of one sex."""
    chosen = None if confounds is None else confounds.iloc[group.rows]
    design = build_confounds(
        group.age_years, group.sex, chosen, rules.confounds, one_sex=group.name != "both"
    )
    prepared = prepare_phenotypes(columns, group.rows, rules.phenotypes)
    explained = _explained_as_read(prepared, columns, group.rows, design.values)
    prepared = prepared.without(explained, COLLINEAR)
    limits = PairLimits(
        rules.phenotypes.minimum_n,
        rules.minimum_df,
        rules.df_per_rank,
        rules.phenotypes.minimum_class,
    )
    statistics = scan_pairs(group.deltas, prepared.values, design.values, prepared.binary, limits)
    rows = analysis_rows(group.name, group.contrasts, prepared, statistics, rules.phenotypes)
    fates = prepared.fates_table()
    fates.insert(0, "sex", group.name)
    described = {
        "sex": group.name,
        "n_subjects": len(group.rows),
        "n_by_contrast": dict(zip(group.contrasts, np.isfinite(group.deltas).sum(axis=0).tolist())),
        "n_nidps_kept": int(fates["kept"].sum()),
        "n_nidps": len(fates),
        "confounds": list(design.names),
        "notes": [*group.notes, *design.notes],
    }
    return rows, fates, described


def _explained_as_read(
    prepared: PreparedPhenotypes,
    columns: list[DecodedColumn],
    rows: NDArray[np.intp],
    confounds: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Which kept nIDPs the confounds explain before the normal scores (age at a visit); after them it cannot be seen.

    The normal scores of an nIDP that is linear in age are a curve in age: not collinear, but nothing else either, and
    they would correlate with any curved age bias that is left in the delta.
    """
    kept = [fate for fate in prepared.fates if fate.kept]
    as_read = {column.name: column.values for column in columns}
    explained = np.zeros(len(kept), dtype=bool)
    transformed = np.array([fate.transform == "inverse_normal" for fate in kept], dtype=bool)
    for mask, members in group_by_mask(np.isfinite(prepared.values)):
        chosen = members[transformed[members]]
        if chosen.size:
            values = np.column_stack([as_read[kept[i].column][rows[mask]] for i in chosen])
            explained[chosen] = explained_by_confounds(values, confounds[mask])
    return explained


def _sex_groups(matched: MatchedTables, sexes: str) -> Iterator[_SexGroup]:
    """The analyses: by the sex in the table of deltas, or all subjects together."""
    deltas = matched.deltas
    contrasts = list(dict.fromkeys(deltas["contrast"]))
    if sexes == "pooled":
        yield _sex_group("both", deltas, contrasts, matched)
        return
    for sex in ("female", "male", "both"):
        of_sex = deltas[deltas["sex"] == sex]
        if len(of_sex):
            present = set(of_sex["contrast"])
            yield _sex_group(sex, of_sex, [c for c in contrasts if c in present], matched)


def _sex_group(
    name: str, deltas: pd.DataFrame, contrasts: list[str], matched: MatchedTables
) -> _SexGroup:
    wide = deltas.pivot(index="subject_id", columns="contrast", values="delta_years")
    ages = deltas.groupby("subject_id")["age_years"].first()
    rows = np.flatnonzero(matched.nidps.index.isin(wide.index))
    subjects = matched.nidps.index[rows]
    sex, notes = _sex_of(subjects, matched) if name == "both" else (None, ())
    return _SexGroup(
        name,
        rows,
        ages.loc[subjects].to_numpy(dtype=float),
        wide.loc[subjects, contrasts].to_numpy(dtype=float),
        contrasts,
        sex,
        notes,
    )


def _sex_of(subjects: pd.Index, matched: MatchedTables) -> tuple[NDArray | None, tuple[str, ...]]:
    """Sex of pooled subjects, from the deltas or else the confounds; None, with a note, where it is not known."""
    known = matched.deltas[matched.deltas["sex"] != "both"].drop_duplicates("subject_id")
    sex = known.set_index("subject_id")["sex"].reindex(subjects)
    if sex.isna().any() and matched.confounds is not None:
        column = find_column(matched.confounds.columns, SEX_COLUMNS)
        if column is not None:
            told, _ = read_sex(matched.confounds.loc[subjects, column])
            sex = sex.where(sex.notna(), told)
    if sex.isna().any():
        n_unknown = int(sex.isna().sum())
        note = (
            f"sex unknown for {n_unknown} of {len(sex)} subjects: no sex terms among the confounds"
        )
        return None, (note,)
    return sex.to_numpy(dtype=object), ()


def _require_a_test(table: pd.DataFrame, counts: dict[str, int], rules: AssociationRules) -> None:
    """Stop when nothing was tested: a run without results must not end as if it had some."""
    if (table["reason"] == "").any():
        return
    if table.empty:
        raise UserError("the table of nIDPs has no column besides the subject.")
    reasons = ", ".join(f"{k}: {v}" for k, v in table["reason"].value_counts().items())
    raise UserError(
        f"none of {table['column'].nunique()} nIDPs could be tested in {counts['analysed']} analysed subjects "
        f"({counts['with_delta']} with a delta, {counts['with_nidps']} with nIDPs). Rows by reason: {reasons}. "
        f"Needed: at least {rules.phenotypes.minimum_n} subjects and {rules.minimum_df} degrees of freedom a pair, "
        f"{rules.phenotypes.minimum_class} subjects in each class of a binary nIDP."
    )
