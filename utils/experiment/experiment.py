"""An experiment as the modes see it: its grid of cells, its subjects, its volumes, its problems.

Nothing here imports torch, so that an association job or a report starts at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd

from datasets.contrasts import (
    PUBLISHED_TABLE,
    Contrast,
    choose_contrasts,
    preprocessed,
    read_contrast_table,
)
from datasets.subjects import (
    PublishedLists,
    apply_split,
    families_in_two_splits,
    read_id_list,
    read_published_lists,
    read_subject_table,
    refuse_subjects_in_two_splits,
    subjects_hash,
)
from utils.common.errors import UserError
from utils.common.files import clear_leftovers, read_json, write_text
from utils.common.launcher import launch
from utils.common.manifest import record_results, states
from utils.common.messages import say, warn
from utils.common.paths import CellPaths, ExperimentPaths, experiment_paths
from utils.common.tables import read_table
from utils.experiment.exported_contrasts import exported_contrasts
from utils.settings.reader import resolved_ini
from utils.settings.schema import EVALUATION_SECTIONS, TRAINING_SECTIONS, Settings


@dataclass(frozen=True)
class Options:
    """What the command line says beside the settings."""

    mode: str = ""
    checkpoint: str = ""  # "", "0", "last", "best" or an epoch
    epochs: int | None = None
    cell: str = ""
    network: int | None = None
    device: str = ""
    yes: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Cell:
    """One contrast and one sex."""

    contrast: Contrast
    sex: str

    @property
    def name(self) -> str:
        """`T1_nonlinear_female`: the folder of the cell."""
        return f"{self.contrast.name}_{self.sex}"


@dataclass
class Experiment:
    """Settings, options and what follows from them; `problems` collects what failed on the way."""

    settings: Settings
    options: Options = Options()
    problems: list[str] = field(default_factory=list)
    _found: dict[Path, tuple[int, ...]] | None = field(default=None, repr=False)

    def problem(self, text: str) -> None:
        """Something failed that does not end the run: said at once, counted at the end (exit 3)."""
        warn(text)
        self.problems.append(text)

    def open(self) -> None:
        """Make the folder, clear what a killed run left there, write the resolved settings beside.

        Of processes that train together the first does it.
        """
        if not launch().is_first:
            return
        self._found = states(self.result_folders)
        self.paths.root.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.paths.root)
        if self.options.mode == "verify":
            return  # what it is about to look at stays as it is
        for path, sections in (
            (self.paths.settings, TRAINING_SECTIONS),
            (self.paths.settings_eval, EVALUATION_SECTIONS),
        ):
            write_text(resolved_ini(self.settings, sections), path)

    def close(self) -> None:
        """Record checksums of the results this run may have written; `-m verify` compares them."""
        if not launch().is_first:
            return
        folders = self.result_folders
        # a mode that only removes was not opened: what is left, it found
        found = states(folders) if self._found is None else self._found
        # rewritten whenever a run begins
        record_results(folders, found, (self.paths.settings, self.paths.settings_eval))

    @property
    def result_folders(self) -> list[Path]:
        """Folders whose files are results of this run's cells or of the experiment as a whole."""
        paths = self.paths
        folders = [paths.root, paths.check_page.parent, paths.summary, paths.figures]
        with suppress(UserError):  # e.g. no contrast table: the run said so, or does not need one
            folders += [self.cell_paths(cell).folder for cell in self.cells]
        return folders

    @cached_property
    def paths(self) -> ExperimentPaths:
        """Where its results lie."""
        return self.paths_of(self.settings.name)

    def paths_of(self, name: str) -> ExperimentPaths:
        """Where another experiment's results lie (networks trained elsewhere)."""
        root = self.settings.path(self.settings.misc.experiments_directory)
        return experiment_paths(root, name)

    @property
    def n_epochs(self) -> int:
        """Epochs of a training in total: -e, or the settings."""
        given = self.options.epochs
        return self.settings.training.number_of_epochs if given is None else given

    @cached_property
    def contrasts(self) -> list[Contrast]:
        """Contrasts of the grid, preprocessed as [DATA] has it."""
        name = self.settings.data.scaling_values
        path = self.settings.path(name)
        if not path.is_file() and Path(name).name == PUBLISHED_TABLE.name:
            path = PUBLISHED_TABLE  # the published ini files name it relative to the program
        if self.settings.mapping.exported:
            self._refuse_to_train_exported()
            return exported_contrasts(self.settings, path)
        data = self.settings.data
        chosen = choose_contrasts(read_contrast_table(path), data.modality_flag)
        return [preprocessed(contrast, data.preprocessing) for contrast in chosen]

    def _refuse_to_train_exported(self) -> None:
        if self.options.mode in ("train", "train-and-evaluate-data", "study"):
            raise UserError(
                "[MAPPING] exported names networks that are trained already; leave it out to train others "
                "([TRAINING] use_pre_trained goes on from their weights)."
            )

    @cached_property
    def grid(self) -> list[Cell]:
        """All cells of the experiment, contrast by contrast."""
        return [Cell(contrast, sex) for contrast in self.contrasts for sex in self.settings.sexes]

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells this run is about: all, or the one of --cell."""
        if not self.options.cell:
            return self.grid
        chosen = [cell for cell in self.grid if cell.name == self.options.cell]
        if not chosen:
            names = ", ".join(cell.name for cell in self.grid)
            raise UserError(f"--cell {self.options.cell}: no such cell; the grid has {names}.")
        return chosen

    def each_cell(self, work: Callable[[Cell], None], worked: str) -> None:
        """Do `work` for every cell; one that cannot be `worked` is a problem, not the end of the run."""
        n_failed = 0
        for cell in self.cells:
            try:
                work(cell)
            except UserError as error:
                if len(self.cells) == 1:
                    raise
                self.problem(f"{cell.name} was not {worked}: {error}")
                n_failed += 1
        if n_failed == len(self.cells):
            raise UserError(f"no cell could be {worked}; the reasons stand above.")

    @property
    def chosen_contrasts(self) -> list[Contrast]:
        """Contrasts of the cells this run is about."""
        names = {cell.contrast.name for cell in self.cells}
        return [contrast for contrast in self.contrasts if contrast.name in names]

    def cell_paths(self, cell: Cell) -> CellPaths:
        """Files of a cell."""
        return self.paths.cell(cell.name)

    @cached_property
    def subjects(self) -> pd.DataFrame:
        """Every subject once, with a split (columns as in `datasets.subjects`)."""
        data = self.settings.data
        table = self._subject_table() if data.subjects else self._published_subjects()
        if data.exclude:
            excluded = set(read_id_list(self.settings.path(data.exclude)))
            kept = table[~table["subject_id"].isin(excluded)]
            say(f"{len(table) - len(kept)} of {len(table)} subjects excluded by {data.exclude}.")
            table = kept
        refuse_subjects_in_two_splits(table)
        n_apart = families_in_two_splits(table)
        if n_apart:
            warn(
                f"{n_apart} families have members in different splits: relatives of training subjects "
                "are tested, which flatters the networks."
            )
        without_split = int((table["split"] == "").sum())
        if without_split:
            warn(f"{without_split} subject(s) have no split and are not used.")
        if "both" not in self.settings.sexes and (table["sex"] == "").any():
            warn(f"{int((table['sex'] == '').sum())} subject(s) have no sex and are in no cell.")
        return table[table["split"] != ""].reset_index(drop=True)

    def subjects_of(self, sex: str, split: str) -> pd.DataFrame:
        """Subjects of one split and sex (`both`: everybody), in the order of the lists."""
        table = self.subjects
        chosen = (table["split"] == split) & ((sex == "both") | (table["sex"] == sex))
        if not chosen.any():
            missing = [str(path) for key, path in self._missing_lists.items() if key[1] == split]
            why = f" There is no {missing[0]}." if missing else ""
            raise UserError(f"no {sex} subject in the {split} split.{why}")
        return table[chosen].reset_index(drop=True)

    def volume_path(self, contrast: Contrast, subject_id: str, data_directory: str = "") -> Path:
        """The file of a subject's volume."""
        data = self.settings.data
        names = {"subject_id": subject_id, "session": data.session}
        try:
            data_file = contrast.data_file.format(**names)
            relative = data.path_template.format(**names, data_file=data_file)
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"path_template {data.path_template!r} or data_file {contrast.data_file!r}: unknown "
                f"field {error}; known are subject_id, session and data_file."
            ) from error
        return self.settings.path(data_directory or data.data_directory) / relative

    def data_directories(self, split: str) -> tuple[str, ...]:
        """Folders in which the volumes of a split are looked for ("": that of [DATA]).

        Training and its validation read from [DATA]; testing from [MAPPING] where that names one.
        """
        tested_in = self.settings.mapping.data_directory
        if split == "test":
            return (tested_in,)
        if split == "validation" and tested_in and split in self.settings.evaluated_splits:
            return ("", tested_in)
        return ("",)

    def volume_paths(self, contrast: Contrast) -> list[Path]:
        """The files of a contrast of every subject that this run's cells train on or test."""
        sexes = {cell.sex for cell in self.cells if cell.contrast == contrast}
        table = self.subjects
        if "both" not in sexes:
            table = table[table["sex"].isin(sexes)]
        return list(
            dict.fromkeys(
                self.volume_path(contrast, subject_id, directory)
                for subject_id, split in zip(table["subject_id"], table["split"])
                for directory in self.data_directories(split)
            )
        )

    @property
    def split_hash(self) -> str:
        """Hash of who is in which split."""
        pairs = self.subjects["split"] + ":" + self.subjects["subject_id"]
        return subjects_hash(pairs)

    @cached_property
    def simulated(self) -> bool:
        """Whether the subjects come from a cohort of `-m simulate`."""
        folder = self.settings.path(self.settings.data.data_directory)
        for path in (folder / "cohort.json", folder.parent / "cohort.json"):
            if path.is_file():
                return bool(read_json(path).get("simulated", False))
        return False

    @property
    def deltas_given(self) -> bool:
        """An association job on a table made elsewhere: it has no subjects, volumes or networks."""
        given = bool(self.settings.association.predictions)
        return given and not self.paths.metrics_table.is_file()

    @property
    def individual_level(self) -> bool:
        """Whether a person may be a dot in figures and report."""
        return self.simulated or self.settings.report.individual_level

    def _subject_table(self) -> pd.DataFrame:
        path = self.settings.path(self.settings.data.subjects)
        table = read_subject_table(path)
        if (table["split"] != "").any():
            return table
        if not self.paths.splits.is_file():
            raise UserError(
                f"{path}: has no split column and no split was made; run "
                f"python run.py -m split -n {self.settings.name} first."
            )
        frozen = read_table(self.paths.splits)
        record = read_json(self.paths.splits_record)
        found = subjects_hash(frozen["split"] + ":" + frozen["subject_id"])
        if found != record.get("split_hash"):
            raise UserError(
                f"{self.paths.splits}: was changed after it was made (its hash differs); restore it, "
                "or split anew with -m split --yes."
            )
        with_age = table[table["age_years"].notna()]
        return apply_split(with_age, frozen, self.paths.splits)

    @cached_property
    def _missing_lists(self) -> dict[tuple[str, str], Path]:
        """(sex, split) -> published list that does not exist."""
        if self.settings.data.subjects:
            return {}
        return {
            (sex, split): names.paths(sex)[0]
            for split, names in self.published_lists.items()
            for sex in self.list_sexes
            if not names.paths(sex)[0].is_file()
        }

    @property
    def list_sexes(self) -> tuple[str, ...]:
        return ("female", "male") if "both" in self.settings.sexes else self.settings.sexes

    @cached_property
    def published_lists(self) -> dict[str, PublishedLists]:
        data, mapping = self.settings.data, self.settings.mapping
        folder = self.settings.path(data.data_folder_name)
        suffix = "" if data.dataset_size == "full" else f"_{data.dataset_size}"
        validation = mapping.male_validation or data.male_validation
        validation_age = mapping.male_validation_age or data.male_validation_age
        return {
            "train": PublishedLists(folder, data.male_train, data.male_train_age, suffix),
            "validation": PublishedLists(folder, validation, validation_age, suffix),
            "test": PublishedLists(folder, mapping.male_test, mapping.male_test_age, suffix),
        }

    def _published_subjects(self) -> pd.DataFrame:
        parts = []
        for sex in self.list_sexes:
            there = {
                split: names
                for split, names in self.published_lists.items()
                if (sex, split) not in self._missing_lists
            }
            if there:
                parts.append(read_published_lists(there, (sex,)))
        if not parts:
            lists = ", ".join(map(str, self._missing_lists.values()))
            raise UserError(f"no list of subjects is there: {lists}; or set [DATA] subjects.")
        return pd.concat(parts, ignore_index=True)
