"""Odds ratio of a binary nIDP with its delta: logistic regression, by Firth's likelihood where cases are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.logistic_likelihood import (
    NO_CONVERGENCE,
    LogisticLikelihood,
    Maximum,
)
from utils.association.inference.normal_tails import nlog10p_from_normal
from utils.association.inference.shared_rows import SharedRows

Array = NDArray[np.float64]

Z_975 = 1.959963984540054
PROFILE_TOLERANCE = 1e-8  # of the signed root of the likelihood ratio, whose ends are at 1.96
MAXIMUM_PROFILE_STEPS = 40

LIKELIHOOD = "likelihood"
FIRTH = "firth"

TOO_FEW_FOR_CONFOUNDS = "too_few_cases_for_the_confounds"
ONE_CLASS = "one_class_only"
NO_DELTA = "delta_explained_by_confounds"
NO_PROFILE = "profile_interval_did_not_converge"


@dataclass(frozen=True)
class LogisticLimits:
    """When Firth's likelihood takes over, and when neither is trusted.

    firth_below: subjects in the smaller class below which Firth's likelihood is used from the start.
    cases_per_confound: subjects in the smaller class needed for each independent confound.
    """

    firth_below: int = 50
    cases_per_confound: float = 2.0


@dataclass(frozen=True)
class OddsRatioTest:
    """Log odds of the higher value of the nIDP per unit (year) of the delta, given the confounds.

    method : 'likelihood', 'firth', or empty where nothing was fitted
    n_cases : subjects with the higher value; log_odds, se, low, high : with the 95 % interval, Wald's for 'likelihood'
    and that of the profile penalised likelihood for 'firth'; delta_sd : SD of the delta given the confounds
    nlog10p_wald, nlog10p_lr : of (log_odds / se)^2 and of the (penalised) likelihood ratio
    reason : why something of this is missing
    """

    method: str = ""
    n_cases: int = 0
    log_odds: float = np.nan
    se: float = np.nan
    low: float = np.nan
    high: float = np.nan
    delta_sd: float = np.nan
    nlog10p_wald: float = np.nan
    nlog10p_lr: float = np.nan
    reason: str = ""


def odds_ratio_test(
    nidp: Array, delta: Array, shared: SharedRows, limits: LogisticLimits | None = None
) -> OddsRatioTest:
    r"""Logistic regression nIDP ~ delta + Z on the rows of one pair.

    The design is [1, basis of Z, residual of the delta at unit SD]: it spans the same models as [1, Z, delta], so the
    coefficient of the delta is the same (for Firth's likelihood as well: the penalty changes by a constant),
    confounds that depend on each other on these rows cost nothing, and the information is well conditioned.

    Fewer than `firth_below` subjects in the smaller class, or separation (a combination of delta and confounds that
    fits some subjects perfectly, so that a coefficient runs to infinity), bring Firth's penalised likelihood, whose
    maximum always exists.

    Parameters
    ----------
    nidp : (n,) float
        Two different values, complete; the higher one is a case.
    delta : (n,) float
        Residuals of the delta given [1, Z] on the shared rows, years.
    shared : SharedRows
        The rows with the basis of their confounds.
    limits : LogisticLimits or None
        None: the defaults.

    Returns
    -------
    OddsRatioTest
        With a reason wherever a number is missing.
    """
    limits = limits or LogisticLimits()
    cases = (nidp == nidp.max()).astype(float)
    n_cases = int(cases.sum())
    smaller = min(n_cases, shared.n - n_cases)
    sd = float(np.sqrt(delta @ delta / max(shared.n - shared.rank, 1)))
    if smaller == 0:
        return OddsRatioTest(n_cases=n_cases, reason=ONE_CLASS)
    if sd == 0.0:
        return OddsRatioTest(n_cases=n_cases, reason=NO_DELTA)
    if shared.rank - 1 > smaller / limits.cases_per_confound:
        return OddsRatioTest(n_cases=n_cases, delta_sd=sd, reason=TOO_FEW_FOR_CONFOUNDS)
    constant = np.ones((shared.n, 1))
    design = np.hstack([constant, shared.basis * np.sqrt(shared.n), (delta / sd)[:, None]])
    if smaller >= limits.firth_below:
        test = _plain(design, cases, sd)
        if not test.reason:
            return test
    return _firth(design, cases, sd)


def _plain(design: Array, cases: Array, sd: float) -> OddsRatioTest:
    """Wald's interval, and the likelihood ratio with the fit without the delta."""
    null = LogisticLikelihood(design[:, :-1], cases, False).maximise(
        _first_guess(design, cases)[:-1]
    )
    if null.reason:
        return OddsRatioTest(LIKELIHOOD, int(cases.sum()), delta_sd=sd, reason=null.reason)
    full = LogisticLikelihood(design, cases, False).maximise(np.append(null.coefficients, 0.0))
    half = Z_975 * np.sqrt(full.covariance[-1, -1])
    slope = full.coefficients[-1]
    return _result(LIKELIHOOD, full, null, (slope - half, slope + half), int(cases.sum()), sd)


def _firth(design: Array, cases: Array, sd: float) -> OddsRatioTest:
    """The penalised likelihood ratio, and the interval where it reaches 3.84 (1.96 squared)."""
    likelihood = LogisticLikelihood(design, cases, True)
    n_confounds = design.shape[1] - 1
    null = likelihood.maximise(_first_guess(design, cases), n_confounds)
    full = likelihood.maximise(
        null.coefficients if not null.reason else _first_guess(design, cases)
    )
    if null.reason or full.reason:
        return OddsRatioTest(FIRTH, int(cases.sum()), delta_sd=sd, reason=NO_CONVERGENCE)
    ends = (_profile_end(likelihood, full, -1.0), _profile_end(likelihood, full, 1.0))
    return _result(FIRTH, full, null, ends, int(cases.sum()), sd)


def _profile_end(likelihood: LogisticLikelihood, full: Maximum, side: float) -> float:
    """Where the signed root of twice the fall of the profile penalised likelihood is 1.96; NaN if not found.

    Newton's method: the root is nearly straight in the coefficient, and the slope of a profile likelihood is the
    score of the fixed coefficient (the others are at their maximum). A step that leaves the side of the estimate, or
    the stretch between what is known to be inside and outside, is replaced by doubling or halving.
    """
    estimate, se = full.coefficients[-1], np.sqrt(full.covariance[-1, -1])
    start = full.coefficients
    inside, outside = 0.0, np.inf  # distances from the estimate, on this side
    distance = Z_975 * se
    for _ in range(MAXIMUM_PROFILE_STEPS):
        fixed = start.copy()
        fixed[-1] = estimate + side * distance
        profile = likelihood.maximise(fixed, len(fixed) - 1)
        if profile.reason:
            return float("nan")
        root = np.sqrt(max(2.0 * (full.log_likelihood - profile.log_likelihood), 0.0))
        if abs(root - Z_975) < PROFILE_TOLERANCE:
            return float(fixed[-1])
        if root < Z_975:
            inside = distance
        else:
            outside = distance
        start = profile.coefficients
        fall_per_distance = -side * profile.score[-1]
        newton = (
            distance + (Z_975 - root) * root / fall_per_distance if fall_per_distance > 0 else 0.0
        )
        if inside < newton < min(outside, 3.0 * distance):
            distance = newton
        else:
            distance = 2.0 * distance if np.isinf(outside) else (inside + outside) / 2.0
    return float("nan")


def _first_guess(design: Array, cases: Array) -> Array:
    """The log odds of a case as the constant (an empty class counts half a subject), zero elsewhere."""
    guess = np.zeros(design.shape[1])
    guess[0] = np.log((cases.sum() + 0.5) / (len(cases) - cases.sum() + 0.5))
    return guess


def _result(
    method: str, full: Maximum, null: Maximum, ends: tuple[float, float], n_cases: int, sd: float
) -> OddsRatioTest:
    """The test per unit of the delta from fits per SD."""
    if full.reason:
        return OddsRatioTest(method, n_cases, delta_sd=sd, reason=full.reason)
    slope, se = full.coefficients[-1], np.sqrt(full.covariance[-1, -1])
    ratio = max(2.0 * (full.log_likelihood - null.log_likelihood), 0.0)
    return OddsRatioTest(
        method=method,
        n_cases=n_cases,
        log_odds=float(slope / sd),
        se=float(se / sd),
        low=float(ends[0] / sd),
        high=float(ends[1] / sd),
        delta_sd=sd,
        nlog10p_wald=float(nlog10p_from_normal(slope / se)),
        nlog10p_lr=float(nlog10p_from_normal(np.sqrt(ratio))),
        reason="" if np.isfinite(ends).all() else NO_PROFILE,
    )
