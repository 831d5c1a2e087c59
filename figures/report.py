"""One self-contained page: opens from disk, asks nothing of the network, the same bytes for the same study."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from figures.association_table import AssociationView, association_view
from figures.curves import curves, shows_dots
from figures.methods import each_cell, methods_paragraph
from figures.packing import pack_associations, pack_json
from figures.pages import page_text
from figures.privacy import (
    MINIMUM_COUNT,
    known_ids,
    record_for_export,
    text_for_export,
    without_ids,
)
from figures.report_cards import headline_cards
from figures.report_checks import checks_sentence, failed_checks, labels_by_cell
from figures.report_pictures import inlined_pictures
from figures.report_tables import (
    ACCURACY_HEADS,
    accuracy_rows,
    association_part,
    history_rows,
)
from figures.tables import (
    SEX_ORDER,
    StudyTables,
    contrast_word,
    file_word,
    headline_split,
    is_present,
    of_split,
    person_table,
    sex_word,
)
from utils.common.files import write_text

STYLES = ("report.css",)
SCRIPTS = ("base.js", "plot.js", "persons.js", "associations.js", "linked.js", "report.js")
INDIVIDUAL_STAMP = "contains individual-level points"


def write_report(tables: StudyTables, path: str | Path, individual_level: bool) -> Path:
    """Write the page, complete in one file; any part of `tables` may be missing.

    Parameters
    ----------
    tables : StudyTables
    path : path
        Usually `summary/report.html`.
    individual_level : bool
        True draws one dot a person, without id and sorted by age, and stamps the page. False keeps every
        group of fewer than ten subjects out of it.
    """
    path = Path(path)
    write_text(report_page(tables, individual_level), path)
    return path


def report_page(tables: StudyTables, individual_level: bool) -> str:
    """The page as text."""
    tables = _scrubbed(tables, individual_level)
    split = headline_split(tables)
    view = association_view(tables)
    metrics = of_split(tables.metrics, split)
    checks = failed_checks(tables.cell_flags, split, individual_level)
    content: dict[str, Any] = {
        "experiment": tables.experiment,
        "file_word": file_word(tables.experiment),
        "split": split,
        "minimum": MINIMUM_COUNT,
        "lead": _lead(tables),
        "stamps": _stamps(tables, individual_level),
        "cards": headline_cards(tables, view, split, individual_level),
        "flags": _flags(tables, split, individual_level),
        "pictures": inlined_pictures(tables, view, split, individual_level),
        "accuracy": []
        if metrics is None or not is_present(metrics)
        else accuracy_rows(metrics, individual_level, labels_by_cell(checks)),
        "accuracy_heads": ACCURACY_HEADS,
        "checks": checks,
        "correction_words": _correction_words(tables, split),
        "has_persons": len(person_table(tables, split)) > 0,
        "person_words": _person_words(tables, split, individual_level),
        "history_rows": history_rows(tables.history),
        "associations": None if view is None else association_part(view),
        "methods": methods_paragraph(_method_facts(tables, view, split)),
        "provenance": _provenance(tables, individual_level),
        "privacy_words": _privacy_words(individual_level),
        "packed_curves": pack_json(curves(tables, split, individual_level)),
        "packed_associations": None if view is None else pack_associations(view),
    }
    return page_text("report.html.j2", STYLES, SCRIPTS, content)


def _scrubbed(tables: StudyTables, individual_level: bool) -> StudyTables:
    """The study without subject ids in its free texts and, to be taken out, without small counts in its records."""
    if not individual_level:
        tables = replace(
            tables,
            bias_correction=record_for_export(tables.bias_correction),
            association_summary=record_for_export(tables.association_summary),
            flags=tuple(text_for_export(str(flag)) for flag in tables.flags),
        )
    ids = known_ids((tables.predictions, tables.deltas))
    return replace(
        tables,
        description=without_ids(tables.description, ids),
        association_summary=without_ids(tables.association_summary, ids),
        bias_correction=without_ids(tables.bias_correction, ids),
        provenance=without_ids(tables.provenance, ids),
        flags=tuple(without_ids(list(tables.flags), ids)),
    )


def _lead(tables: StudyTables) -> str:
    facts = tables.description
    contrasts = facts.get("contrasts") or []
    n_networks = facts.get("n_networks")
    ensemble = (
        f"ensembles of {n_networks} networks" if n_networks and int(n_networks) > 1 else "networks"
    )
    what = (
        f"{len(contrasts)} MRI contrast{'s' if len(contrasts) != 1 else ''}" if contrasts else "MRI"
    )
    return (
        f"Age predicted from {what} by {ensemble} for {each_cell(facts)}; delta is predicted age minus age"
        + (
            ", tested for association with non-imaging phenotypes (nIDPs)."
            if is_present(tables.associations)
            else "."
        )
    )


def _stamps(tables: StudyTables, individual_level: bool) -> list[tuple[str, bool]]:
    stamps = []
    if tables.description.get("simulated"):
        stamps.append(("simulated cohort, not data about people", False))
    if individual_level:
        stamps.append((INDIVIDUAL_STAMP, True))
    else:
        stamps.append(
            (
                f"summaries only: no ids, no points for persons, counts under {MINIMUM_COUNT} hidden",
                False,
            )
        )
    return stamps


def _privacy_words(individual_level: bool) -> str:
    if individual_level:
        return "It contains individual-level points (without ids, sorted by age): keep it where such data may be kept."
    return f"It contains no subject id and no point for a person; counts under {MINIMUM_COUNT} are hidden."


def _flags(tables: StudyTables, split: str, individual_level: bool) -> list[str]:
    """The study's own sentences, and those that the tables themselves give."""
    flags = [str(flag) for flag in tables.flags]
    checks = checks_sentence(failed_checks(tables.cell_flags, split, individual_level))
    flags += [checks] if checks else []
    predictions = of_split(tables.predictions, split)
    if predictions is not None and "status" in predictions.columns:
        failed = int((predictions["status"].astype(str) == "failed").sum())
        if failed:
            shown = (
                "fewer than ten"
                if failed < MINIMUM_COUNT and not individual_level
                else f"{failed:,}"
            )
            flags.append(
                f"Predictions failed for {shown} volumes of the {split} split; predictions_{split}.csv says why."
            )
    missing = _missing_cells(tables, split)
    if missing:
        flags.append(f"Cells without results: {', '.join(missing)}.")
    persons = person_table(tables, split)
    if len(persons) and not persons["corrected_delta_years"].notna().any():
        flags.append(
            "There are no corrected deltas: the age-bias correction was not fitted or was refused."
        )
    return flags


