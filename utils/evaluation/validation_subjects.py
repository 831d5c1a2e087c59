"""The validation subjects and contrasts that a combination can be fitted on, and why the others cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.subjects import subjects_hash

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MINIMUM_N_FIT = 20
SUBJECTS_PER_COEFFICIENT = 3
# From here on the cross-validated penalty, the signs or the shrinkage bear more contrasts than subjects: with 57
# simulated contrasts and 60 subjects ridge errs less than the mean of the contrasts by an eighth.
ENOUGH_N_FIT = 60


@dataclass(frozen=True)
class ValidationSubjects:
    """Subjects with an age and at least one usable contrast.

    joint (n, U + 1): predictions of the usable contrasts, NaN where missing, and age; subject_ids (n,); usable (C,);
    n_by_contrast (C,): subjects with it and an age; rows (all,): which of all subjects these are.
    """

    joint: Array
    subject_ids: list[str]
    usable: Mask
    n_by_contrast: NDArray[np.intp]
    rows: Mask

    def without(self, left_out: Mask) -> ValidationSubjects:
        """The same contrasts of fewer subjects; left_out (all,) as `rows`."""
        kept = ~left_out[self.rows]
        joint = self.joint[kept]
        n = self.n_by_contrast.copy()
        n[self.usable] = np.isfinite(joint[:, :-1]).sum(axis=0)
        ids = [identifier for identifier, k in zip(self.subject_ids, kept) if k]
        return ValidationSubjects(joint, ids, self.usable, n, self.rows & ~left_out)

    def record(self, contrasts: Sequence[str]) -> dict[str, Any]:
        """Who was fitted on, in counts; pairs that nobody has both of: their covariance rests on the others'."""
        present = np.isfinite(self.joint[:, :-1])
        together = present.T.astype(float) @ present
        return {
            "n_fit": len(self.joint),
            "n_left_out": int(self.rows.size - len(self.joint)),
            "n_complete": int(present.all(axis=1).sum()),
            "n_by_contrast": dict(zip(contrasts, self.n_by_contrast.tolist())),
            "n_pairs_never_together": int(np.sum(np.triu(together == 0, 1))),
            "fit_subjects_sha256": subjects_hash(self.subject_ids),
        }


def usable_contrasts(
    method: str, contrasts: Sequence[str], predicted_years: Array, age_years: Array
) -> tuple[dict[str, str], str]:
    """Why each contrast that cannot be used cannot, and why none can ("" if some can).

    Parameters
    ----------
    method : str
        Named in the reasons; "inverse_variance" looks at one contrast at a time and needs no more subjects for more.
    contrasts : (C,) str
        Names.
    predicted_years : (S, C) float
        NaN where missing.
    age_years : (S,) float
        NaN where missing.
    """
    present = np.isfinite(predicted_years) & np.isfinite(age_years)[:, None]
    n = present.sum(axis=0)
    needed = MINIMUM_N_FIT
    if method != "inverse_variance":
        n_coefficients = int((n >= MINIMUM_N_FIT).sum()) + 1
        needed = max(needed, min(SUBJECTS_PER_COEFFICIENT * n_coefficients, ENOUGH_N_FIT))
    notes = {}
    for c, name in enumerate(contrasts):
        if n[c] < needed:
            notes[name] = f"{n[c]} validation subjects, {method} needs {needed}: not used"
        elif np.ptp(predicted_years[present[:, c], c]) == 0.0:
            notes[name] = "the same prediction for every validation subject: not used"
    ages = age_years[present.any(axis=1)]
    if (n < needed).all():
        why = f"there are {n.max()}"
    elif np.ptp(ages) == 0.0:
        why = f"all {ages.size} have the same age"
    elif len(notes) == len(contrasts):
        why = "every contrast that has them predicts the same for all"
    else:
        return notes, ""
    return notes, (
        f"{method} needs at least {needed} validation subjects of different ages for a contrast; {why}: "
        "the plain mean is used"
    )


def take_subjects(
    predicted_years: Array, age_years: Array, subject_ids: Sequence[str], usable: Mask
) -> ValidationSubjects:
    """The subjects with an age and at least one of the usable contrasts."""
    present = np.isfinite(predicted_years) & np.isfinite(age_years)[:, None]
    rows = np.asarray(present[:, usable].any(axis=1))
    return ValidationSubjects(
        np.column_stack([predicted_years[rows][:, usable], age_years[rows]]),
        [str(identifier) for identifier, kept in zip(subject_ids, rows) if kept],
        usable,
        present.sum(axis=0),
        rows,
    )
