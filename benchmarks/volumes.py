"""How fast do volumes become batches? The original way, MONAI, TorchIO and ours, alternating in one process.

Run from the repository root, in an environment that also has the peers (they are no requirements of the program):

    pip install -r requirements.txt -r benchmarks/requirements.txt
    python benchmarks/volumes.py --folder /tmp/volumes [--rounds 5] [--subjects 48] [--cold] [--only "3D int16"]

The volumes are made here, from the MNI152 template: 182 x 218 x 182 at 1 mm as float32 and as int16, and
91 x 109 x 91 x 25 at 2 mm as float32, all .nii.gz, with a gain and noise that differ between subjects and make
the files as large as those of UK Biobank. About 0.7 GB, and 4 GB of caches, below --folder.

- Batches: an epoch of 12 shuffled float32 volumes each, shifted at random by up to 2 voxels, from two workers or
  two threads, everything as its makers show it. An epoch passes over the volumes as often as fills --seconds.
  "Left as bytes": what is uploaded to a device, which expands and shifts it; that part is not timed.
- One volume: file to a C-contiguous normalised float32 crop, or cache to such a crop with a shift, in one thread
  of this process.

Before anything is timed, every way must give the voxel values of the formula. In each of the rounds every way has
its turn, in an order that rotates; a ratio is taken within a round, then the median over rounds. The page cache is
warm; with --cold the files are dropped from it before each turn, and the result says how much of them stayed.
"in CPU" is the original's CPU time a volume over this way's: it holds where other programs compute, too.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import gzip
import mmap
import os
import platform
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datasets.augmentation import Augmentation, AugmentationPlan
from datasets.cache.index import CacheKey, source_of
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.quantised import QuantisedBatch, expanded, quantised_batches
from datasets.cache.reading import ContrastCache
from datasets.contrasts import MNI_ORIGIN_MM, PUBLISHED_TABLE, Contrast, read_contrast_table
from datasets.images import open_image
from datasets.loaders import CellVolumes, evaluation_batches, training_batches, training_epoch
from datasets.volumes import VolumeReader, crop_of
from utils.common.files import replacing, write_json
from utils.common.randomness import generator

try:
    import monai.data
    import monai.transforms
except ImportError:
    monai = None
try:
    import torchio
except ImportError:
    torchio = None

RESULTS = Path(__file__).with_name("results") / "volumes.json"
BATCH_SIZE = 12
N_WORKERS = 2
SHIFT_VOXELS = 2
# Largest difference from the formula, as a share of the largest voxel.
TOLERANCE = 1e-5
# One volume at a time: this many different ones in a turn.
N_SINGLE = 12
# Which volume of the 25 is read from 4D files.
RSFMRI_VOLUME = 12
# How the inputs look: SD of the gain's logarithm and of the noise, in units of the template's maximum.
GAIN_SD, NOISE_SD, INTENSITY = 0.1, 0.05, 1000.0
GZIP_LEVEL = 6
ORIGINAL, PERSISTENT = "original", "MONAI PersistentDataset"
REFERENCES = {"times_the_original": ORIGINAL, "times_monai_persistent": PERSISTENT}
PACKAGES = (
    "torch", "numpy", "nibabel", "monai", "torchio", "SimpleITK", "numba", "deflate", "zlib-ng", "isal",
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- inputs


@dataclass(frozen=True)
class Material:
    """Volumes of one kind: their files, the contrast they are read as, and where caches of them may lie."""

    kind: str
    contrast: Contrast
    paths: list[Path]
    caches: Path

    @property
    def scale_factor(self) -> float:
        """As a Python float, so that NumPy 2 does not turn a float32 volume into float64."""
        return float(self.contrast.scale_factor or 1.0)

    @property
    def crop(self) -> tuple[slice, ...]:
        """The network's box within the file's grid."""
        return tuple(slice(start, stop) for start, stop in self.contrast.crop)

    def epoch_paths(self, passes: int) -> list[Path]:
        """The files `passes` times, and so often that no batch is smaller than the others."""
        paths = self.paths * passes
        while len(paths) % BATCH_SIZE:
            paths = paths + self.paths
        return paths


def make_materials(folder: Path, n_subjects: int, n_4d: int) -> list[Material]:
    """Write the volumes that are not there yet; two threads, since compression takes nearly all of the time."""
    contrasts = read_contrast_table(PUBLISHED_TABLE)
    kinds = {
        "3D float32": (contrasts["T1_nonlinear"], n_subjects, np.float32),
        "3D int16": (contrasts["T2_nonlinear"], n_subjects, np.int16),
        "4D float32": (contrasts[f"rsfmri_{RSFMRI_VOLUME}"], n_4d, np.float32),
    }
    template = mni_template()
    materials, jobs = [], []
    for kind, (contrast, number, dtype) in kinds.items():
        subjects = [f"S{k:04d}" for k in range(number)]
        paths = [folder / "subjects" / subject / contrast.data_file for subject in subjects]
        write = write_dual_regression if kind.startswith("4D") else write_structural
        missing = [path for path in paths if not path.exists()]
        jobs += [partial(write, path, contrast, dtype, template) for path in missing]
        materials.append(
            Material(kind, contrast, paths, folder / "caches" / kind.replace(" ", "_"))
        )
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done in [pool.submit(job) for job in jobs]:
            done.result()
    return materials


def mni_template() -> np.ndarray:
    """(182, 218, 182) float32 brain of nilearn's 1 mm MNI152 template in the LAS box that FSL uses, 0 to 1."""
    from nilearn.datasets import load_mni152_template

    image = load_mni152_template(resolution=1)
    if not np.allclose(image.affine[:3, :3], np.eye(3)):
        raise SystemExit(
            "nilearn's template is not stored RAS at 1 mm any more; adapt mni_template."
        )
    x, y, z = (round(o - c) for o, c in zip(MNI_ORIGIN_MM, image.affine[:3, 3]))
    values = image.get_fdata(dtype=np.float32)
    return np.ascontiguousarray(values[x : x - 182 : -1, y : y + 218, z : z + 182])


