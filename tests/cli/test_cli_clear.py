"""-m clear-...: asks, or needs --yes; removes what it names and nothing else."""

from __future__ import annotations

import io

import pytest

MODES = [
    "clear-checkpoints",
    "clear-checkpoints-completely",
    "clear-logs",
    "clear-experiment",
    "clear-experiment-completely",
]


class Terminal(io.StringIO):
    """Somebody at a terminal who gives an answer."""

    def isatty(self) -> bool:
        return True


def files(study) -> set[str]:
    """Everything in the study's folder but the cohort's link."""
    found = (p for p in study.folder.rglob("*") if p.is_file() and "cohort" not in p.parts)
    return {str(path.relative_to(study.folder)) for path in found}


def cohort_files(study) -> int:
    return sum(path.is_file() for path in (study.folder / "cohort").resolve().rglob("*"))


def removed_by(study, mode: str) -> set[str]:
    """What a mode takes away with --yes, below the experiment's folder."""
    before, subjects = files(study), cohort_files(study)
    ended = study.run(mode, "--yes")
    assert ended.code == 0, ended.err
    assert cohort_files(study) == subjects
    after = files(study)
    assert {"golden.ini", "golden_eval.ini"} <= after and after <= before
    return {name.removeprefix("experiments/golden/") for name in before - after}


@pytest.mark.parametrize("mode", MODES)
def test_without_a_terminal_it_needs_yes(study, mode: str, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    before = files(study)
    ended = study.run(mode)
    assert ended.code == 1
    assert "needs --yes where nobody can be asked" in ended.err
    assert files(study) == before


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yesterday\n"])
def test_any_other_answer_than_yes_removes_nothing(study, answer: str, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    before = files(study)
    ended = study.run("clear-experiment-completely")
    assert ended.code == 1
    assert "remove the whole experiment, weights included of golden" in ended.err
    assert "[y/N]" in ended.err and "nothing was removed." in ended.err
    assert files(study) == before


def test_yes_at_the_terminal_removes(study, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    ended = study.run("clear-checkpoints")
    assert ended.code == 0, ended.err
    assert not list(study.root.rglob("epoch_*.pt")) and (study.network() / "best.pt").is_file()


def test_checkpoints_of_single_epochs(study):
    gone = removed_by(study, "clear-checkpoints")
    assert len(gone) == 8 and all(name.endswith("/epoch_0003.pt") for name in gone)


def test_all_checkpoints(study):
    (study.network() / "last.damaged").write_bytes(b"set aside by -c")
    gone = removed_by(study, "clear-checkpoints-completely")
    assert len(gone) == 33 and all(name.endswith((".pt", "/last.damaged")) for name in gone)


def test_logs(study):
    assert removed_by(study, "clear-logs") == {"logs/run.log"}


def test_results_but_not_weights_and_splits(study):
    (study.root / "splits.csv").write_text("subject_id,split\n")
    gone = removed_by(study, "clear-experiment")
    assert {
        "deltas_test.csv",
        "bias_correction.json",
        "combination.json",
        "metrics.csv",
        "summary/report.html",
    } <= gone
    assert "swi_male/predictions_test.csv" in gone and "swi_male/metrics_test.json" in gone
    results = {name for name in gone if not name.startswith("summary/")}
    assert not [
        name for name in results if name.endswith((".pt", "history.csv", "splits.csv", ".ini"))
    ]
    ended = study.run("study")
    assert ended.code == 0, ended.err


def test_the_whole_experiment(study):
    removed_by(study, "clear-experiment-completely")
    assert not study.root.exists()
    ended = study.run("clear-experiment-completely")
    assert ended.code == 0 and "nothing to clear" in ended.err


def test_one_cell_alone(study):
    ended = study.run("clear-checkpoints-completely", "--yes", "--cell", "swi_male")
    assert ended.code == 0, ended.err
    assert (
        not list((study.root / "swi_male").rglob("*.pt"))
        and (study.network() / "best.pt").is_file()
    )
