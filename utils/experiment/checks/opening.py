"""Files opened by a few threads, each file once for all contrasts that live in it, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from datasets.contrasts import Contrast
from datasets.images import Image, VolumeError, open_image
from datasets.volumes import crop_of, divisor
from utils.common.cores import n_cores

T = TypeVar("T")
S = TypeVar("S")

# A thread that decodes holds a whole image, of a 4D file 0.1 GB and more.
MOST_DECODING = 16
# Reading a header is mostly waiting for the disk.
HEADERS_A_CORE, MOST_READING_HEADERS = 2, 32
# So many results a thread may wait to be taken, so that a slow file does not let them pile up.
RESULTS_A_THREAD = 4


@dataclass(frozen=True, slots=True)
class Volume:
    """A subject's volume of one contrast and where it lies."""

    contrast: Contrast
    subject_id: str
    sex: str
    split: str
    path: Path
    directory: str = ""  # [MAPPING] data_directory; "" for that of [DATA]

    @property
    def is_for_test_alone(self) -> bool:
        """Whether a run without it can train."""
        return self.split == "test" or (self.split == "validation" and bool(self.directory))


def by_file(volumes: Iterable[Volume]) -> list[list[Volume]]:
    """The volumes of each file, files in the order in which they first come."""
    found: dict[Path, list[Volume]] = {}
    for volume in volumes:
        found.setdefault(volume.path, []).append(volume)
    return list(found.values())


def n_decoding() -> int:
    """Threads that open files whole."""
    return min(n_cores(), MOST_DECODING)


def n_reading_headers() -> int:
    """Threads that read headers alone."""
    return min(HEADERS_A_CORE * n_cores(), MOST_READING_HEADERS)


def in_order(work: Callable[[T], S], items: Iterable[T], n_threads: int) -> Iterator[S]:
    """What `work` gives for each item, in the order of the items; a bounded number of results waits."""
    waiting: deque[Future[S]] = deque()
    with ThreadPoolExecutor(max_workers=n_threads) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(work, item))
                if len(waiting) > RESULTS_A_THREAD * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def crops(volumes: list[Volume], conform: str) -> Iterator[tuple[Volume, np.ndarray | str]]:
    """Each volume of one file with its crop in stored intensities, or with why it cannot be used.

    What training would refuse is refused here, for the same reason; the file is opened once.
    """
    image: Image | VolumeError
    try:
        image = open_image(volumes[0].path)
    except VolumeError as error:
        image = error
    for volume in volumes:
        if isinstance(image, VolumeError):
            yield volume, str(image)
            continue
        try:
            yield volume, _box(image, volume.contrast, conform)
        except VolumeError as error:
            yield volume, str(error)


def _box(image: Image, contrast: Contrast, conform: str) -> np.ndarray:
    crop = crop_of(image, contrast, conform)
    with np.errstate(over="ignore"):  # what is too large is refused for it
        divisor(contrast, contrast.scale_factor or 1.0, crop.mean, crop.smallest, crop.largest)
    box = np.empty(contrast.box, dtype=np.float32)
    crop.fill(box)
    return box
