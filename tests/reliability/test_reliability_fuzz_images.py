"""R5, R11: mutated headers and files give the crop or one sentence; no other error, warning, hang, or memory."""

from __future__ import annotations

import dataclasses
import gzip
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer.mghformat import MGHHeader

from datasets.contrasts import Contrast
from datasets.images import read_header
from datasets.volumes import VolumeError, VolumeReader, read_crop
from tests.datasets.image_bytes import (
    BOX,
    CONTRAST,
    SHAPE,
    analyze_parts,
    mgh,
    nifti,
    nifti_parts,
    some_values,
)
from utils.common.randomness import generator

ROOT = Path(__file__).resolve().parents[2]
MOST_SECONDS = 2.0
# Peak of what is allocated against the bytes that a file honestly holds.
MOST_FACTOR, MOST_EXTRA_BYTES = 8, 4 << 20
WHOLE_NUMBERS = (0, 1, -1, 2, 3, 4, 7, 8, 9, 10, 12, 16, 64, 127, 128, 255, 256, 348, 352, 512, 540, 1024,
                 2304, 27307, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63))  # fmt: skip
FRACTIONS = (0.0, -0.0, 1.0, -1.0, 8.0, -8.0, 0.5, 352.0, 353.0, 352.5, 544.0, 1e6, np.nan, np.inf, -np.inf,
             1e30, -1e30, 1e-30, 3.4e38, 1e-38, 1e-45, 1e308, 5e-324, 90.0, -126.0)  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A good image as its files (ending -> content before compression), and what is known of its header."""

    name: str
    files: dict[str, bytes]
    struct: np.dtype  # of the header, which the first file begins with
    compressed: bool
    values: np.ndarray


def bases() -> Iterator[Base]:
    for order in "<>":
        for dtype in ("u1", "i2", "f4", "f8"):
            values = some_values("fuzz", dtype, dtype=dtype)
            scaled = {"scl_slope": 0.5, "scl_inter": 3.0} if dtype == "i2" else {}
            for version, kind in ((1, nib.Nifti1Header), (2, nib.Nifti2Header)):
                struct = kind.template_dtype.newbyteorder(order)
                content = nifti(values, version, order, **scaled)
                for packed in (False, True):
                    ending = ".nii.gz" if packed else ".nii"
                    name = f"NIfTI-{version} {order}{dtype} {ending}"
                    yield Base(name, {ending: content}, struct, packed, values)
                if dtype == "i2":
                    header, voxels = nifti_parts(values, version, order, single=False)
                    for gz in ("", ".gz"):
                        files = {f".hdr{gz}": header, f".img{gz}": voxels}
                        yield Base(f"pair {version} {order}{gz}", files, struct, bool(gz), values)
        values = some_values("fuzz", "i2", dtype="i2")
        header, voxels = analyze_parts(values, order)
        struct = nib.spm2analyze.Spm2AnalyzeHeader.template_dtype.newbyteorder(order)
        for gz in ("", ".gz"):
            files = {f".hdr{gz}": header, f".img{gz}": voxels}
            yield Base(f"Analyze {order}{gz}", files, struct, bool(gz), values)
    for dtype in ("u1", "i2", "f4"):
        values = some_values("fuzz", dtype, dtype=dtype)
        for ending in (".mgh", ".mgz"):
            name, packed = f"MGH {dtype} {ending}", ending == ".mgz"
            yield Base(name, {ending: mgh(values)}, MGHHeader._hdrdtype, packed, values)
    four = some_values("fuzz", "4d", shape=(*SHAPE, 3))
    struct = nib.Nifti1Header.template_dtype.newbyteorder("<")
    yield Base("4D", {".nii": nifti(four)}, struct, False, four)


BASES = list(bases())


def with_fields_set(content: bytearray, base: Base, draw: np.random.Generator) -> None:
    """One to three elements of fields of the header are set to extreme or likely values."""
    for _ in range(draw.integers(1, 4)):
        kind, offset = base.struct.fields[str(draw.choice(base.struct.names))][:2]
        element = kind.base
        place = offset + element.itemsize * int(draw.integers(0, int(np.prod(kind.shape)) or 1))
        with np.errstate(all="ignore"):
            if element.kind == "f":
                number = np.array(draw.choice(FRACTIONS)).astype(element)
            elif element.kind in "iu":
                wrapped = int(WHOLE_NUMBERS[draw.integers(len(WHOLE_NUMBERS))])
                number = np.array(wrapped).astype(element)
            else:
                number = np.frombuffer(draw.bytes(element.itemsize), element)
        content[place : place + element.itemsize] = number.tobytes()


def with_random_bytes(n_first: int | None) -> Callable:
    """One to eight random bytes among the first so many."""

    def change(content: bytearray, base: Base, draw: np.random.Generator) -> None:
        for _ in range(draw.integers(1, 9)):
            if content:
                content[draw.integers(min(n_first or len(content), len(content)))] = draw.integers(
                    256
                )

    return change


def cut(content: bytearray, base: Base, draw: np.random.Generator) -> None:
    del content[int(draw.integers(0, len(content) + 1)) :]


def moved_about(content: bytearray, base: Base, draw: np.random.Generator) -> None:
    """A part is left out, doubled, or written elsewhere."""
    start, stop = sorted(draw.integers(0, len(content) + 1, 2).tolist())
    part = bytes(content[start:stop])
    if draw.random() < 0.5:
        del content[start:stop]
    if draw.random() < 0.7:
        place = int(draw.integers(0, len(content) + 1))
        content[place:place] = part


MUTATIONS: dict[str, tuple[float, Callable]] = {
    "fields": (0.5, with_fields_set), "header bytes": (0.2, with_random_bytes(544)),
    "any bytes": (0.1, with_random_bytes(None)), "cut": (0.1, cut), "moved about": (0.1, moved_about),
}  # fmt: skip


@dataclass
class Case:
    """One mutated image on disk."""

    path: Path
    what: str
    n_honest_bytes: int
    after_compression: bool


def make_case(folder: Path, number: int, draw: np.random.Generator) -> tuple[Base, Case]:
    base = BASES[draw.integers(len(BASES))]
    after = base.compressed and draw.random() < 0.25
    names, shares = list(MUTATIONS), [share for share, _ in MUTATIONS.values()]
    chosen = str(draw.choice(names, p=shares))
    if after and chosen == "fields":
        chosen = "any bytes"
    which = 0 if draw.random() < 0.8 else len(base.files) - 1
    n_honest, first = 0, None
    for place, (ending, plain) in enumerate(base.files.items()):
        content = bytearray(plain)
        if place == which and not after:
            MUTATIONS[chosen][1](content, base, draw)
        n_honest += len(content)
        if base.compressed:
            content = bytearray(gzip.compress(bytes(content), int(draw.choice([1, 6]))))
            if place == which and after:
                MUTATIONS[chosen][1](content, base, draw)
        path = folder / f"a{ending}"
        path.write_bytes(content)
        first = first or path
    assert first is not None
    what = f"case {number}: {base.name}, {chosen}{' after compression' if after else ''}"
    return base, Case(first, what, n_honest, after)


def run_case(base: Base, case: Case, contrast: Contrast, conform: str) -> str:
    """The outcome in a word; everything that may never happen is an assertion."""
    before = time.perf_counter()
    tracemalloc.start()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with suppress(VolumeError):
                assert len(read_header(case.path).shape) in (3, 4), case.what
            try:
                volume = VolumeReader(contrast, 2.0, conform).read(case.path)
            except VolumeError as error:
                said = str(error)
                assert said and "\n" not in said and len(said) < 400, (case.what, said)
                outcome = "refused"
            else:
                assert volume.shape == contrast.box and volume.dtype == np.float32, case.what
                assert np.isfinite(volume).all(), case.what
                if case.after_compression and not contrast.divide_by_mean:
                    # behind the checksum: the very same values, or a sentence
                    factor = (0.5, 3.0) if "i2 .nii" in base.name else (1.0, 0.0)
                    right = (base.values[BOX].astype(float) * factor[0] + factor[1]).astype("f4")
                    assert np.array_equal(volume, right / np.float32(2)), case.what
                outcome = "read"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    took = time.perf_counter() - before
    assert not warned, (case.what, [str(w.message) for w in warned])
    assert took < MOST_SECONDS, (case.what, took)
    allowed = MOST_FACTOR * case.n_honest_bytes + MOST_EXTRA_BYTES
    assert peak <= allowed, (case.what, peak, case.n_honest_bytes)
    run_case.largest = max(getattr(run_case, "largest", 0), peak)  # type: ignore[attr-defined]
    return outcome


def test_the_bases_are_read(tmp_path):
    """And every loop is compiled before time is taken."""
    for base in BASES:
        for ending, content in base.files.items():
            path = tmp_path / f"a{ending}"
            path.write_bytes(gzip.compress(content) if base.compressed else content)
        index = 1 if base.name == "4D" else None
        contrast = dataclasses.replace(CONTRAST, volume_index=index)
        path = tmp_path / f"a{next(iter(base.files))}"
        for conform in ("strict", "resample"):
            assert read_crop(path, contrast, conform).any(), base.name


def test_mutated_images_are_read_or_named(tmp_path, repetitions):
    test_the_bases_are_read(tmp_path)
    n_cases = repetitions(1000, 10_000)
    outcomes: Counter[str] = Counter()
    for number in range(n_cases):
        draw = generator("fuzz images", number)  # each case can be made again on its own
        folder = tmp_path / "case"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        base, case = make_case(folder, number, draw)
        contrast = dataclasses.replace(
            CONTRAST,
            volume_index=None if base.name != "4D" else int(draw.integers(0, 3)),
            divide_by_mean=bool(draw.random() < 0.3),
        )
        conform = str(draw.choice(["strict", "reorient", "resample"]))
        outcomes[run_case(base, case, contrast, conform)] += 1
    print(f"{n_cases} cases: {dict(outcomes)}; largest peak {run_case.largest} bytes")  # type: ignore[attr-defined]
    assert outcomes["read"] > 0.05 * n_cases and outcomes["refused"] > 0.3 * n_cases


BOMBS = """
import gzip, resource, sys, zlib
from pathlib import Path
from tests.datasets.image_bytes import CONTRAST, mgh, nifti, some_values
from datasets.images import read_header
from datasets.volumes import VolumeError, read_crop

