"""The ini pair as one typed, frozen object.

Every key stands in `training.py` (NAME.ini) or `evaluation.py` (NAME_eval.ini) with its type, unit,
choices, default and the sentence that explains it. The templates `settings.ini` and `settings_eval.ini`
are written from them (`python -m utils.settings.template`), so a key and its explanation cannot drift
apart. Sections and keys keep AgeMapper's published names where the meaning is the same; the others are
in `legacy.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict

from utils.settings.evaluation import (
    EVALUATION_SECTIONS,
    AssociationSettings,
    DeltaSettings,
    ExportSettings,
    MappingSettings,
    ReportSettings,
)
from utils.settings.section import Split
from utils.settings.training import (
    TRAINING_SECTIONS,
    CheckSettings,
    DataSettings,
    MiscSettings,
    NetworkSettings,
    SplitSettings,
    TrainingSettings,
)

__all__ = ["EVALUATION_SECTIONS", "TRAINING_SECTIONS", "Settings"]


class Settings(BaseModel):
    """The ini pair as one frozen object; `settings.training.learning_rate` is a number."""

    model_config = ConfigDict(frozen=True)

    name: str
    folder: Path
    data: DataSettings
    check: CheckSettings
    split: SplitSettings
    training: TrainingSettings
    network: NetworkSettings
    misc: MiscSettings
    simulation: Any  # SimulationSettings
    mapping: MappingSettings
    deltas: DeltaSettings
    association: AssociationSettings
    export: ExportSettings
    report: ReportSettings

    def path(self, text: str) -> Path:
        """A path of the ini files; a relative one starts at the folder of the ini file."""
        return self.folder / Path(text).expanduser()

    @property
    def sexes(self) -> tuple[str, ...]:
        """Sexes of the grid of cells: female, male, or both (pooled)."""
        sexes = self.data.dataset_sex
        return (sexes,) if isinstance(sexes, str) else tuple(sexes)

    @property
    def evaluated_splits(self) -> tuple[str, ...]:
        """Splits that `-m test` predicts, validation first."""
        splits = self.mapping.dataset_type
        chosen = (splits,) if isinstance(splits, str) else splits
        return tuple(split for split in get_args(Split) if split in chosen)
