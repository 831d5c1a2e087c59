"""Predictions that cannot be right although the program ran: everybody the same age, ages of 150, no relation to age.

A network gives a number for any array. Images that are turned, in another space or on another intensity scale than
in training are predicted without an error, and wrongly; so the predictions of a cell are looked at as a group.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

MINIMUM_N_CONSTANT = 2
# Equal to three decimals of a year, or to what float32 tells apart: other batches add up in another order.
CONSTANT_RANGE_YEARS = 1e-3
CONSTANT_RANGE_RELATIVE = 1e-6

MINIMUM_N_SPREAD = 10
SMALL_SD_YEARS = 1.0
# Of the training ages' SD. It takes over where that is below 4 years: there 1 year may be right (infants, one class).
SMALL_SD_SHARE = 0.25

FAR_OUTSIDE_YEARS = 10.0
MAXIMUM_SHARE_OUTSIDE = 0.05  # more of the subjects than this are no outliers but a wrong input

MINIMUM_N_R = 20
MINIMUM_AGE_SD_YEARS = 2.0
CONFIDENCE = 0.95
# What a poor network that works at all reaches over the training ages: its MAE is some 13 % below the mean age's.
POOR_R = 0.5

LOOK_AT_INPUTS = "Look at check.html of `-m check`: orientation, space or scale of the inputs"
NOTE_OUTSIDE = f"predicted more than {FAR_OUTSIDE_YEARS:.0f} y outside the training ages"


@dataclass(frozen=True)
class Flag:
    """One reason not to trust the predictions of a cell.

    `reason` is about the group and may stand in a report; `farthest_years`, how far the farthest subject lies outside
    the training ages, is one subject's value and may not.
    """

    name: str  # constant, small_spread, outside_training_ages or no_correlation
    reason: str
    n_subjects: int  # whom it is about
    of_n_subjects: int  # among so many that were looked at
    farthest_years: float | None = None

    @property
    def is_problem(self) -> bool:
        """Whether the predictions as a whole are in doubt; else a few subjects are."""
        few = self.n_subjects <= MAXIMUM_SHARE_OUTSIDE * self.of_n_subjects
        return not (self.name == "outside_training_ages" and few)

    @property
    def message(self) -> str:
        """The reason for the log of this experiment, where one subject's value may stand."""
        if self.farthest_years is None:
            return self.reason
        return f"{self.reason} The farthest is {self.farthest_years:.0f} years outside."

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return asdict(self)


def prediction_flags(predictions: pd.DataFrame, training_ages: dict[str, float]) -> list[Flag]:
    """What is wrong with the predictions of a cell as a group; an empty list where nothing is.

    Parameters
    ----------
    predictions : DataFrame
        A row a subject: age_years (NaN where unknown), predicted_years, status, as in `utils.evaluation.predictions`.
        Failed subjects and missing predictions are left out.
    training_ages : dict
        sd_years, min_years and max_years of the ages that the networks were trained on.

    Returns
    -------
    list of Flag
        constant: all predictions are equal (2 subjects or more).
        small_spread: their SD is under 1 year, or under a quarter of the training ages' SD where these are so narrow
        that 1 year means nothing (10 subjects or more; not also when constant).
        outside_training_ages: somebody is predicted more than 10 years outside the training ages.
        no_correlation: see `no_correlation`.

    Raises
    ------
    ValueError
        A column or a training age is missing.
    """
    _refuse_missing(predictions, training_ages)
    table = predictions[_is_predicted(predictions)]
    predicted = table["predicted_years"].to_numpy(dtype=float)
    finite = predicted[np.isfinite(predicted)]
    constant = _constant(finite)
    found = [
        constant,
        None if constant else _small_spread(finite, training_ages["sd_years"]),
        _outside(predicted, training_ages),
        None
        if constant
        else no_correlation(
            predicted, table["age_years"].to_numpy(dtype=float), training_ages["sd_years"]
        ),
    ]
    return [flag for flag in found if flag is not None]


def with_notes(predictions: pd.DataFrame, training_ages: dict[str, float]) -> pd.DataFrame:
    """The table with a note at every subject who is predicted far outside the training ages."""
    _refuse_missing(predictions, training_ages)
    predicted = predictions["predicted_years"].to_numpy(dtype=float)
    far = _is_predicted(predictions) & (years_outside(predicted, training_ages) > FAR_OUTSIDE_YEARS)
    notes = predictions["note"].where(predictions["note"].notna(), "").astype(str)
    joined = notes.where(notes == "", notes + "; ") + NOTE_OUTSIDE
    return predictions.assign(note=joined.where(far, predictions["note"]))


def years_outside(predicted_years: Array, training_ages: dict[str, float]) -> Array:
    """(S,) years between a prediction and the nearest training age; 0 within their range, NaN without a prediction."""
    below = training_ages["min_years"] - predicted_years
    above = predicted_years - training_ages["max_years"]
    return np.maximum(np.maximum(below, above), 0.0)


