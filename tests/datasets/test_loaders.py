"""Batches: a seeded order, augmentation in training only, failures collected, workers that change nothing."""

from __future__ import annotations

import errno
import gc
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets import images, loaders
from datasets.augmentation import Augmentation, AugmentationPlan
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.loaders import (
    Batch,
    BatchMemory,
    CellVolumes,
    Epoch,
    evaluation_batches,
    training_batches,
)
from datasets.volumes import VolumeReader

AUGMENTED = AugmentationPlan(shift_voxels=2, mirror=True)


@dataclass
class CountingReader:
    """A reader that remembers which files were read."""

    inner: VolumeReader
    read_paths: list[Path] = field(default_factory=list)

    cache = None

    @property
    def contrast(self):
        return self.inner.contrast

    def read_into(self, path: Path, box: np.ndarray, by: Augmentation) -> str:
        self.read_paths.append(path)
        return self.inner.read_into(path, box, by)


@pytest.fixture
def volumes(tiny_cohort) -> CellVolumes:
    reader = CountingReader(VolumeReader(tiny_cohort.contrast, 100.0))
    return CellVolumes(
        list(tiny_cohort.subject_ids),
        list(tiny_cohort.paths),
        tiny_cohort.ages_years.copy(),
        reader,
    )


def flat(batches) -> list[int]:
    return [position for batch in batches for position in batch.positions.tolist()]


def positions(batches) -> list[list[int]]:
    return [batch.positions.tolist() for batch in batches]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        a.positions.equal(b.positions)
        and a.volumes.equal(b.volumes)
        and a.ages_years.equal(b.ages_years)
        for a, b in zip(first, second)
    )


def test_order_depends_on_seed_and_epoch_only(volumes):
    def order(seed, epoch, size=4, plan=AUGMENTED):
        return flat(training_batches(volumes, size, plan, seed, epoch, 0))

    first = order(7, 1)
    assert sorted(first) == list(range(13)) != first
    assert first == order(7, 1, size=13) == order(7, 1, plan=AugmentationPlan())
    assert len({tuple(order(*words)) for words in ((7, 1), (7, 2), (8, 1))}) == 3


def test_a_last_batch_of_one_joins_the_one_before(volumes):
    sizes = [len(p) for p in positions(training_batches(volumes, 4, AugmentationPlan(), 0, 1, 0))]
    assert sizes == [4, 4, 5]
    sizes = [len(p) for p in positions(training_batches(volumes, 5, AugmentationPlan(), 0, 1, 0))]
    assert sizes == [5, 5, 3]
    sizes = [len(p) for p in positions(evaluation_batches(volumes, 4, 0))]
    assert sizes == [4, 4, 4, 1]


def test_a_batch_holds_the_volumes_and_ages_of_its_positions(volumes, tiny_cohort):
    for batch in training_batches(volumes, 4, AugmentationPlan(), 3, 1, 0):
        assert batch.volumes.shape[1:] == (1, 16, 18, 16)
        for row, position in enumerate(batch.positions.tolist()):
            expected = volumes.reader.inner.read(tiny_cohort.paths[position])
            assert np.array_equal(batch.volumes[row, 0].numpy(), expected)
            assert batch.ages_years[row] == np.float32(tiny_cohort.ages_years[position])


def test_augmentation_is_of_training_only_and_of_subject_and_epoch(volumes):
    def by_subject(batches) -> dict[int, np.ndarray]:
        found = {}
        for batch in batches:
            found.update(zip(batch.positions.tolist(), batch.volumes[:, 0].numpy()))
        return found

    plain = by_subject(evaluation_batches(volumes, 4, 0))
    assert all(np.array_equal(plain[i], volumes.reader.inner.read(volumes.paths[i])) for i in plain)
    first = by_subject(training_batches(volumes, 4, AUGMENTED, 7, 1, 0))
    again = by_subject(training_batches(volumes, 6, AUGMENTED, 7, 1, 0))
    later = by_subject(training_batches(volumes, 4, AUGMENTED, 7, 2, 0))
    assert all(np.array_equal(first[i], again[i]) for i in first)
    assert sum(not np.array_equal(first[i], plain[i]) for i in first) > 8
    assert sum(not np.array_equal(first[i], later[i]) for i in first) > 8