def _missing_cells(tables: StudyTables, split: str) -> list[str]:
    """Cells that the description names and the metrics lack."""
    metrics = of_split(tables.metrics, split)
    contrasts = [str(name) for name in tables.description.get("contrasts") or []]
    sexes = list((tables.description.get("counts") or {}).keys())
    if metrics is None or not is_present(metrics) or not contrasts:
        return []
    found = set(zip(metrics["contrast"].astype(str), metrics["sex"].astype(str)))
    return [
        f"{contrast_word(contrast)} of {sex_word(sex)}"
        for contrast in contrasts
        for sex in sexes
        if (contrast, sex) not in found
    ]


def _correction_words(tables: StudyTables, split: str) -> str:
    """How the deltas were corrected, and for which of them it was refused and why."""
    correction = tables.bias_correction or {}
    persons = person_table(tables, split)
    words = []
    if len(persons) and persons["corrected_delta_years"].notna().any():
        method = correction.get("method") or tables.description.get("correction")
        fitted = correction.get("fitted_on") or tables.description.get("correction_fitted_on")
        words.append(
            "Deltas are corrected for age bias"
            + (f" ({method})" if method else "")
            + (f" with coefficients fitted on {fitted} subjects" if fitted else "")
            + ". Accuracy after such a correction flatters a poor model and is not shown."
        )
    for reason, whose in _refusals(correction).items():
        of_what = f" for {', '.join(whose)}" if whose else ""
        words.append(f"There is no age-bias correction{of_what}: {reason.rstrip('.')}.")
    return " ".join(words)


def _refusals(record: Any, path: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Reasons of refused corrections anywhere in the record, with the contrast and sex each is about."""
    found: dict[str, list[str]] = {}
    if not isinstance(record, dict):
        return found
    refused = record.get("refused")
    if isinstance(refused, str) and refused:
        sexes = [sex_word(word) for word in path if word in SEX_ORDER]
        # A set of contrasts is a row of 0 and 1 in the record, and there may be thousands.
        what = ["some sets of contrasts"] if "patterns" in path else map(contrast_word, path[-1:])
        whose = " of ".join([*what, *sexes])
        found[refused] = [whose] if whose else []
    for key, value in record.items():
        for reason, whose_list in _refusals(value, (*path, str(key))).items():
            known = found.setdefault(reason, [])
            known += [whose for whose in whose_list if whose not in known]
    return found


def _person_words(tables: StudyTables, split: str, individual_level: bool) -> str:
    if shows_dots(tables, split, individual_level):
        return (
            f"One dot a subject of the {split} split, in the order of age; uncorrected predictions."
        )
    return (
        f"Numbers of subjects of the {split} split in squares; squares with fewer than {MINIMUM_COUNT} are left out. "
        "Predictions are uncorrected."
    )


def _method_facts(tables: StudyTables, view: AssociationView | None, split: str) -> dict[str, Any]:
    """The description, with the family and the number of tests from the associations themselves."""
    facts = {"split": split, **tables.description}
    if view is None:
        facts.pop("n_nidps", None)
        return facts
    facts.setdefault("n_nidps", view.n_nidps)
    facts.setdefault("alpha", view.alpha)
    if len(view.families) == 1:
        facts.setdefault("family", view.families[0].name)
        facts.setdefault("n_tests", view.families[0].n_tests)
    return facts


def _provenance(tables: StudyTables, individual_level: bool) -> list[tuple[str, str]]:
    parts: list[tuple[str, Any]] = [
        (str(key).replace("_", " ").capitalize(), value)
        for key, value in (tables.provenance or {}).items()
    ]
    for title, value in (
        ("Description", tables.description),
        ("Bias correction", without_patterns(tables.bias_correction)),
        ("Summary of the associations", tables.association_summary),
    ):
        if value:
            parts.append((title, value if individual_level else record_for_export(value)))
    return [(title, value if isinstance(value, str) else _as_json(value)) for title, value in parts]


def without_patterns(record: Any) -> Any:
    """The record of the corrections without its entry for every set of contrasts, which may be thousands."""
    if isinstance(record, dict):
        return {key: without_patterns(item) for key, item in record.items() if key != "patterns"}
    return record


def _as_json(value: Any) -> str:
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = ["INDIVIDUAL_STAMP", "report_page", "write_report"]
