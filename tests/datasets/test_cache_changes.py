"""What must not be taken from the cache: files, settings or volumes that are not what they were."""

from __future__ import annotations

import dataclasses
import shutil

import nibabel as nib
import numpy as np
import pytest

from datasets.augmentation import NO_AUGMENTATION
from datasets.cache.index import Prepared, source_of
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.cache.reading import ContrastCache
from datasets.cache.shards import ShardWriter, _is_dead
from datasets.volumes import VolumeError, VolumeReader, auto_scale_factor, read_crop

EMPTY = Prepared("/data/a.nii.gz", 1, 1, "ab")


def plan(root, contrast, paths, **options):
    return plan_contrast(root, contrast, "strict", "uint16", paths, **options)


def prepare(root, contrast, paths):
    planned = plan(root, contrast, paths)
    carry_out([planned], 2, lambda finished, n_sources: finished)
    return planned


def test_an_automatic_scale_follows_divide_by_mean(tiny_cohort, tmp_path):
    auto = dataclasses.replace(tiny_cohort.contrast, scale_factor=None, divide_by_mean=True)
    paths = tiny_cohort.paths[:3]
    prepare(tmp_path, auto, paths)
    for divide in (True, False):
        contrast = dataclasses.replace(auto, divide_by_mean=divide)
        planned = plan(tmp_path, contrast, paths)
        assert not planned.why
        found = auto_scale_factor(paths, contrast, "strict", planned.cache)
        assert found == auto_scale_factor(paths, contrast, "strict")


def test_a_mean_below_zero_is_a_fault_of_the_division_alone(tiny_cohort, tmp_path, write_volume):
    values = -np.arange(1, np.prod(tiny_cohort.contrast.shape) + 1, dtype=np.float32)
    path = write_volume(tmp_path / "a.nii.gz", values.reshape(tiny_cohort.contrast.shape))
    divided = dataclasses.replace(tiny_cohort.contrast, scale_factor=None, divide_by_mean=True)
    cache = prepare(tmp_path, divided, [path]).cache
    with pytest.raises(VolumeError, match="cannot be divided by"):
        VolumeReader(divided, 1.0, cache=cache).read(path)
    plain = dataclasses.replace(divided, divide_by_mean=False)
    assert VolumeReader(plain, 1.0, cache=cache).read(path).max() < 0


def test_both_files_of_a_pair_are_watched(tiny_cohort, tmp_path, write_volume):
    rng = np.random.default_rng(3)
    path = tmp_path / "pair.hdr"

    def write() -> None:
        values = rng.integers(1, 99, tiny_cohort.contrast.shape).astype(np.int16)
        affine = np.diag([-8.0, 8.0, 8.0, 1.0])
        nib.Nifti1Pair(values, affine).to_filename(path)

    write()
    prepare(tmp_path / "cache", tiny_cohort.contrast, [path])
    header = path.read_bytes()
    write()
    path.write_bytes(header)
    planned = prepare(tmp_path / "cache", tiny_cohort.contrast, [path])
    assert list(planned.why.values()) == ["the file's content changed"]
    reader = VolumeReader(tiny_cohort.contrast, 1.0, cache=planned.cache)
    assert np.array_equal(reader.read(path), read_crop(path, tiny_cohort.contrast))
    path.with_suffix(".img").unlink()
    assert plan(tmp_path / "cache", tiny_cohort.contrast, [path]).why


def test_a_path_through_a_link_is_not_shortened(tmp_path):
    """`link/../x` is the sibling of what the link leads to, not of the link."""
    (tmp_path / "far" / "study").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "study").symlink_to(tmp_path / "far" / "study")
    path = tmp_path / "near" / "study" / ".." / "a.nii"
    assert source_of(path) != source_of(tmp_path / "near" / "a.nii")


@pytest.mark.parametrize("lost", ["whole", "tail"])
def test_a_shard_that_is_gone_or_cut_is_made_again(tiny_cohort, tmp_path, lost):
    cache = prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths).cache
    (shard,) = cache.folder.glob("*.volumes")
    if lost == "whole":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1000])
    planned = prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths)
    assert set(planned.why.values()) == {"its prepared volume is missing"}
    assert len(planned.why) == (13 if lost == "whole" else 1)
    fresh = ContrastCache.open(cache.folder, cache.key)
    reader = VolumeReader(tiny_cohort.contrast, 100.0, cache=fresh)
    for path in tiny_cohort.paths:
        assert np.array_equal(
            reader.read(path), VolumeReader(tiny_cohort.contrast, 100.0).read(path)
        )


def test_a_dry_run_removes_no_damaged_index(tiny_cohort, tmp_path):
    cache = prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths).cache
    (index,) = cache.folder.glob("*.json")
    index.write_bytes(index.read_bytes()[:-3])
    with pytest.raises(Exception, match="is damaged"):
        plan(tmp_path, tiny_cohort.contrast, tiny_cohort.paths, dry_run=True)
    assert index.exists()
    planned = plan(tmp_path, tiny_cohort.contrast, tiny_cohort.paths)
    assert list(planned.damaged) == [index] and len(planned.why) == 13


def test_a_locked_shard_is_alive_whatever_its_process_number_says(tiny_cohort, tmp_path):
    """In another container the same host name and process number may belong to somebody else."""
    cache = prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths[:1]).cache
    writer = ShardWriter(cache)
    writer.open()
    shard = cache.folder / f"{writer.name}.volumes"
    assert not _is_dead(shard)
    writer.close()
    assert not shard.exists()


def test_volumes_that_somebody_removed_are_not_committed(tiny_cohort, tmp_path):
    planned = plan(tmp_path, tiny_cohort.contrast, tiny_cohort.paths)
    writer = ShardWriter(planned.cache)
    writer.add(dataclasses.replace(EMPTY, n_bytes=4), b"1234")
    shutil.rmtree(planned.cache.folder)
    with pytest.raises(OSError, match="removed by somebody"):
        writer.commit()
    writer.close()


def test_runs_that_contradict_their_volume_are_refused(tiny_cohort, tmp_path):
    cache = prepare(tmp_path, tiny_cohort.contrast, tiny_cohort.paths[:1]).cache
    entry = cache.entry(tiny_cohort.paths[0])
    box = np.empty(tiny_cohort.contrast.box, np.float32)
    for changed in ({"n_mask": entry.n_mask - 8}, {"n_runs": entry.n_runs + 4}):
        with pytest.raises(VolumeError, match="contradicts"):
            cache.expand(dataclasses.replace(entry, **changed), 1.0, NO_AUGMENTATION, box)
