"""Checkpoints and tables as a release wrote them, to be loaded by every later one (`test_old_releases.py`).

Run with the release's own checkout first on the path, from an empty folder:
`PYTHONPATH=CHECKOUT python make_release.py CHECKOUT TARGET`, where TARGET becomes
`tests/reference/releases/<version>`. The cohort is the tiny one of `tests/conftest.py`, made again here.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, N_SUBJECTS = (18, 20, 17), 13
SPLITS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 4
KEPT = ("tiny_both/network_1/best.pt", "tiny_both/network_1/last.pt", "tiny_both/network_1/history.csv",
        "tiny_both/predictions_test.csv", "tiny_both/metrics_test.json", "settings.ini")  # fmt: skip


def make_cohort(folder: Path) -> None:
    """Thirteen simulated subjects, whose volumes brighten with age, and the ini pair of the release."""
    affine = np.diag([-8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = (90.0, -126.0, -72.0)
    (folder / "contrasts.csv").write_text(
        "name,scale_factor,resolution,data_file,shape,crop\n"
        f"tiny,100,8mm,tiny.nii.gz,{' '.join(map(str, SHAPE))},1:17 2:20 0:16\n"
    )
    rows = ["subject_id,age,split"]
    for number, (age, split) in enumerate(
        zip(np.linspace(46.0, 80.0, N_SUBJECTS), SPLITS), start=1
    ):
        values = np.random.default_rng(number).integers(0, 60, SHAPE) + age
        path = folder / "subjects" / f"{number:04d}" / "tiny.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values.astype(np.int16), affine), path)
        rows.append(f"{number:04d},{age},{split}")
    (folder / "people.csv").write_text("\n".join(rows))
    (folder / "old.ini").write_text(
        '[DATA]\ndataset_sex = "both"\nmodality_flag = tiny\ndata_directory = subjects\n'
        "scaling_values = contrasts.csv\nsubjects = people.csv\n"
        "[TRAINING]\nensemble_size = 1\nnumber_of_epochs = 2\ntraining_batch_size = 3\n"
        'tensorboard = False\n[NETWORK]\nwidths = (2, 2, 2)\n[MISC]\ndevice = "cpu"\n'
    )
    (folder / "old_eval.ini").write_text("[MAPPING]\nbootstrap_resamples = 0\n")


def main(checkout: Path, target: Path) -> None:
    """Train and test with the release, and keep what it wrote."""
    make_cohort(Path())
    for mode in ("train", "test"):
        subprocess.run([sys.executable, checkout / "run.py", "-m", mode, "-n", "old"], check=False)
    for name in KEPT:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path("experiments/old") / name, target / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
