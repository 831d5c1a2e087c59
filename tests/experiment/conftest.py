"""A small study that a check may look at: twelve women on a grid of 18 x 20 x 17 voxels, everything right with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import CROP, SHAPE, save_volume
from utils.common.randomness import generator
from utils.experiment.checks.all import Checked, check_all
from utils.experiment.experiment import Experiment, Options
from utils.settings.reader import read_settings

SPLITS = ["train"] * 7 + ["validation"] * 3 + ["test"] * 2


def brain(subject_id: str) -> np.ndarray:
    """A ball with a bright core, each person's a little different, that no other orientation looks like."""
    draw = generator("checked study", subject_id)
    grid = np.indices(SHAPE).astype(float)
    centre = np.array([9.0, 11.0, 7.0]) + draw.normal(0, 0.1, 3)
    ball = np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(axis=0)) < 6
    core = np.sqrt(((grid - (centre - [0, 3, 0])[:, None, None, None]) ** 2).sum(axis=0)) < 2.5
    values = 80.0 * ball + 60.0 * core + draw.normal(0, 3, SHAPE) * ball
    return np.maximum(values, 0).astype(np.int16)


@dataclass
class CheckedStudy:
    """Its folder, where each part may be spoiled before it is checked."""

    folder: Path
    ids: list[str]
    rows: list[str]

    def volume(self, position: int) -> Path:
        """The file of a subject's volume."""
        return self.folder / "subjects" / self.ids[position] / "tiny.nii.gz"

    def write_table(self, header: str = "subject_id,age,sex,split") -> None:
        """The table of subjects from `rows`."""
        (self.folder / "people.csv").write_text("\n".join([header, *self.rows]) + "\n")

    def write_contrast(self, scale_factor: str = "100", **columns: str) -> None:
        """The contrast table, with further columns."""
        row = {
            "name": "tiny", "scale_factor": scale_factor, "resolution": "8mm", "data_file": "tiny.nii.gz",
            "shape": " ".join(map(str, SHAPE)), "crop": CROP, **columns,
        }  # fmt: skip
        text = ",".join(row) + "\n" + ",".join(row.values()) + "\n"
        (self.folder / "contrasts.csv").write_text(text)

    def experiment(self, *settings: str, **options) -> Experiment:
        """With these --set."""
        return Experiment(read_settings(str(self.folder / "x"), settings), Options(**options))

    def check(self, *settings: str, **options) -> Checked:
        """The whole check."""
        return check_all(self.experiment(*settings, **options))


@pytest.fixture
def checked_study(tmp_path: Path) -> CheckedStudy:
    """Twelve subjects, one contrast, one sex."""
    ids = [f"{number:03d}" for number in range(1, len(SPLITS) + 1)]
    rows = [f"{i},{50 + 2 * n},f,{split}" for n, (i, split) in enumerate(zip(ids, SPLITS))]
    study = CheckedStudy(tmp_path, ids, rows)
    study.write_table()
    study.write_contrast()
    (tmp_path / "x.ini").write_text(
        '[DATA]\ndataset_sex = "female"\nmodality_flag = "tiny"\ndata_directory = "subjects"\n'
        'subjects = "people.csv"\nscaling_values = "contrasts.csv"\ncache_directory = ""\n'
        '[NETWORK]\nwidths = (4, 8)\n[TRAINING]\ntraining_batch_size = 3\n[MISC]\ndevice = "cpu"\n'
    )
    (tmp_path / "x_eval.ini").write_text("")
    for position, subject_id in enumerate(ids):
        save_volume(study.volume(position), brain(subject_id))
    return study
