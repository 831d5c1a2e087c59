"""What decides about the confound matrix: plain values, one place."""

from __future__ import annotations

from dataclasses import dataclass

from utils.common.errors import UserError

AGE_TERMS = ("quadratic", "linear", "none")
ALL_CONTINUOUS = "*"


@dataclass(frozen=True)
class ConfoundRules:
    """How the user's confounds become a matrix. The defaults take every column of the table as it is.

    indicator_above: share missing from which an indicator of missingness is added beside the filled column.
    maximum_missing: share missing from which the run stops: most of such a column would be invented.
    maximum_levels: a text column with more levels stops the run: it holds names or numbers written as text.
    categorical: columns whose numbers are codes. continuous: columns that are numbers whatever their name says;
    stronger than `categorical`.
    terms: the formula (see `confound_formula`); "" is every column of the table, linearly.
    age_terms: "quadratic" (age and its square), "linear" or "none"; with pooled sexes also their products with sex.
    site_column: where each subject was scanned; gaps are then filled with the median of the site.
    site_wise: columns built once for each site (see `site_wise`); "*" is every continuous one among the terms.
    squares: columns whose squares are added to the terms; "*" is every continuous one among the terms.
    pca: share of the variance of the confounds that principal components keep, such as 0.99; 0 is no reduction. Age
    and sex terms are never reduced.
    outlier_sd: values further than this many robust SDs from the median are replaced by the median (of the site); 0
    is off. Alfaro-Almagro et al. 2021 use 8. Off here because a wrong value of a confound belongs to the one who
    made the table, while a replaced true value (a very large head) would go unadjusted.
    """

    indicator_above: float = 0.01
    maximum_missing: float = 0.20
    maximum_levels: int = 100
    categorical: tuple[str, ...] = ("site", "centre", "center", "scanner", "batch", "protocol")
    continuous: tuple[str, ...] = ()
    terms: str = ""
    age_terms: str = "quadratic"
    site_column: str = ""
    site_wise: tuple[str, ...] = ()
    squares: tuple[str, ...] = ()
    pca: float = 0.0
    outlier_sd: float = 0.0

    def __post_init__(self) -> None:
        if self.age_terms not in AGE_TERMS:
            raise UserError(
                f"the age terms of the confounds are one of {', '.join(AGE_TERMS)}, not {self.age_terms!r}."
            )
        if not 0.0 <= self.pca < 1.0:
            raise UserError(
                f"the reduction of confounds keeps a share of their variance between 0 and 1, such as 0.99, or 0 "
                f"for none; not {self.pca:g}."
            )
        if not self.outlier_sd >= 0.0:
            raise UserError(
                f"outliers of confounds lie beyond a positive number of robust SDs, such as 8, or 0 for none; "
                f"not {self.outlier_sd:g}."
            )
        if self.site_wise and not self.site_column:
            raise UserError(
                "site-wise confounds need the column that holds the site; name it as site column."
            )
        if self.site_column in self.continuous and self.site_column:
            raise UserError(
                f"the site column '{self.site_column}' cannot be a continuous confound at the same time."
            )
