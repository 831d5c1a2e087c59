"""MODEL_CARD.md: the model card in words, with the commands that use the networks."""

from __future__ import annotations

from typing import Any

from figures.tables import sex_word


def model_card_text(card: dict[str, Any]) -> str:
    """The card as Markdown."""
    parts = (
        _what(card), _use(card), _limits(card), _input(card), _training(card), _accuracy(card),
        _correction(card), _origin(card),
    )  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _what(card: dict[str, Any]) -> str:
    contrast, n = card["contrast"]["name"], len(card["networks"])
    many = f"{n} networks that differ by seed alone" if n > 1 else "One network"
    files = ", ".join(f"`{entry['file']}`" for entry in card["networks"])
    left_out = card["n_trained"] - n
    without = (
        f" ({left_out} of {card['n_trained']} collapsed in training and are left out)"
        if left_out
        else ""
    )
    simulated = (
        "\n\n**Trained on simulated volumes: their ages say nothing about people.**"
        if card["simulated"]
        else ""
    )
    return (
        f"# Brain age from {contrast}, {sex_word(card['sex'])}: {card['experiment']}\n\n"
        f"{many} ({card['network_plan']['network']}) to predict a person's age in years from one {contrast} "
        f"volume; the mean of the networks is the prediction{without}. {files} hold the weights, "
        "`model_card.json` says everything else, for the program, with checksums of all files and of "
        f"itself.{simulated}"
    )


def _use(card: dict[str, Any]) -> str:
    contrast = card["contrast"]
    cell = f"{contrast['name']}_{card['sex']}"
    needs_sex = " and sex" if card["sex"] != "both" else ""
    return f"""## How to use them

With the brain-age ensembles program (no ages, no training data are needed). `new.ini`:

```ini
[DATA]
dataset_sex = "{card["sex"]}"
modality_flag = "{contrast["name"]}"
data_directory = "subjects"
path_template = "{{subject_id}}/volume.nii.gz"
```

`new_eval.ini`:

```ini
[MAPPING]
exported = "{cell}"
predict_subjects = "people.csv"
```

`exported` is this folder, `people.csv` has the column(s) subject_id{needs_sex}, and the volume of a person lies at
`data_directory/path_template`. Then

```bash
python run.py -m predict -n new
```

writes `experiments/new/{cell}/predictions_predict.csv`. Every checksum is verified first. To go on training from
them: `[TRAINING] use_pre_trained = "{cell}/network_{{network}}.safetensors"`. Several contrasts at once need a
contrast table with `data_file`s (`[DATA] scaling_values`); the row of this one is

```csv
{_row(contrast, card["scale_factor_is_auto"])}
```"""


def _row(contrast: dict[str, Any], is_auto: bool) -> str:
    values = {
        "name": contrast["name"],
        "scale_factor": "auto" if is_auto else repr(contrast["scale_factor"]),
        "resolution": f"{contrast['voxel_mm']:g}mm",
        "data_file": "volume.nii.gz",
        "shape": " ".join(map(str, contrast["shape"])),
        "crop": " ".join(f"{start}:{stop}" for start, stop in contrast["crop"]),
        "divide_by_mean": str(contrast["divide_by_mean"]),
    }
    if contrast["volume_index"] is not None:
        values["volume_index"] = str(contrast["volume_index"])
    return ",".join(values) + "\n" + ",".join(values.values())


def _limits(card: dict[str, Any]) -> str:
    ages = card["training_ages"]
    span = (
        f"from {ages['min_years']} to {ages['max_years']} years old"
        if ages["min_years"] is not None
        else "of ages that are not stated"
    )
    return (
        "## What they are for, and what not\n\n"
        "Research on brain age in groups. They are no medical device, and one person's difference between "
        f"predicted and true age is no finding. They were trained on {sex_word(card['sex'])} {span}; outside "
        "of these ages, on patients, on other scanners, or on volumes that were processed in another way, "
        "the error is not known and may be large. The raw difference depends on age by itself (the young "
        "are predicted too old, the old too young): see the bias correction."
    )


def _input(card: dict[str, Any]) -> str:
    contrast = card["contrast"]
    box = " x ".join(str(stop - start) for start, stop in contrast["crop"])
    crop = ", ".join(f"{start}:{stop}" for start, stop in contrast["crop"])
    if contrast["preprocessing"] == "peng":
        scaling = "divided by the mean of the whole volume"
    elif contrast["divide_by_mean"]:
        scaling = f"divided by the mean of the crop and by {contrast['scale_factor']:.9g}"
    else:
        scaling = f"divided by {contrast['scale_factor']:.9g}"
    origin = ", worked out on the training subjects" if card["scale_factor_is_auto"] else ""
    index = (
        f", volume {contrast['volume_index']} of a 4D file"
        if contrast["volume_index"] is not None
        else ""
    )
    return f"""## Input

| | |
|---|---|
| contrast | {contrast["name"]}{index} |
| grid | {" x ".join(map(str, contrast["shape"]))} voxels of {contrast["voxel_mm"]:g} mm, stored LAS |
| crop | {crop} ({box} voxels) |
| intensities | {scaling}{origin} (preprocessing "{contrast["preprocessing"]}") |
| other grids in training | conform = "{card["conform"]}" |"""


