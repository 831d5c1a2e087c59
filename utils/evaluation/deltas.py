"""Deltas in years and the correction of their age bias: fitted on one set of subjects, frozen, applied to another.

Predicted ages shrink towards the mean age: the young are predicted too old, the old too young. The correction removes
the straight line. It is fitted on validation subjects; fitted on those it is applied to, it would look perfect by
construction, so that is an error unless it is asked for, and then stamped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from datasets.subjects import subjects_hash
from utils.common.errors import UserError

Array = NDArray[np.float64]

METHODS = ("subtract", "divide")
MINIMUM_N_FIT = 50
# Below this slope dividing by it would multiply the noise of the prediction more than tenfold.
MINIMUM_SLOPE_DIVIDE = 0.1


class CorrectionRefused(ValueError):
    """A bias correction that the data do not support; `reason` says why. The raw delta remains."""

    def __init__(self, reason: str):
        self.reason = reason
        super().__init__(reason)


class InSampleCorrection(UserError):
    """A correction was about to be applied to subjects that it was fitted on."""


@dataclass(frozen=True)
class CorrectedDeltas:
    """Corrected deltas, which of them lie outside the ages of the fit, and the record of how they came about."""

    corrected_delta_years: Array
    extrapolated: NDArray[np.bool_]
    record: dict


class AgeBiasCorrection:
    r"""Removes the straight-line dependence of the delta on age.

    Fit: predicted = alpha + beta age + error, least squares. Corrected delta:

        subtract:  predicted - alpha - beta age         (years; what is left of the prediction at that age)
        divide:    (predicted - alpha) / beta - age     (the same divided by beta: correlates 1 with it)

    The divided form rescales the prediction without using the subject's own age, and multiplies noise by 1/beta. On
    the subjects of the fit both have mean zero and no correlation with age; on others only in expectation.

    Parameters
    ----------
    method : str
        "subtract" or "divide".

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
        """Fit the line on subjects with a prediction and an age.

        Raises
        ------
        CorrectionRefused
            Fewer than 50 subjects, no variance of age, or (divide) a slope of 0.1 or less, or not clearly above 0.
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
        coefficients = _fit_line(predicted, age)
        if self.method == "divide":
            _refuse_flat(coefficients)
        self.coefficients_ = coefficients | {"fit_subjects_sha256": subjects_hash(ids)}
        self._fit_ids = frozenset(ids)
        return self

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
        c = self._fitted()
        n_overlap = self._count_overlap(subject_ids)
        if n_overlap and not allow_in_sample:
            raise InSampleCorrection(
                f"the age-bias correction was fitted on {n_overlap} of the {len(subject_ids)} subjects that it is "
                "applied to: their deltas would look free of bias by construction. Fit it on other subjects (the "
                "validation split), or allow it explicitly, which stamps the result as in-sample."
            )
        predicted, age = np.asarray(predicted_years, float), np.asarray(age_years, float)
        residual = predicted - c["alpha_years"] - c["beta"] * age
        corrected = residual if self.method == "subtract" else residual / c["beta"]
        outside = np.isfinite(corrected) & ((age < c["age_min_years"]) | (age > c["age_max_years"]))
        record = {
            **self.to_dict(),
            "in_sample": bool(n_overlap),
            "n_overlap": n_overlap,
            "overlap_checked_by": "hash of the whole set" if self._fit_ids is None else "subject",
            "n_corrected": int(np.isfinite(corrected).sum()),
            "n_extrapolated": int(outside.sum()),
        }
        return CorrectedDeltas(corrected, outside, record)

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
            The ids are not those of the fit.
        """
        correction = cls(record["method"])
        correction.coefficients_ = {k: v for k, v in record.items() if k in COEFFICIENTS}
        if fit_subject_ids is not None:
            ids = frozenset(map(str, fit_subject_ids))
            if subjects_hash(ids) != record["fit_subjects_sha256"]:
                raise ValueError("these are not the subjects that the correction was fitted on")
            correction._fit_ids = ids
        return correction

    def _fitted(self) -> dict:
        if self.coefficients_ is None:
            raise ValueError("the correction is applied before it was fitted")
        return self.coefficients_

    def _count_overlap(self, subject_ids: Sequence[str]) -> int:
        if self._fit_ids is not None:
            return len(self._fit_ids & {str(identifier) for identifier in subject_ids})
        same = subjects_hash(subject_ids) == self._fitted()["fit_subjects_sha256"]
        return len(subject_ids) if same else 0


COEFFICIENTS = (
    "alpha_years", "alpha_low_years", "alpha_high_years", "beta", "beta_low", "beta_high", "residual_sd_years",
    "n_fit", "age_mean_years", "age_min_years", "age_max_years", "fit_subjects_sha256",
)  # fmt: skip


def _fit_line(predicted: Array, age: Array) -> dict:
    """Least squares of predicted on age about the mean age, with t intervals of both coefficients."""
    n, mean_age = age.size, float(age.mean())
    centred = age - mean_age
    spread = float(centred @ centred)
    beta = float(centred @ predicted) / spread
    at_mean = float(predicted.mean())
    residual = predicted - at_mean - beta * centred
    sd = float(np.sqrt(residual @ residual / (n - 2)))
    quantile = float(stats.t.ppf(0.975, n - 2))
    half_beta = quantile * sd / np.sqrt(spread)
    half_alpha = quantile * sd * np.sqrt(1.0 / n + mean_age**2 / spread)
    alpha = at_mean - beta * mean_age
    return {
        "alpha_years": alpha,
        "alpha_low_years": alpha - half_alpha,
        "alpha_high_years": alpha + half_alpha,
        "beta": beta,
        "beta_low": beta - half_beta,
        "beta_high": beta + half_beta,
        "residual_sd_years": sd,
        "n_fit": n,
        "age_mean_years": mean_age,
        "age_min_years": float(age.min()),
        "age_max_years": float(age.max()),
    }


def _refuse_flat(coefficients: dict) -> None:
    beta, low, high = (coefficients[name] for name in ("beta", "beta_low", "beta_high"))
    if beta <= MINIMUM_SLOPE_DIVIDE or low <= 0.0:
        raise CorrectionRefused(
            f"the slope of predicted on true age is {beta:.3f} (95 % interval {low:.3f} to {high:.3f}): dividing by it "
            f"needs a slope above {MINIMUM_SLOPE_DIVIDE} whose interval excludes 0; 'subtract' can still be used"
        )