def write_structural(path: Path, contrast: Contrast, dtype: type, template: np.ndarray) -> None:
    """One subject's brain: the template times a smooth gain, plus noise, and zero outside the brain."""
    random = generator(str(path.parts[-3]), contrast.name)
    gain = ndimage.zoom(
        random.normal(0, GAIN_SD, (4, 4, 4)).astype(np.float32),
        np.array(template.shape) / 4,
        order=1,
    )
    brain = template > 0
    values = template * np.exp(gain)
    values[brain] += random.normal(0, NOISE_SD, int(brain.sum())).astype(np.float32)
    values = np.maximum(values, 0) * INTENSITY
    _write(path, np.rint(values).astype(dtype) if dtype == np.int16 else values, contrast)


def write_dual_regression(
    path: Path, contrast: Contrast, dtype: type, template: np.ndarray
) -> None:
    """One subject's 25 maps at 2 mm: smooth random fields plus noise inside the brain."""
    random = generator(str(path.parts[-4]), contrast.name)
    shape = contrast.shape
    brain = template[::2, ::2, ::2] > 0
    values = np.zeros((*shape, 25), dtype, order="F")
    for v in range(25):
        field_ = random.normal(0, 30, (6, 7, 6)).astype(np.float32)
        field_ = ndimage.zoom(field_, np.array(shape) / field_.shape, order=1)
        values[..., v][brain] = (field_ + random.normal(0, 10, shape).astype(np.float32))[brain]
    _write(path, values, contrast)


def _write(path: Path, values: np.ndarray, contrast: Contrast) -> None:
    image = nib.Nifti1Image(values, contrast.affine)
    image.set_qform(contrast.affine, 4)
    image.set_sform(contrast.affine, 4)
    with replacing(path) as temporary:
        temporary.write_bytes(gzip.compress(image.to_bytes(), GZIP_LEVEL, mtime=0))


def formula(path: Path, material: Material) -> np.ndarray:
    """(X, Y, Z) float64: the crop, divided by its mean where the contrast asks for it, and by its scale factor."""
    stored = np.asarray(nib.load(path).dataobj, dtype=np.float64)
    if material.contrast.volume_index is not None:
        stored = stored[..., material.contrast.volume_index]
    crop = stored[material.crop]
    divisor = crop.mean() if material.contrast.divide_by_mean else 1.0
    return crop / (divisor * material.scale_factor)


# ------------------------------------------------------------------------------------------------ ways

Batches = Callable[[list[Path], bool], Iterator[Any]]


@dataclass
class Way:
    """One way from files to batches and to single volumes.

    batches : of those paths, shuffled and shifted if the second argument says so: float32 (B, 1, X, Y, Z)
    read : the crop of one path, C-contiguous float32 (X, Y, Z); shifted, where it comes from a cache
    build : makes the cache of these files, if there is one, and says of how many volumes
    check : gives the voxels that `read` stands for, where `read` gives none or others
    per_read : volumes that one read gives
    forget : unmaps its files, since a mapped file stays in the page cache
    voxels : what a batch stands for, where batches are not voxels yet
    """

    name: str
    batches: Batches | None = None
    read: Callable[[Path], Any] | None = None
    build: Callable[[], int] | None = None
    cache: Path | None = None
    tolerance: float = TOLERANCE
    check: Callable[[Path], np.ndarray] | None = None
    per_read: int = 1
    forget: Callable[[], None] | None = None
    voxels: Callable[[Any], torch.Tensor] | None = None

    def files(self, material: Material) -> list[Path]:
        """What is read from the disk."""
        if self.cache is None:
            return material.paths
        return [path for path in self.cache.rglob("*") if path.is_file()]


