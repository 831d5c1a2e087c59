"""Prepared volumes on disk: what is read is what was prepared, moved and mirrored as augmentation would have it."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datasets.augmentation import NO_AUGMENTATION, Augmentation
from datasets.cache.index import (
    CacheKey,
    Prepared,
    cache_folders,
    index_paths,
    other_caches,
    read_index,
    write_index,
)
from datasets.cache.preparation import carry_out, outdated, plan_contrast
from datasets.cache.reading import ContrastCache, unpacked
from datasets.volumes import VolumeError, VolumeReader, read_crop
from utils.common.errors import UserError
from utils.common.randomness import generator

STORAGES = ("uint16", "uint8", "float16", "float32")


def all_of(finished, n_sources):
    """No progress bar."""
    return finished


def prepare(root: Path, contrast, paths, storage: str = "uint16", conform: str = "strict"):
    """Prepare these files; the plan and what came of it."""
    plan = plan_contrast(root, contrast, conform, storage, paths)
    return plan, carry_out([plan], 2, all_of)


def opened(root: Path, contrast, storage: str = "uint16") -> ContrastCache:
    key = CacheKey.of(contrast, "strict", storage)
    return ContrastCache.open(root / key.folder_name, key)


@pytest.fixture
def real_paths(tiny_cohort, write_volume, tmp_path: Path) -> list[Path]:
    """Files that hold real numbers, some with far outliers and isolated zeros."""
    paths = []
    for number in range(4):
        draw = generator("real", number)
        values = draw.gamma(3, 50, tiny_cohort.contrast.shape)
        values[draw.random(values.shape) < 0.2] = 0
        values[5, 6:8, 7] = 1e5
        path = tmp_path / "real" / f"{number}.nii.gz"
        paths.append(write_volume(path, values.astype(np.float32)))
    return paths


@pytest.fixture(scope="module")
def one_of_each(tmp_path_factory, write_volume):
    """(readers of prepared volumes, file) for whole and real numbers in every storage."""
    from datasets.contrasts import Contrast

    contrast = Contrast(
        name="odd", data_file="", scale_factor=3.0, voxel_mm=8.0, shape=(9, 8, 11),
        crop=((1, 8), (0, 8), (2, 11)), volume_index=None, divide_by_mean=True, category="",
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("one_of_each")
    draw = generator("one of each")
    values = draw.gamma(3, 50, contrast.shape)
    values[draw.random(values.shape) < 0.3] = 0
    values[5, 6, 3:5] = 1e6
    whole = write_volume(folder / "whole.nii.gz", values.clip(0, 3e4).astype(np.int16))
    real = write_volume(folder / "real.nii.gz", values.astype(np.float32))
    found = []
    for storage in STORAGES:
        prepare(folder / "cache", contrast, [whole, real], storage)
        reader = VolumeReader(contrast, 3.0, cache=opened(folder / "cache", contrast, storage))
        found += [(reader, whole), (reader, real)]
    assert {reader.cache.entry(path).coding for reader, path in found} >= {"uint16", "float32"}
    return found


@given(
    st.tuples(*(st.integers(-13, 13),) * 3), st.booleans(), st.integers(0, 2 * len(STORAGES) - 1)
)
@example((0, 0, 0), False, 0)
@example((0, 0, 0), True, 1)
@example((7, 0, 0), True, 1)
@example((0, -8, 0), False, 3)
@example((0, 0, 9), False, 5)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_cache_augments_as_augmentation_does(one_of_each, shift, mirrored, which):
    """Every shift, further than the box too, and mirroring: bit for bit `Augmentation.apply` of the plain volume."""
    reader, path = one_of_each[which]
    by = Augmentation(shift, mirrored)
    found = np.full(reader.contrast.box, np.nan, dtype=np.float32)  # overwritten whole
    reader.read_into(path, found, by)
    assert np.array_equal(found, by.apply(reader.read(path)))


@given(st.tuples(*(st.integers(-13, 13),) * 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_files_are_augmented_in_the_same_way(one_of_each, shift, mirrored):
    """Whole numbers: from the cache as from the file."""
    reader, path = one_of_each[0]
    direct, by = VolumeReader(reader.contrast, 3.0), Augmentation(shift, mirrored)
    boxes = np.full((2, *reader.contrast.box), np.nan, dtype=np.float32)
    reader.read_into(path, boxes[0], by)
    direct.read_into(path, boxes[1], by)
    assert np.array_equal(boxes[0], boxes[1])


def test_whole_numbers_come_back_as_they_are(tiny_cohort, tmp_path):
    plan, done = prepare(tmp_path / "cache", tiny_cohort.contrast, tiny_cohort.paths)
    assert set(plan.why.values()) == {"not prepared before"} and done.n_volumes == 13
    cache = opened(tmp_path / "cache", tiny_cohort.contrast)
    assert cache.n_volumes == len(cache.entries) == 13
    direct = VolumeReader(tiny_cohort.contrast, 100.0)
    reader = VolumeReader(tiny_cohort.contrast, 100.0, cache=cache)
    for path in tiny_cohort.paths:
        assert np.array_equal(reader.read(path), direct.read(path))
    assert {entry.coding for entry in cache.entries.values()} <= {"uint8", "int16"}


def test_files_are_not_opened_once_they_are_prepared(tiny_cohort, tmp_path):
    prepare(tmp_path / "cache", tiny_cohort.contrast, tiny_cohort.paths)
    expected = VolumeReader(tiny_cohort.contrast, 1.0).read(tiny_cohort.paths[0])
    for path in tiny_cohort.paths:
        path.unlink()
    cache = opened(tmp_path / "cache", tiny_cohort.contrast)
    reader = VolumeReader(tiny_cohort.contrast, 1.0, cache=cache)
    assert np.array_equal(reader.read(tiny_cohort.paths[0]), expected)


@pytest.mark.parametrize("storage", STORAGES)
def test_real_numbers_come_back_within_what_the_settings_say(
    tiny_cohort, real_paths, tmp_path, storage
):
    most = {"uint16": 1e-4, "uint8": 1 / 40, "float16": 0.05, "float32": 0.0}[storage]
    prepare(tmp_path / "cache", tiny_cohort.contrast, real_paths, storage)
    cache = opened(tmp_path / "cache", tiny_cohort.contrast, storage)
    for path in real_paths:
        expected = read_crop(path, tiny_cohort.contrast)
        found = np.empty_like(expected)
        cache.expand(cache.entry(path), 1.0, NO_AUGMENTATION, found)
        spread = expected[expected != 0].std()
        assert np.abs(found - expected).max() <= most * spread
        assert not found[expected == 0].any()
        if storage != "uint8":  # whose steps are wide enough to take a voxel to 0
            assert np.array_equal(found == 0, expected == 0)


def test_many_threads_read_at_once(tiny_cohort, real_paths, tmp_path):
    prepare(tmp_path / "cache", tiny_cohort.contrast, real_paths)
    reader = VolumeReader(
        tiny_cohort.contrast, 1.0, cache=opened(tmp_path / "cache", tiny_cohort.contrast)
    )
    alone = [reader.read(path) for path in real_paths]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(reader.read, real_paths * 50))
    assert all(np.array_equal(found, alone[i % 4]) for i, found in enumerate(together))


def test_a_file_that_cannot_be_used_has_its_reason_in_the_cache(tiny_cohort, tmp_path):
    tiny_cohort.paths[2].write_bytes(b"no image")
    tiny_cohort.paths[5].unlink()
    _, done = prepare(tmp_path / "cache", tiny_cohort.contrast, tiny_cohort.paths)
    assert done.n_volumes == 11 and len(done.failures) == 2
    cache = opened(tmp_path / "cache", tiny_cohort.contrast)
    reader = VolumeReader(tiny_cohort.contrast, 1.0, cache=cache)
    for position in (2, 5):
        with pytest.raises(VolumeError) as direct:
            read_crop(tiny_cohort.paths[position], tiny_cohort.contrast)
        with pytest.raises(VolumeError) as prepared:
            reader.read(tiny_cohort.paths[position])
        assert str(prepared.value) == str(direct.value)
    assert cache.n_volumes == 11


def test_parts_are_where_the_format_says(tiny_cohort, real_paths, tmp_path):
    prepare(tmp_path / "cache", tiny_cohort.contrast, real_paths)
    cache = opened(tmp_path / "cache", tiny_cohort.contrast)
    for entry in cache.entries.values():
        stored = cache.payload(entry)
        parts = unpacked(stored, entry, cache.key.box)
        assert entry.offset % 64 == 0 and len(stored) == entry.n_bytes
        assert parts.packed() == bytes(stored)
        assert parts.counts.sum() == entry.n_runs and parts.lengths.sum() == entry.n_mask
        box = np.zeros(cache.key.box, dtype=np.float32)
        cache.expand(entry, 1.0, NO_AUGMENTATION, box)
        assert np.array_equal(box.reshape(-1)[parts.positions], parts.exact)
        cache.read_ahead(entry)


def test_the_later_index_holds(tiny_cohort, tmp_path, write_volume):
    root, contrast, path = tmp_path / "cache", tiny_cohort.contrast, tiny_cohort.paths[0]
    prepare(root, contrast, tiny_cohort.paths)
    write_volume(path, np.arange(np.prod(contrast.shape), dtype=np.int16).reshape(contrast.shape))
    plan, done = prepare(root, contrast, tiny_cohort.paths)
    assert plan.why == {str(path): "the file's content changed"} and done.n_volumes == 1
    cache = opened(root, contrast)
    assert len(index_paths(cache.folder)) == 2 and cache.n_volumes == 13
    reader = VolumeReader(contrast, 1.0, cache=cache)
    assert np.array_equal(reader.read(path), read_crop(path, contrast))


def test_an_index_comes_back_as_it_was_written(tiny_cohort, tmp_path):
    key = CacheKey.of(tiny_cohort.contrast, "strict", "uint16")
    entries = [
        Prepared("/data/a.nii.gz", 7, 2**62, "ab", "", "", "000001-x", 64, 10, 2**32 - 1, "uint16",
                 False, 1e-30, -123456.0, 3, 2, 5, 1 / 3, -1e30, 5e-324, 0.1, 1e300, None),
        Prepared("/data/\udce4ö\n\".nii.gz", -1, -1, "", "no such file"),
    ]  # fmt: skip
    write_index(tmp_path / "a.json", key, entries)
    content = read_index(tmp_path / "a.json")
    assert content["entries"] == entries and key.differences(content["key"]) == []


def test_every_setting_that_changes_a_volume_changes_the_key(tiny_cohort):
    contrast = tiny_cohort.contrast
    key = CacheKey.of(contrast, "strict", "uint16")
    for field, value in {
        "shape": (18, 20, 18),
        "voxel_mm": 4.0,
        "crop": ((1, 17), (2, 20), (1, 17)),
        "volume_index": 0,
    }.items():
        other = CacheKey.of(dataclasses.replace(contrast, **{field: value}), "strict", "uint16")
        assert other.folder_name != key.folder_name
        (difference,) = other.differences(key.plain())
        assert difference.startswith(f"{field} was ")
    for other in (CacheKey.of(contrast, "reorient", "uint16"),
                  CacheKey.of(contrast, "strict", "uint8")):  # fmt: skip
        assert other.folder_name != key.folder_name and len(other.differences(key.plain())) == 1
    for field in ("scale_factor", "divide_by_mean", "data_file", "category"):
        other = dataclasses.replace(contrast, **{field: None})
        assert CacheKey.of(other, "strict", "uint16") == key, f"{field} changes nothing here"


def test_a_cache_of_another_key_is_refused_and_named(tiny_cohort, tmp_path):
    prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths[:2])
    other = CacheKey.of(tiny_cohort.contrast, "strict", "uint8")
    (folder,) = cache_folders(tmp_path, ["tiny"])
    with pytest.raises(UserError, match="does not fit: storage was 'uint16' and is 'uint8'"):
        ContrastCache.open(folder, other)
    sources = {str(tiny_cohort.paths[0])}
    assert other_caches(tmp_path, other, sources) == [
        (folder, ["storage was 'uint16' and is 'uint8'"])
    ]
    assert other_caches(tmp_path, other, {"/elsewhere"}) == []


def test_an_older_format_is_prepared_anew(tiny_cohort, tmp_path):
    """A cache of another version lies in another folder; it is said, and nothing of it is read."""
    key = CacheKey.of(tiny_cohort.contrast, "strict", "uint16")
    old = dataclasses.replace(key, format_version=0)
    entry = Prepared(str(tiny_cohort.paths[0]), 1, 1, "ab", shard="000001-x", n_bytes=5)
    write_index(tmp_path / old.folder_name / "000001-aaaaaaaa-1.json", old, [entry])
    plan, done = prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths)
    assert done.n_volumes == 13 and list(plan.others.values()) == [
        ["format_version was 0 and is 1"]
    ]


def test_a_source_is_outdated_for_a_reason(tiny_cohort, tmp_path):
    source = str(tiny_cohort.paths[0])
    prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths[:1])
    entry = opened(tmp_path, tiny_cohort.contrast).entries[source]
    assert outdated(source, None) == ("not prepared before", None)
    assert outdated(source, entry) == ("", None)
    earlier = dataclasses.replace(entry, source_time_ns=5)
    assert outdated(source, earlier) == ("", entry)
    for changed in ({"n_source_bytes": 5}, {"source_hash": "ab", "source_time_ns": 5}):
        other = dataclasses.replace(entry, **changed)
        assert outdated(source, other) == ("the file's content changed", None)
    missing = Prepared(source, -1, -1, "", "no such file")
    assert outdated(source, missing) == ("the file is there now", None)
    tiny_cohort.paths[0].unlink()
    assert outdated(source, entry) == ("the file is gone", None)
    assert outdated(source, missing) == ("", None)


def test_links_are_sources_of_their_own(tiny_cohort, tmp_path):
    """A source is named by the path it is asked for by; what it links to decides whether it changed."""
    link = tmp_path / "link.nii.gz"
    link.symlink_to(tiny_cohort.paths[0])
    prepare(tmp_path / "cache", tiny_cohort.contrast, [link])
    cache = opened(tmp_path / "cache", tiny_cohort.contrast)
    assert cache.entry(link) and not cache.entry(tiny_cohort.paths[0])
    link.unlink()
    link.symlink_to(tiny_cohort.paths[1])
    assert outdated(str(link), cache.entry(link))[0] == "the file's content changed"


def test_one_file_serves_many_contrasts(tmp_path, tiny_cohort, write_volume):
    values = generator("4d").integers(1, 99, (*tiny_cohort.contrast.shape, 3)).astype(np.int16)
    path = write_volume(tmp_path / "a.nii.gz", values)
    contrasts = [
        dataclasses.replace(tiny_cohort.contrast, name=f"c{index}", volume_index=index)
        for index in range(3)
    ]
    plans = [plan_contrast(tmp_path, c, "strict", "uint16", [path]) for c in contrasts]
    assert carry_out(plans, 2, all_of).n_volumes == 3
    for contrast in contrasts:
        reader = VolumeReader(contrast, 1.0, cache=opened(tmp_path, contrast))
        assert np.array_equal(reader.read(path), read_crop(path, contrast))


def test_an_index_is_readable_by_other_programs(tiny_cohort, tmp_path):
    prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths[:2])
    (path,) = index_paths(cache_folders(tmp_path, ["tiny"])[0])
    text, checksum, end = path.read_bytes().split(b"\n")
    assert len(checksum) == 64 and end == b""
    content = json.loads(text)
    assert content["key"]["contrast"] == "tiny" and len(content["entries"]) == 2
