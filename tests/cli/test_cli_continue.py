"""Which checkpoint a training goes on from, what it refuses, and what it moves aside."""

from __future__ import annotations

import pytest
import torch

ONE_CELL = ("--cell", "T1_nonlinear_female")
ONE_NETWORK = (*ONE_CELL, "--network", "1")


def epochs(study, **where) -> list[int]:
    return study.history(**where)["epoch"].tolist()


def test_without_c_a_finished_training_is_left_as_it_is(study):
    before = (study.network() / "last.pt").read_bytes()
    ended = study.run("train", *ONE_CELL)
    assert ended.code == 0
    assert "network 1 goes on after epoch 4" in ended.err and "epoch 1/4" not in ended.err
    assert (study.network() / "last.pt").read_bytes() == before


def test_from_scratch_over_weights_is_refused(study):
    before = (study.network() / "last.pt").read_bytes()
    ended = study.run("train", "-c", "0", *ONE_NETWORK)
    assert ended.code == 1
    assert f"{study.network()} holds weights already (1 such network(s))" in ended.err
    assert "-c last" in ended.err and "-c 0 --yes" in ended.err
    assert (study.network() / "last.pt").read_bytes() == before


def test_from_scratch_with_yes_moves_the_old_run_aside(study):
    before = (study.network() / "last.pt").read_bytes()
    other = (study.network(2) / "last.pt").read_bytes()
    ended = study.run("train", "-c", "0", "--yes", "-e", "1", *ONE_NETWORK)
    assert ended.code == 0, ended.err
    moved = study.root / "previous" / "T1_nonlinear_female" / "network_1.1"
    assert f"moved the old run aside: {moved}" in ended.err
    assert (moved / "last.pt").read_bytes() == before
    assert epochs(study) == [1]
    assert (study.network(2) / "last.pt").read_bytes() == other


def test_twice_from_scratch_keeps_both_old_runs(study):
    for _ in range(2):
        ended = study.run("train", "-c", "0", "--yes", "-e", "1", *ONE_NETWORK)
        assert ended.code == 0, ended.err
    previous = study.root / "previous" / "T1_nonlinear_female"
    assert sorted(path.name for path in previous.iterdir()) == ["network_1.1", "network_1.2"]


