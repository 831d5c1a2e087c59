"""Everything that decides about an association analysis, as one frozen object."""

from __future__ import annotations

from dataclasses import dataclass, field

from utils.association.confounds import ConfoundRules
from utils.association.decoding import DecodingRules
from utils.association.phenotypes import PhenotypeRules
from utils.common.errors import UserError

SEXES = ("separate", "pooled")
FAMILIES = ("all", "per_sex", "per_contrast")
STATISTICS = ("pearson", "spearman")
DEGREES_OF_FREEDOM = ("rank", "published")
REDUNDANCY = ("funpack", "duplicates", "none")


@dataclass(frozen=True)
class AssociationRules:
    """Everything that decides about an association analysis.

    family: 'all' (contrasts x nIDPs x sexes, one family), 'per_sex' or 'per_contrast'. sexes: 'separate', or
    'pooled' with sex terms among the confounds. statistic: 'pearson' or 'spearman' (each column ranked once, over
    its own rows). degrees_of_freedom: 'rank' (n - rank - 1) or 'published' (n - 2). minimum_df, df_per_rank: a pair
    needs df >= max(minimum_df, df_per_rank x rank). permutations: of the max-T, 0 is none. permutation_blocks,
    family_column: columns of the confounds. replication: '', 'halves' or a column of the confounds. recheck_hits:
    so many of the strongest hits are looked at twice. quality_column: a confound that measures image quality, in
    whose halves hits are compared. compared_contrasts: none, or two whose r are compared nIDP by nIDP. redundancy:
    which nIDPs represent others. memory_gb: for permutations and redundancy. split_id, correction_id: written into
    every row.
    """

    phenotypes: PhenotypeRules = field(default_factory=PhenotypeRules)
    confounds: ConfoundRules = field(default_factory=ConfoundRules)
    family: str = "all"
    sexes: str = "separate"
    alpha: float = 0.05
    statistic: str = "pearson"
    degrees_of_freedom: str = "rank"
    minimum_df: int = 50
    df_per_rank: float = 2.0
    permutations: int = 0
    seed: int = 1
    permutation_blocks: str = ""
    family_column: str = ""
    replication: str = ""
    recheck_hits: int = 0
    quality_column: str = ""
    compared_contrasts: tuple[str, ...] = ()
    redundancy: str = "none"
    decoding: DecodingRules = field(default_factory=DecodingRules)
    memory_gb: float = 4.0
    split_id: str = ""
    correction_id: str = ""

    def __post_init__(self) -> None:
        if len(self.compared_contrasts) not in (0, 2):
            raise UserError(
                f"compare_contrasts names {len(self.compared_contrasts)} contrasts; name two, or none."
            )
        for name, choices in (
            ("family", FAMILIES),
            ("sexes", SEXES),
            ("statistic", STATISTICS),
            ("degrees_of_freedom", DEGREES_OF_FREEDOM),
            ("redundancy", REDUNDANCY),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}"
                )
