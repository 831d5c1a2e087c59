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

from datasets import batch_memory, images, loaders
from datasets.augmentation import Augmentation, AugmentationPlan
from datasets.batch_memory import BatchMemory
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.loaders import (
    Batch,
    CellVolumes,
    Epoch,
    Share,
    evaluation_batches,
    evaluation_epoch,
    training_batches,
    training_epoch,
)
from datasets.volumes import VolumeReader
from utils.common.errors import UserError

AUGMENTED = AugmentationPlan(shift_voxels=2, mirror=True)
EVERYTHING = AugmentationPlan(2, True, 10.0, 0.1, 0.2, 0.2)


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
        (a.step, a.n_in_group) == (b.step, b.n_in_group)
        and a.positions.equal(b.positions)
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

    monkeypatch.setattr(batch_memory, "BatchMemory", Watched)
    batch_memory.batch_memory.cache_clear()  # else an earlier epoch's is used
    volumes._kept.update(dict.fromkeys(range(13), volumes.read(0)))
    often = Epoch(volumes, [[i % 13, (i + 1) % 13] for i in range(300)], AUGMENTED, (7,), 2)
    assert sum(1 for _ in loaders.batches(often, n_workers)) == 300
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


@pytest.mark.parametrize("plan", [AUGMENTED, EVERYTHING])
@pytest.mark.parametrize("first_step", [1, 2, 3])
def test_an_epoch_goes_on_at_any_group_without_reading_those_before(volumes, plan, first_step):
    whole = list(training_batches(volumes, 4, plan, 7, 1, 0))
    assert [batch.step for batch in whole] == [0, 1, 2]
    assert [batch.n_in_group for batch in whole] == [4, 4, 5]
    before = len(volumes.reader.read_paths)
    rest = list(training_batches(volumes, 4, plan, 7, 1, 2, first_step=first_step))
    assert same(rest, whole[first_step:])
    n_read = len(volumes.reader.read_paths) - before
    assert n_read == sum(batch.n_in_group for batch in whole[first_step:])


def test_a_group_that_is_passed_over_leaves_a_gap_in_the_steps(volumes):
    groups = training_epoch(volumes, 4, AUGMENTED, 7, 1).groups
    for position in groups[1][1:]:
        volumes.paths[position].unlink()
    found = list(training_batches(volumes, 4, AUGMENTED, 7, 1, 0))
    assert [batch.step for batch in found] == [0, 2]
    again = training_batches(volumes, 4, AUGMENTED, 7, 1, 0, first_step=1)
    assert [batch.step for batch in again] == [2]


def test_a_subject_that_comes_again_is_augmented_otherwise(volumes):
    def drawn(first_step: int) -> list[Batch]:
        return list(
            training_batches(
                volumes, 4, AUGMENTED, 7, 3, 0, first_step=first_step, sampling="age_balanced"
            )
        )

    whole = drawn(0)
    seen = flat(whole)
    assert len(seen) == 13 > len(set(seen))
    assert same(drawn(2), whole[2:])  # what came in the groups before is counted
    rows = torch.cat([batch.volumes for batch in whole])
    assert len({(p, row.numpy().tobytes()) for p, row in zip(seen, rows)}) >= 12
    each = {
        position: row
        for batch in training_batches(volumes, 4, AUGMENTED, 7, 3, 0)
        for position, row in zip(batch.positions.tolist(), batch.volumes)
    }
    for place, position in enumerate(seen):
        if position not in seen[:place]:
            assert torch.equal(rows[place], each[position])


def test_everything_from_files_memory_and_cache_is_the_same(volumes, tmp_path):
    """The tiny volumes hold whole numbers, which a cache keeps exactly."""
    direct = list(training_batches(volumes, 4, EVERYTHING, 7, 1, 2))
    contrast = volumes.reader.contrast
    cache = prepared(volumes.paths, contrast, tmp_path)
    cached = replace(volumes, reader=VolumeReader(contrast, 100.0, cache=cache))
    assert same(direct, list(training_batches(cached, 4, EVERYTHING, 7, 1, 2)))
    volumes.keep_in_memory()
    assert same(direct, list(training_batches(volumes, 4, EVERYTHING, 7, 1, 2)))
    plain = list(training_batches(volumes, 4, AUGMENTED, 7, 1, 2))
    assert not any(torch.equal(a.volumes, b.volumes) for a, b in zip(plain, direct))


@pytest.fixture
def shared(volumes, tmp_path) -> CellVolumes:
    """Prepared volumes, of which the cache knows that two cannot be used."""
    volumes.paths[3].unlink()
    volumes.paths[9].write_bytes(b"no image")
    contrast = volumes.reader.contrast
    reader = VolumeReader(
        contrast, 100.0, cache=prepared(volumes.paths, contrast, tmp_path / "cache")
    )
    return replace(volumes, reader=reader)