class OriginalDataset(Dataset):
    """The published loader's steps: everything decompressed, cropped, divided, rolled; once per epoch and volume."""

    def __init__(self, paths: list[Path], material: Material, augmented: bool):
        self.paths, self.material, self.augmented = paths, material, augmented

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        volume = original_volume(self.paths[index], self.material, self.material.scale_factor)
        if self.augmented:
            shifts = np.random.randint(-SHIFT_VOXELS, SHIFT_VOXELS + 1, 3)  # noqa: NPY002
            for axis, shift in enumerate(shifts):
                volume = np.roll(volume, shift, axis=axis)
        return torch.from_numpy(volume)


def original_volume(path: Path, material: Material, scale_factor: float) -> np.ndarray:
    """AgeMapper's arithmetic, in the types that NumPy makes of it."""
    volume = np.array(nib.load(path).dataobj)
    if material.contrast.volume_index is not None:
        volume = volume[:, :, :, material.contrast.volume_index]
    volume = volume[material.crop]
    if material.contrast.divide_by_mean:
        volume = volume / volume.mean()
    return volume / scale_factor


def original(material: Material) -> Way:
    """Roibu et al. 2023, as released (its settings: batches of 12, a DataLoader that starts workers every epoch)."""

    def batches(paths: list[Path], augmented: bool) -> Iterator[torch.Tensor]:
        dataset = OriginalDataset(paths, material, augmented)
        loader = DataLoader(
            dataset, batch_size=BATCH_SIZE, shuffle=augmented, num_workers=N_WORKERS
        )
        for batch in loader:
            yield batch.type(torch.FloatTensor).unsqueeze(1)

    def read(path: Path) -> np.ndarray:
        return contiguous(original_volume(path, material, material.scale_factor))

    return Way(ORIGINAL, batches, read)


def original_float64(material: Material) -> Way:
    """As released and on NumPy 2: the scale factor comes from pandas as float64, and so does the volume."""

    def read(path: Path) -> np.ndarray:
        return contiguous(original_volume(path, material, np.float64(material.scale_factor)))

    return Way("original, float64 as with NumPy 2", read=read)


def contiguous(volume: np.ndarray | torch.Tensor) -> np.ndarray:
    """What a batch is stacked from: float32 with the last axis contiguous."""
    return np.ascontiguousarray(volume, dtype=np.float32)


def normalised(volume: torch.Tensor, divide_by_mean: bool, scale_factor: float) -> torch.Tensor:
    """The contrast's division, for the peers' Lambda transforms."""
    volume = volume.float()
    return volume / (volume.mean() * scale_factor if divide_by_mean else scale_factor)


def chosen_volume(volume: torch.Tensor, index: int, axis: int) -> torch.Tensor:
    """One volume of 4D data."""
    return volume.narrow(axis, index, 1).movedim(axis, 0)


def shifted(volume: torch.Tensor) -> torch.Tensor:
    """(1, X, Y, Z) moved by up to SHIFT_VOXELS along each axis; zeros move in."""
    moved = torch.zeros_like(volume)
    target, source = [slice(None)], [slice(None)]
    shifts = torch.randint(-SHIFT_VOXELS, SHIFT_VOXELS + 1, (3,)).tolist()
    for shift, size in zip(shifts, volume.shape[1:]):
        target.append(slice(max(shift, 0), size + min(shift, 0)))
        source.append(slice(max(-shift, 0), size + min(-shift, 0)))
    moved[tuple(target)] = volume[tuple(source)]
    return moved


