"""Exported networks: the same to the bit when read back, noticed when damaged, and silent about persons."""

from __future__ import annotations

import json
import platform
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from BrainAgeNetworks.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from BrainAgeNetworks.exported import is_exported, read_exported_network
from BrainAgeNetworks.tensor_files import read_tensors, write_tensors
from tests.conftest import CROP, SHAPE, save_volume
from utils.common.errors import UserError
from utils.common.folders import replacing_folder
from utils.common.model_cards import ModelCardError, find_exports, read_card, write_card
from utils.common.randomness import generator
from utils.experiment import exported
from utils.experiment.experiment import Experiment, Options
from utils.experiment.exported import load_exported, networks_of
from utils.experiment.model_card import TRAINING_KEYS_LEFT_OUT
from utils.experiment.model_card_text import model_card_text
from utils.experiment.trained import load_trained
from utils.modes import export, train
from utils.settings.reader import read_settings
from utils.settings.training import NetworkSettings, TrainingSettings

CELL = "tiny_both"
IDS = [f"secret{number:04d}" for number in range(1, 21)]
SPLITS = ["train"] * 12 + ["validation"] * 8
FILES = ["network_1.safetensors", "network_2.safetensors", "model_card.json", "MODEL_CARD.md"]
GRID = " ".join(map(str, SHAPE))
TABLE = (
    f"name,scale_factor,resolution,data_file,shape,crop\ntiny,100,8mm,tiny.nii.gz,{GRID},{CROP}\n"
)


def experiment_in(folder: Path, *overrides: str, name: str = "origin", mode: str = "export"):
    return Experiment(read_settings(str(folder / name), overrides), Options(mode=mode))


def write_study(folder: Path, splits: list[str], **training: object) -> Experiment:
    """Twenty subjects, two networks of a few weights, trained for an epoch, better than the mean age."""
    ages = np.linspace(46.137, 80.731, len(IDS))
    for subject_id, age in zip(IDS, ages):
        draw = generator("exported", subject_id)
        values = (draw.integers(0, 60, SHAPE) + age).astype(np.int16)
        save_volume(folder / "subjects" / subject_id / "tiny.nii.gz", values)
    rows = [f"{i},{age:.3f},{split}" for i, age, split in zip(IDS, ages, splits)]
    (folder / "volunteers.csv").write_text("\n".join(["subject_id,age,split", *rows]) + "\n")
    (folder / "contrasts.csv").write_text(TABLE)
    keys = {
        "ensemble_size": 2,
        "number_of_epochs": 1,
        "training_batch_size": 4,
        "tensorboard": False,
    }
    lines = [f"{key} = {value!r}" for key, value in (keys | training).items()]
    (folder / "origin.ini").write_text(
        '[DATA]\ndataset_sex = "both"\nmodality_flag = tiny\ndata_directory = subjects\n'
        "scaling_values = contrasts.csv\nsubjects = volunteers.csv\n[TRAINING]\n"
        + "\n".join(lines)
        + "\n[NETWORK]\nwidths = (2, 3)\n"
    )
    (folder / "origin_eval.ini").write_text(
        '[EXPORT]\nlicence = "CC-BY-4.0"\ncontact = "brain@example.org"\n'
    )
    experiment = experiment_in(folder, mode="train")
    experiment.open()
    train.run(experiment)
    for number in (1, 2):
        spoil_record(experiment, number, share=0.5)
    return experiment


def spoil_record(experiment: Experiment, number: int, share: float) -> None:
    """Let a network have had this share of the mean age's error on validation."""
    path = experiment.paths.cell(CELL).network(number).best
    content = load_checkpoint(path)
    content["validation_mae_years"] = share * content["validation_null_mae_years"]
    content.pop("format_version")
    save_checkpoint(content, path)


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    export.run(write_study(folder, SPLITS))
    return folder