folder = Path(sys.argv[1])
values = some_values("bomb")

def packed(head, n_zeros):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(head)] + [packer.compress(bytes(1 << 20)) for _ in range(n_zeros >> 20)]
    return b"".join([*parts, packer.flush()])

MUCH = 1 << 28
honest = nifti(values, dim=[3, 512, 512, 512, 1, 1, 1, 1])
lies = gzip.compress(nifti(values, dim=[3, 10000, 10000, 10000, 1, 1, 1, 1]))
bombs = {
    "more than announced.nii.gz": packed(nifti(values), MUCH),
    "as announced.nii.gz": packed(honest, MUCH),
    "as announced.mgz": packed(mgh(values, dims=[512, 512, 512, 1]), MUCH),
    "lies.nii.gz": lies,
    "length lies.nii.gz": gzip.compress(nifti(values))[:-4] + bytes([255] * 4),
    "both lie.nii.gz": gzip.compress(nifti(values, dim=[3, 300, 300, 10, 1, 1, 1, 1]))[:-4]
    + (352 + 1_800_000).to_bytes(4, "little"),
    "many members.nii.gz": packed(nifti(values), 0) + gzip.compress(bytes(1 << 20)) * 1000,
    "no content.nii.gz": gzip.compress(b"") * 200_000,
}
for name, content in bombs.items():
    (folder / name).write_bytes(content)
(folder / "good.nii.gz").write_bytes(gzip.compress(nifti(values)))
read_crop(folder / "good.nii.gz", CONTRAST)
sizes = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
limit = int(sizes["VmSize"].split()[0]) * 1024 + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name in bombs:
    try:
        read_crop(folder / name, CONTRAST)
    except VolumeError as error:
        print(f"{name}: {error}")
    else:
        print(f"{name}: READ")
read_crop(folder / "good.nii.gz", CONTRAST)
print("still alive")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_bombs_within_64_mb(tmp_path):
    """A process that may take no more than 64 MB on top of what it has survives each of them."""
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    assert last == "still alive" and len(said) == 8 and "READ" not in done.stdout, done.stdout
    by_name = dict(line.split(": ", 1) for line in said)
    assert "it has more than the 2512 bytes" in by_name["more than announced.nii.gz"]
    for name in ("as announced.nii.gz", "as announced.mgz"):
        assert by_name[name] == "needs more memory than there is"
    assert "its header announces" in by_name["lies.nii.gz"]
