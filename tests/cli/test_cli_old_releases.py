"""R12: what earlier releases wrote is loaded, tested, and gone on from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from run import main
from tests.reference.make_release import make_cohort

RELEASES = Path(__file__).resolve().parents[1] / "reference" / "releases"


@pytest.fixture(params=sorted(path.name for path in RELEASES.iterdir()))
def old(request, tmp_path, monkeypatch) -> Path:
    """A folder in which a release trained and tested one network for two epochs."""
    monkeypatch.chdir(tmp_path)
    make_cohort(tmp_path)
    shutil.copytree(RELEASES / request.param, tmp_path / "experiments" / "old")
    return tmp_path


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"subject_id": str})


def test_its_networks_predict_what_they_predicted(old):
    path = old / "experiments" / "old" / "tiny_both" / "predictions_test.csv"
    before = read(path)
    assert main(["-m", "test", "-n", "old"]) in (0, 3)  # three subjects: too few for a gate
    pd.testing.assert_frame_equal(before, read(path), rtol=1e-4, atol=1e-3)


def test_its_training_goes_on(old, capsys):
    folder = old / "experiments" / "old" / "tiny_both" / "network_1"
    before = pd.read_csv(folder / "history.csv")
    assert main(["-m", "train", "-n", "old", "-e", "4"]) == 0
    said = capsys.readouterr().err
    # The last epoch is another one, as asked (from 0.3.0 on it is kept and compared); no setting is.
    changed = said.replace("the last epoch was 2 and is 4; the settings win", "")
    assert "network 1 goes on after epoch 2" in said and "; the settings win" not in changed
    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3, 4] and history["train_loss"].notna().all()
    had_norms = "gradient_norm" in before  # since 0.3.0
    assert history["gradient_norm"].isna().tolist() == [not had_norms, not had_norms, False, False]
    assert history["train_loss"][:2].tolist() == before["train_loss"].tolist()


def test_settings_that_it_did_not_know_are_refused_where_they_matter(old, capsys):
    words = ["--set", "TRAINING.ema_decay=0.9", "--set", "TRAINING.checkpoint_minutes=5"]
    assert main(["-m", "train", "-n", "old", "-e", "4", *words]) == 1
    said = capsys.readouterr().err
    assert "[TRAINING] ema_decay was 0.0 and is 0.9" in said and "checkpoint_minutes" not in said
    assert main(["-m", "train", "-n", "old", "-e", "4", *words[2:]]) == 0
    said = capsys.readouterr().err
    assert "[TRAINING] checkpoint_minutes was 30.0 and is 5.0; the settings win" in said
