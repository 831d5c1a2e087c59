"""A methods paragraph from what the study did: only sentences whose facts are known."""

from __future__ import annotations

from typing import Any

from figures.privacy import shown_count
from figures.tables import sex_word

CITATIONS = (
    "Roibu et al. 2023, IEEE Swiss Conference on Data Science (SDS), doi 10.1109/SDS57534.2023.00010",
    "Peng et al. 2021, Medical Image Analysis 68:101871",
    "Smith et al. 2019, NeuroImage 200:528-539, doi 10.1016/j.neuroimage.2019.06.017",
    "de Lange and Cole 2020, NeuroImage: Clinical 26:102229",
    "Cole et al. 2018, Molecular Psychiatry 23:1385",
    "Butler et al. 2021, Human Brain Mapping 42:4092, doi 10.1002/hbm.25533",
)


# Where a correction is described, as it is cited in the sentence.
_CORRECTION_SOURCES = {
    "subtract": " (de Lange and Cole 2020)",
    "divide": " (Cole 2018)",
    "quadratic": " (Smith 2019)",
}


def methods_paragraph(description: dict[str, Any]) -> str:
    """The study's methods as a paragraph for a paper, followed by the citations.

    Parameters
    ----------
    description : dict
        Any of: `simulated` (bool), `contrasts` (list), `counts` ({sex: {split: n}}), `age_range_years`
        ([low, high]), `families_kept_together` (bool), `preprocessing` (phrase), `network`, `n_parameters`,
        `n_networks`, `dropout` (phrase), `loss`, `optimiser`, `learning_rate`, `scheduler` (phrase),
        `batch_size`, `n_epochs`, `patience_epochs`, `augmentation` (phrase or list), `besides` (sentences),
        `seed`, `intervals` (phrase), `combination`, `combination_fitted_on`, `correction`,
        `correction_fitted_on`, `confounds` (list) or `n_confounds`, `nidp_transform` (phrase), `n_nidps`,
        `family` (phrase), `n_families`, `n_tests`, `statistic`, `degrees_of_freedom`, `n_permutations`,
        `alpha`, `software` ({name: version}), `split`, `deltas_given`, `predictors_given` (bool). Missing ones leave
        their sentence out.
    """
    parts = (
        _subjects(description),
        _network(description),
        _training(description),
        _deltas(description),
        _associations(description),
        _software(description),
    )
    text = " ".join(sentence for part in parts for sentence in part)
    return text + "\n\nReferences\n" + "\n".join(f"- {citation}" for citation in CITATIONS)


def _subjects(facts: dict[str, Any]) -> list[str]:
    sentences = []
    contrasts = [str(name) for name in facts.get("contrasts") or []]
    if contrasts:
        sentences.append(
            f"Age was predicted from {_counted(len(contrasts), 'MRI contrast')} ({_listed(contrasts)})."
        )
    counts = facts.get("counts") or {}
    groups = [
        f"{sex_word(sex)}: "
        + " / ".join(f"{shown_count(n)} {split}" for split, n in splits.items())
        for sex, splits in counts.items()
        if splits
    ]
    if groups:
        kind = "Simulated subjects" if facts.get("simulated") else "Subjects"
        sentences.append(f"{kind} were split into disjoint sets ({'; '.join(groups)}).")
    elif facts.get("simulated"):
        sentences.append("The subjects are simulated.")
    ages = facts.get("age_range_years")
    if ages and len(ages) == 2 and None not in ages:
        sentences.append(f"Ages ranged from {float(ages[0]):.0f} to {float(ages[1]):.0f} years.")
    if facts.get("families_kept_together"):
        sentences.append("Related subjects were kept in the same set.")
    if facts.get("preprocessing"):
        sentences.append(_sentence(f"Preprocessing: {facts['preprocessing']}"))
    return sentences


def _network(facts: dict[str, Any]) -> list[str]:
    sentences = []
    n_networks = int(facts.get("n_networks") or 0)
    network = facts.get("network")
    if network or n_networks:
        size = f" ({int(facts['n_parameters']):,} parameters)" if facts.get("n_parameters") else ""
        name = f" of type {network}{size}" if network else ""
        if n_networks == 1:
            sentences.append(
                f"One 3D convolutional network{name} was trained for {each_cell(facts)}."
            )
        elif n_networks > 1:
            sentences.append(
                f"For {each_cell(facts)}, {n_networks} identical 3D convolutional networks{name} that differ "
                "by seed alone were trained, and their predictions were averaged (Roibu 2023; Peng 2021)."
            )
        else:
            sentences.append(
                f"3D convolutional networks{name} were trained for {each_cell(facts)}."
            )
    if facts.get("dropout"):
        sentences.append(_sentence(f"Dropout: {facts['dropout']}"))
    return sentences


