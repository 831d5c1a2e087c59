"""An ini pair of the published program runs unchanged: every key acts, or says once that it does not."""

from __future__ import annotations

import ast
import re

import pytest

from utils.common.errors import SettingsError
from utils.settings.reader import read_settings

# The keys of the release with the values that it published.
PUBLISHED = {
    "DATA": {
        "dataset_sex": '"female"', "dataset_size": '"full"', "data_folder_name": '"datasets"',
        "modality_flag": '"T1_nonlinear"', "pre_processing_before_training": "False",
        "num_workers": "8",
        "male_train_database": '"male_train_database"',
        "male_train_labels_database": '"male_train_labels_database"',
        "male_train_ages_database": '"male_train_ages_database"',
        "male_validation_database": '"male_validation_database"',
        "male_validation_labels_database": '"male_validation_labels_database"',
        "male_validation_ages_database": '"male_validation_ages_database"',
        "male_train": '"male_train"', "male_train_age": '"male_train_age"',
        "male_validation": '"male_validation"', "male_validation_age": '"male_validation_age"',
        "data_directory": '"subjectsAll/"',
        "scaling_values": '"datasets/scaling_values_simple.csv"',
        "shift_transformation": "True", "mirror_transformation": "False",
    },
    "TRAINING": {
        "experiment_name": '"AA1-1"', "training_batch_size": "12", "validation_batch_size": "12",
        "use_pre_trained": "False", "learning_rate": "5e-3", "optimizer_beta": "(0.9, 0.999)",
        "optimizer_epsilon": "1e-8", "optimizer_weigth_decay": "0", "number_of_epochs": "250",
        "loss_log_period": "50", "learning_rate_scheduler_step_size": "250",
        "learning_rate_scheduler_gamma": "0.5", "learning_rate_validation_scheduler": "True",
        "learning_rate_cyclical": "False", "learning_rate_scheduler_patience": "15",
        "learning_rate_scheduler_threshold": "1e-7", "learning_rate_scheduler_min_value": "1e-6",
        "learning_rate_scheduler_max_value": "3e-5", "learning_rate_scheduler_step_number": "13200",
        "early_stopping_min_patience": "0", "early_stopping_patience": "40",
        "early_stopping_min_delta": "0", "use_last_checkpoint": "False", "optimiser": "'adam'",
        "loss_function": "'mse'",
    },
    "NETWORK": {
        "number_of_classes": "1", "dropout_rate_1": "0", "dropout_rate_2": "0",
        "dropout_rate_3": "0",
    },
    "MISC": {
        "save_model_directory": '"saved_models"', "logs_directory": '"logs"',
        "checkpoint_directory": '"checkpoints"', "best_checkpoint_directory": '"best_checkpoint"',
        "experiments_directory": '"experiments"',
    },
}  # fmt: skip
PUBLISHED_EVALUATION = {
    "MAPPING": {
        "experiment_name": '"AM1-1"', "dataset_type": '"test"', "data_directory": '"subjectsAll/"',
        "male_test": '"male_test"', "male_test_age": '"male_test_age"',
        "male_validation": '"male_validation"', "male_validation_age": '"male_validation_age"',
        "prediction_output_statistics_name": '"output_statistics"',
        "scaling_values": '"datasets/scaling_values_simple.csv"', "device": "0",
        "exit_on_error": "True", "control": "'none'",
    },
}  # fmt: skip
WITHOUT_EFFECT = {
    "DATA": {
        "pre_processing_before_training",
        *(key for key in PUBLISHED["DATA"] if key.endswith("_database")),
    },
    "TRAINING": {"experiment_name", "loss_log_period", "use_last_checkpoint"},
    "NETWORK": {"number_of_classes"},
    "MISC": set(PUBLISHED["MISC"]) - {"experiments_directory"},
    "MAPPING": {
        "prediction_output_statistics_name", "scaling_values", "device", "exit_on_error", "control",
    },
}  # fmt: skip


def as_text(sections: dict[str, dict[str, str]]) -> str:
    return "\n".join(
        f"[{section}]\n; ---> of the release\n"
        + "\n".join(f"{key} = {value}" for key, value in keys.items())
        for section, keys in sections.items()
    )


@pytest.fixture
def warnings_said(monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("utils.settings.reader.warn", said.append)
    return said


def test_the_published_pair_loads_and_every_key_acts_or_says_once_that_it_does_not(
    tmp_path, warnings_said
):
    (tmp_path / "AA1-1.ini").write_text(as_text(PUBLISHED))
    (tmp_path / "AA1-1_eval.ini").write_text(as_text(PUBLISHED_EVALUATION))
    settings = read_settings(str(tmp_path / "AA1-1"))
    n_acting = 0
    for section, keys in {**PUBLISHED, **PUBLISHED_EVALUATION}.items():
        place = ("AA1-1_eval.ini" if section == "MAPPING" else "AA1-1.ini") + f" [{section}]: "
        for key, value in keys.items():
            said = [
                line for line in warnings_said if re.match(re.escape(place + key) + r"\b", line)
            ]
            if key in WITHOUT_EFFECT[section]:
                assert len(said) == 1 and f"{key} has no effect: " in said[0]
            elif key == "use_pre_trained":
                assert not said and settings.training.use_pre_trained == ""
            elif key == "optimizer_weigth_decay":
                assert said == [f"{place}{key} is read as optimizer_weight_decay."]
            else:
                assert not said
                assert getattr(getattr(settings, section.lower()), key) == ast.literal_eval(value)
                n_acting += 1
    assert n_acting == 13 + 20 + 3 + 1 + 7
    assert len(warnings_said) == sum(map(len, WITHOUT_EFFECT.values())) + 1


def test_the_misspelt_key_acts_and_cannot_be_given_twice(tmp_path, warnings_said):
    decayed = {**PUBLISHED, "TRAINING": {**PUBLISHED["TRAINING"], "optimizer_weigth_decay": "0.01"}}
    (tmp_path / "x.ini").write_text(as_text(decayed))
    (tmp_path / "x_eval.ini").write_text("")
    assert read_settings(str(tmp_path / "x")).training.optimizer_weight_decay == 0.01
    decayed["TRAINING"]["optimizer_weight_decay"] = "0.02"
    (tmp_path / "x.ini").write_text(as_text(decayed))
    with pytest.raises(SettingsError, match="are the same key"):
        read_settings(str(tmp_path / "x"))


def test_published_and_earlier_values_are_read_as_what_they_are_called_now(tmp_path, warnings_said):
    (tmp_path / "x_eval.ini").write_text("")
    for value, now in (("True", "upsample"), ("False", "native")):
        written = {**PUBLISHED, "NETWORK": {**PUBLISHED["NETWORK"], "upsample_2mm": value}}
        (tmp_path / "x.ini").write_text(as_text(written))
        settings = read_settings(str(tmp_path / "x"))
        assert settings.network.resolution_2mm == now and settings.training.use_pre_trained == ""


def test_other_peoples_weights_need_their_file(tmp_path, warnings_said):
    wanted = {**PUBLISHED, "TRAINING": {**PUBLISHED["TRAINING"], "use_pre_trained": "True"}}
    (tmp_path / "x.ini").write_text(as_text(wanted))
    (tmp_path / "x_eval.ini").write_text("")
    with pytest.raises(SettingsError, match=r"use_pre_trained = True: .*File of weights") as caught:
        read_settings(str(tmp_path / "x"))
    assert len(caught.value.problems) == 1
