"""The batches of an epoch on the device that computes with them, one ahead of it.

On a CUDA device volumes that are all in the cache are uploaded as they are stored and expanded there,
others as float32; from pinned memory, on a stream of its own, while the network computes with the batch
before. The host never waits for the device, except that it runs at most two batches ahead of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from datasets.cache.quantised import QuantisedBatch, expanded, quantised_batches
from datasets.epochs import Epoch
from datasets.loaders import Batch, batches

# Steps that the host may have asked a CUDA device for before it waits: each holds the memory of a batch.
N_STEPS_AHEAD = 2


def on_device(
    epoch: Epoch,
    device: torch.device,
    n_workers: int,
    *,
    first_step: int = 0,
    quantised: bool | None = None,
) -> Iterator[Batch]:
    """The batches of an epoch on `device`, from group `first_step` on; the same on every device.

    quantised : upload volumes as they are stored; they must all be in the cache. None: on a CUDA device,
    if they are. A batch is ready on the stream that is current when it is asked for; computing on
    another stream takes `wait_stream` there, and `record_stream` of its tensors.
    """
    pinned = device.type == "cuda"
    if quantised is None:
        quantised = pinned and epoch.volumes.prepared
    read: Iterator[Batch] | Iterator[QuantisedBatch]
    if quantised:
        read = quantised_batches(epoch, n_workers, first_step, pinned)
    else:
        read = batches(epoch, n_workers, first_step, pinned)
        if device.type == "cpu":
            return read
    return _one_ahead(read, device)


def _one_ahead(
    read: Iterator[Batch] | Iterator[QuantisedBatch], device: torch.device
) -> Iterator[Batch]:
    """Upload and expand a batch, then hand over the one before it."""
    uploads = _Uploads(device)
    ahead: _Uploaded | None = None
    for batch in read:
        uploaded = uploads.start(batch)
        del batch  # its memory may be used again
        if ahead is not None:
            yield uploads.handed_over(ahead)
            uploads.limit_steps_ahead()
        ahead = uploaded
    if ahead is not None:
        yield uploads.handed_over(ahead)


@dataclass(frozen=True)
class _Uploaded:
    """A batch on its way to the device, and what says that it is there (None: it is)."""

    batch: Batch
    there: torch.cuda.Event | None


class _Uploads:
    """Batches on their way to a device; on the CPU everything is there at once."""

    def __init__(self, device: torch.device):
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._steps: deque[torch.cuda.Event] = deque()  # that the device has perhaps not done

    def start(self, batch: Batch | QuantisedBatch) -> _Uploaded:
        """Upload and expand a batch on the stream of uploads, without waiting for it."""
        if self._stream is None:
            return _Uploaded(_moved(batch, self.device), None)
        with torch.cuda.stream(self._stream):
            moved = _moved(batch, self.device)
            return _Uploaded(moved, self._stream.record_event())

    def handed_over(self, uploaded: _Uploaded) -> Batch:
        """A batch that the current stream may compute with: the device waits for it, not the host."""
        batch = uploaded.batch
        if uploaded.there is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(uploaded.there)
            # the memory is the other stream's: it must not be given again before this one is done
            batch.volumes.record_stream(computing)
            batch.ages_years.record_stream(computing)
        return batch

    def limit_steps_ahead(self) -> None:
        """After a step was asked for: wait until the device has done all but the last few."""
        if self._stream is None:
            return
        step = torch.cuda.Event(blocking=True)
        step.record(torch.cuda.current_stream(self.device))
        self._steps.append(step)
        if len(self._steps) > N_STEPS_AHEAD:
            self._steps.popleft().synchronize()


def _moved(batch: Batch | QuantisedBatch, device: torch.device) -> Batch:
    """A batch on the device; from pinned memory, if it is a CUDA device."""
    pinned = device.type == "cuda"
    ages = batch.ages_years.pin_memory() if pinned else batch.ages_years
    if isinstance(batch, QuantisedBatch):
        volumes = expanded(batch, device)
    else:
        volumes = batch.volumes
        if pinned and not volumes.is_pinned():  # it was put together from those that are usable
            volumes = volumes.pin_memory()
        volumes = volumes.to(device, non_blocking=True)
    ages = ages.to(device, non_blocking=True)
    return Batch(batch.positions, volumes, ages, batch.step, batch.n_in_group)
