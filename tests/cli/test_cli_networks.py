"""Collapsed networks, pooled sexes, SFCN with soft labels, and checkpoints that are not loaded."""

from __future__ import annotations

import json
import pickle

import pandas as pd
import pytest
import torch

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint

CELL = "T1_nonlinear_female"
ONE_CELL = ("--cell", CELL)
NEW = "MISC.experiments_directory=new"
# A step so large that the network cannot learn.
WILD = "TRAINING.learning_rate=10.0"


def mark_collapsed(study, number: int) -> None:
    """Rewrite the best checkpoint of a network as one that learned nothing."""
    path = study.network(number) / "best.pt"
    content = load_checkpoint(path)
    content.pop("format_version")
    content["validation_mae_years"] = content["validation_null_mae_years"]
    save_checkpoint(content, path)


def test_a_collapsed_network_is_left_out_of_the_mean(study):
    mark_collapsed(study, 1)
    ended = study.run("test", *ONE_CELL)
    assert ended.code == 0, ended.err
    assert f"warning: {CELL}: network 1 collapsed in training and is not averaged." in ended.err
    table = study.predictions("test", CELL)
    assert table["predicted_years"].to_list() == table["predicted_years_2"].to_list()
    assert table["predicted_years_1"].notna().all()
    assert set(table["note"]) == {"network 1 collapsed and is not averaged"}
    metrics = json.loads((study.root / CELL / "metrics_test.json").read_text())
    assert [n["averaged"] for n in metrics["networks"]] == [False, True]
    assert [n["collapsed"] for n in metrics["networks"]] == [True, False]
    for mode in ("ensemble", "report"):
        assert study.run(mode).code == 0
    assert (
        "network 1 collapsed; not averaged" in (study.root / "summary" / "report.html").read_text()
    )


def test_where_all_collapsed_their_mean_is_written_and_said(study):
    mark_collapsed(study, 1)
    mark_collapsed(study, 2)
    ended = study.run("test", *ONE_CELL)
    assert ended.code == 3
    assert "every network collapsed in training; their mean is written" in ended.err
    table = study.predictions("test", CELL)
    mean = table[["predicted_years_1", "predicted_years_2"]].mean(axis=1)
    assert table["predicted_years"].to_numpy() == pytest.approx(mean.to_numpy(), abs=2e-6)


def test_training_says_that_a_network_collapsed(study):
    ended = study.run(
        "train", *ONE_CELL, NEW, WILD, "-e", "1", "TRAINING.collapsed_networks=report"
    )
    assert ended.code == 0, ended.err
    assert f"warning: {CELL} network 1 collapsed: its validation MAE of " in ended.err
    assert "is no better than the mean age's" in ended.err
    assert "trained again" not in ended.err


def test_retrain_tries_a_second_seed_once_and_keeps_the_first(study):
    words = (*ONE_CELL, NEW, WILD, "-e", "1", "TRAINING.collapsed_networks=retrain")
    ended = study.run("train", *words)
    assert ended.code == 0, ended.err
    assert "network 1 is trained again with another seed" in ended.err
    root = study.folder / "new" / "golden"
    for number in (1, 2):
        second = torch.load(root / CELL / f"network_{number}" / "last.pt", weights_only=True)
        first = root / "previous" / CELL / f"network_{number}.1" / "last.pt"
        first = torch.load(first, weights_only=True)
        assert (first["attempt"], second["attempt"]) == (1, 2)
        assert first["seed"] != second["seed"]
    again = study.run("train", *words)  # the same command again does not try a third time
    assert again.code == 0 and "trained again" not in again.err
    assert not (root / "previous" / CELL / "network_1.2").exists()


def test_diverged_networks_stop_count_as_collapsed_and_are_named_by_test(study, own_cohort):
    table = pd.read_csv(own_cohort / "contrasts.csv", dtype=str)
    table.assign(scale_factor="1e-37").to_csv(own_cohort / "contrasts.csv", index=False)
    for _ in range(2):  # the second time, they are trained already
        ended = study.run("train", *ONE_CELL, NEW)
        assert ended.code == 3, ended.err
        assert f"warning: {CELL} network 2 diverged in epoch 1 and is not used." in ended.err
    ended = study.run("test", *ONE_CELL, NEW)
    assert ended.code == 1
    assert "none of its networks has a best checkpoint: they diverged." in ended.err


def test_a_network_without_a_best_checkpoint_is_said_and_not_used(study):
    (study.network(1) / "best.pt").unlink()
    ended = study.run("test", *ONE_CELL)
    assert ended.code == 0, ended.err
    assert "network_1 diverged, has no best checkpoint and is not used." in ended.err
    table = study.predictions("test", CELL)
    assert "predicted_years_1" not in table and table["predicted_years_2"].notna().all()


def test_a_pooled_cell_is_trained_on_both_sexes_and_takes_subjects_without_one(study, participants):
    pooled = ("DATA.dataset_sex=both", "DATA.modality_flag=swi", NEW)
    ended = study.run("study", *pooled, "-e", "2")
    assert ended.code in (0, 3), ended.err
    assert "80 training and 104 validation subjects" in ended.err
    root = study.folder / "new" / "golden"
    table = pd.read_csv(root / "swi_both" / "predictions_test.csv", dtype={"subject_id": str})
    assert len(table) == 144
    deltas = pd.read_csv(root / "deltas_test.csv")
    assert set(deltas["sex"]) == {"both"}
    metrics = pd.read_csv(root / "summary" / "metrics.csv")
    assert set(metrics["sex"]) == {"both"}
    assert (root / "summary" / "report.html").is_file()
    ids = participants["subject_id"].tolist()[:3]
    (study.folder / "new.txt").write_text("\n".join(ids))
    ended = study.run("predict", *pooled, "MAPPING.predict_subjects=new.txt")
    assert ended.code in (0, 3), ended.err
    table = pd.read_csv(root / "swi_both" / "predictions_predict.csv", dtype={"subject_id": str})
    assert table["subject_id"].tolist() == ids and table["predicted_years"].notna().all()