def of_share(volumes: CellVolumes, share: Share, size: int, **words) -> list[Batch]:
    mine = replace(volumes, failures={})  # a process knows nothing of the others
    return list(training_batches(mine, size, AUGMENTED, 7, 1, 0, share=share, **words))


@pytest.mark.parametrize(("n", "size"), [(2, 4), (3, 4), (4, 4), (2, 12), (3, 13)])
def test_the_parts_of_processes_make_the_groups_of_one(shared, n, size):
    one = of_share(shared, Share(), size, smallest_group=n)
    parts = [of_share(shared, Share(index, n), size) for index in range(n)]
    assert {len(part) for part in parts} == {len(one)}
    for step, whole in enumerate(one):
        mine = [part[step] for part in parts]
        assert torch.cat([batch.positions for batch in mine]).equal(whole.positions)
        assert torch.cat([batch.volumes for batch in mine]).equal(whole.volumes)
        assert torch.cat([batch.ages_years for batch in mine]).equal(whole.ages_years)
        assert {(b.step, b.n_in_group) for b in mine} == {(whole.step, len(whole.positions))}
        sizes = [len(batch.positions) for batch in mine]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("sampling", ["each", "age_balanced"])
def test_a_process_goes_on_at_any_group(shared, sampling):
    whole = of_share(shared, Share(1, 2), 4, sampling=sampling)
    rest = of_share(shared, Share(1, 2), 4, sampling=sampling, first_step=1)
    assert rest and same(rest, whole[1:])


def test_a_last_group_smaller_than_the_number_of_processes_joins_the_one_before(shared):
    def sizes(**words) -> list[int]:
        return list(map(len, training_epoch(shared, 5, AUGMENTED, 7, 1, **words).groups))

    assert sizes() == sizes(share=Share(0, 3)) == [5, 5, 3]
    assert sizes(share=Share(2, 4)) == sizes(smallest_group=4) == [5, 8]


def test_a_group_with_fewer_usable_subjects_than_processes_is_passed_over_by_all(shared):
    groups = training_epoch(shared, 4, AUGMENTED, 7, 1).groups
    shared.note_failures()
    for position in groups[0]:
        cache = shared.reader.cache
        entry = cache.entry(shared.paths[position])
        if position != groups[0][0]:
            cache.entries[entry.source] = replace(entry, reason="is damaged")
    assert [b.step for b in of_share(shared, Share(0, 2), 4)] == [1, 2]
    assert [b.step for b in of_share(shared, Share(1, 2), 4)] == [1, 2]
    assert [b.step for b in of_share(shared, Share(), 4)] == [1, 2]


def test_evaluation_is_shared_too_and_a_part_may_be_empty(shared):
    seen = []
    for index in range(3):
        mine = evaluation_batches(replace(shared, failures={}), 4, 0, share=Share(index, 3))
        seen.append([(b.step, b.positions.tolist(), b.n_in_group) for b in mine])
    assert [[step for step, *_ in part] for part in seen] == [[0, 1, 2], [0, 1, 2], [0, 1, 2, 3]]
    everybody = sorted(p for part in seen for _, positions, _ in part for p in positions)
    assert everybody == [i for i in range(13) if i not in (3, 9)]
    assert [n for *_, n in seen[2]] == [3, 4, 3, 1]


def test_processes_share_prepared_volumes_only(volumes, shared):
    for build in (
        lambda: training_epoch(volumes, 4, AUGMENTED, 7, 1, share=Share(0, 2)),
        lambda: evaluation_epoch(volumes, 4, share=Share(0, 2)),
    ):
        with pytest.raises(UserError, match=r"13 of 13 volumes are not prepared.*Run -m prepare"):
            build()
    for words in ({"share": Share(0, 5)}, {"share": Share(0, 2), "smallest_group": 5}):
        with pytest.raises(UserError, match=r"batch of 4 is too small: .* need 5 subjects or more"):
            training_epoch(shared, 4, AUGMENTED, 7, 1, **words)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_a_volume_that_fails_while_processes_run_ends_them_by_name(shared, n_workers):
    cache = shared.reader.cache
    entry = cache.entry(shared.paths[7])
    cache.entries[entry.source] = replace(entry, checksum=entry.checksum ^ 1)
    assert 7 not in flat(training_batches(shared, 4, AUGMENTED, 7, 1, 0))
    groups = training_epoch(shared, 4, AUGMENTED, 7, 1).groups
    (step,) = [step for step, group in enumerate(groups) if 7 in group]
    with pytest.raises(UserError, match=r"subject 0008: .*tiny.nii.gz .*checksum.*2 processes"):
        for index in (0, 1):
            mine = replace(shared, failures={})
            for _ in training_batches(
                mine, 4, AUGMENTED, 7, 1, n_workers, share=Share(index, 2), first_step=step
            ):
                pass
