"""What a device computes with is what `loaders.batches` gives; the ways of a GPU run on the CPU here."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import threading
import weakref

import numpy as np
import pytest
import torch

from datasets import device_batches
from datasets.augmentation import AugmentationPlan
from datasets.cache.preparation import carry_out, plan_contrast
from datasets.device_batches import on_device
from datasets.epochs import Epoch
from datasets.loaders import (
    Batch,
    CellVolumes,
    Share,
    batches,
    evaluation_epoch,
    training_epoch,
)
from datasets.volumes import VolumeReader
from utils.common.errors import UserError

CPU = torch.device("cpu")
EVERYTHING = AugmentationPlan(2, True, 10.0, 0.1, 0.2, 0.2)
MOVED = AugmentationPlan(2, True)


@pytest.fixture
def volumes(tiny_cohort, tmp_path) -> CellVolumes:
    """Prepared volumes, one of which is missing."""
    paths = list(tiny_cohort.paths)
    paths[4] = tmp_path / "missing.nii.gz"
    plan = plan_contrast(tmp_path / "cache", tiny_cohort.contrast, "strict", "uint16", paths)
    carry_out([plan], 1, lambda finished, n: finished)
    reader = VolumeReader(tiny_cohort.contrast, 100.0, "strict", plan.cache)
    ages = tiny_cohort.ages_years.copy()
    return CellVolumes(list(tiny_cohort.subject_ids), paths, ages, reader)


def assert_same(found: list[Batch], wanted: list[Batch]) -> None:
    assert len(found) == len(wanted)
    for batch, other in zip(found, wanted):
        assert (batch.step, batch.n_in_group) == (other.step, other.n_in_group)
        assert batch.positions.device == CPU and batch.positions.equal(other.positions)
        assert batch.ages_years.cpu().equal(other.ages_years)
        torch.testing.assert_close(batch.volumes.cpu(), other.volumes, rtol=0, atol=1e-5)


def epochs(volumes: CellVolumes) -> list[Epoch]:
    return [
        training_epoch(volumes, 4, EVERYTHING, 7, 1),
        training_epoch(volumes, 4, MOVED, 7, 1, sampling="age_balanced"),
        training_epoch(volumes, 5, MOVED, 7, 1, share=Share(1, 2)),
        evaluation_epoch(volumes, 5),
        evaluation_epoch(volumes, 5, share=Share(0, 3)),
    ]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("first_step", [0, 1])
@pytest.mark.parametrize("n_workers", [0, 2])
def test_stored_volumes_expanded_on_the_device_are_the_same_batches(
    volumes, number, first_step, n_workers
):
    epoch = epochs(volumes)[number]
    wanted = list(batches(epoch, 0, first_step))
    assert wanted and wanted[0].step == first_step
    found = on_device(epoch, CPU, n_workers, first_step=first_step, quantised=True)
    assert_same(list(found), wanted)


def test_the_cpu_reads_as_before(volumes):
    epoch = epochs(volumes)[0]
    wanted = list(batches(epoch, 0))
    for quantised in (None, False):
        found = list(on_device(epoch, CPU, 2, quantised=quantised))
        assert all(a.volumes.equal(b.volumes) for a, b in zip(found, wanted))
        assert_same(found, wanted)


def test_one_batch_is_uploaded_ahead_of_the_one_computed_with(volumes, monkeypatch):
    uploaded = []
    moved = device_batches._moved

    def watched(batch, device):
        uploaded.append(batch.step)
        return moved(batch, device)

    monkeypatch.setattr(device_batches, "_moved", watched)
    seen = []
    for batch in on_device(training_epoch(volumes, 4, MOVED, 7, 1), CPU, 0, quantised=True):
        seen.append((batch.step, list(uploaded)))
    assert seen == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2])]


def test_batches_that_are_done_with_are_let_go(volumes):
    """The one that is computed with and the one ahead are held, and for a moment the one to come."""
    handed_over: list[weakref.ref] = []
    for batch in on_device(training_epoch(volumes, 2, MOVED, 7, 1), CPU, 2, quantised=True):
        handed_over.append(weakref.ref(batch))
        del batch
        assert sum(ref() is not None for ref in handed_over) == 1
    assert len(handed_over) > 3


def test_a_failure_passes_through_and_leaving_early_ends_the_threads(volumes):
    before = threading.active_count()
    for _ in on_device(training_epoch(volumes, 2, MOVED, 7, 1), CPU, 2, quantised=True):
        break
    gc.collect()
    assert threading.active_count() == before
    cache = volumes.reader.cache
    for position in (5, 6, 7):
        entry = cache.entry(volumes.paths[position])
        cache.entries[entry.source] = dataclasses.replace(entry, checksum=entry.checksum ^ 1)
    shared = training_epoch(volumes, 13, MOVED, 7, 1, share=Share(0, 1))
    assert len(next(on_device(shared, CPU, 2, quantised=True)).positions) == 9
    for index in (0, 1):
        volumes.failures.clear()
        shared = training_epoch(volumes, 13, MOVED, 7, 1, share=Share(index, 2))
        if {5, 6, 7} & {turn.position for turn in next(shared.parts()).turns}:
            with pytest.raises(UserError, match="is damaged"):
                list(on_device(shared, CPU, 2, quantised=True))
    assert threading.active_count() == before


class Recorded:
    """Stands for a stream, an event or a tensor of a CUDA device, and notes what is asked of it."""

    def __init__(self, name: str, notes: list[str]):
        self.name, self.notes = name, notes

    def record_event(self) -> Recorded:
        self.notes.append(f"event on {self.name}")
        return Recorded(f"event {len(self.notes)}", self.notes)

    def wait_event(self, event: Recorded) -> None:
        self.notes.append(f"{self.name} waits for {event.name}")

    def record(self, stream: Recorded) -> None:
        self.notes.append(f"{self.name} on {stream.name}")

    def synchronize(self) -> None:
        self.notes.append(f"host waits for {self.name}")

    def record_stream(self, stream: Recorded) -> None:
        self.notes.append(f"{self.name} used on {stream.name}")


def test_what_is_asked_of_a_gpu_in_which_order(monkeypatch):
    """An upload runs beside the step before it; a step waits for its own upload, not for the next one."""
    notes: list[str] = []
    cuda, steps = device_batches.torch.cuda, iter(range(9))
    monkeypatch.setattr(cuda, "Stream", lambda device: Recorded("uploads", notes))
    monkeypatch.setattr(cuda, "current_stream", lambda device: Recorded("computing", notes))
    monkeypatch.setattr(cuda, "Event", lambda blocking: Recorded(f"step {next(steps)}", notes))
    monkeypatch.setattr(cuda, "stream", lambda stream: contextlib.nullcontext())

    def moved(batch: int, device: torch.device) -> Batch:
        notes.append(f"upload {batch}")
        return Batch(
            batch, Recorded(f"volumes {batch}", notes), Recorded(f"ages {batch}", notes), batch, 1
        )

    monkeypatch.setattr(device_batches, "_moved", moved)
    for batch in device_batches._one_ahead(iter(range(5)), torch.device("cuda")):
        notes.append(f"compute {batch.step}")
    first = [
        "upload 0", "event on uploads",
        "upload 1", "event on uploads",
        "computing waits for event 2", "volumes 0 used on computing", "ages 0 used on computing",
        "compute 0", "step 0 on computing",
        "upload 2", "event on uploads",
        "computing waits for event 4", "volumes 1 used on computing", "ages 1 used on computing",
        "compute 1", "step 1 on computing",
    ]  # fmt: skip
    assert notes[: len(first)] == first
    order = [note for note in notes if note.startswith(("host", "compute ", "upload "))]
    assert order == [
        "upload 0", "upload 1", "compute 0", "upload 2", "compute 1", "upload 3", "compute 2",
        "host waits for step 0", "upload 4", "compute 3", "host waits for step 1", "compute 4",
    ]  # fmt: skip


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("quantised", [None, False])
def test_a_gpu_gets_the_same_batches(volumes, number, quantised):
    epoch = epochs(volumes)[number]
    found = list(on_device(epoch, torch.device("cuda"), 2, quantised=quantised))
    assert all(batch.volumes.is_cuda and batch.ages_years.is_cuda for batch in found)
    assert_same(found, list(batches(epoch, 0)))


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("quantised", [True, False])
def test_memory_is_not_given_again_while_a_gpu_computes(volumes, quantised):
    """Many batches, each looked at only after long work: later uploads must not reach it."""
    often = Epoch(volumes, [[i % 4, 5 + i % 8] for i in range(60)], EVERYTHING, (7,), 2)
    wanted = [float(batch.volumes.double().sum()) for batch in batches(often, 0)]
    busy, sums = torch.rand(3000, 3000, device="cuda"), []
    for batch in on_device(often, torch.device("cuda"), 2, quantised=quantised):
        for _ in range(5):
            busy = torch.tanh(busy @ busy)
        sums.append(batch.volumes.double().sum())
    np.testing.assert_allclose(torch.stack(sums).tolist(), wanted, rtol=1e-5)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("quantised", [True, False])
def test_no_operation_of_an_upload_waits_for_a_gpu(volumes, quantised):
    epoch = epochs(volumes)[0]
    list(on_device(epoch, torch.device("cuda"), 2, quantised=quantised))  # memory is there now
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in on_device(epoch, torch.device("cuda"), 2, quantised=quantised):
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")
