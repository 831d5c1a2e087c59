"""Predictions that collapsed are flagged: in the metrics, on standard error, by the exit code and in the report."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint

CELL = "swi_female"
NUMBERS = (1, 2)


def flags(path: Path) -> dict[str, dict]:
    return {flag["name"]: flag for flag in json.loads(path.read_text(encoding="utf-8"))["flags"]}


def change_networks(study, change) -> None:
    """Change the weights of every network of the cell, as training that went wrong would have left them."""
    for number in NUMBERS:
        path = study.network(number, CELL) / "best.pt"
        record = load_checkpoint(path)
        change(record["weights"])
        save_checkpoint(record, path)


def as_if_trained_well(study) -> None:
    """Networks that were much better than the mean age on validation."""
    for number in NUMBERS:
        path = study.network(number, CELL) / "best.pt"
        record = load_checkpoint(path)
        record["validation_mae_years"] = 0.4 * record["validation_null_mae_years"]
        save_checkpoint(record, path)


def say_the_same(weights: dict[str, torch.Tensor]) -> None:
    """The first layer no longer sees the image."""
    first = next(name for name, values in weights.items() if values.ndim == 5)
    weights[first] = torch.zeros_like(weights[first])


def far_too_old(weights: dict[str, torch.Tensor]) -> None:
    """The last bias adds what makes hundreds of years of any standardised or plain output."""
    last = [name for name, values in weights.items() if name.endswith("bias")][-1]
    weights[last] = weights[last] + 200.0


@pytest.fixture
def collapsed(study):
    """The golden study, of one cell of which the networks say one age for everybody."""
    change_networks(study, say_the_same)
    return study


def test_a_collapsed_study_is_flagged_everywhere(collapsed):
    ended = collapsed.run("test")
    assert ended.code == 3
    assert f"warning: {CELL} test: All 72 subject(s) are predicted the same age, " in ended.err
    assert f"warning: {CELL} validation: All 52 subject(s)" in ended.err
    assert "check.html of `-m check`: orientation, space or scale of the inputs" in ended.err
    assert "2 problem(s) stand above." in ended.err
    for split, n in (("validation", 52), ("test", 72)):
        found = flags(collapsed.root / CELL / f"metrics_{split}.json")
        assert list(found) == ["constant"] and found["constant"]["n_subjects"] == n
        assert "constant" not in flags(collapsed.root / "swi_male" / f"metrics_{split}.json")
    assert collapsed.run("ensemble").code == 0
    ended = collapsed.run("report")
    assert ended.code == 0, ended.err
    page = (collapsed.root / "summary" / "report.html").read_text(encoding="utf-8")
    assert "swi of women: all predictions equal." in page
    assert "All 72 subject(s) are predicted the same age" in html.unescape(page)
    marked = [
        row for row in re.findall(r"<tr class=.*?</tr>", page, re.S) if "all predictions eq" in row
    ]
    assert len(marked) == 1 and '<th scope="row">swi</th><td>women</td>' in marked[0]


def test_ages_far_outside_are_problems_and_notes(study):
    change_networks(study, far_too_old)
    ended = study.run("test", "--cell", CELL, "MAPPING.dataset_type=test")
    assert ended.code == 3
    assert "72 subject(s) of 72 are predicted more than 10 years outside" in ended.err
    assert re.search(r"The farthest is \d{3,} years outside\.", ended.err)
    found = flags(study.root / CELL / "metrics_test.json")
    assert found["outside_training_ages"]["n_subjects"] == 72
    notes = study.predictions("test", CELL)["note"]
    assert set(notes) == {"predicted more than 10 y outside the training ages"}


def test_a_trial_run_is_told_and_not_failed(golden, study):
    """The golden networks learn next to nothing in four tiny epochs, which their training shows."""
    found = flags(golden / "experiments" / "golden" / CELL / "metrics_test.json")
    assert "small_spread" in found
    as_if_trained_well(study)
    ended = study.run("test", "--cell", CELL, "MAPPING.dataset_type=test")
    assert ended.code == 3 and "The predictions of 72 subject(s) hardly differ" in ended.err


def test_predictions_of_new_subjects_have_their_flags_beside_them(collapsed, participants):
    women = participants[(participants["split"] == "test") & (participants["sex"] == "female")]
    new = pd.DataFrame({"subject_id": [*women["subject_id"][:6], "nobody"], "sex": "female"})
    new.to_csv(collapsed.folder / "new.csv", index=False)
    ended = collapsed.run("predict", "--cell", CELL, "MAPPING.predict_subjects=new.csv")
    assert ended.code == 3
    assert f"{CELL} predict: All 6 subject(s) are predicted the same age" in ended.err
    path = collapsed.root / CELL / "predictions_predict.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    assert (record["experiment_name"], record["n"], record["n_failed"]) == ("golden", 6, 1)
    assert list(flags(path)) == ["constant"]
