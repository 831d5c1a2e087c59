"""HC3: does the t of an association survive when the errors do not share one variance?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.association.inference.shared_rows import SharedRows
from utils.association.tails import nlog10p_from_t

Array = NDArray[np.float64]

# 1 - leverage below this is 0 but for rounding: the subject is fitted exactly, whatever its value.
FULL_LEVERAGE = 1e-10


@dataclass(frozen=True)
class RobustTest:
    """t and -log10 p with HC3 standard errors, and SE_HC3 / SE_OLS; each (P,), NaN where HC3 does not exist."""

    t: Array
    nlog10p: Array
    ratio: Array


def hc3_test(delta: Array, nidps: Array, shared: SharedRows) -> RobustTest:
    r"""The t of the delta in y ~ d + Z with heteroscedasticity-consistent standard errors (HC3).

    After Frisch-Waugh-Lovell one regressor is left, so that with d, y the residuals given [1 Z], b = d'y / d'd,
    e = y - d b and h_i the leverage of subject i in [1 Z d] (that in [1 Z] plus d_i^2 / d'd):

        SE_HC3 = sqrt(sum_i d_i^2 e_i^2 / (1 - h_i)^2) / d'd,    t = b / SE_HC3

    A subject whom the confounds fit exactly (the only one of a site) has h_i = 1, d_i = e_i = 0 and no say: its term
    is left out, as if subject and site were not there. Where the delta makes a leverage 1, HC3 does not exist (NaN).

    Parameters
    ----------
    delta : (n,) float
        Residuals of the delta on the shared rows.
    nidps : (n, P) float
        Residuals of the nIDPs.
    shared : SharedRows
        The rows, with the leverages of the confounds.

    Returns
    -------
    RobustTest
        p from t with the same degrees of freedom as the ordinary test.

    Source: MacKinnon and White 1985, J Econometrics 29:305, here in the form of Long and Ervin 2000 (neither
    re-read); equality with the HC3 of statsmodels is tested.
    """
    fitted_by_confounds = 1.0 - shared.leverage < FULL_LEVERAGE
    length2 = delta @ delta
    with np.errstate(divide="ignore", invalid="ignore"):
        slack = 1.0 - shared.leverage - delta**2 / length2
        decides = ((slack < FULL_LEVERAGE) & ~fitted_by_confounds).any()
        weight = np.where(fitted_by_confounds, 0.0, (delta / slack) ** 2)
        slope = (delta @ nidps) / length2
        errors2 = (nidps - np.outer(delta, slope)) ** 2
        se_hc3 = np.sqrt(weight @ errors2) / length2
        se_ols = np.sqrt(errors2.sum(axis=0) / shared.df / length2)
        ratio = se_hc3 / se_ols
        t = slope / se_hc3
    exists = np.isfinite(t) & (se_hc3 > 0) & (se_ols > 0) & (shared.df >= 1) & ~decides
    t = np.where(exists, t, np.nan)
    return RobustTest(t, nlog10p_from_t(t, shared.df), np.where(exists, ratio, np.nan))
