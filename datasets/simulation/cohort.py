"""A cohort with known truth, in UK Biobank's own folder form."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from datasets.simulation.anatomy import Atlas, build_atlas
from datasets.simulation.people import PARTICIPANT_COLUMNS, draw_people
from datasets.simulation.phenotypes import confounds_of, draw_phenotypes
from datasets.simulation.regions import REGIONS, region_labels
from datasets.simulation.rendering import build_brain, render
from datasets.simulation.specification import CohortSpecification
from datasets.simulation.storage import (
    claim_folder,
    cohort_is_complete,
    contrast_rows,
    data_files,
    finish_folder,
    nifti_bytes,
    write_lists,
    write_subject,
)
from utils.common.errors import UserError
from utils.common.files import clear_leftovers, write_bytes
from utils.common.messages import progress, say
from utils.common.tables import write_table

_worker: dict[str, Any] = {}  # what a worker process was given once, at its start


@dataclass(frozen=True)
class CohortSummary:
    """What a folder holds after `simulate_cohort`; `reused` when it was there already."""

    folder: Path
    n_subjects: int
    contrasts: tuple[str, ...]
    reused: bool


def simulate_cohort(
    specification: CohortSpecification, folder: str | Path, n_workers: int = 2
) -> CohortSummary:
    """Write a simulated cohort, or find it finished.

    Volumes under ``subjects/<subject_id>/<data_file>``, the tables ``contrasts.csv``, ``participants.csv``,
    ``confounds.csv``, ``nidps.csv``, ``nidp_dictionary.csv``, the published form of the subject lists under ``lists/``,
    the truth (``truth.csv``, ``nidp_truth.csv``, ``regions.nii.gz``, ``regions.csv``), and ``cohort.json`` last. The
    same specification gives the same bytes, whatever `n_workers`.

    Raises
    ------
    SettingsError
        A contrast that the contrast table does not have.
    UserError
        The folder holds something else; a worker was killed; the disk is full.
    """
    folder = Path(folder)
    s = specification
    files = data_files(s.contrasts)
    people = draw_people(s)
    summary = CohortSummary(folder, len(people), s.contrasts, cohort_is_complete(folder, s))
    if summary.reused:
        say(f"{folder}: the simulated cohort is complete; nothing to do.")
        return summary
    claim_folder(folder, s)
    clear_leftovers(folder)
    with threadpool_limits(1):
        atlas = _atlas(s.voxel_mm)
        measured = list(_render_all(people, s, folder, n_workers))
        _write_regions(atlas, folder)
    _write_tables(people, pd.DataFrame(measured), s, folder)
    write_table(contrast_rows(files, atlas.grid), folder / "contrasts.csv")
    finish_folder(folder, _description(people, s), s)
    return summary


@lru_cache(maxsize=2)
def _atlas(voxel_mm: float) -> Atlas:
    return build_atlas(voxel_mm)


def _render_all(
    people: pd.DataFrame, specification: CohortSpecification, folder: Path, n_workers: int
) -> Iterator[dict[str, Any]]:
    """Render and write every subject; give the rendered sizes, in the order of the table."""
    persons = people.to_dict("records")
    given = (specification, folder, _atlas(specification.voxel_mm))
    if n_workers <= 1:
        _start_worker(*given)
        yield from _with_bar(map(_render_subject, persons), len(persons))
        _worker.clear()
        return
    try:
        # Spawned, not forked: the parent may run threads of its own (PyTorch's, for one).
        with ProcessPoolExecutor(
            n_workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=given
        ) as pool:
            yield from _with_bar(pool.map(_render_subject, persons, chunksize=8), len(persons))
    except BrokenProcessPool as error:
        raise UserError(
            f"{folder}: a process of the simulation was killed, perhaps for want of memory. Run again with fewer "
            "workers; the folder can be kept."
        ) from error


def _with_bar(rows: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    yield from progress(rows, total, "Simulating subjects", "subject")


def _start_worker(specification: CohortSpecification, folder: Path, atlas: Atlas) -> None:
    threadpool_limits(1)
    _worker.update(
        specification=specification,
        folder=folder,
        atlas=atlas,
        files=data_files(specification.contrasts),
    )


def _render_subject(person: dict[str, Any]) -> dict[str, Any]:
    """Write one subject's volumes; return what was rendered."""
    specification, atlas, files = (_worker[key] for key in ("specification", "atlas", "files"))
    brain = build_brain(person, specification, atlas)
    volumes: dict[str, np.ndarray] = {}
    measured: dict[str, Any] = {"subject_id": person["subject_id"]}
    for contrast in specification.contrasts:
        rendered = render(brain, person, contrast, specification, atlas)
        volumes[contrast] = rendered.volume
        measured |= {
            f"ventricle_{contrast}_ml": rendered.ventricle_ml,
            f"grey_{contrast}_ml": rendered.grey_ml,
            f"ventricle_widening_{contrast}_mm": rendered.ageing.ventricle_mm,
            f"cortex_recession_{contrast}_mm": rendered.ageing.cortex_mm,
            f"lesion_{contrast}_fraction": rendered.ageing.lesion_fraction,
            f"iron_{contrast}_fraction": rendered.ageing.iron_fraction,
        }
    subject_folder = _worker["folder"] / "subjects" / person["subject_id"]
    write_subject(subject_folder, volumes, files, atlas.grid)
    return measured


def _write_tables(
    people: pd.DataFrame, measured: pd.DataFrame, specification: CohortSpecification, folder: Path
) -> None:
    """Everything that is not an image."""
    delta_columns = [c for c in people.columns if "delta_" in c or c.startswith("brain_age_")]
    truth = people[["subject_id", *delta_columns]].merge(measured, on="subject_id", validate="1:1")
    phenotypes = draw_phenotypes(people, specification)
    write_table(people[list(PARTICIPANT_COLUMNS)], folder / "participants.csv")
    write_lists(people, folder / "lists")
    write_table(truth, folder / "truth.csv")
    write_table(confounds_of(people), folder / "confounds.csv")
    write_table(phenotypes.values, folder / "nidps.csv")
    write_table(phenotypes.dictionary, folder / "nidp_dictionary.csv")
    write_table(phenotypes.truth, folder / "nidp_truth.csv")


def _write_regions(atlas: Atlas, folder: Path) -> None:
    """The label map of the structures that were made to age."""
    write_bytes(nifti_bytes(region_labels(atlas), atlas.grid.affine), folder / "regions.nii.gz")
    rows = [{"label": label, **region} for label, region in enumerate(REGIONS, start=1)]
    write_table(pd.DataFrame(rows), folder / "regions.csv")


def _description(people: pd.DataFrame, specification: CohortSpecification) -> dict[str, Any]:
    """What a reader of cohort.json should know beside the specification."""
    return {
        "note": "Simulated: no image and no value is of a person. Anatomy: ICBM152 2009a as shipped with nilearn.",
        "n_subjects": len(people),
        "n_per_split": people["split"].value_counts().sort_index().to_dict(),
        "n_families_of_two": int((people["family"].value_counts() > 1).sum()),
        "true_delta": "delta_<contrast> = shared_delta + own_delta_<contrast>; brain age = age + delta",
    }
