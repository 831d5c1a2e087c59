"""What is in the volumes: facts and pictures of a sample, and which of them look unlike the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from datasets.contrasts import AGEMAPPER, Contrast
from datasets.inspection import (
    OUTSIDE_LIKE_A_HEAD,
    SMALLEST_COHORT,
    Thumbnails,
    Unusualness,
    VolumeFacts,
    coarse_of,
    facts_of,
    median_and_mad,
    mni_brain,
    thumbnails_of,
    unusualness,
)
from utils.common.messages import progress
from utils.experiment.checks.album import MOST_PICTURES, Album
from utils.experiment.checks.findings import Finding
from utils.experiment.checks.images import problem_of
from utils.experiment.checks.opening import Volume, by_file, crops, in_order, n_decoding

# A scale factor that is off by more than this makes the input of a trained network unlike what it saw.
SCALE_OFF_BY = 10.0
# Above this share of filled voxels in the published crop a head was not brain-extracted.
FILLED_LIKE_A_HEAD = 0.7


@dataclass(frozen=True, slots=True)
class Seen:
    """One volume that was opened: its numbers, and what is unusual about it. Its picture is in the album."""

    volume: Volume
    facts: VolumeFacts
    score: float = math.nan  # robust z; NaN where the cohort is too small to compare with
    reasons: tuple[str, ...] = ()

    @property
    def order(self) -> tuple[int, float, str, str]:
        """The most unusual first: what has a reason, then by score."""
        score = 0.0 if math.isnan(self.score) else self.score
        return -bool(self.reasons), -score, self.volume.contrast.name, self.volume.subject_id


@dataclass
class ContentsOfContrast:
    """The sample of one contrast; of its volumes only those that may be shown are held."""

    seen: list[Seen] = field(default_factory=list)  # at most MOST_PICTURES, the most unusual first
    findings: list[Finding] = field(default_factory=list)
    n_looked_at: int = 0
    cohort: dict[str, dict[str, float]] = field(default_factory=dict)  # as median_and_mad gives it

    def to_dict(self) -> dict[str, Any]:
        """How many were looked at, and the numbers of the cohort, for check.json."""
        return {"n_looked_at": self.n_looked_at, "facts": self.cohort}


@dataclass
class _Sample:
    """What the comparison of a contrast needs of its volumes, until it is done."""

    seen: list[Seen] = field(default_factory=list)
    coarse: list[Thumbnails] = field(default_factory=list)


def check_contents(
    contrasts: list[Contrast], volumes: list[Volume], outlier_z: float, album: Album, named: str
) -> dict[str, ContentsOfContrast]:
    """Open these volumes whole, and compare those of each contrast with each other and with its scale factor."""
    found = {contrast.name: ContentsOfContrast() for contrast in contrasts}
    samples = {contrast.name: _Sample() for contrast in contrasts}
    look = partial(_look, conform=album.conform, brains=_brains(contrasts) if volumes else {})
    files = by_file(volumes)
    looks = in_order(look, files, n_decoding())
    for results in progress(looks, len(files), f"volumes of {named}", "file"):
        for result in results:
            if isinstance(result, Finding):
                found[result.contrast].findings.append(result)
                continue
            seen, thumbnails = result
            album.keep(seen.volume, thumbnails)
            sample = samples[seen.volume.contrast.name]
            sample.seen.append(seen)
            sample.coarse.append(coarse_of(thumbnails))
    for contrast in contrasts:
        _judge(found[contrast.name], samples.pop(contrast.name), contrast, outlier_z, album)
    return found


def _brains(contrasts: list[Contrast]) -> dict[str, np.ndarray | None]:
    """Contrast -> where MNI152's brain lies in its crop, worked out once a grid."""
    by_grid: dict[Any, np.ndarray | None] = {}
    for contrast in contrasts:
        if _grid(contrast) not in by_grid:
            by_grid[_grid(contrast)] = mni_brain(contrast)
    return {contrast.name: by_grid[_grid(contrast)] for contrast in contrasts}


def _grid(contrast: Contrast) -> tuple:
    return contrast.shape, contrast.voxel_mm, contrast.crop


