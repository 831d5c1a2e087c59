"""The sections of NAME_eval.ini: testing, deltas, associations, report."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from utils.settings.section import (
    Count,
    CountOrZero,
    Fraction,
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

    combination: Literal["ridge", "mean"] = key(
        'How contrasts become one prediction: "ridge" stacking or plain "mean".', "ridge"
    )
    bias_correction: Literal["subtract", "divide", "none"] = key(
        '"subtract" the expected delta at that age, "divide" by the slope (published), or "none".',
        "subtract",
    )


class AssociationSettings(Section):
    """Deltas against non-imaging phenotypes (nIDPs)."""

    nidps: str = key("Table: subject_id and a column a nIDP. Empty: no associations.", "")
    dictionary: str = key("Table: nidp, name, category, description; optionally kind.", "")
    confounds: str = key("Table: subject_id and a column a confound; text is categorical.", "")
    predictions: str = key(
        "A predictions or deltas table, of this or any other program; empty: this experiment's deltas.",
        "",
    )
    split: Split = key("Which subjects of this experiment.", "test")
    family: Literal["all", "per_contrast"] = key(
        'Tests that are corrected together: "all" contrasts x nIDPs x sexes, or "per_contrast" (published).',
        "all",
    )
    alpha: Positive = key("Family-wise error and false discovery rate.", 0.05, lt=1)
    minimum_n: Count = key("Fewest subjects with both delta and nIDP.", 51, ge=5)
    minimum_class_count: Count = key("Fewest subjects in the rarer class of a binary nIDP.", 10)
    dominance: Fraction = key("A nIDP with one value in this share of subjects is left out.", 0.99)
    inverse_normal: bool = key("Rank-based inverse normal transform before deconfounding.", True)


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