def monai_transform(material: Material, augmented: bool) -> Any:
    """MONAI's chain; padding and a random crop are its shift by whole voxels (and faster than a RandLambda)."""
    m, contrast, index = monai.transforms, material.contrast, material.contrast.volume_index
    steps = [m.LoadImaged("image", image_only=True)]
    if index is None:
        steps.append(m.EnsureChannelFirstd("image", channel_dim="no_channel"))
    else:
        steps.append(m.Lambdad("image", partial(chosen_volume, index=index, axis=3)))
    starts, stops = zip(*contrast.crop)
    division = partial(
        normalised, divide_by_mean=contrast.divide_by_mean, scale_factor=material.scale_factor
    )
    steps += [
        m.SpatialCropd("image", roi_start=starts, roi_end=stops),
        m.Lambdad("image", division),
    ]
    if augmented:
        steps.append(m.BorderPadd("image", SHIFT_VOXELS))
        steps.append(m.RandSpatialCropd("image", roi_size=contrast.box, random_size=False))
    return m.Compose(steps)


def monai_batches(dataset: Any, augmented: bool) -> Iterator[torch.Tensor]:
    """MONAI's loader over one of its datasets."""
    loader = monai.data.DataLoader(
        dataset, batch_size=BATCH_SIZE, shuffle=augmented, num_workers=N_WORKERS
    )
    for batch in loader:
        yield batch["image"]


def monai_dataset(material: Material) -> Way:
    """MONAI's Dataset: everything anew in every epoch."""
    single = monai_transform(material, augmented=False)

    def batches(paths: list[Path], augmented: bool) -> Iterator[torch.Tensor]:
        transform = monai_transform(material, augmented)
        return monai_batches(monai.data.Dataset(monai_items(paths), transform), augmented)

    def read(path: Path) -> np.ndarray:
        return contiguous(single({"image": str(path)})["image"][0].numpy())

    return Way("MONAI Dataset", batches, read)


def monai_items(paths: list[Path]) -> list[dict[str, str]]:
    """MONAI's form of a list of files."""
    return [{"image": str(path)} for path in paths]


def monai_persistent(material: Material) -> Way:
    """MONAI's PersistentDataset: what comes before the random step is kept on disk (padded, where it is shifted)."""
    folder = material.caches / "monai"
    datasets = {
        augmented: monai.data.PersistentDataset(
            monai_items(material.paths),
            monai_transform(material, augmented),
            cache_dir=folder / name,
        )
        for augmented, name in ((True, "shifted"), (False, "plain"))
    }

    def batches(paths: list[Path], augmented: bool) -> Iterator[torch.Tensor]:
        if not augmented:  # for the check; a batch of read and of cached volumes cannot be collated
            for path in dict.fromkeys(paths):
                read_plain(path)
        datasets[augmented].data = monai_items(paths)
        return monai_batches(datasets[augmented], augmented)

    def read(path: Path, augmented: bool = True) -> np.ndarray:
        datasets[augmented].data = monai_items([path])
        return contiguous(datasets[augmented][0]["image"][0].numpy())

    def read_plain(path: Path) -> np.ndarray:
        return read(path, augmented=False)

    def build() -> int:
        shutil.rmtree(folder)
        for dataset in datasets.values():
            dataset.cache_dir.mkdir(parents=True)
        return sum(len(batch) for batch in batches(material.paths, True))

    return Way(PERSISTENT, batches, read, build, folder, check=read_plain)


def torchio_subjects(material: Material) -> Way:
    """TorchIO's SubjectsDataset with Crop, and Lambdas for the division and the shift by whole voxels."""
    contrast, index = material.contrast, material.contrast.volume_index
    edges: list[int] = []
    for (start, stop), size in zip(contrast.crop, contrast.shape):
        edges += [start, size - stop]
    division = partial(
        normalised, divide_by_mean=contrast.divide_by_mean, scale_factor=material.scale_factor
    )
    plain = [torchio.Crop(tuple(edges)), torchio.Lambda(division)]
    if index is not None:
        plain.insert(0, torchio.Lambda(partial(chosen_volume, index=index, axis=0)))
    transforms = {
        False: torchio.Compose(plain),
        True: torchio.Compose([*plain, torchio.Lambda(shifted)]),
    }

    def dataset(paths: list[Path], augmented: bool) -> Any:
        subjects = [torchio.Subject(image=torchio.ScalarImage(path)) for path in paths]
        return torchio.SubjectsDataset(subjects, transform=transforms[augmented])

    def batches(paths: list[Path], augmented: bool) -> Iterator[torch.Tensor]:
        loader = torchio.SubjectsLoader(
            dataset(paths, augmented),
            batch_size=BATCH_SIZE,
            shuffle=augmented,
            num_workers=N_WORKERS,
        )
        for batch in loader:
            yield batch["image"][torchio.DATA]

    def read(path: Path) -> np.ndarray:
        return contiguous(dataset([path], False)[0]["image"].data[0].numpy())

    return Way("TorchIO", batches, read)