def _look(
    volumes: list[Volume], conform: str, brains: dict[str, np.ndarray | None]
) -> list[tuple[Seen, Thumbnails] | Finding]:
    """The volumes of one file."""
    found: list[tuple[Seen, Thumbnails] | Finding] = []
    for volume, crop in crops(volumes, conform):
        if isinstance(crop, str):
            found.append(problem_of(volume, "contents", crop))
            continue
        facts = facts_of(crop, volume.contrast, brains[volume.contrast.name])
        reasons = tuple(reason for reason, _ in _oddities(facts))
        found.append((Seen(volume, facts, reasons=reasons), thumbnails_of(crop)))
    return found


def _judge(
    found: ContentsOfContrast, sample: _Sample, contrast: Contrast, outlier_z: float, album: Album
) -> None:
    """All that the volumes of a contrast say; afterwards only the most unusual are held."""
    facts = [seen.facts for seen in sample.seen]
    found.n_looked_at, found.cohort = len(facts), median_and_mad(facts)
    compared = _compared(found, sample, contrast, outlier_z)
    for seen in compared:
        found.findings += [
            Finding("warning", "contents", reason, remedy, contrast.name, seen.volume.subject_id)
            for reason, remedy in _oddities(seen.facts)
        ]
    found.findings += _scale_findings(contrast, facts)
    compared.sort(key=lambda seen: seen.order)
    found.seen = compared[:MOST_PICTURES]
    album.forget(seen.volume for seen in compared[MOST_PICTURES:])


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


def _compared(
    found: ContentsOfContrast, sample: _Sample, contrast: Contrast, outlier_z: float
) -> list[Seen]:
    """The volumes with how unusual each is; outliers are named."""
    n = len(sample.seen)
    if n < SMALLEST_COHORT:
        if n:
            found.findings.append(
                Finding(
                    "note", "contents",
                    f"{n} volume(s) were looked at; a comparison with the cohort needs {SMALLEST_COHORT}",
                    "Look at each in check.html", contrast.name,
                )
            )  # fmt: skip
        return sample.seen
    unusual = unusualness([seen.facts for seen in sample.seen], sample.coarse)
    score = unusual.score
    compared = []
    for i, seen in enumerate(sample.seen):
        reasons = tuple(_against_cohort(seen.facts, unusual, i, outlier_z, found.cohort))
        found.findings += [
            Finding(
                "warning", "contents", reason, "Look at it in check.html", contrast.name,
                seen.volume.subject_id,
            )
            for reason in reasons
        ]  # fmt: skip
        compared.append(replace(seen, score=float(score[i]), reasons=(*seen.reasons, *reasons)))
    return compared


def _against_cohort(
    facts: VolumeFacts,
    unusual: Unusualness,
    i: int,
    outlier_z: float,
    cohort: dict[str, dict[str, float]],
) -> Iterator[str]:
    def times(name: str) -> float:
        median = cohort[name]["median"]
        return getattr(facts, name) / median if median else math.inf

    if abs(unusual.intensity_z[i]) > outlier_z:
        yield (
            f"its intensity is {times('filled_mean'):.3g} times the cohort's median "
            f"(z {unusual.intensity_z[i]:+.1f})"
        )
    if abs(unusual.filled_z[i]) > outlier_z:
        yield (
            f"it fills {100 * facts.filled_fraction:.0f} % of the crop, "
            f"{times('filled_fraction'):.2g} times the cohort's median "
            f"(z {unusual.filled_z[i]:+.1f})"
        )
    if unusual.shape_z[i] > outlier_z:
        yield (
            f"its {unusual.worst_view[i]} slice is unlike the cohort's: turned, flipped, shifted or not "
            f"extracted? (z {unusual.shape_z[i]:+.1f})"
        )


def _scale_findings(contrast: Contrast, sample: list[VolumeFacts]) -> list[Finding]:
    """The sample as a whole: against the published scale factor, and whether heads still have their skull."""
    findings = []
    scales = np.array([facts.scale for facts in sample], dtype=np.float64)
    scales = scales[np.isfinite(scales)]
    if contrast.scale_factor is not None and contrast.preprocessing == AGEMAPPER and len(scales):
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


def _head_findings(contrast: Contrast, sample: list[VolumeFacts]) -> list[Finding]:
    """Heads with their skull, or not where MNI152's brain is: of the whole sample, which a cohort cannot show."""
    if not sample:
        return []
    outside = float(np.median([facts.outside_fraction for facts in sample]))
    filled = float(np.median([facts.filled_fraction for facts in sample]))
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