def test_more_epochs_go_on_from_the_last(study):
    before = study.history()
    ended = study.run("train", "-e", "6", *ONE_CELL)
    assert ended.code == 0, ended.err
    assert "goes on after epoch 4" in ended.err
    assert [line.split()[1] for line in ended.err.splitlines() if line.startswith("  epoch")] == [
        "5/6:",
        "6/6:",
    ]
    after = study.history()
    assert after["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert after.iloc[:4].equals(before)


def test_a_kept_epoch_is_gone_on_from(study):
    before = study.history()
    ended = study.run("train", "-c", "3", *ONE_CELL)
    assert ended.code == 0, ended.err
    assert "goes on after epoch 3" in ended.err and "  epoch 4/4" in ended.err
    assert study.history().equals(before)  # the same epoch once more gives the same numbers


def test_the_best_epoch_is_gone_on_from(study):
    before = study.history()
    best = int(before["validation_loss"].idxmin()) + 1
    ended = study.run("train", "-c", "best", *ONE_NETWORK)
    assert ended.code == 0, ended.err
    assert f"network 1 goes on after epoch {best}" in ended.err
    assert study.history().equals(before)


def test_an_epoch_that_was_not_kept_lists_what_there_is(study):
    ended = study.run("train", "-c", "7", *ONE_CELL)
    assert ended.code == 1
    path = study.network() / "epoch_0007.pt"
    assert f"-c 7: {path} does not exist; there is last, best, 3." in ended.err


@pytest.mark.parametrize("choice", ["last", "best", "2"])
def test_going_on_where_nothing_is_says_so(study, choice: str):
    ended = study.run("train", "-c", choice, *ONE_CELL, "MISC.experiments_directory=empty")
    assert ended.code == 1
    assert f"-c {choice}: " in ended.err and "there is no checkpoint." in ended.err


def test_one_cell_and_one_network_alone_are_trained(study):
    ended = study.run(
        "train",
        "--cell",
        "swi_male",
        "--network",
        "2",
        "-e",
        "1",
        "MISC.experiments_directory=elsewhere",
    )
    assert ended.code == 0, ended.err
    assert "training swi_male (cell 1 of 1)" in ended.err
    weights = sorted((study.folder / "elsewhere").rglob("last.pt"))
    assert [str(p.relative_to(study.folder)) for p in weights] == [
        "elsewhere/golden/swi_male/network_2/last.pt"
    ]


def test_a_network_trained_alone_is_the_one_trained_with_the_others(study):
    ended = study.run("train", *ONE_CELL, "--network", "2", "MISC.experiments_directory=elsewhere")
    assert ended.code == 0, ended.err
    alone = torch.load(
        study.folder / "elsewhere/golden/T1_nonlinear_female/network_2/last.pt", weights_only=True
    )
    together = torch.load(study.network(2) / "last.pt", weights_only=True)
    assert alone["weights"].keys() == together["weights"].keys()
    for name, values in together["weights"].items():
        assert torch.equal(alone["weights"][name], values), name


def test_a_cell_that_is_not_in_the_grid_lists_the_grid(study):
    ended = study.run("train", "--cell", "T1_female")
    assert ended.code == 1
    assert (
        "--cell T1_female: no such cell; the grid has T1_nonlinear_female, T1_nonlinear_male, "
        "swi_female, swi_male." in ended.err
    )


def test_a_network_that_the_ensemble_has_not(study):
    ended = study.run("train", *ONE_CELL, "--network", "9")
    assert ended.code == 1
    assert "--network 9: the ensemble has networks 1 to 2." in ended.err


@pytest.mark.parametrize(
    "change, said",
    [
        ("TRAINING.learning_rate=0.001", "[TRAINING] learning_rate was 0.002 and is 0.001"),
        ("TRAINING.optimiser=adamW", "[TRAINING] optimiser was 'adam' and is 'adamW'"),
        ("DATA.mirror_transformation=False", "[DATA] mirror_transformation was True and is False"),
        ("NETWORK.widths=(4, 4)", "the network's widths was [4, 8] and is [4, 4]"),
        ("NETWORK.dropout_rate_1=0.5", "[NETWORK] dropout_rate_1 was 0.0 and is 0.5"),
    ],
)
def test_going_on_with_other_settings_is_refused(study, change: str, said: str):
    before = (study.network() / "last.pt").read_bytes()
    ended = study.run("train", "-e", "6", *ONE_CELL, change)
    assert ended.code == 1
    assert str(study.network() / "last.pt") in ended.err and said in ended.err
    assert "-c 0 --yes" in ended.err
    assert (study.network() / "last.pt").read_bytes() == before


def test_going_on_with_other_subjects_is_refused(study):
    left_out = study.folder / "left_out.txt"
    subjects = study.predictions("validation")["subject_id"]
    table = study.folder / "cohort" / "participants.csv"
    training = [
        line.split(",")[0] for line in table.read_text().splitlines() if ",female,train," in line
    ]
    left_out.write_text(f"{training[0]}\n{subjects[0]}\n")
    ended = study.run("train", "-e", "6", *ONE_CELL, "DATA.exclude=left_out.txt")
    assert ended.code == 1
    assert "2 of 328 subjects excluded by left_out.txt." in ended.err
    assert "the training subjects are not the same" in ended.err


@pytest.mark.parametrize(
    "words", [("-e", "-1"), ("-c", "first"), ("--network", "x"), ("--device", "tpu")]
)
def test_words_that_cannot_be_used_end_with_usage(study, words: tuple[str, str]):
    ended = study.run("train", *words)
    assert ended.code == 2
    assert "usage: run.py" in ended.err and repr(words[1]) in ended.err


def test_no_epochs_are_for_given_weights(study):
    ended = study.run("train", "-e", "0")
    assert (
        ended.code == 1
        and "-e 0 validates given weights; set [TRAINING] use_pre_trained" in ended.err
    )


def test_a_device_that_is_not_there_is_named(study):
    ended = study.run("train", *ONE_CELL, "--device", "cuda:77")
    assert ended.code == 1
    assert "device cuda:77: torch sees" in ended.err and "use auto or cpu" in ended.err
