"""Checksums of results, written when a run ends, so that every output can be verified later.

Each folder has its own `manifest.json`, because cells are run by different jobs at the same time. A run
records what it wrote; of a file that it found and left alone, the earlier record stays, so that a file
damaged in between is not taken for a result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from utils.common.files import write_json

NAME = "manifest.json"

Record = dict[str, dict[str, int | str]]  # name of a file -> its bytes and sha256


def states(folders: Iterable[Path]) -> dict[Path, tuple[int, ...]]:
    """What tells a file of these folders from one that was written anew, without reading it."""
    return {path: _state(path) for folder in folders for path in _files(folder)}


def record_results(
    folders: Iterable[Path],
    found: dict[Path, tuple[int, ...]] | None = None,
    passed_over: Collection[Path] = (),
) -> None:
    """Write the checksums of all files that lie in each of these folders (not deeper).

    A folder without results has no record: one that it had before its results were removed goes as well.

    found : `states` at the start of the run; left out: all files are the run's.
    passed_over : files that are no results.
    """
    for folder in folders:
        files = [p for p in _files(folder) if p.name != NAME and p not in passed_over]
        if not files:
            if (folder / NAME).is_file():
                (folder / NAME).unlink(missing_ok=True)
            continue
        earlier = _read(folder / NAME) or {}
        record = {}
        for path in files:
            untouched = found is not None and found.get(path) == _state(path)
            known = earlier.get(path.name) if untouched else None
            record[path.name] = known or _described(path)
        write_json(record, folder / NAME)


def changed_files(
    folders: Iterable[Path], passed_over: Collection[Path] = ()
) -> list[tuple[Path, str]]:
    """(file, what is wrong) of recorded files that are gone or hold something else."""
    found = []
    for folder in folders:
        path = folder / NAME
        if not path.is_file():
            continue
        record = _read(path)
        if record is None:
            found.append((path, "this record of checksums is damaged"))
            continue
        for name, described in record.items():
            if folder / name in passed_over:
                continue
            if not (folder / name).is_file():
                found.append((folder / name, "is missing"))
            elif _described(folder / name) != described:
                found.append(
                    (folder / name, "is not as the run that recorded it left it (checksum)")
                )
    return found


def _read(path: Path) -> Record | None:
    """A record of checksums; None where there is none or it is not as it was written."""
    try:
        text = path.read_bytes().decode("utf-8")
        record = json.loads(text)
        as_written = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        plain = all(isinstance(described, dict) for described in record.values())
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return record if plain and as_written == text else None


def _state(path: Path) -> tuple[int, ...]:
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _described(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
