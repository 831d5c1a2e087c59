"""What is in the volumes: facts and pictures of a sample, and which of them look unlike the rest."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from datasets.contrasts import Contrast
from datasets.inspection import (
    OUTSIDE_LIKE_A_HEAD,
    SMALLEST_COHORT,
    Thumbnails,
    Unusualness,
    VolumeFacts,
    facts_of,
    median_and_mad,
    mni_brain,
    thumbnails_of,
    unusualness,
)
from datasets.volumes import VolumeError, read_crop
from utils.common.messages import progress
from utils.experiment.checks.findings import Finding
from utils.experiment.checks.images import Volume, problem_of

# A scale factor that is off by more than this makes the input of a trained network unlike what it saw.
SCALE_OFF_BY = 10.0
# Above this share of filled voxels in the published crop a head was not brain-extracted.
FILLED_LIKE_A_HEAD = 0.7


@dataclass(frozen=True)
class Seen:
    """One volume that was opened: its numbers and pictures, and what is unusual about it."""

    volume: Volume
    facts: VolumeFacts
    thumbnails: Thumbnails
    score: float = 0.0  # robust z; NaN where the cohort is too small to compare with
    reasons: tuple[str, ...] = ()


@dataclass
class ContentsOfContrast:
    """The sample of one contrast."""

    seen: list[Seen] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """How many were looked at, and the numbers of the cohort, for check.json."""
        return {
            "n_looked_at": len(self.seen),
            "facts": median_and_mad([seen.facts for seen in self.seen]),
        }


def check_contents(
    contrast: Contrast, volumes: list[Volume], conform: str, outlier_z: float
) -> ContentsOfContrast:
    """Open these volumes of a contrast whole and compare them with each other and with the scale factor."""
    found = ContentsOfContrast()
    brain = mni_brain(contrast) if volumes else None
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as threads:
        looks = threads.map(lambda volume: _look(volume, conform, brain), volumes)
        for look in progress(looks, len(volumes), f"volumes of {contrast.name}", "vol"):
            if isinstance(look, Finding):
                found.findings.append(look)
            else:
                found.seen.append(look)
    _compare(found, contrast, outlier_z)
    for seen in found.seen:
        found.findings += [
            Finding("warning", "contents", reason, remedy, contrast.name, seen.volume.subject_id)
            for reason, remedy in _oddities(seen.facts)
        ]
    found.findings += _scale_findings(contrast, found.seen)
    return found


def _look(volume: Volume, conform: str, brain: np.ndarray | None) -> Seen | Finding:
    try:
        crop = read_crop(volume.path, volume.contrast, conform)
    except VolumeError as error:
        return problem_of(volume, "contents", str(error))
    facts = facts_of(crop, volume.contrast, brain)
    if volume.contrast.divide_by_mean and not facts.mean > 0:
        reason = f"the mean intensity of the crop is {facts.mean:g}, it cannot be divided by"
        return problem_of(volume, "contents", reason)
    reasons = tuple(reason for reason, _ in _oddities(facts))
    return Seen(volume, facts, thumbnails_of(crop), reasons=reasons)


def _oddities(facts: VolumeFacts) -> Iterator[tuple[str, str]]:
    """What is odd about a volume by itself: (reason, remedy)."""
    if facts.is_ct_like:
        yield (
            f"looks like a CT: {100 * facts.air_fraction:.0f} % of the crop lies below -500, down to "
            f"{facts.minimum:.0f}",
            "Networks of MR images cannot read it; remove it from the lists",
        )
    if facts.is_label_like:
        yield (
            f"holds {facts.n_values} different value(s): a label map or a mask, not an image",
            "Check data_file of the contrast table",
        )


def _compare(found: ContentsOfContrast, contrast: Contrast, outlier_z: float) -> None:
    """Order by how unusual each is, and name the outliers."""
    n = len(found.seen)
    if n < SMALLEST_COHORT:
        found.seen = [_replaced(seen, math.nan, seen.reasons) for seen in found.seen]
        if n:
            found.findings.append(
                Finding(
                    "note", "contents",
                    f"{n} volume(s) were looked at; a comparison with the cohort needs {SMALLEST_COHORT}",
                    "Look at each in check.html", contrast.name,
                )
            )  # fmt: skip
        return
    unusual = unusualness([s.facts for s in found.seen], [s.thumbnails for s in found.seen])
    compared = []
    for i, seen in enumerate(found.seen):
        reasons = tuple(_against_cohort(seen, unusual, i, outlier_z, found.seen))
        found.findings += [
            Finding(
                "warning", "contents", reason, "Look at it in check.html", contrast.name,
                seen.volume.subject_id,
            )
            for reason in reasons
        ]  # fmt: skip
        compared.append(_replaced(seen, float(unusual.score[i]), (*seen.reasons, *reasons)))
    found.seen = sorted(compared, key=lambda seen: (-seen.score, seen.volume.subject_id))


def _replaced(seen: Seen, score: float, reasons: tuple[str, ...]) -> Seen:
    return Seen(seen.volume, seen.facts, seen.thumbnails, score, reasons)


def _against_cohort(
    seen: Seen, unusual: Unusualness, i: int, outlier_z: float, cohort: list[Seen]
) -> Iterator[str]:
    def times(number: Callable[[VolumeFacts], float]) -> float:
        median = float(np.median([number(other.facts) for other in cohort]))
        return number(seen.facts) / median if median else math.inf

    if abs(unusual.intensity_z[i]) > outlier_z:
        yield (
            f"its intensity is {times(lambda f: f.filled_mean):.3g} times the cohort's median "
            f"(z {unusual.intensity_z[i]:+.1f})"
        )
    if abs(unusual.filled_z[i]) > outlier_z:
        yield (
            f"it fills {100 * seen.facts.filled_fraction:.0f} % of the crop, "
            f"{times(lambda f: f.filled_fraction):.2g} times the cohort's median "
            f"(z {unusual.filled_z[i]:+.1f})"
        )
    if unusual.shape_z[i] > outlier_z:
        yield (
            f"its {unusual.worst_view[i]} slice is unlike the cohort's: turned, flipped, shifted or not "
            f"extracted? (z {unusual.shape_z[i]:+.1f})"
        )


def _scale_findings(contrast: Contrast, sample: list[Seen]) -> list[Finding]:
    """The sample as a whole: against the published scale factor, and whether heads still have their skull."""
    findings = []
    scales = np.array([seen.facts.scale for seen in sample], dtype=np.float64)
    scales = scales[np.isfinite(scales)]
    if contrast.scale_factor is not None and len(scales):
        ratio = float(np.median(scales)) / contrast.scale_factor
        if not 1 / SCALE_OFF_BY <= ratio <= SCALE_OFF_BY:
            findings.append(
                Finding(
                    "warning", "contents",
                    f"intensities are {ratio:.3g} times what scale_factor {contrast.scale_factor:.4g} expects: "
                    "it is for images of another scaling",
                    "Set scale_factor to auto in the contrast table (for networks trained on these images)",
                    contrast.name,
                )
            )  # fmt: skip
    return findings + _head_findings(contrast, sample)


def _head_findings(contrast: Contrast, sample: list[Seen]) -> list[Finding]:
    """Heads with their skull, or not where MNI152's brain is: of the whole sample, which a cohort cannot show."""
    if not sample:
        return []
    outside = float(np.median([seen.facts.outside_fraction for seen in sample]))
    filled = float(np.median([seen.facts.filled_fraction for seen in sample]))
    if outside > OUTSIDE_LIKE_A_HEAD:
        return [
            Finding(
                "warning", "contents",
                f"{100 * outside:.0f} % of what the volumes fill (median) lies outside of the MNI152 brain: not "
                "brain-extracted, or not in MNI space",
                "See check.html; networks trained on extracted brains in MNI space need such images",
                contrast.name,
            )
        ]  # fmt: skip
    if math.isnan(outside) and filled > FILLED_LIKE_A_HEAD:
        return [
            Finding(
                "note", "contents",
                f"the volumes fill {100 * filled:.0f} % of the crop (median): they seem not to be brain-extracted",
                "Networks trained on brain-extracted images need such images", contrast.name,
            )
        ]  # fmt: skip
    return []
