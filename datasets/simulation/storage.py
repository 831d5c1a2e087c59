"""How a simulated cohort lies on disk: where each contrast is stored, volumes, tables, and the mark that it is ours."""

from __future__ import annotations

import difflib
import gzip
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd

from datasets.simulation.grid import Grid
from datasets.simulation.people import SEXES, SPLITS
from datasets.simulation.specification import CohortSpecification
from utils.common.errors import SettingsError, UserError
from utils.common.files import read_json, replacing, write_bytes, write_json, write_text
from utils.common.tables import read_table

SIMULATOR_VERSION = 1  # raised whenever the same specification gives other bytes
COHORT_FILE = "cohort.json"
STARTED_FILE = "simulation_started.json"
CONTRAST_TABLE = Path(__file__).resolve().parents[1] / "scaling_values_simple.csv"
MNI152_CODE = 4  # NIfTI: coordinates of the MNI 152 space


def data_files(contrasts: tuple[str, ...]) -> dict[str, str]:
    """File of each contrast below a subject's folder, as the published contrast table has it.

    Raises
    ------
    SettingsError
        A contrast that the table does not have; the nearest name is given.
    """
    table = read_table(CONTRAST_TABLE)
    known = dict(zip(table.iloc[:, 0].astype(str), table["data_file"].astype(str)))
    problems = []
    for name in contrasts:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            problems.append(f"contrasts: {CONTRAST_TABLE.name} has no contrast {name!r}.{hint}")
    if problems:
        raise SettingsError(problems)
    return {name: known[name] for name in contrasts}


def volume_index(contrast: str) -> int | None:
    """Which volume of a 4D file a resting-state contrast is; None for a file of one volume."""
    return int(contrast.removeprefix("rsfmri_")) if contrast.startswith("rsfmri_") else None


def nifti_bytes(volume: np.ndarray, affine: np.ndarray) -> bytes:
    """A .nii.gz file's content, the same for the same volume: no time, no name in it."""
    image = nibabel.Nifti1Image(volume, affine)
    image.set_sform(affine, code=MNI152_CODE)
    image.set_qform(affine, code=MNI152_CODE)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"simulated"
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def write_subject(
    folder: Path, volumes: dict[str, np.ndarray], files: dict[str, str], grid: Grid
) -> None:
    """Write one subject's volumes; contrasts that share a file become the volumes of one 4D file."""
    for data_file in dict.fromkeys(files.values()):
        members = [name for name in volumes if files[name] == data_file]
        indices = {name: volume_index(name) for name in members}
        if indices[members[0]] is None:
            data = volumes[members[0]]
        else:
            n_volumes = max(index or 0 for index in indices.values()) + 1
            data = np.zeros((*grid.shape, n_volumes), np.int16)
            for name, index in indices.items():
                data[..., index] = volumes[name]
        write_bytes(nifti_bytes(data, grid.affine), folder / data_file)


def contrast_rows(files: dict[str, str], grid: Grid) -> pd.DataFrame:
    """The cohort's own contrast table: its shape, its crop, and a scale factor to be measured."""
    return pd.DataFrame(
        {
            "name": list(files),
            "scale_factor": "auto",
            "resolution": f"{grid.voxel_mm:g}mm",
            "data_file": list(files.values()),
            "shape": " ".join(str(n) for n in grid.shape),
            "crop": grid.crop_text,
        }
    )


def write_lists(people: pd.DataFrame, folder: Path) -> None:
    """The published form of the subject lists: ids a line, ages beside them in the same order."""
    for sex in SEXES:
        for split in SPLITS:
            rows = people[(people["sex"] == sex) & (people["split"] == split)]
            text = "".join(f"{subject_id}\n" for subject_id in rows["subject_id"])
            write_text(text, folder / f"{sex}_{split}.txt")
            with (
                replacing(folder / f"{sex}_{split}_age.npy") as temporary,
                open(temporary, "wb") as f,
            ):
                np.save(f, rows["age_years"].to_numpy(dtype=float))


def cohort_is_complete(folder: str | Path, specification: CohortSpecification) -> bool:
    """True when the folder holds the finished cohort of this very specification."""
    path = Path(folder) / COHORT_FILE
    return path.is_file() and _made_from(path) == _identity(specification)


def claim_folder(folder: Path, specification: CohortSpecification) -> None:
    """Mark the folder as being filled; refuse one that holds anything but an interrupted run of the same cohort.

    Raises
    ------
    UserError
        The folder holds something else, or a cohort of another specification.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder. Choose another folder for the cohort.")
    marks = [path for path in (folder / COHORT_FILE, folder / STARTED_FILE) if path.is_file()]
    others = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    # A run killed in its first moment leaves nothing but the mark's temporary file.
    others = [name for name in others if not name.startswith(f".{STARTED_FILE}.writing-")]
    if others and not marks:
        raise UserError(
            f"{folder}: holds files that are not a simulated cohort ({', '.join(sorted(others)[:3])}); "
            "nothing was changed. Choose an empty or new folder."
        )
    if any(_made_from(path) != _identity(specification) for path in marks):
        raise UserError(
            f"{folder}: holds a cohort simulated from another specification or by another version; nothing was "
            "changed. Choose another folder, or remove this one."
        )
    write_json({"simulated": True, **_identity(specification)}, folder / STARTED_FILE)


def finish_folder(folder: Path, content: dict, specification: CohortSpecification) -> None:
    """Write cohort.json, the last file of a cohort, and take the mark away."""
    write_json({"simulated": True, **_identity(specification), **content}, folder / COHORT_FILE)
    (folder / STARTED_FILE).unlink(missing_ok=True)


def _identity(specification: CohortSpecification) -> dict:
    return {"simulator_version": SIMULATOR_VERSION, "specification": specification.as_dict()}


def _made_from(path: Path) -> dict | None:
    """What a mark says its cohort was made from; None for a damaged or foreign file."""
    try:
        content = read_json(path)
        return {key: content[key] for key in ("simulator_version", "specification")}
    except (UserError, KeyError, TypeError):
        return None
