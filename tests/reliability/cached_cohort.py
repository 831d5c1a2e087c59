"""A cohort for the tests of prepared volumes: quick to write, with contrasts that hold real and whole numbers."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np

from datasets.augmentation import NO_AUGMENTATION
from datasets.cache.reading import ContrastCache
from datasets.contrasts import Contrast
from datasets.volumes import VolumeReader, read_crop
from tests.conftest import las_affine
from tests.reference.make_golden_run import ENVIRONMENT, PROGRAM
from utils.common.randomness import generator
from utils.experiment.caches import cache_of, cache_root
from utils.experiment.experiment import Experiment, Options
from utils.settings.reader import read_settings

DRIVER = Path(__file__).with_name("prepare_in_children.py")
SHAPE = (18, 20, 17)
CROP = "1:17 2:20 0:16"
SETTINGS = """[DATA]
dataset_sex = "both"
modality_flag = ("whole", "real")
data_directory = "subjects"
scaling_values = "contrasts.csv"
subjects = "participants.csv"
num_workers = 2
shift_voxels = 1
mirror_transformation = True

[TRAINING]
ensemble_size = 1
number_of_epochs = 2
training_batch_size = 4
tensorboard = False

[NETWORK]
widths = (4, 8)

[MISC]
device = "cpu"
"""
PREPARED = re.compile(r"^(\w+): (\d+) prepared already(?:; to prepare: (.*))?$", re.MULTILINE)
TEMPORARY = re.compile(r"\.writing-")


def nifti_bytes(values: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """A NIfTI-1 file on the 8 mm grid, values as stored."""
    image = nib.Nifti1Image(values, las_affine(8.0))
    image.header.set_data_dtype(values.dtype)
    plain = bytearray(image.to_bytes())
    plain[112:120] = np.array([slope, intercept], dtype="<f4").tobytes()  # scl_slope, scl_inter
    return bytes(plain)


def gzipped(content: bytes, n_members: int = 1, level: int = 1) -> bytes:
    """Compressed as one gzip member or as several."""
    size = -(-len(content) // n_members)
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(gzip.compress(piece, level, mtime=0) for piece in pieces)


def brain_like(*words: int | str, shape: tuple[int, int, int] = SHAPE, real: bool) -> np.ndarray:
    """Voxels with zeros around and in between, of a few outliers; float32 or int16."""
    draw = generator("cached cohort", *words)
    values = draw.gamma(4.0, 100.0, shape)
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    values[sum(axis**2 for axis in axes) > 1.2] = 0.0
    values[draw.random(shape) < 0.01] = 0.0
    return values.astype(np.float32) if real else values.astype(np.int16)


@dataclass
class CachedCohort:
    """Folder with an ini pair, `participants.csv`, `contrasts.csv` and the volumes of each subject."""

    folder: Path
    n_subjects: int
    shape: tuple[int, int, int] = SHAPE
    crop: str = CROP
    contrasts: dict[str, str] = field(
        default_factory=lambda: {"whole": "whole.nii.gz", "real": "real.nii.gz"}
    )

    @property
    def name(self) -> str:
        """What `-n` gets."""
        return str(self.folder / "cached")

    @property
    def cache(self) -> Path:
        """The folder of all prepared volumes."""
        return self.folder / "cache"

    @property
    def subject_ids(self) -> list[str]:
        return [f"s{number:04d}" for number in range(self.n_subjects)]

    def volume(self, number: int, contrast: str = "whole") -> Path:
        """The file of a subject."""
        return self.folder / "subjects" / self.subject_ids[number] / self.contrasts[contrast]

    def write(self) -> CachedCohort:
        """Write everything."""
        self.folder.mkdir(parents=True, exist_ok=True)
        flag = repr(tuple(self.contrasts))
        (self.folder / "cached.ini").write_text(SETTINGS.replace('("whole", "real")', flag))
        (self.folder / "cached_eval.ini").write_text("[MAPPING]\nbootstrap_resamples = 50\n")
        self.write_contrasts()
        self.write_subjects()
        for number in range(self.n_subjects):
            for contrast in self.contrasts:
                self.write_volume(number, contrast)
        return self

    def write_contrasts(self, **changed: str) -> None:
        """Write the contrast table; `changed` replaces columns of all rows."""
        row = {"scale_factor": "100", "resolution": "8mm", "volume_index": ""}
        row |= {"shape": " ".join(map(str, self.shape)), "crop": self.crop, **changed}
        lines = [f"name,data_file,{','.join(row)}"]
        lines += [
            f"{name},{file},{','.join(row.values())}" for name, file in self.contrasts.items()
        ]
        (self.folder / "contrasts.csv").write_text("\n".join(lines) + "\n")

    def write_subjects(self) -> None:
        """Two of four subjects are for training, one for validation, one for testing."""
        splits = ("train", "validation", "train", "test")
        ages = np.linspace(45, 80, max(self.n_subjects, 2))
        lines = ["subject_id,age_years,sex,split"]
        for number, subject_id in enumerate(self.subject_ids):
            sex = ("female", "male")[number // 4 % 2]
            lines.append(f"{subject_id},{ages[number]:.2f},{sex},{splits[number % 4]}")
        (self.folder / "participants.csv").write_text("\n".join(lines) + "\n")

    def write_volume(self, number: int, contrast: str, seed: int = 0) -> Path:
        """Write a subject's volume; another seed gives other voxels."""
        path = self.volume(number, contrast)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = brain_like(number, seed, shape=self.shape, real=contrast != "whole")
        path.write_bytes(gzipped(nifti_bytes(values)))
        return path

    def experiment(self, *settings: str) -> Experiment:
        """The experiment as a mode sees it."""
        return Experiment(read_settings(self.name, settings), Options())

    def contrast(self, name: str = "whole") -> Contrast:
        return next(c for c in self.experiment().contrasts if c.name == name)

    def opened(self, name: str = "whole", *settings: str) -> ContrastCache:
        """The cache of a contrast."""
        experiment = self.experiment(*settings)
        root = cache_root(experiment)
        assert root is not None
        contrast = next(c for c in experiment.contrasts if c.name == name)
        return cache_of(experiment, root, contrast)

    def committed(self) -> dict[str, int]:
        """Contrast -> volumes that count; each is verified and compared with the file."""
        found = {}
        for name in self.contrasts:
            cache = self.opened(name)
            found[name] = len(cache.entries)
            for source in cache.entries:
                assert_as_the_file(cache, source, self.contrast(name))
        return found

    def strange_files(self) -> list[str]:
        """What lies in the cache and is neither an index nor the volumes of one."""
        files = [path for path in self.cache.rglob("*") if path.is_file()]
        indexes = {path.with_suffix("") for path in files if path.suffix == ".json"}
        return [
            path.name
            for path in files
            if TEMPORARY.search(path.name)
            or path.suffix not in (".json", ".volumes")
            or path.with_suffix("") not in indexes
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess:
        """`run.py words` in a process of its own."""
        return subprocess.run(
            [sys.executable, str(PROGRAM / "run.py"), *words, "-n", self.name],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )


def assert_as_the_file(cache: ContrastCache, source: str, contrast: Contrast) -> None:
    """A prepared volume is what reading its file gives: to the bit, or within what uint16 promises."""
    entry = cache.entries[source]
    found = np.full(contrast.box, np.nan, dtype=np.float32)
    cache.expand(entry, 1.0, NO_AUGMENTATION, found)
    expected = read_crop(source, contrast, cache.key.conform)
    if entry.lossless:
        assert np.array_equal(found, expected), f"{source}: other voxels than its file has"
        return
    assert ((found == 0) | (expected != 0)).all(), f"{source}: voxels outside the mask"
    off = np.abs(found.astype(np.float64) - expected).max() / expected[expected != 0].std()
    assert off <= 1e-4, f"{source}: a voxel is off by {off:.3g} SD"


def read_prepared(cache: ContrastCache, source: str, contrast: Contrast) -> np.ndarray:
    """What training would get of a prepared volume, without augmentation."""
    box = np.full(contrast.box, np.nan, dtype=np.float32)
    VolumeReader(contrast, 1.0, cache.key.conform, cache).read_into(Path(source), box)
    return box


class Children:
    """Starts processes that run the program, quickly: forks of one that has everything imported."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(DRIVER)],
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.parent.stdout.readline() == "ready\n"  # type: ignore[union-attr]

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_) -> None:
        self.parent.stdin.close()  # type: ignore[union-attr]
        self.parent.wait()
        self.parent.stdout.close()  # type: ignore[union-attr]

    def start(self, log: Path, *words: str, commit_every: int = 0) -> int:
        """Start `run.py words` in a child whose messages go to `log`; its process id."""
        self._say("start", str(log), str(commit_every), *words)
        return int(self._hear())

    def wait(self, child: int) -> int:
        """How a child ended; minus the signal for one that was killed."""
        self._say("wait", str(child))
        return int(self._hear())

    def run(self, log: Path, *words: str, commit_every: int = 0) -> int:
        """Start and wait."""
        return self.wait(self.start(log, *words, commit_every=commit_every))

    def _say(self, *words: str) -> None:
        self.parent.stdin.write("\t".join(words) + "\n")  # type: ignore[union-attr]
        self.parent.stdin.flush()  # type: ignore[union-attr]

    def _hear(self) -> str:
        return self.parent.stdout.readline()  # type: ignore[union-attr]
