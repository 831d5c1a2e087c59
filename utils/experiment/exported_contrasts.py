"""The contrasts of exported networks: all that matters comes from the card, where files lie from the receiver."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from datasets.contrasts import Contrast, preprocessed, read_contrast_table
from utils.common.errors import UserError
from utils.common.model_cards import Export, Exports, find_exports
from utils.settings.schema import Settings

_COMPARED = ("voxel_mm", "shape", "crop", "divide_by_mean", "scale_factor")


def exports_of(settings: Settings) -> Exports:
    """What lies in the folder of [MAPPING] exported."""
    if settings.mapping.experiment_name:
        raise UserError(
            "[MAPPING]: experiment_name and exported are both set; leave the one out whose networks are "
            "not meant."
        )
    return find_exports(settings.path(settings.mapping.exported))


def exported_contrasts(settings: Settings, table: Path) -> list[Contrast]:
    """The contrasts of `modality_flag` as the cards have them.

    A row of the contrast table adds where the files lie; without one, path_template alone has to say it. A
    table that the ini file names must not contradict the cards; the published one is no statement.

    Raises
    ------
    UserError
        No networks for a contrast; a damaged card with "all"; table or [DATA] preprocessing differ from
        the card; or nothing says where the files lie.
    """
    exports = exports_of(settings)
    names = list(dict.fromkeys(export.contrast for export in exports.found))
    flag = settings.data.modality_flag
    if flag == "all" and exports.damaged:  # what "all" are is not known then
        raise UserError(
            f'modality_flag = "all": {exports.folder} holds exports that cannot be read: '
            f"{' '.join(exports.damaged)} Or name the contrasts that are wanted."
        )
    wanted = names if flag == "all" else [flag] if isinstance(flag, str) else list(flag)
    unknown = [name for name in wanted if name not in names]
    if unknown or len(set(wanted)) < len(wanted):
        said = " ".join([f"it has {', '.join(names)}.", *exports.damaged])
        raise UserError(
            f"modality_flag: {exports.folder} holds no networks for {', '.join(unknown)}; {said}"
            if unknown
            else "modality_flag: name each contrast once, and at least one."
        )
    given = "scaling_values" in settings.data.model_fields_set
    rows = read_contrast_table(table) if given or table.is_file() else {}
    contrasts = []
    for name in wanted:
        export = _first(exports, name, settings.sexes)
        row = rows.get(name)
        _refuse_differences(settings, export, row if given else None, table)
        contrasts.append(_contrast(export.card, row))
        if row is None and "{data_file" in settings.data.path_template:
            raise UserError(
                f"contrast {name}: nothing says where its files lie: {table.name} has no such row. Set [DATA] "
                'path_template, e.g. "{subject_id}/T1.nii.gz", or name a contrast table with the row that '
                f"stands in {export.paths.text}."
            )
    return contrasts


def _first(exports: Exports, name: str, sexes: tuple[str, ...]) -> Export:
    """One of a contrast's exports, of the wanted sexes where there is one."""
    found = [export for export in exports.found if export.contrast == name]
    return next((export for export in found if export.sex in sexes), found[0])


def _refuse_differences(
    settings: Settings, export: Export, row: Contrast | None, table: Path
) -> None:
    trained = export.card["contrast"]
    data, problems = settings.data, []
    if "preprocessing" in data.model_fields_set and data.preprocessing != trained["preprocessing"]:
        problems.append(
            f"[DATA] preprocessing is {data.preprocessing} and was {trained['preprocessing']} in training; "
            "leave it out"
        )
    if row is not None:
        wanted = preprocessed(row, trained["preprocessing"]).describe()
        auto = wanted["scale_factor"] is None
        problems += [
            f"{key} is {wanted[key]} in {table} and was {trained[key]} in training"
            for key in _COMPARED
            if not (key == "scale_factor" and auto) and not _same(wanted[key], trained[key])
        ]
    if problems:
        raise UserError(
            f"{export.paths.folder}: does not fit the settings: {'; '.join(problems)}. The row that a contrast "
            f"table needs stands in {export.paths.text.name}; without scaling_values everything but the place of "
            "the files is taken from the export."
        )


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, (int, float)):
        # MODEL_CARD.md states a factor to nine digits
        return math.isclose(first, second, rel_tol=1e-6)
    return first == second


def _contrast(card: dict[str, Any], row: Contrast | None) -> Contrast:
    trained = card["contrast"]
    return Contrast(
        name=trained["name"],
        data_file=row.data_file if row else "",
        scale_factor=None if card["scale_factor_is_auto"] else float(trained["scale_factor"]),
        voxel_mm=float(trained["voxel_mm"]),
        shape=tuple(trained["shape"]),
        crop=tuple(tuple(pair) for pair in trained["crop"]),  # type: ignore[arg-type]
        volume_index=row.volume_index if row else trained["volume_index"],
        divide_by_mean=trained["divide_by_mean"],
        category=row.category if row else "",
        preprocessing=trained["preprocessing"],
    )
