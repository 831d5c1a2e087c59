"""Deltas in years and the correction of their age bias: fitted on one set of subjects, frozen, applied to another.

Predicted ages shrink towards the mean age: the young are predicted too old, the old too young. A correction removes
what age says of the delta: a straight line, a parabola, or a mean at every age. It is fitted on validation subjects;
fitted on those it is applied to, it would look perfect by construction, so that is an error unless it is asked for, and
then stamped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from datasets.subjects import subjects_hash
from utils.common.errors import UserError
from utils.evaluation import age_level_correction, age_line, quadratic_correction
from utils.evaluation.age_dependence import dependence_before_and_after, heteroscedasticity
from utils.evaluation.age_line import CorrectionRefused

Array = NDArray[np.float64]

MINIMUM_N_FIT = 50
ROUNDING_YEARS = 1e-9  # a smaller SD is that of the arithmetic
NOTE_IN_SAMPLE = "in-sample: the correction was fitted on this subject too"


@dataclass(frozen=True)
class AgeCurve:
    """One way of saying what prediction is expected at an age."""

    fit: Callable[[Array, Array], dict]  # predicted, age -> coefficients
    residual: Callable[[dict, Array, Array], Array]  # coefficients, predicted, age -> years
    names: tuple[str, ...]  # of the coefficients
    extrapolates: bool  # a line goes on beyond the ages of the fit; a curve means nothing there


_LINE = AgeCurve(age_line.fit_line, age_line.line_residual, age_line.NAMES, extrapolates=True)
CURVES = {
    "subtract": _LINE,
    "divide": _LINE,
    "quadratic": AgeCurve(
        quadratic_correction.fit_quadratic, quadratic_correction.quadratic_residual,
        (*age_line.NAMES, *quadratic_correction.NAMES), extrapolates=False,
    ),
    "age_level": AgeCurve(
        age_level_correction.fit_age_levels, age_level_correction.age_level_residual,
        (*age_line.NAMES, *age_level_correction.NAMES), extrapolates=False,
    ),
}  # fmt: skip
METHODS = tuple(CURVES)
LINES = ("subtract", "divide")  # two numbers say everything: alpha and beta


class InSampleCorrection(UserError):
    """A correction was about to be applied to subjects that it was fitted on."""


@dataclass(frozen=True)
class CorrectedDeltas:
    """Corrected deltas of S subjects, what to know of each, and the record of how they came about.

    delta_z is the corrected delta over the SD that was left on the fit: deltas of contrasts, or of patterns of
    contrasts, that are known with different precision become comparable.
    """

    corrected_delta_years: Array
    delta_z: Array
    extrapolated: NDArray[np.bool_]  # outside the ages of the fit
    in_sample: NDArray[np.bool_]
    notes: tuple[str, ...]
    record: dict


class AgeBiasCorrection:
    r"""Removes the dependence of the delta on age.

    Fit: predicted = alpha + beta age + error, least squares. Corrected delta:

        subtract:   predicted - alpha - beta age         (years; what is left of the prediction at that age)
        divide:     (predicted - alpha) / beta - age     (the same divided by beta: correlates 1 with it)
        quadratic:  the delta less a parabola in age, see `quadratic_correction`
        age_level:  the delta less its mean at that age, see `age_level_correction`

    The divided form rescales the prediction without using the subject's own age, and multiplies noise by 1/beta. On
    the subjects of the fit line and parabola leave mean zero and no correlation with age; on others only in
    expectation. Lines go on beyond the ages of the fit, and that is flagged; the curves refuse such subjects.

    Parameters
    ----------
    method : str
        "subtract", "divide", "quadratic" or "age_level".

    Source: de Lange and Cole 2020, NeuroImage Clin 26:102229 (subtract); Cole et al. 2018, Mol Psychiatry 23:1385
    (divide); the algebra is tested, the wording of the papers was not re-read.
    """

    def __init__(self, method: str = "subtract"):
        if method not in METHODS:
            raise ValueError(f"method is one of {', '.join(METHODS)}, not {method!r}")
        self.method = method
        self.coefficients_: dict | None = None
        self._fit_ids: frozenset[str] | None = None

    def fit(
        self, predicted_years: ArrayLike, age_years: ArrayLike, subject_ids: Sequence[str]
    ) -> AgeBiasCorrection:
        """Fit the curve on subjects with a prediction and an age.

        Raises
        ------
        CorrectionRefused
            Fewer than 50 subjects, no variance of age, (divide) a slope of 0.1 or less, or not clearly above 0.
        """
        predicted, age = np.asarray(predicted_years, float), np.asarray(age_years, float)
        complete = np.isfinite(predicted) & np.isfinite(age)
        ids = [str(identifier) for identifier, kept in zip(subject_ids, complete) if kept]
        predicted, age = predicted[complete], age[complete]
        if age.size < MINIMUM_N_FIT:
            raise CorrectionRefused(
                f"{age.size} subjects to fit the age-bias correction on; at least {MINIMUM_N_FIT} are needed"
            )
        if np.ptp(age) == 0.0:
            raise CorrectionRefused(
                "all subjects to fit the age-bias correction on have the same age"
            )
        curve = CURVES[self.method]
        coefficients = curve.fit(predicted, age)
        if self.method == "divide":
            age_line.refuse_flat(coefficients)
        left = curve.residual(coefficients, predicted, age)
        self.coefficients_ = {
            **coefficients,
            "heteroscedasticity": heteroscedasticity(left, age),
            "fit_subjects_sha256": subjects_hash(ids),
        }
        self._fit_ids = frozenset(ids)
        return self

    @classmethod
    def from_line(
        cls, method: str, line: dict, subject_ids: Sequence[str], line_from: str
    ) -> AgeBiasCorrection:
        """By a line (`age_line.line_record`) that was found otherwise than by `fit`; `line_from` says how.

        Raises
        ------
        CorrectionRefused
            As `fit` for the slope.
        ValueError
            The method is no line.
        """
        correction = cls(method)
        if method not in LINES:
            raise ValueError(f"'{method}' is not said by a line")
        if method == "divide":
            age_line.refuse_flat(line)
        ids = [str(identifier) for identifier in subject_ids]
        correction.coefficients_ = {
            **line,
            "line_from": line_from,
            "fit_subjects_sha256": subjects_hash(ids),
        }
        correction._fit_ids = frozenset(ids)
        return correction

    def correct(
        self,
        predicted_years: ArrayLike,
        age_years: ArrayLike,
        subject_ids: Sequence[str],
        allow_in_sample: bool = False,
    ) -> CorrectedDeltas:
        """Corrected deltas of subjects outside the fit.

        Parameters
        ----------
        predicted_years, age_years : (S,) float
            NaN (a failed prediction) stays NaN.
        subject_ids : (S,) str
            Checked against the subjects of the fit.
        allow_in_sample : bool
            Accept subjects of the fit; the record then says `in_sample: true`.

        Raises
        ------
        InSampleCorrection
            A subject was part of the fit and `allow_in_sample` is False.
        """
        c, curve = self._fitted(), CURVES[self.method]
        in_sample = self._overlap(subject_ids)
        n_overlap = int(in_sample.sum())
        if n_overlap and not allow_in_sample:
            raise InSampleCorrection(
                f"the age-bias correction was fitted on {n_overlap} of the {len(subject_ids)} subjects that it is "
                "applied to: their deltas would look free of bias by construction. Fit it on other subjects (the "
                "validation split), or allow it ([DELTAS] allow_in_sample), which stamps the result as in-sample."
            )
        predicted, age = np.asarray(predicted_years, float), np.asarray(age_years, float)
        residual = curve.residual(c, predicted, age)
        outside = np.isfinite(residual) & ((age < c["age_min_years"]) | (age > c["age_max_years"]))
        if not curve.extrapolates:
            residual = np.where(outside, np.nan, residual)
        corrected = residual / c["beta"] if self.method == "divide" else residual
        sd = c["residual_sd_years"]
        z = residual / sd if sd > ROUNDING_YEARS else np.full_like(residual, np.nan)
        record = {
            **self.to_dict(),
            "in_sample": bool(n_overlap),
            "n_overlap": n_overlap,
            "overlap_checked_by": "hash of the whole set" if self._fit_ids is None else "subject",
            "n_corrected": int(np.isfinite(corrected).sum()),
            "n_extrapolated": int(outside.sum()),
            "n_refused_for_age": 0 if curve.extrapolates else int(outside.sum()),
            "age_dependence": dependence_before_and_after(predicted - age, corrected, age),
        }
        notes = tuple(map(self._note, outside, in_sample & np.isfinite(corrected)))
        return CorrectedDeltas(corrected, z, outside, in_sample, notes, record)

    def to_dict(self) -> dict:
        """Method, coefficients with 95 % intervals, and the hash of the subjects of the fit (plain values)."""
        return {"method": self.method, **self._fitted()}

    @classmethod
    def from_dict(
        cls, record: dict, fit_subject_ids: Iterable[str] | None = None
    ) -> AgeBiasCorrection:
        """A fitted correction from `to_dict`; with the ids of the fit, overlap is checked subject by subject.

        Raises
        ------
        ValueError
            The ids are not those of the fit, or a coefficient is missing.
        """
        correction = cls(record["method"])
        needed = (*CURVES[correction.method].names, "fit_subjects_sha256")
        missing = [name for name in needed if name not in record]
        if missing:
            raise ValueError(f"this record of a correction lacks {', '.join(missing)}")
        kept = (*needed, "heteroscedasticity", "line_from")  # not in records of 0.3.0 and before
        correction.coefficients_ = {k: v for k, v in record.items() if k in kept}
        if fit_subject_ids is not None:
            ids = frozenset(map(str, fit_subject_ids))
            if subjects_hash(ids) != record["fit_subjects_sha256"]:
                raise ValueError("these are not the subjects that the correction was fitted on")
            correction._fit_ids = ids
        return correction

    def _note(self, outside: bool, in_sample: bool) -> str:
        parts = []
        if outside and CURVES[self.method].extrapolates:
            parts.append("age outside those of the correction's fit: extrapolated")
        elif outside:
            parts.append(f"age outside those of the correction's fit: no {self.method} correction")
        if in_sample:
            parts.append(NOTE_IN_SAMPLE)
        return "; ".join(parts)

    def _fitted(self) -> dict:
        if self.coefficients_ is None:
            raise ValueError("the correction is applied before it was fitted")
        return self.coefficients_

    def _overlap(self, subject_ids: Sequence[str]) -> NDArray[np.bool_]:
        """(S,) who was part of the fit; with nothing but its hash, all or nobody."""
        if self._fit_ids is not None:
            return np.array([str(s) in self._fit_ids for s in subject_ids], dtype=bool)
        same = subjects_hash(subject_ids) == self._fitted()["fit_subjects_sha256"]
        return np.full(len(subject_ids), same)


__all__ = [
    "METHODS", "MINIMUM_N_FIT", "AgeBiasCorrection", "CorrectedDeltas", "CorrectionRefused",
    "InSampleCorrection",
]  # fmt: skip
