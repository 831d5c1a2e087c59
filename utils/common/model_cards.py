"""The card of exported networks as a file: JSON that carries its own checksum and those of the files beside it.

JSON does not notice a flipped bit in a number or a name; a card is therefore accepted only as it was written,
to the byte. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.common.errors import UserError
from utils.common.files import write_text
from utils.common.paths import ExportPaths

FORMAT_VERSION = 1
_OWN_CHECKSUM = "card_sha256"


class ModelCardError(UserError):
    """A folder holds no exported networks, or its card is damaged; the message names the file."""


@dataclass(frozen=True)
class Export:
    """The exported networks of a cell, with their card."""

    paths: ExportPaths
    card: dict[str, Any]

    @property
    def contrast(self) -> str:
        """Name of the contrast that they were trained on."""
        return self.card["contrast"]["name"]

    @property
    def sex(self) -> str:
        """Whom they were trained on: female, male or both."""
        return self.card["sex"]

    @property
    def name(self) -> str:
        """The cell."""
        return f"{self.contrast}_{self.sex}"


@dataclass(frozen=True)
class Exports:
    """What a folder of exports holds; cards that cannot be read are sentences."""

    folder: Path
    found: tuple[Export, ...]
    damaged: tuple[str, ...] = ()

    def of(self, contrast: str, sex: str) -> Export:
        """The networks for a contrast and sex.

        Raises
        ------
        ModelCardError
            There are none.
        """
        for export in self.found:
            if (export.contrast, export.sex) == (contrast, sex):
                return export
        there = ", ".join(export.name for export in self.found)
        said = " ".join([f"it has {there}.", *self.damaged])
        raise ModelCardError(f"{self.folder}: holds no networks for {contrast}_{sex}; {said}")


def write_card(content: dict[str, Any], path: Path) -> None:
    """Write a card (plain values) with the checksum of itself."""
    content = {"format_version": FORMAT_VERSION, **content, _OWN_CHECKSUM: ""}
    write_text(_text(content | {_OWN_CHECKSUM: _checksum(content)}), path)


def read_card(path: Path) -> dict[str, Any]:
    """Read a card, its checksum verified.

    Raises
    ------
    ModelCardError
        It is not there, is not as it was written, or was written by a newer version.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ModelCardError(
            f"{path}: no model card can be read there ({error.strerror})."
        ) from error
    except UnicodeDecodeError as error:
        raise ModelCardError(_damaged(path)) from error
    try:
        content = json.loads(text)
        version = content["format_version"]
        own = content[_OWN_CHECKSUM]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelCardError(_damaged(path)) from error
    if version != FORMAT_VERSION:
        raise ModelCardError(
            f"{path}: has format {version!r}, and this program reads {FORMAT_VERSION}: it was written by "
            "another version of the program, or is damaged."
        )
    if _text(content) != text or _checksum(content | {_OWN_CHECKSUM: ""}) != own:
        raise ModelCardError(_damaged(path))
    return content


def find_exports(folder: Path) -> Exports:
    """The exported networks in a folder: of one cell, or of several in folders of their own.

    Raises
    ------
    ModelCardError
        There are none that can be read, or two for the same contrast and sex.
    """
    itself = ExportPaths(folder)
    found: dict[str, Export] = {}
    damaged = []
    for paths in [itself] if itself.card.is_file() else itself.cells:
        try:
            export = Export(paths, read_card(paths.card))
        except ModelCardError as error:
            damaged.append(str(error))
            continue
        other = found.setdefault(export.name, export)
        if other is not export:
            raise ModelCardError(
                f"{other.paths.folder} and {paths.folder} both hold networks for {export.name}; name one of them."
            )
    if not found:
        wanted = itself.card.name
        nothing = (
            f"{folder}: no exported networks are there ({wanted} of -m export was looked for)."
        )
        raise ModelCardError(" ".join(damaged) or nothing)
    return Exports(folder, tuple(found.values()), tuple(damaged))


def file_entry(path: Path) -> dict[str, int | str]:
    """What the card says of a file beside it."""
    data = path.read_bytes()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _checksum(content: dict[str, Any]) -> str:
    """Of the card's text with an empty checksum."""
    return hashlib.sha256(_text(content).encode("utf-8", "surrogatepass")).hexdigest()


def _damaged(path: Path) -> str:
    return (
        f"{path}: is damaged or was changed: it is not as -m export wrote it. Copy the folder again from "
        "where it came from."
    )