def _training(card: dict[str, Any]) -> str:
    ages, plan, training = card["training_ages"], card["network_plan"], card["settings"]["training"]
    who = (
        f"{ages['n']} subjects, mean age {ages['mean_years']:.1f} years (SD {ages['sd_years']:.1f}, "
        f"{ages['min_years']} to {ages['max_years']})"
        if ages["n"] is not None
        else "fewer than 10 subjects"
    )
    target = card["target"]
    output = (
        f"a distribution over ages {target['first_years']:g} to {target['last_years']:g} in bins of "
        f"{target['width_years']:g} years, of which the mean is taken"
        if target["kind"] == "bins"
        else f"years from {target['mean_age_years']:.3f}"
    )
    widths = ", ".join(map(str, plan["widths"])) or "as published"
    epochs = ", ".join(str(entry["epoch"]) for entry in card["networks"])
    started = card["started_from"]
    start = (
        f"weights of other training ({started['kind']}, sha256 {started['sha256'][:12]}...)"
        if started
        else "random weights"
    )
    split, subjects = card["split_hash"], card["training_subjects_hash"]
    hashes = (
        f"\n| hash of split, of subjects | `{split[:16]}`, `{subjects[:16]}` |" if split else ""
    )
    learning = (
        f"{training['loss_function']}, {training['optimiser']}, learning rate {training['learning_rate']:g}, "
        f"batches of {training['training_batch_size']}"
    )
    return f"""## Training

| | |
|---|---|
| subjects | {who} |{hashes}
| network | {plan["network"]}, channels {widths} |
| output | {output} |
| from | {start} |
| loss, optimiser | {learning} |
| best epochs | {epochs} |

All settings that matter to the result stand in `model_card.json`."""


def _accuracy(card: dict[str, Any]) -> str:
    lines = [
        "## Accuracy",
        "",
        "Of uncorrected predictions, with 95 % bootstrap intervals over subjects. The mean age of training, said of "
        "everybody, has the error beside it; an MAE means nothing without it and the ages.",
        "",
        "| split | n | ages, years | MAE, years | mean age's MAE | r |",
        "|---|---|---|---|---|---|",
    ]
    notes = []
    for split, metrics in card["metrics"].items():
        if "left_out" in metrics:
            lines.append(f"| {split} | {metrics['left_out']} | | | | |")
            continue
        ages = (
            f"{metrics['age_mean_years']:.1f} (SD {metrics['age_sd_years']:.1f}), "
            f"{metrics['age_min_years']} to {metrics['age_max_years']}"
        )
        lines.append(
            f"| {split} | {metrics['n']} | {ages} | {_interval(metrics['mae_years'], 2)} | "
            f"{metrics['null_mae_years']:.2f} | {_interval(metrics['r'], 3)} |"
        )
        notes += [f"**{split}: {flag['reason']}**" for flag in metrics["flags"]]
    change = card["bfloat16_change"]
    if change:
        verdict = "used" if change["accepted"] else "refused"
        notes.append(
            f"In bfloat16 the predicted ages change by {change['mean_years']:.4f} years on average and by at "
            f"most {change['largest_years']:.4f}: it is {verdict} where it is asked for."
        )
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def _interval(value: dict[str, float | None], decimals: int) -> str:
    if value["value"] is None:
        return "not known"
    shown = f"{value['value']:.{decimals}f}"
    if value["low"] is None or value["high"] is None:
        return shown
    return f"{shown} ({value['low']:.{decimals}f} to {value['high']:.{decimals}f})"


def _correction(card: dict[str, Any]) -> str:
    line = card["bias_correction"]
    title = "## Bias correction (not part of the predictions)\n\n"
    if "left_out" in line:
        return f"{title}None: {line['left_out']}."
    alpha, beta = f"{line['alpha_years']:.6g}", f"{line['beta']:.6g}"
    formula = (
        f"corrected delta = predicted - ({alpha}) - {beta} * age"
        if line["method"] == "subtract"
        else f"corrected delta = (predicted - ({alpha})) / {beta} - age"
    )
    return (
        f"{title}    {formula}        (years)\n\n"
        f"fitted on {line['n_fit']} {line['fitted_on']} subjects of {line['age_min_years']} to "
        f"{line['age_max_years']} years (slope {beta}, 95 % interval {line['beta_low']:.3f} to "
        f"{line['beta_high']:.3f}). It holds for people and scanners like those; elsewhere fit a line of your own "
        "on at least 50 controls, and never report the accuracy of corrected predictions."
    )


def _origin(card: dict[str, Any]) -> str:
    cite = "".join(f"\n- {citation}" for citation in card["citations"])
    return f"""## Licence, contact, origin

- licence of the weights: {card["licence"]}
- contact: {card["contact"] or "not stated"}
- trained with brain-age ensembles {_versions(card["trained_with"])}
- exported with brain-age ensembles {_versions(card["exported_with"])}

Please cite the program and{cite or " the paper of the network"}"""


def _versions(versions: dict[str, str]) -> str:
    return f"{versions['program']} ({versions['revision']}), torch {versions['torch']}"
