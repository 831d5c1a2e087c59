"""R5, R16: damaged images and prepared volumes are named or do no harm; `-m verify` finds, `-m prepare` mends."""

from __future__ import annotations

import dataclasses
import shutil
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from BrainAgeNetworks.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from datasets import compression
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.cache.shards import drop_damaged, drop_damaged_indexes
from datasets.volumes import VolumeError, read_crop
from tests.reliability.cached_cohort import (
    SHAPE,
    CachedCohort,
    assert_as_the_file,
    brain_like,
    gzipped,
    nifti_bytes,
    read_prepared,
)
from tests.reliability.damage import KINDS, damaged
from utils.common.errors import UserError
from utils.common.files import write_json
from utils.common.manifest import changed_files, record_results
from utils.common.randomness import generator

# A damaged file is read or refused within this; more would be a hang.
LONGEST_S = 10.0
BACKENDS = ("deflate", "zlib_ng", "isal", "stdlib")


def use_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decompress by this library, as if it were the best one installed."""
    if name == "deflate":
        pytest.importorskip("deflate")
        return
    monkeypatch.setattr(compression, "_whole", None)
    if name == "stdlib":
        monkeypatch.setattr(compression, "_STREAMING", zlib)
    else:
        module = {"zlib_ng": "zlib_ng.zlib_ng", "isal": "isal.isal_zlib"}[name]
        monkeypatch.setattr(compression, "_STREAMING", pytest.importorskip(module))


def image_files() -> dict[str, bytes]:
    """float32 and int16, one gzip member and several; one file that is larger than the pieces it is read in."""
    large = (64, 80, 60)
    return {
        f"{dtype} {n_members} {'x'.join(map(str, shape))}": gzipped(
            nifti_bytes(brain_like("damage", shape=shape, real=dtype == "float32")), n_members
        )
        for dtype in ("float32", "int16")
        for n_members, shape in ((1, SHAPE), (4, SHAPE), (1, large), (3, large))
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_damaged_image_is_refused_or_read_as_it_was(tmp_path, monkeypatch, repetitions, backend):
    use_backend(backend, monkeypatch)
    cohort = CachedCohort(tmp_path / "study", 1).write()
    path, draw = tmp_path / "image.nii.gz", generator("damage", "images")
    n_each = repetitions(160, 4_000) // (8 * len(KINDS))
    outcomes: Counter[str] = Counter()
    for name, content in image_files().items():
        shape = tuple(map(int, name.split()[2].split("x")))
        crop = tuple((1, size - 1) for size in shape)
        contrast = dataclasses.replace(cohort.contrast(), shape=shape, crop=crop)
        path.write_bytes(content)
        expected = read_crop(path, contrast)
        for kind in KINDS:
            for number in range(n_each):
                path.write_bytes(damaged(content, kind, draw))
                started = time.monotonic()
                try:
                    found = read_crop(path, contrast)
                except VolumeError as error:
                    assert str(error), f"{name}, {kind} {number}: refused without a reason"
                    outcomes["refused"] += 1
                else:
                    assert np.array_equal(found, expected), f"{name}, {kind} {number}: silent"
                    outcomes["the same"] += 1
                assert time.monotonic() - started < LONGEST_S, f"{name}, {kind} {number}: hangs"
    print(f"{backend}: {sum(outcomes.values())} damaged images: {dict(outcomes)}, 0 silent")
    assert outcomes["refused"] > 0.7 * sum(outcomes.values())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> CachedCohort:
    """Six subjects in a cache of two shards a contrast; never changed by a test."""
    cohort = CachedCohort(tmp_path_factory.mktemp("prepared"), 6).write()
    for numbers in (range(4), range(6)):
        prepare(cohort, numbers)
    return cohort


def prepare(cohort: CachedCohort, numbers=range(6)) -> dict[str, dict[str, str]]:
    """Prepare these subjects; contrast -> what was done, and why."""
    plans = [
        plan_contrast(
            cohort.cache, contrast, "strict", "uint16",
            [cohort.volume(number, contrast.name) for number in numbers],
        )
        for contrast in cohort.experiment().contrasts
    ]  # fmt: skip
    whys = {plan.contrast.name: dict(plan.why) for plan in plans}
    carry_out(plans, 2, lambda finished, n_sources: finished)
    return whys


def everything(folder: Path, key, contrast) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All volumes of a cache, and the reasons of those that cannot be read."""
    cache = ContrastCache.open(folder, key)
    volumes, reasons = {}, {}
    for source in cache.entries:
        try:
            volumes[source] = read_prepared(cache, source, contrast)
        except VolumeError as error:
            reasons[source] = str(error)
    return volumes, reasons


