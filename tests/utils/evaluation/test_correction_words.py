"""Refusals, stamps and warnings of a correction in sentences."""

import numpy as np

from utils.evaluation.correction_words import correction_sentences
from utils.evaluation.deltas import AgeBiasCorrection


def cohort(n=200, seed=0, growth=0.0):
    rng = np.random.default_rng(seed)
    age = rng.uniform(50, 80, n)
    noise = rng.normal(0, 2, n) * (1 + growth * (age - 50))
    return 63 + 0.7 * (age - 63) + noise, age, [f"s{seed}_{k}" for k in range(n)]


def said(method="subtract", test=None, growth=0.0, allow=False):
    fitted = AgeBiasCorrection(method).fit(*cohort(growth=growth))
    record = fitted.correct(*(test or cohort(seed=1)), allow_in_sample=allow).record
    return correction_sentences({"T1": record})


def outside():
    return [60.0, 60.0, 60.0], [30.0, 60.0, 95.0], ["a", "b", "c"]


def test_a_correction_that_went_well_is_not_talked_about():
    inside = ([60.0] * 3, [55.0, 60.0, 65.0], ["a", "b", "c"])
    assert said(test=inside) == []


def test_a_refusal_gives_its_reason():
    sentences = correction_sentences({"T1": {"refused": "49 subjects to fit"}})
    assert sentences == ["T1: raw deltas only: 49 subjects to fit."]


def test_in_sample_is_said():
    assert said(test=cohort(), allow=True) == [
        "T1: in-sample: the correction was fitted on 200 of these subjects, whose deltas look free of age "
        "bias by construction."
    ]


def test_ages_outside_the_fit_are_counted():
    assert said(test=outside()) == [
        "T1: the line was extrapolated for 2 subjects outside the ages of the fit."
    ]
    assert said("quadratic", outside()) == [
        "T1: no corrected delta for 2 subjects outside the ages of the fit: "
        "'quadratic' does not extrapolate."
    ]


def test_an_uneven_spread_is_said():
    (sentence,) = said(growth=0.2, test=([60.0], [60.0], ["a"]))
    assert "the spread of corrected deltas changes with age (SD of the oldest third" in sentence


def test_rare_and_refused_patterns_of_a_combination():
    fit = AgeBiasCorrection().fit(*cohort())
    entry = {"n": 7, "rare": True, **fit.correct([60.0], [60.0], ["a"]).record}
    refused = {"n": 1, "refused": "no contrast is present"}
    record = {
        "method": "subtract",
        "n_of_rare_patterns": 7,
        "patterns": {"10": entry, "00": refused},
    }
    assert correction_sentences({"ensemble": record}) == [
        "ensemble: fewer than 20 share the set of contrasts of 7 subjects; their notes say so.",
        "ensemble: no corrected delta for 1 subject: no contrast is present.",
    ]


def test_contrasts_share_a_sentence():
    records = {f"C{k}": {"refused": "49 subjects to fit" if k else "no age"} for k in range(8)}
    assert correction_sentences(records) == [
        "C0: raw deltas only: no age.",
        "C1, C2, C3, C4 and 3 others: raw deltas only: 49 subjects to fit.",
    ]


def test_lines_from_the_moments_are_said():
    fit = AgeBiasCorrection().fit(*cohort())
    entry = {"n": 7, **fit.correct([60.0], [60.0], ["a"]).record}
    record = {"method": "subtract", "patterns": {"11": entry}, "n_of_moment_lines": 7}
    assert correction_sentences({"ensemble": record}) == [
        "ensemble: fewer than 50 validation subjects have all the contrasts of 7 subjects: their line is from the "
        "combination's moments; their notes say so."
    ]
