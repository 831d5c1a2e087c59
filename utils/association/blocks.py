"""The nIDP table in blocks of columns: a fixed grid, results kept block by block, parts for job arrays.

The grid follows from the table's columns alone. A block is computed by itself, so a run that was stopped, a job
array's parts and one run from start to end come to the same bits.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.association.phenotypes import Fate
from utils.association.scan import PairStatistics
from utils.common.errors import UserError
from utils.common.files import replacing

COLUMNS_PER_BLOCK = 512


@dataclass(frozen=True)
class Block:
    """Consecutive columns of the nIDP table."""

    number: int
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """The i-th of N parts of the blocks; every block belongs to one part."""

    number: int
    of: int

    @classmethod
    def from_text(cls, text: str) -> Part | None:
        """ "3/20" -> the third of twenty; "" -> None, which is everything.

        Raises
        ------
        UserError
            The text has another form, or names a part that does not exist.
        """
        if not text.strip():
            return None
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UserError(
                f"part = {text!r}: write i/N with i from 1 to N, such as 3/20, or leave it empty."
            )
        return cls(int(found[1]), int(found[2]))

    def share(self, blocks: Sequence[Block]) -> list[Block]:
        """Consecutive blocks; parts differ by one block at most, and may be empty."""
        edges = np.linspace(0, len(blocks), self.of + 1).round().astype(int)
        return list(blocks[edges[self.number - 1] : edges[self.number]])


def grid_of(groups: Iterable[Sequence[str]]) -> list[Block]:
    """Blocks of at most 512 columns; the columns of a group (those of one multiple-choice field) stay together."""
    blocks: list[Block] = []
    current: list[str] = []
    for group in groups:
        if current and len(current) + len(group) > COLUMNS_PER_BLOCK:
            blocks.append(Block(len(blocks), tuple(current)))
            current = []
        current += group
    return [*blocks, Block(len(blocks), tuple(current))] if current else blocks


@dataclass(frozen=True)
class BlockResult:
    """One block in one analysis: what became of each nIDP, and the statistics (C, P) of those that were kept."""

    fates: tuple[Fate, ...]
    statistics: PairStatistics

    @staticmethod
    def joined(results: Sequence[BlockResult]) -> BlockResult:
        """Blocks side by side."""
        joined = {
            field.name: np.concatenate(
                [getattr(result.statistics, field.name) for result in results], axis=1
            )
            for field in fields(PairStatistics)
        }
        fates = tuple(fate for result in results for fate in result.fates)
        return BlockResult(fates, PairStatistics(**joined))


class BlockStore:
    """Results kept block by block below a folder, under a key of everything they depend on.

    Without a folder nothing is kept, and nothing is found.
    """

    def __init__(self, folder: Path | None = None, key: str = ""):
        self._root = folder
        self.folder = None if folder is None else folder / key
        self.n_found = 0

    def result(self, block: Block, analysis: str) -> BlockResult | None:
        """What was kept of a block in an analysis; None where there is nothing, or it is damaged."""
        arrays = self._read(f"scan_{analysis}_{block.number:05d}")
        if arrays is None:
            return None
        fates = [Fate(**fate) for fate in json.loads(str(arrays.pop("fates")))]
        arrays["reason"] = arrays["reason"].astype(object)
        self.n_found += 1
        return BlockResult(tuple(fates), PairStatistics(**arrays))

    def keep(self, block: Block, analysis: str, result: BlockResult) -> None:
        """Keep a block's result."""
        arrays = {
            field.name: getattr(result.statistics, field.name) for field in fields(PairStatistics)
        }
        arrays["reason"] = arrays["reason"].astype(str)
        arrays["fates"] = np.array(json.dumps([vars(fate) for fate in result.fates]))
        self._write(f"scan_{analysis}_{block.number:05d}", arrays)

    def maxima(self, block: Block, analysis: str) -> NDArray[np.float64] | None:
        """Permutation maxima (B,) of a block; None where there are none."""
        arrays = self._read(f"permuted_{analysis}_{block.number:05d}")
        return None if arrays is None else arrays["maxima"]

    def keep_maxima(self, block: Block, analysis: str, maxima: NDArray[np.float64]) -> None:
        """Keep a block's permutation maxima."""
        self._write(f"permuted_{analysis}_{block.number:05d}", {"maxima": maxima})

    def clear(self) -> None:
        """Remove the results, of other keys too; what another job converts there (hidden folders) stays."""
        if self._root is None or not self._root.is_dir():
            return
        for folder in self._root.iterdir():
            if not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another job's conversion is in it
            self._root.rmdir()

    def _read(self, name: str) -> dict[str, NDArray] | None:
        if self.folder is None or not (path := self.folder / f"{name}.npz").is_file():
            return None
        try:
            with path.open("rb") as handle, np.load(handle) as file:
                return {key: file[key] for key in file.files}
        except Exception:  # written by a job that the machine took down with it: computed again
            return None

    def _write(self, name: str, arrays: dict[str, NDArray]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
