"""Keys of the published AgeMapper ini files that are called otherwise here, or do nothing."""

from __future__ import annotations

# (section, published key) -> key of this program
RENAMED: dict[tuple[str, str], str] = {
    ("TRAINING", "optimizer_weigth_decay"): "optimizer_weight_decay",
    ("NETWORK", "upsample_2mm"): "resolution_2mm",  # until 0.2.0
}

# (section, key of this program) -> published or earlier values, and what they are now
TRANSLATED: dict[tuple[str, str], dict[object, object]] = {
    ("TRAINING", "use_pre_trained"): {False: ""},
    ("NETWORK", "resolution_2mm"): {True: "upsample", False: "native"},
}

_ONE_PLACE = "everything of an experiment lies in experiments_directory/NAME"
_ON_THE_FLY = "volumes are read from data_directory"

# (section, published key) -> why it does nothing here
WITHOUT_EFFECT: dict[tuple[str, str], str] = {
    ("DATA", "pre_processing_before_training"): _ON_THE_FLY,
    **{
        ("DATA", f"male_{split}_{what}database"): _ON_THE_FLY
        for split in ("train", "validation")
        for what in ("", "labels_", "ages_")
    },
    ("TRAINING", "experiment_name"): "the experiment is called what -n says",
    ("TRAINING", "loss_log_period"): "one line is written per epoch",
    ("TRAINING", "use_last_checkpoint"): "-c last or -c best says which checkpoint",
    ("NETWORK", "number_of_classes"): "it follows from loss_function and age_bins",
    ("MISC", "save_model_directory"): _ONE_PLACE,
    ("MISC", "logs_directory"): _ONE_PLACE,
    ("MISC", "checkpoint_directory"): _ONE_PLACE,
    ("MISC", "best_checkpoint_directory"): _ONE_PLACE,
    ("MAPPING", "prediction_output_statistics_name"): "predictions are in predictions_<split>.csv",
    ("MAPPING", "scaling_values"): "the contrast table is the one of [DATA]",
    ("MAPPING", "device"): "--device or [MISC] device says what computes",
    ("MAPPING", "exit_on_error"): "a subject that fails is a row with its reason, and exit code 3",
    ("MAPPING", "control"): "the mean-age model is always reported beside the networks",
}
