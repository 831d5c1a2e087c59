"""Stored bytes expanded by torch are the batches that the threads would have written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from datasets.augmentation import AugmentationPlan
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.quantised import expanded, quantised_batches
from datasets.compression import crc32
from datasets.loaders import CellVolumes, Epoch, batches, training_batches, training_epoch
from datasets.volumes import VolumeReader

CPU = torch.device("cpu")


@pytest.fixture
def prepared(tiny_cohort, tmp_path, write_volume):
    """Real numbers with one far outlier, whole numbers with a slope, and a missing file."""

    def build(storage: str) -> CellVolumes:
        paths, rng = list(tiny_cohort.paths), np.random.default_rng(1)
        values = rng.normal(0, 10, tiny_cohort.contrast.shape).astype(np.float32)
        values[:3], values[5, 9, 8] = 0, 1e4
        paths[0] = write_volume(tmp_path / "real.nii.gz", values, tiny_cohort.contrast.voxel_mm)
        paths[4] = tmp_path / "missing.nii.gz"
        plan = plan_contrast(tmp_path / "cache", tiny_cohort.contrast, "strict", storage, paths)
        carry_out([plan], 2, lambda finished, n: finished)
        reader = VolumeReader(tiny_cohort.contrast, 100.0, "strict", plan.cache)
        return CellVolumes(
            list(tiny_cohort.subject_ids), paths, tiny_cohort.ages_years.copy(), reader
        )

    return build


PLANS = {
    "none": AugmentationPlan(),
    "moved": AugmentationPlan(shift_voxels=3, mirror=True),
    "moved out of the box": AugmentationPlan(shift_voxels=25),
    "intensity": AugmentationPlan(2, True, gain_fraction=0.2, gamma_fraction=0.3),
    "resampled": AugmentationPlan(2, True, rotation_degrees=15.0, zoom_fraction=0.1),
    "everything": AugmentationPlan(2, True, 15.0, 0.1, 0.2, 0.3),
}


@pytest.mark.parametrize("storage", ["uint16", "uint8", "float16", "float32"])
@pytest.mark.parametrize("name", PLANS)
def test_expanding_gives_the_same_batches(prepared, storage, name):
    volumes, plan = prepared(storage), PLANS[name]
    assert volumes.prepared
    as_floats = list(training_batches(dataclasses.replace(volumes), 4, plan, 7, 2, 0))
    epoch = training_epoch(volumes, 4, plan, 7, 2)
    as_stored = list(quantised_batches(epoch, 2))
    assert volumes.failures == {4: "no such file"}
    assert len(as_floats) == len(as_stored)
    for wanted, batch in zip(as_floats, as_stored):
        assert torch.equal(batch.positions, wanted.positions)
        assert torch.equal(batch.ages_years, wanted.ages_years)
        assert (batch.step, batch.n_in_group) == (wanted.step, wanted.n_in_group)
        found = expanded(batch, CPU)
        assert found.is_contiguous()
        if epoch.plan.rotation_degrees or epoch.plan.gamma_fraction:
            largest = float(wanted.volumes.abs().max())
            assert float((found - wanted.volumes).abs().max()) <= 2e-6 * max(largest, 1.0)
        else:
            torch.testing.assert_close(found, wanted.volumes, rtol=1e-6, atol=1e-7)


def test_a_drawn_subject_may_come_twice_in_a_batch(prepared):
    volumes = prepared("uint16")
    plan = PLANS["moved"]
    twice = Epoch(volumes, [[1, 2, 1], [1, 3]], plan, (7,), 2)
    as_floats, as_stored = list(batches(twice, 0)), list(quantised_batches(twice, 0))
    for wanted, batch in zip(as_floats, as_stored):
        assert torch.equal(batch.positions, wanted.positions)
        torch.testing.assert_close(expanded(batch, CPU), wanted.volumes, rtol=1e-6, atol=1e-7)
    first, _, second = as_floats[0].volumes
    assert not torch.equal(first, second) and not torch.equal(as_floats[1].volumes[0], second)
    once = Epoch(volumes, [[1, 2]], plan, (7,), 2)
    assert torch.equal(next(batches(once, 0)).volumes[0], first)


def test_a_volume_that_contradicts_itself_is_left_out(prepared):
    volumes = prepared("uint16")
    cache = volumes.reader.cache
    entry = cache.entry(volumes.paths[7])
    shard = cache.folder / f"{entry.shard}.volumes"
    data = bytearray(shard.read_bytes())
    data[entry.offset] ^= 1  # another number of runs in the first row
    shard.write_bytes(data)
    checksum = crc32(memoryview(data)[entry.offset : entry.offset + entry.n_bytes])
    cache.entries[entry.source] = dataclasses.replace(entry, checksum=checksum)
    epoch = training_epoch(volumes, 4, AugmentationPlan(), 7, 1)
    seen = [p for batch in quantised_batches(epoch, 0) for p in batch.positions.tolist()]
    assert 7 not in seen and "contradicts itself" in volumes.failures[7]


def test_a_damaged_volume_is_left_out_by_name(prepared):
    volumes = prepared("uint16")
    cache = volumes.reader.cache
    entry = cache.entry(volumes.paths[7])
    shard = cache.folder / f"{entry.shard}.volumes"
    data = bytearray(shard.read_bytes())
    data[entry.offset + entry.n_bytes // 2] ^= 1
    shard.write_bytes(data)
    epoch = training_epoch(volumes, 4, AugmentationPlan(), 7, 1)
    seen = [p for batch in quantised_batches(epoch, 0) for p in batch.positions.tolist()]
    assert 7 not in seen and "checksum" in volumes.failures[7]
