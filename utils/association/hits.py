"""Second looks at the strongest significant pairs of a study: their columns are read again, and only theirs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from utils.association.analyses import Analysis
from utils.association.blocks import Block, BlockResult
from utils.association.inference.recheck_inputs import RecheckData, RecheckLimits
from utils.association.inference.rechecks import recheck
from utils.association.phenotypes import prepare_phenotypes
from utils.association.results import joined
from utils.association.study import Study

Array = NDArray[np.float64]


def recheck_hits(
    study: Study,
    results: dict[str, list[BlockResult]],
    table: pd.DataFrame,
    reliability: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, dict]:
    """The checks of `inference.rechecks` for the hits of Benjamini-Hochberg, the strongest of all sexes together.

    Parameters
    ----------
    study : Study
        What was scanned.
    results : dict
        Its results by name of the analysis, block by block.
    table : DataFrame
        Its associations with their corrections.
    reliability : DataFrame, optional
        contrast, sex, value, low, high: reliability of the deltas with its interval.

    Returns
    -------
    (DataFrame, dict)
        A row a pair (`recheck_columns.COLUMNS`, and sex); counts and notes.
    """
    from threadpoolctl import threadpool_limits

    hits = table[(table["nlog10q_bh"] >= -np.log10(study.rules.alpha)).to_numpy()]
    strongest = hits.nlargest(study.rules.recheck_hits, "nlog10p", keep="all").sort_index()
    tables: list[pd.DataFrame] = []
    notes: list[str] = []
    for analysis in study.analyses:
        chosen = strongest[(strongest["sex"] == analysis.sex).to_numpy()]
        if analysis.half or chosen.empty:
            continue
        reader = _HitReader(
            study,
            analysis,
            results[analysis.name],
            list(dict.fromkeys(chosen["nidp"])),
            reliability,
        )
        nidps = reader.nidps
        place = {nidp: number for number, nidp in enumerate(nidps)}
        with threadpool_limits(1, "blas"):  # many small products: threads would wait for each other
            found = recheck(
                np.array([analysis.contrasts.index(name) for name in chosen["contrast"]]),
                np.array([place[name] for name in chosen["nidp"]]),
                chosen["nlog10p"].to_numpy(),
                reader.data(),
                RecheckLimits(maximum=len(chosen)),
            )
        found.table.insert(0, "sex", analysis.sex)
        tables.append(found.table)
        notes += found.notes
    record = {"n_hits": len(hits), "n_rechecked": len(strongest), "notes": notes}
    return (joined(tables) if tables else pd.DataFrame()), record


class _HitReader:
    """Prepared values of the nIDPs that were hit in one analysis, block by block of the table.

    nidps: the hits, and behind them the other tested levels of nominal ones, which are tested jointly.
    """

    def __init__(
        self,
        study: Study,
        analysis: Analysis,
        results: Sequence[BlockResult],
        hits: Sequence[str],
        reliability: pd.DataFrame | None,
    ):
        self.study, self.analysis = study, analysis
        self._reliability = reliability
        self._parent_of = _levels_of_nominal(results)
        hit_parents = {self._parent_of.get(nidp) for nidp in hits} - {None}
        levels = [nidp for nidp, parent in self._parent_of.items() if parent in hit_parents]
        self.nidps = list(dict.fromkeys([*hits, *levels]))
        place_of = {
            fate.nidp: (number, fate.column)
            for number, result in enumerate(results)
            for fate in result.fates
        }
        self._block_numbers = [place_of[nidp][0] for nidp in self.nidps]
        self._columns = [place_of[nidp][1] for nidp in self.nidps]

    def data(self) -> RecheckData:
        """What the checks read."""
        analysis = self.analysis
        return RecheckData(
            contrasts=analysis.contrasts,
            nidps=self.nidps,
            predictors=analysis.predictors,
            targets_of=self._values,
            confounds=analysis.confounds.values,
            minimal_columns=analysis.confounds.minimal,
            age_years=analysis.age_years,
            parents=[self._parent_of.get(nidp, "") for nidp in self.nidps],
            reliability=self._reliability_of_deltas(),
            quality=self._quality(),
        )

    def _reliability_of_deltas(self) -> Array | None:
        """(C, 3) value, low and high of each contrast; NaN where it is not known."""
        if self._reliability is None:
            return None
        of_sex = self._reliability[self._reliability["sex"] == self.analysis.sex]
        by_contrast = of_sex.drop_duplicates("contrast").set_index("contrast")
        values = by_contrast[["value", "low", "high"]].reindex(list(self.analysis.contrasts))
        return values.to_numpy(dtype=float)

    def _quality(self) -> Array | None:
        """(S,) the confound that measures image quality."""
        name, table = self.study.rules.quality_column, self.study.matched.confounds
        if not name or table is None:
            return None
        return table[name].to_numpy(dtype=float, na_value=np.nan)[self.analysis.subjects]

    def _values(self, chosen: list[int]) -> Array:
        """(S, m) prepared values of some of the nIDPs."""
        values = np.full((len(chosen), len(self.analysis.subjects)), np.nan)
        places: dict[int, list[int]] = {}
        for place, number in enumerate(chosen):
            places.setdefault(self._block_numbers[number], []).append(place)
        for block_number, of_block in places.items():
            prepared = self._prepared(self.study.blocks[block_number], of_block, chosen)
            for place in of_block:
                values[place] = prepared[self.nidps[chosen[place]]]
        return values.T

    def _prepared(self, block: Block, places: list[int], chosen: list[int]) -> dict[str, Array]:
        """nIDP -> values, of the columns of a block that are wanted."""
        wanted = {self._columns[chosen[place]] for place in places}
        columns = [c for c in self.study.decoded(block) if c.source in wanted]
        prepared = prepare_phenotypes(
            columns, self.analysis.subjects, self.study.rules.phenotypes, self.analysis.sexes
        )
        kept = [fate.nidp for fate in prepared.fates if fate.kept]
        return dict(zip(kept, prepared.values.T))


def _levels_of_nominal(results: Sequence[BlockResult]) -> dict[str, str]:
    """Tested level -> the nominal column that it is a level of; answers of a field with several are no levels."""
    fates = [fate for result in results for fate in result.fates]
    nominal = {fate.nidp for fate in fates if fate.kind == "nominal"}
    return {
        fate.nidp: fate.column
        for fate in fates
        if fate.kept and fate.column in nominal and fate.nidp.startswith(f"{fate.column}=")
    }