@pytest.fixture
def study(origin, tmp_path) -> Path:
    """A copy of the study, with its export, that a test may change."""
    shutil.copytree(origin, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def folder(study) -> Path:
    """The export."""
    return study / "experiments" / "origin" / "export" / CELL


@pytest.fixture
def receiver(study) -> Path:
    """The ini pair of somebody who has the export and volumes, and no table."""
    (study / "new.ini").write_text(
        '[DATA]\ndataset_sex = "both"\nmodality_flag = "tiny"\ndata_directory = "subjects"\n'
        'path_template = "{subject_id}/tiny.nii.gz"\n'
    )
    (study / "new_eval.ini").write_text(
        f'[MAPPING]\nexported = "experiments/origin/export/{CELL}"\n'
    )
    return study


@pytest.fixture
def warned(monkeypatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(exported, "warn", messages.append)
    return messages


def load(study: Path, folder: Path):
    """As `-m predict` loads."""
    experiment = experiment_in(study)
    return load_exported(experiment.cells[0], find_exports(folder).of("tiny", "both"))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_read_back_is_what_was_trained(study, folder, same_to_the_bit):
    experiment = experiment_in(study)
    trained = load_trained(experiment.cells[0], experiment.paths.cell(CELL))
    read = load(study, folder)
    assert [network.number for network in read] == [1, 2]
    for before, after in zip(trained, read):
        first, second = before.network.state_dict(), after.network.state_dict()
        assert same_to_the_bit(dict(first), dict(second))
        assert before.target == after.target and not after.collapsed
        assert after.record["contrast"]["scale_factor"] == 100.0
        assert after.record["seed"] == before.record["seed"]
    assert sorted(content(folder)) == sorted(FILES)


def test_the_weights_can_be_read_by_hand(tmp_path):
    """The format: eight bytes of length, a JSON header, the numbers as they are."""
    values = torch.arange(24, dtype=torch.float32).reshape(2, 3, 2, 2, 1)
    tensors = {"a": values.to(memory_format=torch.channels_last_3d), "n": torch.tensor(7)}
    digest = write_tensors(tensors, tmp_path / "x.safetensors", {"made": "here"})
    data = (tmp_path / "x.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"] == {"made": "here"}
    start, stop = header["a"]["data_offsets"]
    read = np.frombuffer(data[8 + length :][start:stop], "<f4").reshape(header["a"]["shape"])
    assert np.array_equal(read, values.numpy())
    again = read_tensors(tmp_path / "x.safetensors", digest)
    assert torch.equal(again["a"], values) and again["n"].item() == 7


def test_exported_again_it_has_the_same_bytes(study, folder):
    before = content(folder)
    export.run(experiment_in(study))
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [CELL]


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_noticed(study, folder, warned, name):
    whole = (folder / name).read_bytes()
    draw = np.random.default_rng(7)
    positions = [*range(0, 40), *draw.integers(0, len(whole), 120), len(whole) - 1]
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(draw.integers(8))
        (folder / name).write_bytes(bytes(damaged))
        if name == "MODEL_CARD.md":
            warned.clear()
            load(study, folder)
            assert re.search("damaged or was changed; the networks are whole", warned[0])
        else:
            with pytest.raises(UserError, match=r"is damaged|format .* or is damaged") as error:
                load(study, folder)
            assert name in str(error.value)
    (folder / name).write_bytes(whole)
    warned.clear()
    load(study, folder)
    assert not warned


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [None, 0, 0.5])
def test_a_missing_or_cut_file_is_named(study, folder, warned, name, keep):
    whole = (folder / name).read_bytes()
    (folder / name).unlink()
    if keep is not None:
        (folder / name).write_bytes(whole[: int(keep * len(whole))])
    if name == "MODEL_CARD.md":
        load(study, folder)
        assert len(warned) == 1 and name in warned[0]
        return
    with pytest.raises(UserError, match=name):
        load(study, folder)


def test_a_card_of_a_newer_version_is_refused(study, folder):
    card = read_card(folder / "model_card.json")
    write_card(card | {"format_version": 2}, folder / "model_card.json")
    with pytest.raises(
        ModelCardError, match="has format 2, and this program reads 1: it was writt"
    ):
        load(study, folder)


def test_an_exported_file_is_known_to_its_card_only(study, folder):
    path = folder / "network_1.safetensors"
    weights, record = read_exported_network(path)
    assert is_exported(path) and not is_exported(path.with_name("best.pt"))
    assert record["number"] == 1 and record["network_plan"]["widths"] == [2, 3]
    assert "Feature_Extractor.Convolution_0.0.weight" in weights
    shutil.copy(path, folder / "network_9.safetensors")
    with pytest.raises(CheckpointError, match="is not one of the networks of the model card"):
        read_exported_network(folder / "network_9.safetensors")
    (folder / "network_1.safetensors").write_bytes((folder / "network_2.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="checksum differs"):
        read_exported_network(path)


def test_the_average_of_the_weights_is_exported(tmp_path):
    experiment = write_study(tmp_path, SPLITS, ema_decay=0.9)
    export.run(experiment)
    weights, _ = read_exported_network(experiment.paths.export(CELL).network(1))
    kept = load_checkpoint(experiment.paths.cell(CELL).network(1).best)
    name = "Feature_Extractor.Convolution_0.0.weight"
    assert torch.equal(weights[name], kept["average"]["weights"][name])
    assert not torch.equal(weights[name], kept["weights"][name])


@pytest.mark.parametrize("dies_in", ["write_tensors", "write_text", "write_card", "verify"])
@pytest.mark.parametrize("how", [KeyboardInterrupt, UserError])
def test_an_export_that_ends_midway_leaves_the_old_one(study, folder, monkeypatch, dies_in, how):
    before = content(folder)
    spoil_record(experiment_in(study), 1, share=0.25)  # the new one would differ

    def die(*_):
        raise how("here")

    monkeypatch.setattr(export, dies_in, die)
    with pytest.raises(how):
        export.run(experiment_in(study))
    assert content(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == [CELL]
    monkeypatch.undo()
    export.run(experiment_in(study))
    assert content(folder) != before


def test_a_folder_that_cannot_be_put_into_its_place_leaves_the_old_one(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    rename = Path.rename

    def fail(path, target):
        if ".being-written-" in path.name:
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(UserError, match="cannot be written"), replacing_folder(tmp_path / "a") as t:
        (t / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_killed_between_the_two_renames_the_old_one_comes_back(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    with replacing_folder(tmp_path / "b") as temporary:
        writer = temporary.name.rpartition("being-written-")[2].partition("-")[0]
    dead = f"{writer}-999999999"
    (tmp_path / "a").rename(tmp_path / f".a.replaced-{dead}")
    (tmp_path / f".a.being-written-{dead}").mkdir()
    with replacing_folder(tmp_path / "b"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "old"]


def test_weights_that_were_written_wrongly_are_not_exported(study, folder, monkeypatch):
    before = content(folder)

    def spoilt(tensors, path, metadata):
        name = "FullyConnected.FullyConnected_1.bias"
        return write_tensors({**tensors, name: tensors[name] + 0.01}, path, metadata)

    monkeypatch.setattr(export, "write_tensors", spoilt)
    with pytest.raises(UserError, match="for a volume of noise and the one it was exported from"):
        export.run(experiment_in(study))
    assert content(folder) == before


def test_collapsed_networks_stay_at_home(study, folder):
    spoil_record(experiment_in(study), 2, share=1.0)
    export.run(experiment_in(study))
    assert sorted(content(folder)) == sorted(set(FILES) - {"network_2.safetensors"})
    assert (
        "(1 of 2 collapsed in training and are left out)" in (folder / "MODEL_CARD.md").read_text()
    )
    assert [network.number for network in load(study, folder)] == [1]
    spoil_record(experiment_in(study), 1, share=1.2)
    with pytest.raises(UserError, match="every network collapsed in training"):
        export.run(experiment_in(study))


def test_nothing_is_said_of_one_person_or_of_the_machine(origin, study, folder):
    people = (study / "volunteers.csv").read_text().splitlines()[1:]
    ages = [row.split(",")[1] for row in people]
    for name, data in content(folder).items():
        texts = [
            *IDS,
            *ages,
            str(origin),
            str(study),
            platform.node(),
            "volunteers.csv",
            "tiny.nii.gz",
        ]
        assert [text for text in texts if text.encode() in data] == [], name
    card = read_card(folder / "model_card.json")
    assert card["training_ages"]["n"] == 12
    assert (card["training_ages"]["min_years"], card["training_ages"]["max_years"]) == (46, 67)
    assert card["metrics"] == {
        "validation": {"left_out": "not tested"},
        "test": {"left_out": "not tested"},
    }


def test_of_fewer_than_ten_subjects_no_numbers_leave(tmp_path, caplog):
    experiment = write_study(tmp_path, ["train"] * 9 + ["validation"] * 11)
    export.run(experiment)
    assert "leaves their ages out, but for their exact mean age" in caplog.text
    card = read_card(experiment.paths.export(CELL).card)
    assert set(card["training_ages"].values()) == {None}
    assert card["training_subjects_hash"] is None and card["split_hash"] is None
    assert "fewer than 10 subjects" in experiment.paths.export(CELL).text.read_text()
    network = load(tmp_path, experiment.paths.export(CELL).folder)[0]
    ages = network.record["training_ages"]
    assert np.isnan([ages["sd_years"], ages["min_years"], ages["max_years"]]).all()
    assert ages["mean_years"] == network.target.mean_age_years


def test_settings_that_may_hold_a_path_are_left_out():
    free_text = {
        name
        for section in (TrainingSettings, NetworkSettings)
        for name, field in section.model_fields.items()
        if field.annotation is str
    }
    assert free_text - set(TRAINING_KEYS_LEFT_OUT) == {"network"}


def test_the_text_has_the_commands_and_whose_networks_they_are(folder):
    text = (folder / "MODEL_CARD.md").read_text()
    for said in (
        "python run.py -m predict -n new", 'exported = "tiny_both"', 'modality_flag = "tiny"',
        'dataset_sex = "both"', "CC-BY-4.0", "brain@example.org", "Roibu et al. 2023", "no medical device",
        f"tiny,100.0,8mm,volume.nii.gz,{GRID},1:17 2:20 0:16,False", "divided by 100",
    ):  # fmt: skip
        assert said in text, said


def test_the_text_says_what_there_is_to_say(folder):
    """Bins, a bias correction, metrics, bfloat16, weights of other training, a 4D file, peng."""
    card = read_card(folder / "model_card.json")
    some = {"value": 3.21, "low": 3.0, "high": 3.5}
    card["target"] = {
        "kind": "bins", "mean_age_years": 60.0, "first_years": 42.0, "last_years": 82.0,
        "width_years": 1.0, "soft_label_sd_years": 1.0,
    }  # fmt: skip
    card["contrast"] |= {"volume_index": 7, "preprocessing": "peng"}
    card["started_from"] = {"kind": "sfcn", "sha256": "0123456789abcdef"}
    card["bfloat16_change"] = {"accepted": True, "mean_years": 0.001, "largest_years": 0.01}
    card["metrics"]["test"] = {
        "n": 72, "age_mean_years": 60.0, "age_sd_years": 7.0, "age_min_years": 45, "age_max_years": 82,
        "null_mae_years": 6.0, "mae_years": some, "rmse_years": some, "r2": some,
        "r": {"value": 0.8, "low": None, "high": None}, "flags": [{"name": "x", "reason": "Odd."}],
    }  # fmt: skip
    card["bias_correction"] = {
        "method": "subtract", "fitted_on": "validation", "alpha_years": 30.5, "beta": 0.5,
        "beta_low": 0.4, "beta_high": 0.6, "n_fit": 52, "age_min_years": 45, "age_max_years": 82,
    }  # fmt: skip
    text = model_card_text(card)
    for said in (
        "ages 42 to 82 in bins of 1 years", "volume 7 of a 4D file", "the mean of the whole volume",
        "weights of other training (sfcn, sha256 0123456789ab...)", "by 0.0010 years on average",
        "| test | 72 | 60.0 (SD 7.0), 45 to 82 | 3.21 (3.00 to 3.50) | 6.00 | 0.800 |", "**test: Odd.**",
        "corrected delta = predicted - (30.5) - 0.5 * age",
    ):  # fmt: skip
        assert said in text, said
    card["bias_correction"]["method"] = "divide"
    assert "corrected delta = (predicted - (30.5)) / 0.5 - age" in model_card_text(card)


def test_the_receiver_needs_no_contrast_table(receiver):
    experiment = experiment_in(receiver, name="new", mode="predict")
    (contrast,) = experiment.contrasts
    assert (contrast.shape, contrast.scale_factor, contrast.data_file) == (SHAPE, 100.0, "")
    assert experiment.volume_path(contrast, "x") == receiver / "subjects" / "x" / "tiny.nii.gz"
    trained_in, networks = networks_of(experiment, experiment.cells[0])
    assert trained_in == "origin (exported)" and len(networks) == 2


@pytest.mark.parametrize(
    "override, said",
    [
        ("DATA.path_template={subject_id}/{data_file}", "nothing says where its files lie"),
        ("DATA.modality_flag=T1", r"holds no networks for T1; it has tiny\."),
        ("DATA.preprocessing=peng", "preprocessing is peng and was agemapper in training; leave it out"),
        ("MAPPING.experiment_name=other", "experiment_name and exported are both set"),
        ("MAPPING.exported=experiments", r"no exported networks are there \(model_card.json"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(receiver, override, said):
    with pytest.raises(UserError, match=said):
        _ = experiment_in(receiver, override, name="new", mode="predict").contrasts


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("1:17", "0:16", r"crop is \[\[0, 16\], .* and was \[\[1, 17\], .* in training"),
        (",100,", ",101,", r"scale_factor is 101.0 in .*contrasts.csv and was 100.0 in training"),
        ("8mm", "4mm", "voxel_mm is 4.0"),
        ("18 20 17", "18 20 18", "shape is"),
    ],
)
def test_a_table_of_the_receiver_must_not_contradict(receiver, old, new, said):
    (receiver / "contrasts.csv").write_text(TABLE.replace(old, new))
    words = ("DATA.scaling_values=contrasts.csv",)
    with pytest.raises(UserError, match=said):
        _ = experiment_in(receiver, *words, name="new", mode="predict").contrasts


def test_a_row_of_the_receiver_says_where_the_files_lie(receiver):
    changed = TABLE.replace("tiny.nii.gz", "anat/mine.nii.gz").replace(",100,", ",auto,")
    (receiver / "contrasts.csv").write_text(changed)
    words = ("DATA.scaling_values=contrasts.csv", "DATA.path_template={subject_id}/{data_file}")
    (contrast,) = experiment_in(receiver, *words, name="new", mode="predict").contrasts
    assert (contrast.data_file, contrast.scale_factor) == ("anat/mine.nii.gz", 100.0)


def test_exported_networks_are_not_trained(receiver):
    with pytest.raises(UserError, match="exported names networks that are trained already"):
        _ = experiment_in(receiver, name="new", mode="study").cells


def test_of_several_exports_a_damaged_one_is_told_where_it_is_missing(study, folder):
    other = folder.with_name("tiny_female")
    shutil.copytree(folder, other)
    with pytest.raises(ModelCardError, match=r"both hold networks for tiny_both; name one of them"):
        find_exports(folder.parent)
    card = read_card(other / "model_card.json")
    write_card(card | {"sex": "female"}, other / "model_card.json")
    exports = find_exports(folder.parent)
    assert exports.of("tiny", "female").paths.folder == other
    (folder / "model_card.json").write_text("{}")
    with pytest.raises(
        ModelCardError, match=r"no networks for tiny_both; it has tiny_female\. .*damaged"
    ):
        find_exports(folder.parent).of("tiny", "both")
    (other / "model_card.json").write_bytes(b"\xff")
    with pytest.raises(
        ModelCardError, match=r"is damaged or was changed.* is damaged or was changed"
    ):
        find_exports(folder.parent)


def test_networks_for_another_sex_are_refused(study, folder):
    card = read_card(folder / "model_card.json")
    write_card(card | {"sex": "female"}, folder / "model_card.json")
    with pytest.raises(ModelCardError, match="holds no networks for tiny_both; it has tiny_female"):
        load(study, folder)
    cell = experiment_in(study).cells[0]
    with pytest.raises(UserError, match="trained on female, used for both"):
        load_exported(cell, find_exports(folder).of("tiny", "female"))


def test_all_contrasts_are_not_all_while_a_card_is_damaged(receiver, folder):
    for name in ("T2_both", "swi_both"):
        shutil.copytree(folder, folder.with_name(name))
        (folder.with_name(name) / "model_card.json").write_text("{}")
    where = "MAPPING.exported=experiments/origin/export"
    words = (where, "DATA.modality_flag=all")
    with pytest.raises(UserError, match=r"T2_both/model_card\.json.*swi_both/model_card\.json"):
        _ = experiment_in(receiver, *words, name="new", mode="predict").contrasts
    (contrast,) = experiment_in(receiver, where, name="new", mode="predict").contrasts
    assert contrast.name == "tiny"


def test_a_factor_of_the_receiver_is_compared_with_the_one_that_auto_came_to(receiver, folder):
    card = read_card(folder / "model_card.json")
    write_card(card | {"scale_factor_is_auto": True}, folder / "model_card.json")
    words = ("DATA.scaling_values=contrasts.csv",)
    for factor, fits in (("auto", True), ("100", True), ("101", False)):
        (receiver / "contrasts.csv").write_text(TABLE.replace(",100,", f",{factor},"))
        experiment = experiment_in(receiver, *words, name="new", mode="predict")
        if fits:
            assert experiment.contrasts[0].scale_factor is None
        else:
            with pytest.raises(
                UserError, match=r"scale_factor is 101\.0 .* was 100\.0 in training"
            ):
                _ = experiment.contrasts


def change_record(study: Path, number: int, **changes: object) -> None:
    path = experiment_in(study).paths.cell(CELL).network(number).best
    content = load_checkpoint(path)
    content.pop("format_version")
    save_checkpoint({**content, **changes}, path)


def test_the_card_is_of_the_networks_that_are_exported(study, folder):
    experiment = experiment_in(study)
    change_record(study, 1, split_hash="other", experiment="other")
    spoil_record(experiment, 1, share=1.0)
    export.run(experiment_in(study))
    card = read_card(folder / "model_card.json")
    assert card["experiment"] == "origin" and card["split_hash"] != "other"
    spoil_record(experiment, 1, share=0.5)
    with pytest.raises(
        UserError, match=r"different trainings, .*: split_hash is other in network 1"
    ):
        export.run(experiment_in(study))


def test_factors_of_networks_that_differ_are_refused(study):
    record = load_checkpoint(experiment_in(study).paths.cell(CELL).network(2).best)
    contrast = record["contrast"] | {"scale_factor": 101.0}
    for number, changes in ((1, {}), (2, {"contrast": contrast})):
        change_record(study, number, scale_factor_is_auto=True, **changes)
    table = study / "contrasts.csv"
    table.write_text(table.read_text().replace(",100,", ",auto,"))
    with pytest.raises(UserError, match=r"scale_factor .*100\.0 .*101\.0"):
        export.run(experiment_in(study))


def test_networks_of_other_shapes_have_no_card_in_common(study):
    plan = load_checkpoint(experiment_in(study).paths.cell(CELL).network(2).best)["network_plan"]
    change_record(study, 2, network_plan=plan | {"dropout_rates": [0.1, 0.0, 0.0]})
    said = r"network_plan dropout_rates is \[0\.0, .* in network 1 and \[0\.1, .* in network 2"
    with pytest.raises(UserError, match=said):
        export.run(experiment_in(study))