@pytest.mark.parametrize("name", ["whole", "real"])
def test_a_damaged_cache_is_named_or_does_no_harm_and_is_found_and_mended(
    prepared, tmp_path, repetitions, name
):
    """Shards and indexes: nothing is silently different; what is refused is what verify finds and prepare makes."""
    contrast = prepared.contrast(name)
    key = prepared.opened(name).key
    pristine = prepared.cache / key.folder_name
    whole, _ = everything(pristine, key, contrast)
    assert len(whole) == 6
    files = sorted(pristine.iterdir())
    assert [path.suffix for path in files] == [".json", ".volumes"] * 2
    draw = generator("damage", "cache", name)
    outcomes: Counter[str] = Counter()
    n_each = repetitions(60, 2_000) // (len(files) * len(KINDS))
    root = tmp_path / "cache"
    for original in files:
        for kind in KINDS:
            for number in range(n_each):
                what = f"{original.name}, {kind} {number}"
                folder = root / key.folder_name
                shutil.rmtree(root, ignore_errors=True)
                shutil.copytree(pristine, folder)
                path = folder / original.name
                path.write_bytes(damaged(original.read_bytes(), kind, draw))
                started = time.monotonic()
                try:
                    volumes, reasons = everything(folder, key, contrast)
                except UserError as error:
                    assert original.suffix == ".json" and str(path) in str(error), what
                    volumes, reasons = {}, None
                assert time.monotonic() - started < LONGEST_S, f"{what}: hangs"
                for source, volume in volumes.items():
                    assert np.array_equal(volume, whole[source]), f"{what}: silent"
                for source, reason in (reasons or {}).items():
                    assert str(path) in reason, f"{what}: {source} {reason} does not name the file"
                outcomes["index" if reasons is None else "volumes" if reasons else "the same"] += 1
                assert_found_and_mended(prepared, root, contrast, key, path, reasons, what)
    print(f"{name}: {sum(outcomes.values())} damaged cache files: {dict(outcomes)}, 0 silent")
    assert outcomes["index"] and outcomes["volumes"]


def assert_found_and_mended(prepared, root, contrast, key, path, reasons, what) -> None:
    """What reading refuses is what verify finds; the next prepare makes exactly that, and all is well."""
    folder = root / key.folder_name
    indexes = drop_damaged_indexes(folder)
    assert list(indexes) == ([path] if reasons is None else []), what
    found = drop_damaged(ContrastCache.open(folder, key), 1, lambda found, n: found)
    assert found == (reasons or {}), f"{what}: verify does not find what reading refuses"
    sources = [prepared.volume(number, contrast.name) for number in range(6)]
    left = ContrastCache.open(folder, key).entries
    lost = {str(s) for s in sources if str(s) not in left or left[str(s)].reason}
    assert lost == found.keys() or reasons is None, what
    if not lost:
        return
    plan = plan_contrast(root, contrast, "strict", "uint16", sources)
    why = "not prepared before" if reasons is None else "its prepared volume was damaged"
    assert plan.why == dict.fromkeys(map(str, sorted(lost)), why), what
    carry_out([plan], 1, lambda finished, n: finished)
    cache = ContrastCache.open(folder, key)
    assert len(cache.entries) == 6, what
    for source in lost:
        assert_as_the_file(cache, source, contrast)
    assert not drop_damaged(cache, 1, lambda found, n: found), what


