"""The scan: exact partial correlation of every predictor with every target on the rows where both exist."""

from utils.association.scan.basis import (
    explained_by_confounds,
    group_by_mask,
    orthonormal_basis,
)
from utils.association.scan.by_rows import scan_by_rows
from utils.association.scan.engine import Scanner, scan_pairs
from utils.association.scan.residuals import ResidualTargets, TargetResiduals, residual_targets
from utils.association.scan.statistics import (
    COLLINEAR,
    CONSTANT,
    DEGENERATE,
    DELTA_COLLINEAR,
    DELTA_CONSTANT,
    TOO_FEW_CASES,
    TOO_FEW_DF,
    TOO_FEW_SUBJECTS,
    PairLimits,
    PairStatistics,
)

__all__ = [
    "COLLINEAR",
    "CONSTANT",
    "DEGENERATE",
    "DELTA_COLLINEAR",
    "DELTA_CONSTANT",
    "TOO_FEW_CASES",
    "TOO_FEW_DF",
    "TOO_FEW_SUBJECTS",
    "PairLimits",
    "PairStatistics",
    "ResidualTargets",
    "Scanner",
    "TargetResiduals",
    "explained_by_confounds",
    "group_by_mask",
    "orthonormal_basis",
    "residual_targets",
    "scan_by_rows",
    "scan_pairs",
]
