"""One training in several processes, as torchrun starts them: what they tell each other, and how they end.

Gradients and sums go from device to device (NCCL between GPUs, gloo between CPUs). What steers the
training (a request to stop, say) goes over gloo in any case, so that no GPU is waited for. A process that
fails leaves word of it in torchrun's store; those that miss it then look there, and end with its word.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from datasets.loaders import Share
from utils.common.errors import EXIT_FAILED, UserError
from utils.common.interruption import SIGNALS, StopRequested
from utils.common.launcher import Launch, launch

# How long a process waits for the others: longer than the slowest step, checkpoint or look at volumes.
TIMEOUT = timedelta(minutes=30)
# Where in the store the first that ends leaves its word, and the kinds of words.
_ENDED = "brain_age/ended"
_FAILED, _STOPPED, _BROKE = "failed", "stopped", "broke"
# Parts of what gloo and NCCL say when a process does not answer.
_LOST = ("gloo", "nccl", "connection", "timed out", "socket")


_BY_NOBODY = Launch()


class _EverybodysError(UserError):
    """A sentence that all processes raise at the same point."""


class _EndOfAll(Exception):
    """A sentence of one process that nobody may catch and go on."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; on its own nothing is exchanged."""

    launch: Launch = _BY_NOBODY
    control: dist.ProcessGroup | None = None  # gloo, for what steers the training

    @property
    def n(self) -> int:
        """How many there are."""
        return self.launch.n

    @property
    def index(self) -> int:
        """Which one this is, from 0."""
        return self.launch.index

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files and speaks."""
        return self.launch.is_first

    @property
    def share(self) -> Share:
        """Which part of every group of subjects it reads."""
        return Share(self.index, self.n)

    def device_of(self, device: torch.device) -> torch.device:
        """The GPU of this process, where `cuda` was asked for without a number; the CPU is everybody's.

        Raises
        ------
        UserError
            One GPU was named for all, or there are fewer of them than processes.
        """
        if device.type != "cuda" or self.n == 1:
            return device
        n_local, n_gpus = self.launch.n_local, torch.cuda.device_count()
        if device.index is not None and n_local > 1:
            raise UserError(
                f"device {device}: {n_local} processes on this machine cannot share one GPU; give cuda or "
                "auto, and each takes its own."
            )
        if n_gpus < n_local:
            raise UserError(
                f"{n_local} processes on this machine, and torch sees {n_gpus} GPU(s) here: start "
                f"{n_gpus} (--nproc_per_node={n_gpus}), or give --device cpu."
            )
        return torch.device("cuda", self.launch.local_index)

    def agree_any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.n == 1:
            return flag
        flags = torch.tensor([flag], dtype=torch.uint8)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.control)
        return bool(flags)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        self.agree_any(False)

    def sum_of(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, the same everywhere."""
        if self.n > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def of_group(self, values: torch.Tensor, n_in_group: int) -> torch.Tensor:
        """One number for each subject of a group, in its order, from those of this process's part."""
        if self.n == 1:
            return values
        mine = self.share.of(range(n_in_group))
        whole = values.new_zeros(n_in_group)
        whole[mine[0] : mine[-1] + 1] = values
        dist.all_reduce(whole)
        return whole

    def sharing(self, network: torch.nn.Module) -> torch.nn.Module:
        """The network as it is trained: its gradients become their mean over all processes."""
        if self.n == 1:
            return network
        # torch names two layouts of a convolution from one channel; a few weights are copied for it
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        shared = DistributedDataParallel(network)
        # running statistics are the same everywhere, or taken over once an epoch; to say so in the call
        # is deprecated in some versions of torch, and unknown in others
        shared.broadcast_buffers = False
        return shared

    def buffers_of_first(self, network: torch.nn.Module) -> None:
        """Take the first process's buffers: running statistics that each process has of its own subjects."""
        if self.n > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, src=0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails in one process with a sentence fails in all, and with the same one.

        Inside, processes do not exchange anything else.
        """
        said = ""
        try:
            yield
        except UserError as error:
            if self.n == 1:
                raise
            said = str(error)
        if first_said := next(filter(None, self._everybodys(said)), ""):
            raise _EverybodysError(first_said)

    @contextmanager
    def ending_all(self) -> Iterator[None]:
        """What fails here with a sentence is the end of all processes: the others wait for this one."""
        try:
            yield
        except UserError as error:
            if self.n == 1:
                raise
            raise _EndOfAll(str(error)) from error

    def same_everywhere(self, values: Mapping[str, Any]) -> None:
        """Refuse to train what is not the same in every process; the keys are what a message calls it.

        Raises
        ------
        UserError
            In all processes alike; it names the first difference and its process.
        """
        texts = {name: repr(value) for name, value in values.items()}
        first, *others = self._everybodys(texts)
        for number, other in enumerate(others, start=2):
            for name in [name for name in first if other.get(name) != first[name]]:
                raise _EverybodysError(
                    f"{name} of process {number} of {self.n} is not that of the first: "
                    f"{_short(other.get(name, 'nothing'))} and {_short(first[name])}. All processes need the "
                    "same settings, lists, prepared volumes and checkpoints."
                )

    def _everybodys(self, value: Any) -> list[Any]:
        found: list[Any] = [value] * self.n
        if self.n > 1:
            dist.all_gather_object(found, value, group=self.control)
        return found


ALONE = Processes()


def without_exchange(network: torch.nn.Module) -> AbstractContextManager[None]:
    """Gradients of the block are only added up; those of the next backward pass are exchanged with them."""
    if isinstance(network, DistributedDataParallel):
        return network.no_sync()  # type: ignore[return-value]
    return nullcontext()


@contextmanager
def processes(
    choose_device: Callable[[], torch.device],
) -> Iterator[tuple[Processes, torch.device]]:
    """The processes that torchrun started, and the device of this one; one process if it started none.

    Raises
    ------
    UserError
        This process failed, or another did and could not say so. Where another did say so, this one
        leaves without a word (SystemExit), so that one sentence is seen.
    StopRequested
        A signal to this process or another.
    """
    started = launch()
    if started.n == 1:
        yield ALONE, choose_device()
        return
    store = next(dist.rendezvous("env://", timeout=TIMEOUT))[0]  # torchrun's: it outlives us
    try:
        device = Processes(started).device_of(choose_device())
        here = _joined(started, device, store)
        yield here, device
        here.barrier()
        dist.destroy_process_group()
    except BaseException as error:
        for number in SIGNALS:  # torchrun ends the others when one has ended; this one does already
            signal.signal(number, signal.SIG_IGN)
        ending = _ending(error, started, store)
        # a GPU may still wait for a process that is gone, and so would the destruction of its group
        if dist.is_initialized() and dist.get_backend() == "gloo":
            dist.destroy_process_group()
        raise ending from (None if ending is error else error)


def _joined(started: Launch, device: torch.device, store: dist.Store) -> Processes:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=started.index,
        world_size=started.n,
        timeout=TIMEOUT,
    )
    return Processes(started, dist.new_group(backend="gloo", timeout=TIMEOUT))


def _ending(error: BaseException, started: Launch, store: dist.Store) -> BaseException:
    """How this process ends: with its own word, if it is the first that has one; else as the others do."""
    kind, text = _word_of(error, started)
    mine = f"{kind}:{started.index}:{text}"
    try:
        word = store.compare_set(_ENDED, "", mine).decode("utf-8")
    except RuntimeError:  # torchrun is gone, and its store with it
        word = mine
    kind, index, text = word.split(":", 2)
    if kind == _STOPPED:
        return StopRequested(text)
    if int(index) != started.index:
        return SystemExit(EXIT_FAILED)
    return UserError(text) if kind == _FAILED else error


def _word_of(error: BaseException, started: Launch) -> tuple[str, str]:
    if isinstance(error, StopRequested):
        return _STOPPED, str(error)
    if isinstance(error, _EverybodysError) or (started.is_first and isinstance(error, UserError)):
        return _FAILED, str(error)
    if isinstance(error, (UserError, _EndOfAll)):
        return _FAILED, f"{started.name}: {error}"
    said = str(error).lower()
    if isinstance(error, RuntimeError) and any(word in said for word in _LOST):
        return _FAILED, (
            f"{started.name} lost another process, which ended without a word (killed, or out of memory?) or "
            f"did not answer for {TIMEOUT.total_seconds() / 60:.0f} minutes. Finished epochs are kept; the "
            "same command goes on."
        )
    return _BROKE, type(error).__name__


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
