"""A request to stop: SIGTERM or SIGUSR2, as job schedulers send them before a time limit.

Inside `between_steps` a request is only noted, and whoever computes looks at `Stop.requested` when it has
something whole to keep; elsewhere it ends the run at once. A request is no error: the same command goes on.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR2") if hasattr(signal, name))


class StopRequested(BaseException):
    """The run was asked to stop; like KeyboardInterrupt, nothing but the command line catches it."""


class Stop:
    """Whether a stop was requested, and by which signal."""

    def __init__(self) -> None:
        self.requested = ""  # name of the signal
        self._held = False

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            return  # asked for already, and under way
        self.requested = signal.Signals(number).name
        if not self._held:
            raise StopRequested(self.requested)

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take the signals; what took them before has them again afterwards."""
        self.requested = ""
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Here a request is noted and waits for `raise_if_requested`, at the latest for the end of this."""
        self._held = True
        try:
            yield
        except Exception:
            self._held = False
            self.raise_if_requested()  # rather than a next cell, after an error in this one
            raise
        finally:
            self._held = False
        self.raise_if_requested()

    def raise_if_requested(self) -> None:
        """End the run if that was asked for."""
        if self.requested:
            raise StopRequested(self.requested)


# The signals of a process are one, and so is this.
STOP = Stop()
