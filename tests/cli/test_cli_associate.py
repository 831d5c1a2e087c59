"""-m associate on a table of predictions made elsewhere: no torch, no networks, counts where nothing matches."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from utils.common.randomness import generator

TABLE = ("ASSOCIATION.predictions=elsewhere.csv",)
INI = '[DATA]\ndataset_sex = ("female", "male")\nmodality_flag = "T1_nonlinear"\ndata_directory = "cohort/subjects"\n'


@pytest.fixture
def elsewhere(study, participants) -> pd.DataFrame:
    """Predictions of another program: ids, ages, sexes and predicted ages, under an ini pair of their own."""
    test = participants[participants["split"] == "test"]
    noise = generator("elsewhere").normal(0, 5, len(test))
    table = pd.DataFrame(
        {
            "eid": test["subject_id"],
            "sex": test["sex"],
            "age": test["age_years"],
            "predicted_age": (0.6 * test["age_years"] + 0.4 * 63 + noise).round(3),
        }
    )
    table.to_csv(study.folder / "elsewhere.csv", index=False)
    (study.folder / "foreign.ini").write_text(INI)
    (study.folder / "foreign_eval.ini").write_text((study.folder / "golden_eval.ini").read_text())
    return table


def test_a_foreign_table_is_tested_without_torch(study, elsewhere, program):
    """In a process of its own that lists what was imported."""
    (study.folder / "sitecustomize.py").write_text(
        "import atexit, json, sys\n"
        "atexit.register(lambda: open('imported.json', 'w').write(json.dumps(sorted(sys.modules))))\n"
    )
    words = ("-m", "associate", "-n", "foreign", "--set", *TABLE)
    done = program(*words, folder=study.folder, PYTHONPATH=str(study.folder))
    assert done.returncode == 0, done.stderr
    imported = json.loads((study.folder / "imported.json").read_text())
    assert "pandas" in imported
    assert not [
        name for name in imported if name.split(".")[0] in ("torch", "tensorboard", "nilearn")
    ]
    table = pd.read_parquet(study.folder / "experiments/foreign/summary/associations.parquet")
    assert (table["reason"] == "").sum() > 20
    assert set(table["sex"]) == {"female", "male"}
    words = ("-m", "report", "-n", "foreign", "--set", *TABLE)
    assert program(*words, folder=study.folder).returncode == 0
    page = (study.folder / "experiments/foreign/summary/report.html").read_text()
    assert "Brain-age deltas were taken from a table made elsewhere." in page


def test_the_same_table_gives_the_same_associations_as_the_experiments_own_deltas(study):
    own = pd.read_parquet(study.root / "summary" / "associations.parquet")
    deltas = (study.root / "deltas_test.csv").read_text()
    (study.folder / "elsewhere.csv").write_text(deltas)
    ended = study.run("associate", *TABLE)
    assert ended.code == 0, ended.err
    again = pd.read_parquet(study.root / "summary" / "associations.parquet")
    tested = own["reason"] == ""
    assert np.array_equal(
        again.loc[tested, "nlog10p"].round(6), own.loc[tested, "nlog10p"].round(6)
    )


def test_no_subject_in_common_fails_with_counts(study, elsewhere):
    elsewhere.assign(eid=[f"other-{i}" for i in range(len(elsewhere))]).to_csv(
        study.folder / "elsewhere.csv", index=False
    )
    ended = study.run("associate", *TABLE, name="foreign")
    assert ended.code == 1
    assert "144" in ended.err and "328" in ended.err and "associate failed: " in ended.err
    assert not (study.folder / "experiments/foreign/summary/associations.parquet").exists()


def test_fewer_subjects_than_confounds_is_a_sentence(study, elsewhere):
    few = elsewhere.groupby("sex").head(8)
    few.to_csv(study.folder / "elsewhere.csv", index=False)
    ended = study.run("associate", *TABLE, "ASSOCIATION.minimum_n=10", name="foreign")
    assert ended.code == 1
    assert "associate failed: none of " in ended.err and "nIDPs could be tested" in ended.err


def test_a_study_without_associations_still_ends_with_its_report(study):
    nidps = pd.read_csv(study.folder / "cohort" / "nidps.csv", dtype={"subject_id": str})
    nidps.assign(subject_id="x" + nidps["subject_id"]).to_csv(
        study.folder / "others.csv", index=False
    )
    ended = study.run("study", "ASSOCIATION.nidps=others.csv")
    assert ended.code == 3
    assert "no associations: " in ended.err and "report (" in ended.err


@pytest.mark.parametrize(
    "change, said",
    [
        ("ASSOCIATION.nidps=nowhere.csv", "nowhere.csv: no such table."),
        ("ASSOCIATION.predictions=nowhere.csv", "nowhere.csv: no such table."),
        (
            "ASSOCIATION.confounds=cohort/contrasts.csv",
            "the table of confounds has no subject column",
        ),
        ("ASSOCIATION.dictionary=cohort/nidps.csv", "nidp"),
        ("ASSOCIATION.nidps=", "set [ASSOCIATION] nidps"),
        ("ASSOCIATION.compare_contrasts=('T1','T9')", "no sex has deltas of both"),
        ("ASSOCIATION.missing_codes=none", "missing_codes holds 'none', which is not a number"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(study, change: str, said: str):
    ended = study.run("associate", change)
    assert ended.code == 1
    assert ended.err.startswith("associate failed: ") and said in ended.err


def test_methods_follow_the_rules_of_the_run_not_the_settings_of_today(study, elsewhere):
    elsewhere.to_csv(study.folder / "elsewhere.csv", index=False)
    changes = ("ASSOCIATION.family=per_sex", "ASSOCIATION.degrees_of_freedom=published")
    ended = study.run("associate", *TABLE, *changes, "ASSOCIATION.permutations=5", name="foreign")
    assert ended.code == 0, ended.err
    assert "permutations: p of 5 are at least 0.17, so that none can pass alpha = 0.05" in ended.err
    assert study.run("report", *TABLE, name="foreign").code == 0
    page = (study.folder / "experiments/foreign/summary/report.html").read_text()
    assert "2 families of tests: each sex by itself, its contrasts and nIDPs together" in page
    assert "n - 2 degrees of freedom" in page
    assert "max-T over 5 joint permutations" in page


def test_before_there_are_deltas_it_says_what_to_run(study):
    ended = study.run("associate", "MISC.experiments_directory=new")
    assert ended.code == 1
    assert "deltas_test.csv: no deltas yet; run -m ensemble first" in ended.err