SFCN = ("NETWORK.network=sfcn", "TRAINING.loss_function=kl", "NETWORK.dropout_rate_1=0.5", NEW)


def test_sfcn_learns_soft_labels_and_predicts_within_its_bins(study):
    ended = study.run("train", *ONE_CELL, *SFCN, "-e", "2")
    assert ended.code == 0, ended.err
    ended = study.run("test", *ONE_CELL, *SFCN)
    assert ended.code in (0, 3), ended.err
    root = study.folder / "new" / "golden" / CELL
    content = torch.load(root / "network_1" / "best.pt", weights_only=True)
    assert content["target"]["kind"] == "bins" and content["network_plan"]["n_outputs"] == 40
    table = pd.read_csv(root / "predictions_test.csv")
    assert table["predicted_years"].between(42, 82).all()


def test_ages_that_no_bin_covers_are_refused_with_their_range(study, participants):
    ended = study.run("train", *ONE_CELL, *SFCN, "NETWORK.age_bins=(50.0, 70.0)")
    assert ended.code == 1
    women = participants[(participants["sex"] == "female") & (participants["split"] == "train")]
    low, high = women["age_years"].min(), women["age_years"].max()
    assert f"lie outside the age bins 50-70 (they span {low:.1f}-{high:.1f} years)" in ended.err
    assert "[NETWORK] age_bins" in ended.err


def test_a_network_that_is_not_registered_lists_the_choices(study):
    ended = study.run("train", *ONE_CELL, NEW, "NETWORK.network=resnet")
    assert ended.code in (1, 2)
    assert "agemapper, sfcn" in ended.err


def test_more_poolings_than_voxels_is_a_sentence(study):
    ended = study.run("train", *ONE_CELL, NEW, "NETWORK.widths=(4, 4, 4, 4, 4, 4)")
    assert ended.code == 1
    assert "too small for " in ended.err and "fewer widths" in ended.err


class Evil:
    """Would leave a file behind if it were unpickled."""

    def __reduce__(self):
        return (open, ("unpickled", "w"))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_checkpoint_with_pickled_objects_is_refused_and_not_run(study, how: str, monkeypatch):
    monkeypatch.chdir(study.folder)
    path = study.network() / "best.pt"
    content = {**torch.load(path, weights_only=True), "extra": Evil()}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    ended = study.run("test", *ONE_CELL)
    assert ended.code == 1
    assert (
        f"{path}: holds pickled Python objects, which could run any code when loaded" in ended.err
    )
    assert not (study.folder / "unpickled").exists()


def damaged_flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage, said",
    [
        (damaged_flip, "is damaged: its checksum does not match"),
        (lambda data: data[: len(data) // 2], "is damaged or no checkpoint"),
        (lambda data: b"", "is damaged or no checkpoint"),
        (lambda data: b"\0" * len(data), "is damaged or no checkpoint"),
        (lambda data: data[:-10], "is damaged or no checkpoint"),
    ],
)
@pytest.mark.parametrize("mode, file", [("test", "best.pt"), ("train", "last.pt")])
def test_a_damaged_checkpoint_is_named(study, damage, said: str, mode: str, file: str):
    path = study.network() / file
    path.write_bytes(damage(path.read_bytes()))
    (study.network() / "previous.pt").unlink()
    ended = study.run(mode, *ONE_CELL)
    assert ended.code == 1
    assert f"{path}: {said}" in ended.err


def test_the_checkpoint_before_a_damaged_one_is_gone_on_from(study, same_to_the_bit):
    path = study.network() / "last.pt"
    whole = torch.load(path, weights_only=True)
    path.write_bytes(damaged_flip(path.read_bytes()))
    ended = study.run("train", *ONE_CELL)
    assert ended.code == 0 and f"{path}: is damaged" in ended.err
    assert "THE CHECKPOINT BEFORE IT IS USED INSTEAD" in ended.err
    assert (study.network() / "last.damaged").is_file()
    again = torch.load(path, weights_only=True)
    assert same_to_the_bit(again | {"versions": None}, whole | {"versions": None})
    assert study.run("verify").code == 0


def test_a_damaged_checkpoint_never_takes_the_place_of_the_one_before(study):
    for name in ("last.pt", "previous.pt"):
        path = study.network() / name
        path.write_bytes(damaged_flip(path.read_bytes()))
    ended = study.run("train", *ONE_CELL)
    assert ended.code == 1 and "previous.pt: is damaged" in ended.err
    assert (study.network() / "last.pt").is_file()


def test_weights_of_another_program_are_named(study):
    path = study.network() / "best.pt"
    torch.save({"weight": torch.zeros(3)}, path)
    ended = study.run("test", *ONE_CELL)
    assert ended.code == 1
    assert f"{path}: holds weights of another program" in ended.err
