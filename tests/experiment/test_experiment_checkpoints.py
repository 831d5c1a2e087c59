"""What is kept at the end of an epoch, and what a training may be continued with."""

from __future__ import annotations

import dataclasses

import pytest

from BrainAgeNetworks.checkpoints import load_checkpoint, save_checkpoint
from utils.common.errors import UserError
from utils.experiment import checkpoints
from utils.experiment.experiment import Experiment, Options
from utils.experiment.trained import load_trained
from utils.modes import train
from utils.settings.reader import read_settings

CELL = "tiny_both"


@pytest.fixture
def study(tiny_cohort, tmp_path):
    """Function: name, overrides, options -> an experiment on the tiny cohort."""
    splits = ["train"] * 8 + ["validation"] * 5
    rows = zip(tiny_cohort.subject_ids, tiny_cohort.ages_years, splits)
    (tmp_path / "people.csv").write_text(
        "subject_id,age,split\n" + "\n".join(f"{i},{age},{split}" for i, age, split in rows)
    )

    def make(name: str, *overrides: str, **options) -> Experiment:
        (tmp_path / f"{name}.ini").write_text(
            '[DATA]\ndataset_sex = "both"\nmodality_flag = tiny\ndata_directory = subjects\n'
            "scaling_values = contrasts.csv\nsubjects = people.csv\n"
            "[TRAINING]\nensemble_size = 2\nnumber_of_epochs = 3\ntraining_batch_size = 4\n"
            "tensorboard = False\n[NETWORK]\nwidths = (2, 3)\ndropout_rate_1 = 0.3\n"
        )
        (tmp_path / f"{name}_eval.ini").write_text("")
        experiment = Experiment(
            read_settings(str(tmp_path / name), overrides), Options(mode="train", **options)
        )
        experiment.open()
        return experiment

    return make


def kept(experiment: Experiment) -> dict[str, dict]:
    """Name of a file of the cell's networks -> its checkpoint, or its bytes."""
    folder = experiment.paths.cell(CELL).folder
    return {
        str(path.relative_to(folder)): load_checkpoint(path) if path.suffix == ".pt" else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }  # fmt: skip


def without_names(content: dict[str, dict]) -> dict[str, dict]:
    for checkpoint in content.values():
        if isinstance(checkpoint, dict):
            checkpoint.pop("experiment")
            checkpoint.pop("versions")
    return content


class Killed(BaseException):
    """As if the process had died here."""


@pytest.mark.parametrize("network", [1, 2])
@pytest.mark.parametrize("dies_before", ["best.pt", "last.pt"])
def test_killed_at_any_checkpoint_and_run_again_is_never_killed(
    study, monkeypatch, same_to_the_bit, network, dies_before
):
    whole = study("whole")
    train.run(whole)
    assert set(kept(whole)) == {
        f"network_{k}/{name}"
        for k in (1, 2)
        for name in ("best.pt", "last.pt", "previous.pt", "history.csv")
    } | {"volumes_train.csv", "volumes_validation.csv"}
    killed = study("killed")
    first = 1 if dies_before == "best.pt" else 2  # the first epoch is always the best so far
    target = killed.paths.cell(CELL).network(network).folder / dies_before

    def save(content, path):
        if path == target and content["epoch"] >= first:
            raise Killed
        save_checkpoint(content, path)

    monkeypatch.setattr(checkpoints, "save_checkpoint", save)
    with pytest.raises(Killed):
        train.run(killed)
    monkeypatch.setattr(checkpoints, "save_checkpoint", save_checkpoint)
    train.run(study("killed"))
    assert same_to_the_bit(without_names(kept(whole)), without_names(kept(killed)))


def test_the_best_is_kept_before_the_last(study, monkeypatch):
    # killed between the two, the epoch is done again; the other way round its best would be lost
    names = []
    monkeypatch.setattr(checkpoints, "save_checkpoint", lambda _, path: names.append(path.name))
    train.run(study("order", epochs=1))
    assert names == ["best.pt", "last.pt"] * 2