def nibabel_slice(material: Material, volume: int) -> Way:
    """One volume of a 4D file through nibabel's slicing, which decompresses as far as that volume."""

    def read(path: Path) -> np.ndarray:
        crop = np.asarray(nib.load(path).dataobj[..., volume])[material.crop]
        return contiguous(crop / material.scale_factor)

    def check(path: Path) -> np.ndarray:
        return nibabel_slice(material, RSFMRI_VOLUME).read(path)  # type: ignore[misc]

    return Way(f"nibabel dataobj[..., {volume}]", read=read, check=check)


# ------------------------------------------------------------------------ ours: adapters to its modules


def our_cell(material: Material, reader: VolumeReader, paths: list[Path]) -> CellVolumes:
    """The subjects of these files."""
    return CellVolumes(
        [str(k) for k in range(len(paths))], paths, np.full(len(paths), 60.0), reader
    )


def our_batches(
    material: Material, reader: VolumeReader, paths: list[Path], augmented: bool
) -> Iterator[torch.Tensor]:
    """The program's own loader over these files (or what was prepared of them)."""
    cell = our_cell(material, reader, paths)
    if augmented:
        plan = AugmentationPlan(shift_voxels=SHIFT_VOXELS)
        found = training_batches(cell, BATCH_SIZE, plan, seed=1, epoch=1, n_workers=N_WORKERS)
    else:
        found = evaluation_batches(cell, BATCH_SIZE, N_WORKERS)
    for batch in found:
        yield batch.volumes


def ours_uncached(material: Material) -> Way:
    """Files read anew every epoch."""
    reader = VolumeReader(material.contrast, material.scale_factor)
    return Way("ours, no cache", partial(our_batches, material, reader), reader.read)


class OurCache:
    """What `-m prepare` makes of the files, and what is read from it."""

    def __init__(self, material: Material, storage: str):
        self.material, self.storage = material, storage
        self.folder = material.caches / f"ours_{storage}"
        self.open()

    def open(self) -> None:
        """Open it anew; what was mapped into memory before is let go."""
        material, key = self.material, CacheKey.of(self.material.contrast, "strict", self.storage)
        self.cache = ContrastCache.open(self.folder / key.folder_name, key)
        self.reader = VolumeReader(material.contrast, material.scale_factor, cache=self.cache)

    def build(self) -> int:
        """Prepare all files; all volumes of a 4D file come from one decode."""
        contrasts, paths = [self.material.contrast], self.material.paths
        if self.material.contrast.volume_index is not None:
            contrasts = rsfmri_contrasts()
        shutil.rmtree(self.folder, ignore_errors=True)
        plans = [plan_contrast(self.folder, c, "strict", self.storage, paths) for c in contrasts]
        done = carry_out(plans, N_WORKERS, lambda finished, _: finished)
        self.open()
        assert self.cache.n_volumes == len(paths), "files were not prepared"
        return done.n_volumes

    def batches(self, paths: list[Path], augmented: bool) -> Iterator[torch.Tensor]:
        """Batches of prepared volumes."""
        return our_batches(self.material, self.reader, paths, augmented)

    def byte_batches(self, paths: list[Path], augmented: bool) -> Iterator[QuantisedBatch]:
        """Batches of stored bytes, for a device to expand and shift."""
        cell = our_cell(self.material, self.reader, paths)
        plan = AugmentationPlan(shift_voxels=SHIFT_VOXELS if augmented else 0)
        epoch = training_epoch(cell, BATCH_SIZE, plan, seed=1, epoch=1)
        return quantised_batches(epoch, N_WORKERS)

    def read_plain(self, path: Path) -> np.ndarray:
        """A prepared volume as the network sees it."""
        return self.reader.read(path)

    def read_shifted(self, path: Path) -> np.ndarray:
        """The same, moved while it is expanded."""
        box = np.empty(self.material.contrast.box, dtype=np.float32)
        self.reader.read_into(path, box, Augmentation(shift=(1, -2, 2), mirrored=False))
        return box

    def read_bytes(self, path: Path) -> np.ndarray:
        """The stored bytes of the voxels in the mask, verified, for a device to expand."""
        return np.array(self.cache.payload(self.cache.entries[source_of(path)]))


def ours_cached(material: Material, storage: str, tolerance: float) -> list[Way]:
    """Prepared volumes, expanded here or left as bytes."""
    ours = OurCache(material, storage)
    shared = {"cache": ours.folder, "tolerance": tolerance, "check": ours.read_plain}
    shared |= {"forget": ours.open}
    name = f"ours, {storage} cache"
    return [
        Way(name, ours.batches, ours.read_shifted, ours.build, **shared),
        Way(
            f"{name}, left as bytes",
            ours.byte_batches,
            ours.read_bytes,
            voxels=in_order_of_files,
            **shared,
        ),
    ]


