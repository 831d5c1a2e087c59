"""From what was seen to the page of pictures: the most unusual volumes first, so many of each contrast."""

from __future__ import annotations

from datasets.inspection import Thumbnails
from figures.check_page import CheckPage, Picture
from utils.experiment.checks.album import MOST_PICTURES
from utils.experiment.checks.all import Checked
from utils.experiment.checks.contents import Seen
from utils.experiment.checks.findings import COLUMNS, counts, ordered
from utils.experiment.experiment import Experiment

MOST_FINDINGS_OF_A_KIND = 20


def check_page(experiment: Experiment, checked: Checked) -> CheckPage:
    """The page of a check, ready to be drawn."""
    seen, album = chosen(checked), checked.album
    album.complete([each.volume for each in seen])
    drawn = [(each, album.of(each.volume)) for each in seen]
    shown = ordered(checked.findings, MOST_FINDINGS_OF_A_KIND)
    return CheckPage(
        experiment=experiment.settings.name,
        simulated=experiment.simulated,
        counts=counts(checked.findings),
        findings=tuple(tuple(getattr(f, name) for name in COLUMNS) for f in shown),
        pictures=tuple(_picture(each, slices) for each, slices in drawn if slices),
        n_looked_at=sum(found.n_looked_at for found in checked.contents.values()),
        n_headers=checked.n_headers,
        outlier_z=experiment.settings.check.outlier_z,
    )


def chosen(checked: Checked) -> list[Seen]:
    """At most MOST_PICTURES volumes, an equal share of each contrast, the most unusual of all first."""
    samples = [found.seen for found in checked.contents.values() if found.seen]
    share = max(MOST_PICTURES // max(len(samples), 1), 1)
    taken = [seen for sample in samples for seen in sample[:share]]
    rest = [seen for sample in samples for seen in sample[share:]]
    taken += sorted(rest, key=lambda seen: seen.order)[: max(MOST_PICTURES - len(taken), 0)]
    return sorted(taken, key=lambda seen: seen.order)[:MOST_PICTURES]


def _picture(seen: Seen, slices: Thumbnails) -> Picture:
    facts, volume = seen.facts, seen.volume
    about = ", ".join(word for word in (volume.sex, volume.split) if word)
    return Picture(
        contrast=volume.contrast.name,
        subject_id=volume.subject_id,
        about=about,
        slices=slices,
        score=seen.score,
        reasons=seen.reasons,
        facts=(
            ("lowest", f"{facts.minimum:.4g}"),
            ("mean in brain", f"{facts.filled_mean:.4g}"),
            ("99th percentile", f"{facts.p99:.4g}"),
            ("highest", f"{facts.maximum:.4g}"),
            ("crop filled", f"{100 * facts.filled_fraction:.0f} %"),
        ),
    )