def test_every_kth_checkpoint_is_kept_and_can_be_continued_from(study, same_to_the_bit):
    whole = study("whole", "TRAINING.keep_every=1")
    train.run(whole)
    assert whole.paths.cell(CELL).network(2).kept_epochs() == [1, 2, 3]
    before = without_names(kept(whole))
    train.run(study("whole", "TRAINING.keep_every=1", checkpoint="1"))
    assert same_to_the_bit(before, without_names(kept(whole)))
    with pytest.raises(UserError, match=r"-c 7: .* does not exist; there is last, best, 1, 2, 3"):
        train.run(study("whole", checkpoint="7"))


def test_an_earlier_checkpoint_begins_a_branch_and_the_run_is_set_aside(study):
    settings = ("TRAINING.keep_every=1", "TRAINING.learning_rate=0.02")
    train.run(study("whole", *settings, epochs=5))
    experiment = study("whole", *settings, epochs=2, checkpoint="1")
    paths = experiment.paths.cell(CELL).network(1)
    old_best = load_checkpoint(paths.best)
    train.run(experiment)
    best, last = load_checkpoint(paths.best), load_checkpoint(paths.last)
    assert last["epoch"] == 2 and best["epoch"] == last["early_stopping"]["best_epoch"] <= 2
    assert paths.kept_epochs() == [1, 2]
    aside = experiment.paths.previous / CELL / "network_1.1"
    assert load_checkpoint(aside / "last.pt")["epoch"] == 5
    assert load_checkpoint(aside / "best.pt")["epoch"] == old_best["epoch"]


def test_where_the_best_is_not_kept_the_checkpoint_itself_counts(study):
    train.run(study("whole", "TRAINING.keep_every=2", epochs=4))
    experiment = study("whole", "TRAINING.keep_every=2", epochs=2, checkpoint="2")
    paths = experiment.paths.cell(CELL).network(1)
    content = load_checkpoint(paths.epoch(2))
    content["early_stopping"]["best_epoch"] = 1
    content.pop("format_version")
    save_checkpoint(content, paths.epoch(2))
    paths.best.unlink()
    train.run(experiment)
    assert load_checkpoint(paths.best)["epoch"] == 2


def test_networks_that_saw_other_volumes_are_not_mixed(study):
    experiment = study("whole", epochs=1)
    train.run(experiment)
    path = experiment.paths.cell(CELL).network(2).best
    content = load_checkpoint(path)
    content.pop("format_version")
    content["contrast"]["scale_factor"] = 10.0
    content["scale_factor_is_auto"] = True
    save_checkpoint(content, path)
    other = load_checkpoint(experiment.paths.cell(CELL).network(1).best)
    other.pop("format_version")
    other["scale_factor_is_auto"] = True
    save_checkpoint(other, experiment.paths.cell(CELL).network(1).best)
    cell = dataclasses.replace(
        experiment.cells[0],
        contrast=dataclasses.replace(experiment.cells[0].contrast, scale_factor=None),
    )
    with pytest.raises(
        UserError, match=r"networks 1 and 2 were trained on .*scale_factor 100\.0 and 10\.0"
    ):
        load_trained(cell, experiment.paths.cell(CELL))


def test_what_a_training_cannot_be_continued_with_is_listed(study, tmp_path):
    train.run(study("whole", epochs=1))
    changed = study("whole", "TRAINING.learning_rate=0.1", "NETWORK.widths=(4,)")
    with pytest.raises(UserError) as caught:
        train.run(changed)
    said = str(caught.value)
    assert "[TRAINING] learning_rate was 0.005 and is 0.1" in said
    assert "widths was [2, 3] and is [4]" in said and "start afresh with -c 0 --yes" in said
    text = (tmp_path / "people.csv").read_text().replace("0008,", "0099,")
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(UserError, match="the training subjects are not the same"):
        train.run(study("whole"))
    (tmp_path / "people.csv").write_text(text.replace("0099,", "0008,"))
    train.run(study("whole", "TRAINING.early_stopping_patience=7", "DATA.memory_gb=0"))
    history = study("whole").paths.cell(CELL).network(1).history.read_text()
    assert [line.split(",")[0] for line in history.splitlines()] == ["epoch", "1", "2", "3"]