def test_each_subject_has_a_draw_of_its_own(volumes):
    everybody_the_same = volumes.read(0)
    volumes._kept.update(dict.fromkeys(range(13), everybody_the_same))
    batches = list(training_batches(volumes, 4, AUGMENTED, 7, 1, 0))
    assert len({row.numpy().tobytes() for batch in batches for row in batch.volumes}) > 9


def test_workers_change_nothing(volumes):
    alone = list(training_batches(volumes, 4, AUGMENTED, 7, 1, 0))
    assert same(alone, list(training_batches(volumes, 4, AUGMENTED, 7, 1, 2)))


@pytest.mark.parametrize("n_workers", [0, 2])
def test_failures_are_left_out_and_remembered(volumes, n_workers):
    volumes.paths[3].write_bytes(b"no image")
    volumes.paths[9].unlink()
    seen = flat(training_batches(volumes, 4, AUGMENTED, 7, 1, n_workers))
    assert sorted(seen) == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12]
    assert set(volumes.failures) == {3, 9} and volumes.failures[9] == "no such file"
    assert "is not a NIfTI image" in volumes.failures[3]
    before = len(volumes.reader.read_paths)
    seen = flat(evaluation_batches(volumes, 4, 0))
    assert sorted(seen) == [0, 1, 2, 4, 5, 6, 7, 8, 10, 11, 12]
    assert len(volumes.reader.read_paths) - before == 11  # what failed is not tried again


def test_a_training_batch_of_which_one_is_left_is_passed_over(volumes):
    for position in range(1, 13):
        volumes.paths[position].unlink()
    assert list(training_batches(volumes, 4, AugmentationPlan(), 0, 1, 0)) == []
    assert positions(evaluation_batches(volumes, 4, 0)) == [[0]]


def test_in_memory_each_volume_is_read_once(volumes):
    volumes.paths[3].unlink()
    direct = list(training_batches(volumes, 4, AUGMENTED, 7, 1, 0))
    volumes.reader.read_paths.clear()
    volumes.failures.clear()
    assert volumes.gigabytes_to_keep() == 13 * 16 * 18 * 16 * 4 / 1e9
    assert not volumes.reader.read_paths
    volumes.keep_in_memory()
    assert same(direct, list(training_batches(volumes, 4, AUGMENTED, 7, 1, 2)))
    assert same(direct, list(training_batches(volumes, 4, AUGMENTED, 7, 1, 0)))  # none was changed
    assert sorted(volumes.reader.read_paths) == sorted(volumes.paths)


def prepared(paths: list[Path], contrast, folder: Path) -> ContrastCache:
    """A cache of these files."""
    plan = plan_contrast(folder, contrast, "strict", "uint16", paths)
    carry_out([plan], 1, lambda finished, n: finished)
    return ContrastCache.open(plan.cache.folder, plan.cache.key)


def test_only_what_is_not_prepared_is_kept(volumes, tmp_path):
    direct = list(training_batches(volumes, 4, AUGMENTED, 7, 1, 0))
    contrast = volumes.reader.contrast
    cache = prepared(
        [p for i, p in enumerate(volumes.paths) if i not in (2, 5)], contrast, tmp_path
    )
    partly = replace(volumes, reader=VolumeReader(contrast, 100.0, cache=cache))
    assert partly.unprepared() == [2, 5] and not partly.prepared
    assert partly.gigabytes_to_keep() == 2 * 16 * 18 * 16 * 4 / 1e9
    partly.keep_in_memory(2)
    assert list(partly._kept) == [2, 5]
    assert same(direct, list(training_batches(partly, 4, AUGMENTED, 7, 1, 2)))
    whole = replace(volumes, reader=VolumeReader(contrast, 100.0, cache=cache), _kept={})
    whole.subject_ids, whole.paths = ["a", "b"], volumes.paths[:2]
    whole.keep_in_memory()
    assert whole.prepared and whole.gigabytes_to_keep() == 0 and not whole._kept