def no_correlation(
    predicted_years: Array, age_years: Array, training_sd_years: float
) -> Flag | None:
    r"""The flag of predictions that do not follow age; None where they do, or where these subjects cannot tell.

    An interval of r that holds 0 is no evidence of a useless network: with few subjects, or with ages that hardly
    differ, a good one gives it as well. So two things are asked for:

    1. the two-sided 95 % Fisher interval of r holds 0 or lies below it, and
    2. it lies wholly below the r that even a poor network would have **among these ages**. In the training ages
       (SD s_t) "poor" means r_t = 0.5; its error does not depend on who is tested, so among ages of SD s it has

           r_s = r_t u / sqrt(1 + r_t^2 (u^2 - 1)),    u = min(s / s_t, 1)      (direct range restriction).

    A network that is no worse than poor is flagged in at most 2.5 % of samples, whatever their size and ages: the
    test is of "it works", not of "it does not". Below 20 subjects or an age SD of 2 years nothing is said; there the
    interval of Fisher's z is no longer worth much, and r_s is too small for any sample.

    Parameters
    ----------
    predicted_years, age_years : (S,) float
        Subjects where either is missing are left out.
    training_sd_years : float
        SD of the training ages.

    Source: Thorndike 1949, Personnel Selection, case 2 (the formula is derived and tested here, the wording of the
    book was not re-read); 0.5 is this program's choice.
    """
    complete = np.isfinite(predicted_years) & np.isfinite(age_years)
    predicted, age = predicted_years[complete], age_years[complete]
    if age.size < MINIMUM_N_R or age.std(ddof=1) < MINIMUM_AGE_SD_YEARS or is_constant(predicted):
        return None
    result = stats.pearsonr(predicted, age)
    interval = result.confidence_interval(CONFIDENCE)
    poor_r = restricted_r(POOR_R, float(age.std(ddof=1)), training_sd_years)
    if interval.low > 0.0 or not interval.high < poor_r:  # poor_r is NaN without a training SD
        return None
    return Flag(
        "no_correlation",
        f"Predicted age does not follow age in {age.size} subject(s): r {result.statistic:.2f}, 95 % interval "
        f"{interval.low:.2f} to {interval.high:.2f}, where even a poor network reaches about {poor_r:.2f}. Check that "
        f"each age belongs to its image (subject ids of table and folders). {LOOK_AT_INPUTS}.",
        age.size,
        age.size,
    )


def restricted_r(r: float, sd_years: float, training_sd_years: float) -> float:
    """The correlation `r` over the training ages, as it is among ages of a smaller SD; NaN without a training SD.

    Wider ages than those of training promise nothing: outside them a network may say what it likes.
    """
    if not training_sd_years > 0.0:
        return float("nan")
    u = min(sd_years / training_sd_years, 1.0)
    return float(r * u / np.sqrt(1.0 + r**2 * (u**2 - 1.0)))


def is_constant(predicted_years: Array) -> bool:
    """Whether two or more finite predictions differ by rounding at most."""
    if predicted_years.size < MINIMUM_N_CONSTANT:
        return False
    tolerance = max(
        CONSTANT_RANGE_YEARS, CONSTANT_RANGE_RELATIVE * float(np.abs(predicted_years).max())
    )
    return float(np.ptp(predicted_years)) <= tolerance


def _constant(predicted: Array) -> Flag | None:
    if not is_constant(predicted):
        return None
    n = predicted.size
    return Flag(
        "constant",
        f"All {n} subject(s) are predicted the same age, {np.median(predicted):.3f} years: either all images look the "
        f"same to the networks, or these no longer look at them. {LOOK_AT_INPUTS}. If the inputs are right, train "
        "again with a lower learning_rate.",
        n,
        n,
    )


def _small_spread(predicted: Array, training_sd_years: float) -> Flag | None:
    n = predicted.size
    limit = min(SMALL_SD_YEARS, SMALL_SD_SHARE * training_sd_years)
    if n < MINIMUM_N_SPREAD or not (sd := float(predicted.std(ddof=1))) < limit:
        return None
    return Flag(
        "small_spread",
        f"The predictions of {n} subject(s) hardly differ: their SD is {sd:.2g} years, that of the training ages "
        f"{training_sd_years:.1f}. {LOOK_AT_INPUTS}. If the inputs are right, the networks have learned little more "
        "than the mean age: train longer, or with another learning_rate.",
        n,
        n,
    )


def _outside(predicted: Array, training_ages: dict[str, float]) -> Flag | None:
    distance = years_outside(predicted, training_ages)
    far = distance > FAR_OUTSIDE_YEARS
    if not far.any():
        return None
    # Whole years: the exact age of the youngest or the oldest is one person's.
    low, high = np.floor(training_ages["min_years"]), np.ceil(training_ages["max_years"])
    return Flag(
        "outside_training_ages",
        f"{int(far.sum())} subject(s) of {predicted.size} are predicted more than {FAR_OUTSIDE_YEARS:.0f} years "
        f"outside the ages of training ({low:.0f} to {high:.0f} years); the note column of the predictions names them. "
        f"{LOOK_AT_INPUTS}.",
        int(far.sum()),
        predicted.size,
        float(distance.max()),
    )


def _is_predicted(predictions: pd.DataFrame) -> pd.Series:
    return (predictions["status"] == "ok") & predictions["predicted_years"].notna()


def _refuse_missing(predictions: pd.DataFrame, training_ages: dict[str, float]) -> None:
    wanted = {"age_years", "predicted_years", "status"} - set(predictions.columns)
    wanted |= {"sd_years", "min_years", "max_years"} - set(training_ages)
    if wanted:
        raise ValueError(f"predictions or training ages lack {', '.join(sorted(wanted))}")
