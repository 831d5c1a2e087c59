"""From blocks of the nIDP table to results: read, prepare, scan and permute, a block at a time.

What was kept of an earlier run is used again; a stop between two blocks loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from utils.association.analyses import Analysis
from utils.association.blocks import Block, BlockResult, BlockStore
from utils.association.decoding import DecodedColumn
from utils.association.families import Maxima
from utils.association.inference.permutation import JointPermutation, joint_permutation
from utils.association.inference.rank_correlation import ranks_by_column
from utils.association.phenotypes import PreparedPhenotypes, prepare_phenotypes
from utils.association.scan import COLLINEAR, PairLimits, PairStatistics, Scanner, TargetResiduals
from utils.association.study import Study
from utils.common.interruption import STOP
from utils.common.text import listed

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scanned:
    """Results by name of the analysis, block by block; permuted maxima (B, C) of the whole analyses; notes."""

    results: dict[str, list[BlockResult]]
    maxima: Maxima
    notes: tuple[str, ...]


class BlockScan:
    """Scans blocks of nIDPs in every analysis of a study, and permutes the whole ones."""

    def __init__(self, study: Study, store: BlockStore):
        self.study, self.store = study, store
        self._scans = {a.name: AnalysisScan(a, study) for a in study.analyses}

    def scan(
        self, blocks: Sequence[Block], shown: Callable[[Iterable[Block]], Iterable[Block]] = iter
    ) -> Scanned:
        """Every block in every analysis; `shown` wraps the blocks in a progress bar."""
        results: dict[str, list[BlockResult]] = {a.name: [] for a in self.study.analyses}
        maxima: dict[str, list[Array]] = {}
        for block in shown(blocks):
            STOP.raise_if_requested()
            columns = _Once(self.study, block)
            for scan in self._scans.values():
                result, largest = self._scan_block(scan, block, columns)
                results[scan.analysis.name].append(result)
                if largest is not None:
                    maxima.setdefault(scan.analysis.name, []).append(largest)
        notes = [note for scan in self._scans.values() for note in scan.notes]
        joint = {name: np.max(parts, axis=0) for name, parts in maxima.items()}
        return Scanned(results, joint, tuple(dict.fromkeys(notes)))

    def _scan_block(
        self, scan: AnalysisScan, block: Block, columns: _Once
    ) -> tuple[BlockResult, Array | None]:
        """Result and permuted maxima (None: not permuted) of a block, from the store or computed."""
        name = scan.analysis.name
        result, largest = self.store.result(block, name), self.store.maxima(block, name)
        permute = scan.is_permuted and largest is None
        if result is not None and not permute:
            return result, largest
        prepared = scan.prepared(columns())
        if result is None:
            result = BlockResult(prepared.fates, scan.statistics(prepared))
            self.store.keep(block, name, result)
        if permute:
            STOP.raise_if_requested()
            largest = scan.maxima(prepared, result.statistics)
            self.store.keep_maxima(block, name, largest)
        return result, largest


class _Once:
    """The decoded columns of a block, read when the first analysis needs them."""

    def __init__(self, study: Study, block: Block):
        self._study, self._block = study, block
        self._columns: list[DecodedColumn] | None = None

    def __call__(self) -> list[DecodedColumn]:
        if self._columns is None:
            self._columns = self._study.decoded(self._block)
        return self._columns


class AnalysisScan:
    """One analysis ready for blocks: what does not depend on the nIDPs is made once, when it is first needed."""

    def __init__(self, analysis: Analysis, study: Study):
        self.analysis, self.rules = analysis, study.rules
        self._ranked = study.rules.statistic == "spearman"
        predictors = analysis.predictors
        n_present = np.isfinite(predictors).sum(axis=0)
        self._testable = n_present >= study.rules.phenotypes.minimum_n
        permute = study.rules.permutations > 0 and not analysis.half
        self.is_permuted = permute and bool(self._testable.any())
        self._predictors = ranks_by_column(predictors) if self._ranked else predictors
        self._scanner: Scanner | None = None
        self._residuals: TargetResiduals | None = None
        self._permutation: JointPermutation | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the permutations have to say, whether they were made now or kept from before."""
        if not self.is_permuted:
            return ()
        left_out = self._testable & ~self.permutation.takes_part
        names = [name for name, out in zip(self.analysis.contrasts, left_out) if out]
        said = list(self.permutation.notes)
        if names:
            said.append(
                f"permutations: no family-wise p for {listed(names)}, whose subjects cannot change places"
            )
        return tuple(f"{self.analysis.sex}: {note}" for note in said)

    @property
    def scanner(self) -> Scanner:
        """The basis of the confounds and the predictors without them."""
        if self._scanner is None:
            rules = self.rules
            limits = PairLimits(
                rules.phenotypes.minimum_n,
                rules.minimum_df,
                rules.df_per_rank,
                rules.phenotypes.minimum_class,
            )
            self._scanner = Scanner(
                self._predictors, self.analysis.confounds.values, limits, rules.degrees_of_freedom
            )
        return self._scanner

    @property
    def residuals(self) -> TargetResiduals:
        """The basis of the confounds for nIDPs alone."""
        if self._residuals is None:
            self._residuals = TargetResiduals(self.analysis.confounds.values)
        return self._residuals

    @property
    def permutation(self) -> JointPermutation:
        """The joint permutations of this analysis, the same for every block."""
        if self._permutation is None:
            self._permutation = joint_permutation(
                self._predictors,
                self.analysis.confounds.values,
                self.rules.permutations,
                (self.rules.seed, "max-T", self.analysis.name),
                self.analysis.blocks,
            )
        return self._permutation

    def prepared(self, columns: list[DecodedColumn]) -> PreparedPhenotypes:
        """The nIDPs of a block as they are tested, those left out that the confounds explain."""
        analysis = self.analysis
        prepared = prepare_phenotypes(
            columns, analysis.subjects, self.rules.phenotypes, analysis.sexes
        )
        prepared = prepared.without(self._explained_as_read(prepared, columns), COLLINEAR)
        if not self._ranked:
            return prepared
        ranks = ranks_by_column(prepared.values)
        # Ranks of 0 and 1 give the same r, but the scan could not count the cases in them.
        ranks[:, prepared.binary] = prepared.values[:, prepared.binary]
        return replace(prepared, values=ranks)

    def statistics(self, prepared: PreparedPhenotypes) -> PairStatistics:
        """Partial correlations of every predictor with these nIDPs."""
        found = self.scanner.scan(prepared.values, prepared.binary)
        if self._ranked:  # a change of ranks is no change in years
            found.delta_years_per_sd[:] = np.nan
        return found

    def maxima(self, prepared: PreparedPhenotypes, statistics: PairStatistics) -> Array:
        """(B, C) largest -log10 p of each permutation over these nIDPs."""
        tested_df = np.where(statistics.reason == "", statistics.df, np.nan)
        return self.permutation.maxima(
            self.residuals.of(prepared.values), tested_df, n_free=statistics.n - statistics.rank
        )

    def _explained_as_read(
        self, prepared: PreparedPhenotypes, columns: list[DecodedColumn]
    ) -> NDArray[np.bool_]:
        """Which kept nIDPs the confounds explain before normal scores or ranks (age at a visit); later it is not seen.

        The normal scores of an nIDP that is linear in age are a curve in age: not collinear, but nothing else either,
        and they would correlate with any curved age bias that is left in the delta.
        """
        kept = [fate for fate in prepared.fates if fate.kept]
        explained = np.zeros(len(kept), dtype=bool)
        as_read = {column.name: column.values for column in columns}
        changed = [
            i
            for i, fate in enumerate(kept)
            if fate.nidp in as_read and (self._ranked or fate.transform == "inverse_normal")
        ]
        if changed:
            values = np.empty((len(changed), len(self.analysis.subjects)))
            for row, i in zip(values, changed):
                row[:] = as_read[kept[i].nidp][self.analysis.subjects]
                row[~np.isfinite(prepared.values[:, i])] = np.nan
            left = self.residuals.of(values.T)
            # Confounds that span all rows explain everything, which says nothing about an nIDP: the scan counts df.
            n_columns = self.analysis.confounds.values.shape[1]
            enough = left.present.sum(axis=1) > n_columns + 1
            explained[changed] = ~left.usable & enough
        return explained