def _training(facts: dict[str, Any]) -> list[str]:
    phrases = []
    for key, words in (
        ("loss", "the loss was {}"),
        ("optimiser", "the optimiser {}"),
        ("learning_rate", "the initial learning rate {:g}"),
        ("batch_size", "the batch size {}"),
        ("scheduler", "the learning-rate schedule {}"),
    ):
        if facts.get(key) is not None:
            phrases.append(words.format(facts[key]))
    sentences = [_sentence("In training, " + _listed(phrases))] if phrases else []
    if facts.get("n_epochs"):
        stop = facts.get("patience_epochs")
        early = (
            f", stopping early after {stop} epochs without a lower validation loss" if stop else ""
        )
        sentences.append(f"Networks were trained for up to {facts['n_epochs']} epochs{early}.")
    augmentation = facts.get("augmentation")
    if augmentation:
        words = augmentation if isinstance(augmentation, str) else _listed(list(augmentation))
        sentences.append(_sentence(f"Training volumes were augmented ({words})"))
    sentences += facts.get("besides") or []
    if facts.get("seed") is not None:
        sentences.append(f"The study's seed was {facts['seed']}.")
    return sentences


def _deltas(facts: dict[str, Any]) -> list[str]:
    if facts.get("predictors_given"):
        return ["Predictors were taken from a table made elsewhere."]
    if facts.get("deltas_given"):
        return ["Brain-age deltas were taken from a table made elsewhere."]
    sentences = []
    if facts.get("combination"):
        fitted = facts.get("combination_fitted_on") or "validation"
        where = "" if facts["combination"] == "mean" else f"; fitted on {fitted} subjects"
        sentences.append(
            f"Predictions of the contrasts were combined ({facts['combination']}{where})."
        )
    split = facts.get("split") or "test"
    intervals = f" with {facts['intervals']}" if facts.get("intervals") else ""
    sentences.append(
        f"Accuracy is reported for uncorrected predictions on {split} subjects{intervals}, beside a null model "
        "that predicts the mean age of the training subjects; accuracy after bias correction is not reported, "
        "because it flatters a poor model (Butler 2021)."
    )
    sentences.append("Brain-age delta is predicted age minus age.")
    correction = facts.get("correction")
    if correction and str(correction).lower() not in ("none", "false"):
        fitted = facts.get("correction_fitted_on") or "validation"
        source = _CORRECTION_SOURCES.get(str(correction), "")
        sentences.append(
            f"Deltas were corrected for their dependence on age ({correction}), separately for {each_cell(facts)}, "
            f"with coefficients fitted on {fitted} subjects and applied unchanged{source}."
        )
    return sentences


def _associations(facts: dict[str, Any]) -> list[str]:
    if not facts.get("n_nidps"):
        return []
    sentences = []
    confounds = [str(name) for name in facts.get("confounds") or []]
    n_confounds = int(facts.get("n_confounds") or len(confounds))
    given = ""
    if n_confounds:
        names = f" ({_listed(confounds)})" if 0 < len(confounds) <= 15 else ""
        given = f" given {_counted(n_confounds, 'confound')}{names}"
    n_nidps = int(facts["n_nidps"])
    what = "predictor" if facts.get("predictors_given") else "delta"
    ranks = " of ranks (Spearman)" if facts.get("statistic") == "spearman" else ""
    freedom = "degrees of freedom counted for each pair"
    if facts.get("degrees_of_freedom") == "published":
        freedom = "n - 2 degrees of freedom, whatever the number of confounds"
    sentences.append(
        f"Each {what} was associated with {_counted(n_nidps, 'non-imaging phenotype')} by partial correlation{ranks}"
        f"{given}, over the subjects who have both, with {freedom}."
    )
    if facts.get("nidp_transform"):
        sentences.append(
            _sentence(f"Before that, phenotypes were transformed: {facts['nidp_transform']}")
        )
    alpha = float(facts.get("alpha") or 0.05)
    n_families = int(facts.get("n_families") or 1)
    over = "one declared family" if n_families == 1 else f"each of {n_families:,} families"
    family = f" over {over} of tests: {facts['family']}" if facts.get("family") else ""
    in_all = "" if n_families == 1 else " in all"
    tests = f" ({int(facts['n_tests']):,} tests{in_all})" if facts.get("n_tests") else ""
    n_permutations = int(facts.get("n_permutations") or 0)
    permuted = f" and max-T over {n_permutations:,} joint permutations" if n_permutations else ""
    sentences.append(
        f"P values are two-sided; multiplicity was controlled at {alpha:g} by Bonferroni{permuted} (family-wise error) "
        f"and Benjamini-Hochberg (false discovery rate){family}{tests}."
    )
    return sentences


def _software(facts: dict[str, Any]) -> list[str]:
    software = facts.get("software") or {}
    if not software:
        return []
    return [f"Software: {_listed([f'{name} {version}' for name, version in software.items()])}."]


def each_cell(facts: dict[str, Any]) -> str:
    """What has networks and a correction of its own: sexes that were pooled have theirs together."""
    pooled = set(facts.get("counts") or {}) == {"both"}
    return "each contrast, the sexes together" if pooled else "each contrast and sex"


def _counted(n: int, noun: str) -> str:
    return f"{'one' if n == 1 else format(n, ',')} {noun}{'' if n == 1 else 's'}"


def _listed(items: list[str]) -> str:
    """Words with commas and a final "and"; many are cut with their number."""
    if len(items) > 15:
        return ", ".join(items[:12]) + f" and {len(items) - 12} others"
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else text + "."