def test_a_damaged_volume_that_two_indexes_name_is_made_again(tmp_path):
    """A file's time changed, so its volume stands in an old and in a new index; neither counts any more."""
    cohort = CachedCohort(tmp_path, 3).write()
    prepare(cohort, range(3))
    source = cohort.volume(1)
    source.touch()
    assert prepare(cohort, range(3)) == {"whole": {}, "real": {}}
    cache = cohort.opened()
    assert len(list(cache.folder.glob("*.json"))) == 2
    entry = cache.entries[str(source)]
    shard = cache.folder / f"{entry.shard}.volumes"
    content = bytearray(shard.read_bytes())
    content[entry.offset + 40] ^= 4
    shard.write_bytes(bytes(content))
    assert list(drop_damaged(cohort.opened(), 1, lambda found, n: found)) == [str(source)]
    assert prepare(cohort, range(3))["whole"] == {str(source): "its prepared volume was damaged"}
    assert cohort.committed() == {"whole": 3, "real": 3}
    assert not drop_damaged(cohort.opened(), 1, lambda found, n: found)


def test_missing_and_empty_volumes_are_named(prepared, tmp_path):
    key = prepared.opened().key
    for number, damage in enumerate((Path.unlink, lambda path: path.write_bytes(b""))):
        folder = tmp_path / str(number) / key.folder_name
        shutil.copytree(prepared.cache / key.folder_name, folder)
        shard = sorted(folder.glob("*.volumes"))[0]
        damage(shard)
        volumes, reasons = everything(folder, key, prepared.contrast())
        assert len(volumes) == 2 and len(reasons) == 4
        assert all(str(shard) in reason for reason in reasons.values())
        found = drop_damaged(ContrastCache.open(folder, key), 2, lambda found, n: found)
        assert found == reasons


def test_every_damaged_checkpoint_and_result_is_found(tmp_path, repetitions):
    """Checkpoints by the checksum at their end, results by the manifest of their folder."""
    import torch

    draw = generator("damage", "results")
    checkpoint = tmp_path / "network_1" / "last.pt"
    save_checkpoint({"weights": {"a": torch.arange(2000.0)}, "epoch": 3}, checkpoint)
    results = {
        "predictions_test.csv": "subject_id,predicted_years\n"
        + "".join(f"s{n:04d},{draw.uniform(40, 80):.6f}\n" for n in range(200)),
        "report.html": f"<html>{'<p>text</p>' * 300}</html>\n",
    }
    for name, text in results.items():
        (tmp_path / name).write_text(text)
    write_json({"mae_years": draw.uniform(2, 5, 50).tolist()}, tmp_path / "metrics_test.json")
    record_results([tmp_path])
    assert changed_files([tmp_path]) == []
    load_checkpoint(checkpoint)
    n_each = repetitions(100, 10_000) // (5 * len(KINDS))
    n_found = 0
    for path in (checkpoint, *sorted(p for p in tmp_path.iterdir() if p.is_file())):
        content = path.read_bytes()
        for kind in KINDS:
            for number in range(n_each):
                path.write_bytes(damaged(content, kind, draw))
                what = f"{path.name}, {kind} {number}"
                if path == checkpoint:
                    with pytest.raises(CheckpointError) as caught:
                        load_checkpoint(path)
                    assert str(path) in str(caught.value), what
                else:
                    found = changed_files([tmp_path])
                    assert found, f"{what}: not found"
                    if path.name != "manifest.json":
                        assert [file for file, _ in found] == [path], what
                n_found += 1
        path.write_bytes(content)
    print(f"{n_found} damaged checkpoints, tables, records and reports: all found")
    assert changed_files([tmp_path]) == []
