"""The sections of NAME_eval.ini: testing, deltas, associations, report."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from utils.settings.section import (
    BelowOne,
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    Section,
    Split,
    key,
    refuse_empty_or_repeated,
)


class MappingSettings(Section):
    """Testing and predicting with trained networks."""

    experiment_name: str = key("Trained experiment whose networks are used; empty: this one.", "")
    dataset_type: Split | tuple[Split, ...] = key(
        '"validation", "test" or both. Validation is needed for deltas.', ("validation", "test")
    )
    data_directory: str = key("Folder of subjects for test and predict; empty: as in [DATA].", "")
    male_test: str = key("Published list of test men.", "male_test")
    male_test_age: str = key("Their ages, years.", "male_test_age")
    male_validation: str = key("Published list of validation men; empty: as in [DATA].", "")
    male_validation_age: str = key("Their ages, years; empty: as in [DATA].", "")
    predict_subjects: str = key(
        "-m predict: a table (subject_id, sex; age if known) or a list with an id a line.", ""
    )
    exported: str = key(
        "-m predict: a folder that -m export wrote, here or elsewhere, whose networks are used; empty: those "
        "of experiment_name.",
        "",
    )
    precision: Literal["auto", "float32", "bfloat16"] = key(
        'Convolutions when predicting: "float32"; "bfloat16": about twice as quick, taken back for float32 '
        'where it changes an age by more than 0.05 years on validation; "auto": bfloat16 on GPUs only.',
        "auto",
    )
    bootstrap_resamples: CountOrZero = key(
        "Resamples behind the intervals of the metrics; 0: no intervals.", 1000, le=1_000_000
    )

    @model_validator(mode="after")
    def _splits(self):
        refuse_empty_or_repeated("dataset_type", self.dataset_type)
        return self


class DeltaSettings(Section):
    """Ensemble over contrasts, and bias correction; both fitted on validation and frozen."""

    combination: Literal[
        "ridge", "mean", "inverse_variance", "gls", "nonnegative", "elastic_net"
    ] = key(
        'How contrasts become one prediction: "ridge", "nonnegative" or "elastic_net" stacking, or an average: plain '
        '"mean", "inverse_variance" of the errors, "gls" (errors that correlate).',
        "ridge",
    )
    bootstrap_weights: CountOrZero = key(
        "Resamples behind the intervals of the combination's weights; 0: no intervals.",
        1000,
        le=1_000_000,
    )
    bias_correction: Literal["subtract", "divide", "quadratic", "age_level", "none"] = key(
        '"subtract" the expected delta at that age, "divide" by the slope (published), "quadratic" in age '
        '(Smith 2019), the mean at each "age_level", or "none".',
        "subtract",
    )
    cross_fit: bool = key(
        "The combination's correction is fitted on predictions whose weights had not seen the subject.",
        True,
    )
    allow_in_sample: bool = key(
        "Correct subjects that the correction was fitted on too (lists that overlap), and stamp them in-sample.",
        False,
    )
    retest: str = key(
        "Table of second scans: subject_id, age_years, predicted_years, contrast. Empty: no test-retest reliability.",
        "",
    )


class AssociationSettings(Section):
    """Deltas against non-imaging phenotypes (nIDPs)."""

    nidps: str = key("Table: subject_id and a column a nIDP. Empty: no associations.", "")
    dictionary: str = key(
        "Table: nidp, name, category, description; optionally kind, missing_codes. Or UK Biobank's own.",
        "",
    )
    confounds: str = key("Table: subject_id and a column a confound; text is categorical.", "")
    predictions: str = key(
        "A predictions or deltas table, of this or any other program; empty: this experiment's deltas.",
        "",
    )
    predictors: str = key(
        "Instead of deltas: a table with subject_id, age, sex and a column a predictor (latent phenotypes).",
        "",
    )
    split: Split = key("Which subjects of this experiment.", "test")
    family: Literal["all", "per_sex", "per_contrast"] = key(
        'Tests that are corrected together: "all" contrasts x nIDPs x sexes, "per_sex", or "per_contrast" '
        "(of each sex; published).",
        "all",
    )
    alpha: Positive = key("Family-wise error and false discovery rate.", 0.05, lt=1)
    statistic: Literal["pearson", "spearman"] = key(
        'Partial correlation of values, or of ranks ("spearman"; each column ranked once).',
        "pearson",
    )
    degrees_of_freedom: Literal["rank", "published"] = key(
        '"rank": n - rank of the confounds - 1. "published": n - 2, too many; only to repeat a published table.',
        "rank",
    )
    permutations: CountOrZero = key(
        "Joint permutations behind the family-wise p (max-T); 0: none. 1,000 or more are refined in the tail.",
        1000,
        le=1_000_000,
    )
    permutation_blocks: str = key(
        "Column of the confounds table within whose values subjects are exchanged (a site); empty: all.",
        "",
    )
    family_column: str = key(
        "Column of the confounds table that names families: one subject of each is analysed. Empty: all.",
        "",
    )
    replication: str = key(
        '"halves": discovery and replication in random halves; or a column of the confounds table with two '
        "values, the first (in order) discovers. Empty: none.",
        "",
    )
    recheck_hits: CountOrZero = key(
        "So many of the strongest significant pairs get HC3, logistic, rank and minimal-confound checks.",
        500,
    )
    quality_column: str = key(
        "A confound that measures image quality (head motion): hits are compared in its halves. Empty: not.",
        "",
    )
    compare_contrasts: tuple[str, ...] = key(
        "Two contrasts whose correlations are compared nIDP by nIDP; empty: none.", ()
    )
    minimum_n: Count = key("Fewest subjects with both delta and nIDP.", 51, ge=10)
    minimum_class_count: Count = key(
        "Fewest subjects in the rarer class of a binary nIDP.", 10, ge=10
    )
    dominance: Fraction = key("A nIDP with one value in this share of subjects is left out.", 0.99)
    inverse_normal: bool = key("Rank-based inverse normal transform before deconfounding.", True)
    missing_codes: str = key(
        'Numbers that mean "no answer" in nIDPs with classes, e.g. -1, -3, -818. Continuous nIDPs keep them '
        "unless the dictionary names them.",
        "",
    )
    recode: bool = key(
        "Put UK Biobank's codes in order (9 -> 0 and the like); for tables as downloaded, not FUNPACK's.",
        False,
    )
    missingness_indicators: bool = key(
        "Whether a nIDP is there at all is a nIDP of its own.", False
    )
    redundancy: Literal["funpack", "duplicates", "none"] = key(
        'Which nIDPs represent others: "funpack" (|r| > 0.99 and missing together), "duplicates" '
        '(|r| > 0.9999 only), or "none".',
        "funpack",
    )
    age_terms: Literal["quadratic", "linear", "none"] = key(
        'Age among the confounds: with its square, alone, or "none" (both sides have no age left).',
        "quadratic",
    )
    confound_terms: str = key(
        "Formula over the confounds: names joined by +, name^2, a:b, a*b, . for all. Empty: every column.",
        "",
    )
    site_column: str = key("Column of the confounds that names the site.", "")
    site_wise: str | tuple[str, ...] = key(
        "Confounds that are centred and scaled within each site and get a column a site.", ()
    )
    confound_outlier_sd: NotNegative = key(
        "Confound values further from the median, in robust SDs, become the median; 0: none.", 0.0
    )
    confound_pca: BelowOne = key(
        "Share of the confounds' variance that principal components keep instead of them; 0: no reduction.",
        0.0,
    )
    part: str = key(
        '"3/20": only the third of twenty parts, for job arrays; empty: all, and merge.', ""
    )
    memory_gb: Positive = key("Memory for nIDPs and permutations together, gigabytes.", 4.0)


class ExportSettings(Section):
    """`-m export`: networks that leave for use elsewhere."""

    licence: str = key("Licence of the weights, written into the model card.", "not stated")
    contact: str = key("Whom to ask about them.", "")


class ReportSettings(Section):
    """Figures and the report."""

    individual_level: bool = key(
        "True: a dot a person in figures and report, and the page is stamped. Simulated cohorts always.",
        False,
    )


EVALUATION_SECTIONS: dict[str, type[Section]] = {
    "MAPPING": MappingSettings,
    "DELTAS": DeltaSettings,
    "ASSOCIATION": AssociationSettings,
    "EXPORT": ExportSettings,
    "REPORT": ReportSettings,
}
