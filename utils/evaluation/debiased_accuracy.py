"""Accuracy of corrected predictions: refused where it is made by the subject's own age, labelled where it is not.

What subtracting leaves of a useless network looks like the best of all: its residuals shrink to nothing, and age minus
residual is the age itself (Butler et al. 2021, Hum Brain Mapp 42:4092, doi 10.1002/hbm.25533; the numbers of the
specification's table are reproduced in the tests, the paper's wording was not re-read).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from utils.common.errors import UserError
from utils.common.randomness import generator
from utils.evaluation.deltas import AgeBiasCorrection
from utils.evaluation.metrics import accuracy

LABEL = "debiased (MAE rises by design)"


class CorrectedAccuracyRefused(UserError):
    """The accuracy of a prediction that was corrected with the subject's own age was asked for."""


def debiased_accuracy(
    correction: AgeBiasCorrection, predicted_years: ArrayLike, age_years: ArrayLike
) -> dict[str, Any]:
    """MAE, RMSE, r and R2 of (predicted - alpha) / beta, with the label under which alone they may be shown.

    Raises
    ------
    CorrectedAccuracyRefused
        Every other correction: its prediction holds the subject's age.
    """
    if correction.method != "divide":
        raise CorrectedAccuracyRefused(
            f"the accuracy of predictions corrected by '{correction.method}' is not shown: the correction uses the "
            "subject's own age, so that even a useless network looks accurate. Report the uncorrected accuracy."
        )
    c = correction.to_dict()
    debiased = (np.asarray(predicted_years, dtype=float) - c["alpha_years"]) / c["beta"]
    measures = accuracy(debiased, age_years, generator("no resamples"), n_resamples=0)
    return {"label": LABEL, **{name: interval["value"] for name, interval in measures.items()}}
