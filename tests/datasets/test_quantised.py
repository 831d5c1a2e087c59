"""Stored bytes expanded by torch are the batches that the threads would have written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from datasets.augmentation import AugmentationPlan
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.quantised import expanded, quantised_batches
from datasets.loaders import CellVolumes, training_batches, training_epoch
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


@pytest.mark.parametrize("storage", ["uint16", "uint8", "float16", "float32"])
def test_expanding_gives_the_same_batches(prepared, storage):
    volumes = prepared(storage)
    assert volumes.prepared
    plan = AugmentationPlan(shift_voxels=3, mirror=True)
    as_floats = list(training_batches(dataclasses.replace(volumes), 4, plan, 7, 2, 0))
    epoch = training_epoch(volumes, 4, plan, 7, 2)
    as_stored = list(quantised_batches(epoch, 2))
    assert volumes.failures == {4: "no such file"}
    assert len(as_floats) == len(as_stored)
    for wanted, batch in zip(as_floats, as_stored):
        assert torch.equal(batch.positions, wanted.positions)
        assert torch.equal(batch.ages_years, wanted.ages_years)
        torch.testing.assert_close(expanded(batch, CPU), wanted.volumes, rtol=1e-6, atol=1e-7)


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