def in_order_of_files(batch: QuantisedBatch) -> torch.Tensor:
    """The voxels that a batch of stored bytes stands for."""
    return expanded(batch, torch.device("cpu"))[torch.argsort(batch.positions)]


def ours_whole_4d(material: Material) -> Way:
    """All 25 volumes of a 4D file from one decode."""
    contrasts = rsfmri_contrasts()
    boxes = np.empty((len(contrasts), *material.contrast.box), dtype=np.float32)

    def read(path: Path) -> np.ndarray:
        image = open_image(path)
        for contrast, box in zip(contrasts, boxes):
            crop = crop_of(image, contrast, "strict")
            crop.fill(box, float(contrast.scale_factor or 1.0))
        return boxes

    def check(path: Path) -> np.ndarray:
        return read(path)[contrasts.index(material.contrast)]

    return Way("ours, all 25 in one decode", read=read, check=check, per_read=len(contrasts))


def rsfmri_contrasts() -> list[Contrast]:
    """The 25 contrasts that live in one 4D file."""
    table = read_contrast_table(PUBLISHED_TABLE)
    return [contrast for contrast in table.values() if contrast.volume_index is not None]


def our_ways(material: Material) -> list[Way]:
    """Every way of this repository; uint16 promises 1e-4 of the SD in the mask, uint8 steps over 12 SD."""
    ways = [ours_uncached(material), *ours_cached(material, "uint16", 3e-5)]
    if "int16" not in material.kind:  # kept as it is, whatever the storage
        ways += ours_cached(material, "uint8", 1e-2)
    if material.contrast.volume_index is not None:
        ways.append(ours_whole_4d(material))
    return ways


# ------------------------------------------------------------------------------------------ measuring


def ways_of(material: Material) -> list[Way]:
    """All ways for volumes of this kind, in the order of the table."""
    ways = [original(material), original_float64(material)]
    if monai is not None:
        ways += [monai_dataset(material), monai_persistent(material)]
    if torchio is not None:
        ways.append(torchio_subjects(material))
    if material.contrast.volume_index is not None:
        ways += [nibabel_slice(material, volume) for volume in (0, RSFMRI_VOLUME, 24)]
    return ways + our_ways(material)


@dataclass(frozen=True)
class Turn:
    """One way's turn in one round."""

    volumes: int
    wall_s: float
    cpu_s: float  # this process and its workers
    resident: float  # share of the files in the page cache beforehand

    @property
    def rate(self) -> float:
        """Volumes in a second."""
        return self.volumes / self.wall_s


def epoch_turn(way: Way, material: Material, passes: int) -> Turn:
    """An epoch of shuffled, shifted batches, all of which are looked at."""
    assert way.batches is not None
    paths, n = material.epoch_paths(passes), 0
    box = (1, *material.contrast.box)
    start, start_cpu = time.perf_counter(), _cpu_seconds()
    for batch in way.batches(paths, True):
        if way.voxels:
            n += len(batch.positions)
            continue
        assert batch.dtype == torch.float32 and batch.shape[1:] == box and batch.is_contiguous()
        assert float(batch[..., ::40, ::40, ::40].amax()) > 0
        n += len(batch)
    del batch
    turn = (n, time.perf_counter() - start, _cpu_seconds() - start_cpu)
    assert n == len(paths), f"{way.name} gave {n} of {len(paths)} volumes"
    return Turn(*turn, resident=0.0)


def single_turn(way: Way, material: Material, passes: int) -> Turn:
    """Single volumes, one after the other, in one thread."""
    assert way.read is not None
    paths = material.paths[:N_SINGLE] * passes
    start, start_cpu = time.perf_counter(), _cpu_seconds()
    for path in paths:
        way.read(path)
    return Turn(
        len(paths) * way.per_read,
        time.perf_counter() - start,
        _cpu_seconds() - start_cpu,
        resident=0.0,
    )


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


@dataclass(frozen=True)
class Protocol:
    """How often and how long."""

    rounds: int
    seconds: float
    cold: bool


