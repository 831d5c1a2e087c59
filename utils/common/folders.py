"""Replacing a whole folder: written beside and exchanged, so that a killed run never harms the old one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from utils.common.errors import UserError
from utils.common.files import is_left_behind, why_not_written, writer_name

_TEMPORARY = re.compile(r"^\.(.+)\.(being-written|replaced)-([0-9a-f]{8})-(\d+)$")


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path`; at success it takes the place of `path`, whatever that held.

    A run that is killed while the two are exchanged leaves the old one under a name that the next call, for
    any folder beside it, gives back.

    Raises
    ------
    UserError
        The disk is full or the folder cannot be written to; `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        restore_folders(path.parent)
        temporary = path.parent / f".{path.name}.being-written-{writer_name()}"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    except OSError as error:
        raise UserError(why_not_written(path, error)) from error
    try:
        yield temporary
        _exchange(temporary, path)
    except OSError as error:
        raise UserError(why_not_written(path, error)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def restore_folders(parent: Path) -> None:
    """Give back what a killed run left half exchanged in `parent`, and remove what it left half written."""
    for left in sorted(parent.glob(".*-*")):
        match = _TEMPORARY.match(left.name)
        if not match or not left.is_dir() or not is_left_behind(left, *match.groups()[2:]):
            continue
        name, state = match.groups()[:2]
        if state == "replaced" and not (parent / name).exists():
            left.rename(parent / name)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _exchange(new: Path, path: Path) -> None:
    """Put `new` at `path`; if that fails, what was there is there again."""
    if not path.exists():
        new.rename(path)
        return
    old = path.parent / f".{path.name}.replaced-{writer_name()}"
    shutil.rmtree(old, ignore_errors=True)
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
