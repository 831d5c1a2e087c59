"""Messages to people: standard error and the experiment's log file. Standard output is for data."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from utils.common.launcher import launch

T = TypeVar("T")
_logger = logging.getLogger("brain_age")


class _ThroughTqdm(logging.Handler):
    """Write a line to standard error without tearing a progress bar that is being drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def start_messages() -> None:
    """Send messages to standard error; called once by the command line.

    Of processes that train together the first speaks: the others would say the same.
    """
    _logger.setLevel(logging.INFO if launch().is_first else logging.ERROR)
    _logger.propagate = False
    for handler in list(_logger.handlers):
        _logger.removeHandler(handler)
        handler.close()
    console = _ThroughTqdm()
    console.setFormatter(logging.Formatter("%(message)s"))
    _logger.addHandler(console)


def also_log_to(path: Path) -> None:
    """Append messages, with the time of day, to a log file as well."""
    if not launch().is_first:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _logger.addHandler(handler)


def say(text: str) -> None:
    """One line of information."""
    _logger.info(text)


def warn(text: str) -> None:
    """One line that the user should not overlook."""
    _logger.warning("warning: %s", text)


def progress(
    items: Iterable[T], total: int | None = None, description: str = "", unit: str = "it"
) -> tqdm[T]:
    """A progress bar with remaining time on a terminal, nothing in a log file."""
    return tqdm(
        items,
        total=total,
        desc=description,
        unit=unit,
        disable=None if launch().is_first else True,
        leave=False,
        dynamic_ncols=True,
    )