def alternate(
    ways: list[Way], material: Material, take_turn: Callable[..., Turn], protocol: Protocol
) -> dict[str, list[Turn]]:
    """Every way's turns, one a round; a first round that is not counted says how many passes fill the time."""
    passes = dict.fromkeys((way.name for way in ways), 1)
    turns: dict[str, list[Turn]] = {way.name: [] for way in ways}
    if not protocol.cold:
        for way in ways:
            took = take_turn(way, material, 1).wall_s
            passes[way.name] = min(max(round(protocol.seconds / took), 1), 200)
    for round_ in range(protocol.rounds):
        first = round_ % len(ways)
        for way in ways[first:] + ways[:first]:
            resident = forget(way, material) if protocol.cold else 1.0
            gc.collect()
            turn = take_turn(way, material, passes[way.name])
            turns[way.name].append(Turn(turn.volumes, turn.wall_s, turn.cpu_s, resident))
    return turns


def forget(way: Way, material: Material) -> float:
    """Ask the system to forget a way's files; the share of their pages that are in memory afterwards."""
    if way.forget:
        way.forget()
        gc.collect()
    paths = way.files(material)
    for path in paths:
        with open(path, "rb") as handle:
            os.fsync(handle.fileno())  # only what is on the disk can be forgotten
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    kept = [resident_pages(path) for path in paths]
    return sum(pages for pages, _ in kept) / max(sum(total for _, total in kept), 1)


def resident_pages(path: Path) -> tuple[int, int]:
    """Pages of a file that are in memory, and all of its pages (mincore)."""
    size = path.stat().st_size
    if size == 0:
        return 0, 0
    n_pages = -(-size // mmap.PAGESIZE)
    with (
        open(path, "rb") as handle,
        mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY) as pages,
    ):
        start = ctypes.c_char.from_buffer(pages)
        flags = (ctypes.c_ubyte * n_pages)()
        libc = ctypes.CDLL(None, use_errno=True)
        address = ctypes.c_void_p(ctypes.addressof(start))
        failed = libc.mincore(address, ctypes.c_size_t(size), flags)
        del start  # or the map cannot be closed
    if failed:
        raise OSError(ctypes.get_errno(), "mincore")
    return sum(flag & 1 for flag in flags), n_pages


def check_values(way: Way, material: Material) -> float:
    """Largest difference from the formula, as a share of the largest voxel; refuses a way that computes less."""
    worst = 0.0
    paths = material.epoch_paths(1)[:BATCH_SIZE]
    expected = {path: formula(path, material) for path in dict.fromkeys(paths)}

    def compare(found: np.ndarray, path: Path) -> float:
        assert found.shape == material.contrast.box and found.dtype == np.float32, way.name
        return float(np.abs(found - expected[path]).max() / np.abs(expected[path]).max())

    read = way.check or way.read
    if read:
        worst = max(worst, *(compare(read(path), path) for path in paths[:2]))
    if way.batches:
        batch = next(iter(way.batches(paths, False)))
        found = np.asarray(way.voxels(batch) if way.voxels else batch)[:, 0]
        worst = max(worst, *(compare(volume, path) for volume, path in zip(found, paths)))
    if not worst <= way.tolerance:
        raise SystemExit(
            f"{way.name}, {material.kind}: voxels differ by {worst:.1e} of the largest voxel."
        )
    return worst


# -------------------------------------------------------------------------------------------- results


def summarise(turns: dict[str, list[Turn]]) -> dict[str, dict]:
    """Per way: volumes/s and ms a volume as medians, and ratios of rates within a round: median, lowest, highest."""
    rows = {}
    for name, own in turns.items():
        row: dict[str, Any] = {
            "volumes_per_s": float(np.median([turn.rate for turn in own])),
            "ms": float(np.median([1e3 / turn.rate for turn in own])),
            "cpu_ms": float(np.median([1e3 * turn.cpu_s / turn.volumes for turn in own])),
            "volumes_per_s_of_each_round": [turn.rate for turn in own],
            "volumes_in_a_turn": own[0].volumes,
            "share_of_pages_in_memory_before": float(np.median([turn.resident for turn in own])),
        }
        if ORIGINAL in turns:
            pairs = zip(own, turns[ORIGINAL])
            cpu = [(b.cpu_s / b.volumes) / (a.cpu_s / a.volumes) for a, b in pairs]
            row["times_less_cpu_than_the_original"] = float(np.median(cpu))
        for label, reference in REFERENCES.items():
            if reference in turns:
                ratios = [a.rate / b.rate for a, b in zip(own, turns[reference])]
                row[label] = [float(f(ratios)) for f in (np.median, np.min, np.max)]
        rows[name] = row
    return rows