def test_what_the_cache_knows_of_failures_is_noted_without_reading(volumes, tmp_path, monkeypatch):
    contrast = volumes.reader.contrast
    volumes.paths[3].unlink()
    cache = prepared(volumes.paths, contrast, tmp_path)
    volumes.note_failures()
    assert not volumes.failures, "there is no cache"
    cached = replace(volumes, reader=VolumeReader(contrast, 100.0, cache=cache), failures={})
    monkeypatch.setattr(cache, "payload", None)
    cached.note_failures()
    assert cached.failures == {3: "no such file"}
    huge = replace(volumes, reader=VolumeReader(contrast, 1e-60, cache=cache), failures={})
    huge.note_failures()
    assert len(huge.failures) == 13 and "would be divided by" in huge.failures[0]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_fault_of_the_machine_is_tried_again_and_remembered(volumes, monkeypatch, n_workers):
    faulty = {volumes.paths[3], volumes.paths[9]}

    def stale(path: Path):
        if path in faulty:
            raise OSError(errno.ESTALE, "Stale file handle")
        return opened(path)

    opened = images._open_regular
    monkeypatch.setattr(images, "_open_regular", stale)

    def epoch(number: int) -> list[int]:
        return sorted(flat(training_batches(volumes, 4, AUGMENTED, 7, number, n_workers)))

    reason, everybody = "cannot be read (Stale file handle)", list(range(13))
    assert epoch(1) == [i for i in everybody if i not in (3, 9)]
    assert volumes.failures == volumes.faults == {3: reason, 9: reason}
    faulty.clear()
    volumes.paths[9].unlink()
    for number in (2, 3):
        assert epoch(number) == [i for i in everybody if i != 9]
        assert volumes.failures == {9: "no such file"} and volumes.faults == {3: reason}


@pytest.mark.parametrize(
    ("where", "error", "passes"),
    [
        ("_open_regular", OSError(errno.EIO, "Input/output error"), True),
        ("decompressed", OSError(errno.EIO, "Input/output error"), True),
        ("_head", MemoryError(), True),
        ("decompressed", MemoryError(), True),
        ("_open_regular", PermissionError(errno.EACCES, "Permission denied"), False),
        ("_head", OSError("a library says that the content is wrong"), False),
        ("decompressed", OSError("a library says that the content is wrong"), False),
        ("decompressed", ValueError("damaged"), False),
    ],
)
def test_faults_of_the_machine_are_told_from_those_of_the_volume(
    volumes, monkeypatch, where, error, passes
):
    def fail(*words):
        raise error

    monkeypatch.setattr(images, where, fail)
    assert volumes.read(0) == volumes.failures[0]
    assert volumes.faults == (volumes.failures if passes else {})


@pytest.mark.parametrize("n_workers", [0, 2])
def test_memory_does_not_grow_with_the_number_of_batches(volumes, monkeypatch, n_workers):
    memories = []

    class Watched(BatchMemory):
        def __init__(self, *shape):
            super().__init__(*shape)
            memories.append(self)

    monkeypatch.setattr(loaders, "BatchMemory", Watched)
    loaders.batch_memory.cache_clear()  # else an earlier epoch's is used
    volumes._kept.update(dict.fromkeys(range(13), volumes.read(0)))
    often = Epoch(volumes, [[i % 13, (i + 1) % 13] for i in range(300)], AUGMENTED, (7,), 2)
    assert sum(1 for _ in loaders._batches(often, n_workers)) == 300
    (memory,) = memories
    assert 1 <= len(memory._blocks) <= loaders.N_BATCHES_AHEAD + 3


def test_a_block_is_given_again_only_when_its_tensor_and_all_views_are_gone():
    memory = BatchMemory((2, 3), np.float32)
    tensor = torch.from_numpy(memory.take())
    view = tensor[1:]
    del tensor
    assert memory.take() is not memory._blocks[0]
    assert len(memory._blocks) == 2
    del view
    for _ in range(100):
        assert memory.take() is memory._blocks[0]
    assert len(memory._blocks) == 2


@pytest.mark.parametrize("n_workers", [0, 2])
def test_memory_is_used_again_only_when_nobody_holds_it(volumes, n_workers):
    held, addresses = [], set()
    for batch in training_batches(volumes, 2, AUGMENTED, 7, 1, n_workers):
        held.append((batch, batch.volumes.clone()))
    assert all(torch.equal(batch.volumes, before) for batch, before in held)
    n_batches = len(held)
    held.clear()
    for batch in training_batches(volumes, 2, AUGMENTED, 7, 2, n_workers):
        addresses.add(batch.volumes.data_ptr())
    assert len(addresses) < n_batches


def test_leaving_early_ends_the_threads(volumes):
    before = threading.active_count()
    for _ in training_batches(volumes, 2, AUGMENTED, 7, 1, 2):
        break
    gc.collect()
    assert threading.active_count() == before
