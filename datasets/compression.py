"""Decompression of whole gzip members, with their checksum, by the fastest library that is installed.

libdeflate (package `deflate`) decompresses an image three times faster than the standard library, and
needs its size beforehand; zlib-ng comes next and works in pieces. All of them verify the
checksum at the end of a member, which nibabel's own reading never reaches.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO

GZIP_MAGIC = b"\x1f\x8b"
# deflate cannot do better than 258 bytes for 2 bits: who announces more than that is not telling the truth.
LARGEST_RATIO = 1032
_GZIP_WINDOW = 31
_PIECE_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 15


class DamagedGzipError(ValueError):
    """The compressed bytes are damaged, truncated, or hold more than they may."""


def _first_installed(names: tuple[str, ...]) -> ModuleType:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return zlib


# Both speak the language of the standard zlib module. isal 1.9 takes a gzip header with a checksum that
# comes in two pieces for damaged, and is not used for decompression.
_STREAMING = _first_installed(("zlib_ng.zlib_ng",))
_CHECKSUM = _first_installed(("isal.isal_zlib", "zlib_ng.zlib_ng", "deflate"))
crc32: Callable[..., int] = _CHECKSUM.crc32

try:
    import deflate as _whole  # libdeflate
except ImportError:
    _whole = None  # type: ignore[assignment]


def library() -> str:
    """Which library decompresses, for records and messages."""
    return "libdeflate" if _whole else _STREAMING.__name__.split(".")[-1].replace("_", "-")


def first_bytes(handle: BinaryIO, n_bytes: int) -> bytes:
    """The first `n_bytes` of what an open gzip file holds (fewer where there are fewer).

    Reads no further than it must, so that no checksum is reached.

    Raises
    ------
    DamagedGzipError
        What comes before is damaged.
    """
    content = bytearray()
    try:
        for piece in _contents(iter(lambda: handle.read(_CHUNK_BYTES), b""), zlib, n_bytes):
            content += piece
            if len(content) >= n_bytes:
                break
    except DamagedGzipError:
        if not content:  # else the reader of a header says better what is missing
            raise
    return bytes(content[:n_bytes])


def decompressed(compressed: bytes, n_bytes: int) -> bytes | bytearray:
    """All members of a gzip file whose content should be `n_bytes` long; every checksum is verified.

    Raises
    ------
    DamagedGzipError
        Damaged, truncated, followed by something else, shorter than `n_bytes`, or much longer.
    """
    announced = int.from_bytes(compressed[-4:], "little")
    if _whole and announced == n_bytes % (1 << 32):
        try:
            content = _whole.gzip_decompress(compressed, n_bytes)
        except (_whole.DeflateError, ValueError, MemoryError):
            content = (
                None  # the streaming way finds out what is wrong, or that there are more members
            )
        if content is not None and len(content) == n_bytes:
            return content
    return _streamed(compressed, n_bytes)


def _streamed(compressed: bytes, n_bytes: int) -> bytearray:
    content, whole = bytearray(), memoryview(compressed)
    most_bytes = n_bytes + max(n_bytes, _PIECE_BYTES)  # e.g. the tags at the end of an .mgz
    chunks = (whole[i : i + _CHUNK_BYTES] for i in range(0, len(whole), _CHUNK_BYTES))
    for piece in _contents(chunks, _STREAMING, _PIECE_BYTES):
        content += piece
        if len(content) > most_bytes:
            raise DamagedGzipError(f"it has more than the {n_bytes} bytes of its image")
    if len(content) < n_bytes:
        raise DamagedGzipError(f"it has {len(content)} of the {n_bytes} bytes of its image")
    return content


def _contents(
    chunks: Iterable[bytes | memoryview], library: ModuleType, piece_bytes: int
) -> Iterator[bytes]:
    """What the members of a gzip file hold, in pieces; zeros between and after them are padding.

    Chunks are small because what follows a member is copied once for each member in its chunk.
    """
    member: Any = None
    n_members = 0
    for chunk in chunks:
        rest = bytes(chunk)
        while True:
            if member is None:
                rest = rest.lstrip(b"\x00") if n_members else rest
                if not rest:
                    break
                if n_members and not rest.startswith(GZIP_MAGIC[: len(rest)]):
                    raise DamagedGzipError("other bytes follow its compressed data")
                member = library.decompressobj(_GZIP_WINDOW)
            try:
                piece = member.decompress(rest, piece_bytes)
            except (library.error, zlib.error) as error:
                raise DamagedGzipError(_what_is_wrong(str(error))) from error
            if piece:
                yield piece
            if member.eof:
                rest, member, n_members = bytes(member.unused_data), None, n_members + 1
            elif piece or member.unconsumed_tail:
                rest = member.unconsumed_tail
            else:
                break
    if member is not None:
        raise DamagedGzipError("it ends in the middle of its compressed data")


def _what_is_wrong(message: str) -> str:
    """One sentence for what the libraries call by different names."""
    if re.search("data check|checksum|length check", message):
        return "its checksum does not fit its content"
    if re.search("header|compression method|reserved", message):
        return "its gzip header is damaged"
    return f"its compressed data are damaged: {message}"