def measure(material: Material, protocol: Protocol) -> dict[str, Any]:
    """Everything about one kind of volume: values, caches, batches, single volumes."""
    ways = ways_of(material)
    values, caches = {}, {}
    for way in ways:
        if way.build:
            start = time.perf_counter()
            n_volumes = way.build()
            built_s = time.perf_counter() - start
            size = sum(path.stat().st_size for path in way.files(material))
            caches[way.name] = {
                "build_ms_a_volume": 1e3 * built_s / n_volumes,
                "mb_a_volume": size / 1e6 / n_volumes,
            }
        values[way.name] = check_values(way, material)
        print(
            f"{material.kind}: {way.name} gives the formula's voxels within {values[way.name]:.0e}"
        )
    batches = alternate([w for w in ways if w.batches], material, epoch_turn, protocol)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if torchio is not None:
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    single = alternate([w for w in ways if w.read], material, single_turn, protocol)
    torch.set_num_threads(n_threads)
    return {
        "files": len(material.paths),
        "shape": list(nib.load(material.paths[0]).shape),
        "mb_a_file": float(np.median([path.stat().st_size for path in material.paths])) / 1e6,
        "largest_difference_of_voxels": values,
        "caches": caches,
        "batches": summarise(batches),
        "one_volume": summarise(single),
    }


def machine() -> dict[str, Any]:
    """What it ran on: nothing that names it."""
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as handle:
        for line in handle:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": model,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average_before": os.getloadavg()[0],
        "versions": versions,
    }


def print_table(results: dict[str, Any]) -> None:
    """One table: batches, then single volumes, of every kind."""

    def spread(row: dict, label: str) -> str:
        if label not in row:
            return " " * 26
        middle, low, high = map(_three_digits, row[label])
        return f"{middle:>8s} {f'({low}-{high})':17s}"

    print(
        f"\n{'':36s} {'volumes/s':>9s} {'ms':>7s} {'CPU ms':>7s} {'in CPU':>7s}  "
        f"{'times the original':26s} {'times MONAI Persistent':26s}"
    )
    for part, title in (
        ("batches", "Batches of 12, shifted, 2 workers or threads"),
        ("one_volume", "One volume, one thread"),
    ):
        for kind, result in results.items():
            print(f"{title}: {kind}, {result['mb_a_file']:.1f} MB a file")
            for name, row in result[part].items():
                less_cpu = _three_digits(row["times_less_cpu_than_the_original"])
                numbers = f"{row['volumes_per_s']:9.1f} {row['ms']:7.2f} {row['cpu_ms']:7.2f} {less_cpu:>7s}"
                ratios = [spread(row, label) for label in REFERENCES]
                print(f"  {name:34s} {numbers}  {' '.join(ratios)}".rstrip())
    resident = [
        row["share_of_pages_in_memory_before"]
        for result in results.values()
        for part in ("batches", "one_volume")
        for row in result[part].values()
    ]
    print(
        f"Of a way's files {min(resident):.0%} to {max(resident):.0%} lay in memory before its turn"
    )
    print("Making a cache, once")
    for kind, result in results.items():
        for name, cache in result["caches"].items():
            print(
                f"  {name:34s} {kind}: {cache['build_ms_a_volume']:.0f} ms and "
                f"{cache['mb_a_volume']:.1f} MB a volume"
            )


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    """Make the volumes, check, measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, required=True, help="for volumes and caches")
    parser.add_argument("--subjects", type=int, default=48, help="3D volumes of each kind (48)")
    parser.add_argument("--subjects-4d", type=int, default=8, help="4D files (8)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn (2)")
    parser.add_argument("--cold", action="store_true", help="drop files from the page cache")
    parser.add_argument("--only", help="one kind: '3D float32', '3D int16' or '4D float32'")
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    if min(given.subjects, given.subjects_4d, given.rounds) < 1:
        parser.error("--subjects, --subjects-4d and --rounds: at least 1")
    warnings.simplefilter("ignore")  # the peers' about one another's versions
    for name, module in (("MONAI", monai), ("TorchIO", torchio)):
        if module is None:
            print(f"{name} is not installed and left out; see benchmarks/requirements.txt")
    described = machine()
    protocol = Protocol(given.rounds, given.seconds, given.cold)
    results = {
        material.kind: measure(material, protocol)
        for material in make_materials(given.folder, given.subjects, given.subjects_4d)
        if given.only in (None, material.kind)
    }
    print_table(results)
    write_json(
        {
            "machine": described | {"load_average_after": os.getloadavg()[0]},
            "page_cache": "cold" if given.cold else "warm",
            "rounds": given.rounds,
            "seconds_a_turn": given.seconds,
            "batch_size": BATCH_SIZE,
            "workers": N_WORKERS,
            "ratios": "of volumes/s within a round: median, lowest, highest over rounds",
            "results": results,
        },
        given.json,
    )


if __name__ == "__main__":
    main()
