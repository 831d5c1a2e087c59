"""Writing results: beside, flushed, renamed, so that a killed run never harms a finished file.

Every result of the program is written through `replacing`. A run that dies leaves the old file whole and a
temporary file beside it, which `clear_leftovers` removes at the next start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from utils.common.errors import UserError

_HOST = hashlib.sha256(platform.node().encode("utf-8")).hexdigest()[:8]
LEFTOVER_PATTERN = re.compile(r"^\..+\.writing-([0-9a-f]{8})-(\d+)$")
# Whether a process of another machine lives cannot be known here; after a day its file is a leftover.
FOREIGN_LEFTOVER_S = 86_400.0


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder; at success flush it to disk and rename it to `path`.

    Raises
    ------
    UserError
        The disk is full, the quota is used up or the folder cannot be written to; `path` is as it was.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.writing-{writer_name()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        raise UserError(why_not_written(path, error)) from error
    except BaseException:
        _remove(temporary)
        raise


def _remove(temporary: Path) -> None:
    """Remove it if it is there; that this fails is not worth hiding why the write failed."""
    with suppress(OSError):
        temporary.unlink()


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; file systems without folder handles are left as they are."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse to flush a folder; the file itself is flushed
    finally:
        os.close(handle)


def why_not_written(path: Path, error: OSError, n_bytes_needed: int = 0) -> str:
    """The sentence about a write that failed; on a full disk with bytes needed (where known) and free."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: cannot be written ({error.strerror or error}). Check the folder and its permissions."
    needed = f"about {n_bytes_needed} bytes more are needed, " if n_bytes_needed else ""
    try:
        there = next(folder for folder in (path, *path.parents) if folder.is_dir())
        free = f"{shutil.disk_usage(there).free} are free"
    except (OSError, StopIteration):
        free = "how many are free is not known"
    return (
        f"{path}: the disk is full or the quota used up; nothing was changed ({needed}{free}). Free space "
        "and run again."
    )


def clear_leftovers(folder: str | Path) -> list[Path]:
    """Remove temporary files of runs that no longer live, below `folder`; return what was removed."""
    removed = []
    for path in Path(folder).rglob(".*.writing-*"):
        match = LEFTOVER_PATTERN.match(path.name)
        with suppress(FileNotFoundError):  # its writer finished, or another run clears as well
            if match and path.is_file() and is_left_behind(path, *match.groups()):
                path.unlink()
                removed.append(path)
    return removed


def writer_name() -> str:
    """Names this process in files that it alone writes: `<host>-<process id>`."""
    return f"{_HOST}-{os.getpid()}"


def is_left_behind(path: Path, host: str, process_id: str) -> bool:
    """Whether the process that writes `path` (parts of its `writer_name`) no longer lives."""
    if host == _HOST:
        return not _is_alive(int(process_id))
    return time.time() - path.stat().st_mtime > FOREIGN_LEFTOVER_S


def _is_alive(process_id: int) -> bool:
    if process_id == os.getpid():
        return False
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def write_bytes(data: bytes, path: str | Path) -> None:
    """Write bytes beside `path` and rename."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def keep_as(path: Path, other: Path) -> None:
    """Let `other` be what `path` is, without a moment at which one of them is missing."""
    if other.exists() and other.samefile(path):
        return  # two names of one file, which a rename would leave as they are
    with replacing(other) as temporary:
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(path, temporary)


def write_text(text: str, path: str | Path) -> None:
    """Write UTF-8 text with Unix line ends beside `path` and rename."""
    write_bytes(text.encode("utf-8"), path)


def write_json(content: Any, path: str | Path) -> None:
    """Write JSON (indent 2, NaN and infinity as null, NumPy values as plain ones) beside `path` and rename."""
    write_text(
        json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value


def read_json(path: str | Path) -> Any:
    """Read a JSON file; a missing or damaged one is named."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}).") from error
