"""The static pictures: captions, bytes, limits, missing parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from figures.accuracy import accuracy_by_contrast
from figures.architecture import ensemble_scheme, network_architecture
from figures.association_table import association_view
from figures.associations import inflation, manhattan
from figures.deltas import delta_against_age, delta_against_age_caption, predicted_against_age
from figures.style import png_bytes, read_captions, save_figure, svg_bytes
from figures.tables import StudyTables, person_table
from figures.writing import study_figures, write_figures
from utils.common.randomness import generator


def test_every_picture_has_a_caption_and_two_forms(make_study, tmp_path):
    study = make_study(n=60, n_nidps=30, contrasts=("T1_nonlinear",))
    written = write_figures(study, tmp_path, individual_level=True)
    names = {path.stem for path in written}
    assert names == set(read_captions(tmp_path))
    assert {"accuracy_by_contrast", "manhattan_ensemble", "training_history_T1_nonlinear"} <= names
    assert {path.suffix for path in written} == {".png", ".svg"}
    assert all(path.stat().st_size > 1000 for path in written)


def test_a_figure_without_caption_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no caption"):
        save_figure(ensemble_scheme(), tmp_path, "scheme", " ")


def test_same_table_same_bytes(make_study):
    study = make_study(n=40, n_nidps=20, contrasts=("T1_nonlinear",))
    first, second = (
        {
            name: (png_bytes(f, 60), svg_bytes(f))
            for name, f, _ in study_figures(study, False, ["ensemble"])
        }
        for _ in range(2)
    )
    assert first == second
    assert b"<dc:date>" not in first["accuracy_by_contrast"][1]


@pytest.mark.parametrize("individual_level", [False, True])
def test_limits_are_equal_before_and_after_correction(study, individual_level):
    persons = person_table(study, "test")
    figure = delta_against_age(persons[persons["contrast"] == "T1_nonlinear"], individual_level)
    panels = [axes for axes in figure.axes if "correction" in axes.get_title("left")]
    assert len(panels) == 4
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert len({axes.get_xlim() for axes in panels}) == 1


def test_predicted_against_age_is_square(study):
    persons = person_table(study, "test")
    figure = predicted_against_age(persons[persons["contrast"] == "dMRI_FA"], True)
    axes = figure.axes[0]
    assert axes.get_xlim() == axes.get_ylim()


def test_a_refused_correction_is_said_in_words(study):
    persons = person_table(replace(study, deltas=None), "test")
    assert persons["delta_years"].notna().all()
    figure = delta_against_age(persons[persons["contrast"] == "T1_nonlinear"], False)
    assert not any("after" in axes.get_title("left") for axes in figure.axes)
    assert "no age-bias correction" in delta_against_age_caption(persons, "test", False)


def test_a_caption_says_on_whom_the_correction_was_fitted(study):
    persons = person_table(study, "test")
    assert "fitted on validation subjects" in delta_against_age_caption(persons, "test", False)
    in_sample = delta_against_age_caption(persons, "validation", False)
    assert "fitted on these same subjects" in in_sample and "other" not in in_sample


def test_lambda_is_one_for_uniform_p():
    p = generator("lambda").uniform(0, 1, 20_001)
    assert inflation(-np.log10(p)) == pytest.approx(1, abs=0.05)
    assert inflation(-np.log10((np.arange(999) + 0.5) / 999)) == pytest.approx(1, abs=1e-6)
    assert np.isnan(inflation(np.array([np.nan])))


def test_manhattan_marks_sign_by_shape_and_names_the_family(study):
    view = association_view(study)
    figure = manhattan(view, "T1_nonlinear")
    assert len(figure.axes) == 2
    shapes = {len(c.get_paths()[0].vertices) for c in figure.axes[0].collections if c.get_paths()}
    assert len(shapes) > 1  # circles and triangles
    caption = next(c for n, _, c in study_figures(study, True, ["ensemble"]) if "manhattan" in n)
    assert "all contrasts x all tested nIDPs x both sexes" in caption


def test_one_giant_association_folds_the_axis(study):
    table = study.associations.copy()
    table.loc[0, "nlog10p"] = 900.0
    view = association_view(replace(study, associations=table))
    axes = manhattan(view, "T1_nonlinear").axes[0]
    assert axes.get_yscale() == "function"
    svg_bytes(axes.get_figure())


def test_accuracy_shares_an_axis_from_zero(study):
    figure = accuracy_by_contrast(study.metrics)
    assert {axes.get_xlim()[0] for axes in figure.axes} == {0.0}
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["T1_nonlinear", "T2_FLAIR", "dMRI_FA", "combination"]


def test_an_empty_study_draws_nothing(tmp_path):
    assert write_figures(StudyTables("nothing"), tmp_path, False) == []


@pytest.mark.parametrize("n", [1, 10])
def test_a_handful_of_subjects_is_enough(make_study, tmp_path, n):
    study = make_study(n=n, n_nidps=6, contrasts=("T1_nonlinear",))
    for individual_level in (False, True):
        for _, figure, caption in study_figures(study, individual_level, ["T1_nonlinear"]):
            assert caption
            svg_bytes(figure)


def test_architecture_from_a_plain_list():
    layers = [
        {"name": "input", "output_shape": (1, 80, 96, 80)},
        {"name": "block 1", "output_shape": (32, 40, 48, 40), "n_parameters": 864},
        {"name": "age", "output_shape": (1,)},
    ]
    text = svg_bytes(network_architecture(layers, "small")).decode()
    assert "block 1" in text and "40 × 48 × 40" in text and "864 parameters" in text
    with pytest.raises(ValueError, match="list of layers is empty"):
        network_architecture([])


def test_scheme_names_its_steps():
    text = svg_bytes(ensemble_scheme(n_networks=3)).decode()
    for word in ("volumes", "CNN 3", "combination", "delta", "associations"):
        assert word in text
