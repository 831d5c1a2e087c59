"""The pictures of volumes: a bounded number is kept, those that are shown beside them are made anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from datasets.inspection import Thumbnails, thumbnails_of
from utils.experiment.checks.opening import Volume, by_file, crops, in_order, n_decoding

MOST_PICTURES = 200  # on the page, about 4 MB of it
MOST_KEPT = 2000  # in memory, 44 MB


@dataclass
class Album:
    """Pictures by contrast and file."""

    conform: str
    kept: dict[tuple[str, Path], Thumbnails] = field(default_factory=dict)

    def keep(self, volume: Volume, thumbnails: Thumbnails) -> None:
        """Keep a picture, as long as there is room."""
        if len(self.kept) < MOST_KEPT:
            self.kept[_key(volume)] = thumbnails

    def forget(self, volumes: Iterable[Volume]) -> None:
        """These will not be shown."""
        for volume in volumes:
            self.kept.pop(_key(volume), None)

    def complete(self, volumes: list[Volume]) -> None:
        """Open the files of these again whose pictures were not kept; all others are forgotten."""
        self.kept = {key: self.kept[key] for key in map(_key, volumes) if key in self.kept}
        missing = by_file(volume for volume in volumes if _key(volume) not in self.kept)
        for drawn in in_order(self._draw, missing, n_decoding()):
            self.kept.update(drawn)

    def of(self, volume: Volume) -> Thumbnails | None:
        """The picture of a volume; None where its file can no longer be read."""
        return self.kept.get(_key(volume))

    def _draw(self, volumes: list[Volume]) -> dict[tuple[str, Path], Thumbnails]:
        return {
            _key(volume): thumbnails_of(crop)
            for volume, crop in crops(volumes, self.conform)
            if not isinstance(crop, str)
        }


def _key(volume: Volume) -> tuple[str, Path]:
    return volume.contrast.name, volume.path
