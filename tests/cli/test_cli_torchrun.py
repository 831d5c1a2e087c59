"""`torchrun run.py -m train`: the same networks as one process trains, one who speaks, stopped and gone on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from BrainAgeNetworks.checkpoints import load_checkpoint
from tests.reference.make_golden_run import ENVIRONMENT, PROGRAM

ONE_NETWORK = ("--cell", "T1_nonlinear_female", "--network", "1")
TRAIN = ("-m", "train", "-n", "golden", *ONE_NETWORK)


def torchrun(study, *words: str, n: int = 2) -> subprocess.Popen:
    """Start n processes in the study's folder."""
    launcher = ("-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}")
    return subprocess.Popen(
        [sys.executable, *launcher, str(PROGRAM / "run.py"), *words],
        cwd=study.folder,
        env={**os.environ, **ENVIRONMENT},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(started: subprocess.Popen) -> tuple[int, list[str]]:
    """Its exit code and what it said, without torchrun's own words after the first of them."""
    _, err = started.communicate(timeout=120)
    lines = err.splitlines()
    theirs = [i for i, line in enumerate(lines) if "torch/distributed" in line]
    return started.returncode, lines[: theirs[0]] if theirs else lines


@pytest.fixture
def fresh(study):
    """The golden study before any training, with prepared volumes."""
    shutil.rmtree(study.root)
    assert study.run("prepare").code == 0
    return study


def test_two_processes_train_the_network_of_one(fresh):
    code, said = ended(torchrun(fresh, *TRAIN))
    assert code == 0, said
    assert said[-1] == "train finished." and len([s for s in said if "epoch 4/4" in s]) == 1
    by_two = fresh.history()
    weights = load_checkpoint(fresh.network() / "best.pt")["weights"]
    log = (fresh.root / "logs" / "run.log").read_text()
    assert log.count("epoch 4/4") == 1
    assert fresh.run("verify").code == 0

    again = fresh.run("train", "-c", "0", "--yes", *ONE_NETWORK)
    assert again.code == 0, again.err
    by_one = fresh.history()
    assert weights.keys() == load_checkpoint(fresh.network() / "best.pt")["weights"].keys()
    for column in ("train_loss", "validation_loss", "validation_mae_years"):
        # float32 and four epochs: differences in rounding have grown
        np.testing.assert_allclose(by_two[column], by_one[column], rtol=5e-3)


def test_sigterm_to_torchrun_keeps_the_position_and_one_process_goes_on(fresh):
    started = torchrun(fresh, *TRAIN, "-e", "200")
    history = fresh.network() / "history.csv"
    until = time.monotonic() + 60
    while not history.is_file() and time.monotonic() < until:
        time.sleep(0.02)
    started.send_signal(signal.SIGTERM)
    code, _ = ended(started)
    assert code == 1  # torchrun's own; the processes' is 4
    log = (fresh.root / "logs" / "run.log").read_text()
    assert "stopped by SIGTERM; everything done is kept, the same command goes on." in log
    kept = load_checkpoint(fresh.network() / "last.pt")
    assert kept["epoch"] >= 1 and not list(fresh.root.rglob("*.tmp"))
    n_epochs = str(kept["epoch"] + 1)
    on = fresh.run("train", "-e", n_epochs, *ONE_NETWORK)
    assert on.code == 0, on.err
    assert f"network 1 goes on after epoch {kept['epoch']}" in on.err
    assert fresh.history()["epoch"].tolist() == list(range(1, kept["epoch"] + 2))


def test_volumes_that_are_not_prepared_are_one_sentence(study):
    shutil.rmtree(study.root)
    code, said = ended(torchrun(study, *TRAIN))
    assert code == 1
    failed = [line for line in said if line.startswith("train failed:")]
    assert failed == said[-1:]
    assert "2 processes can only share volumes of the cache. Run -m prepare first." in failed[0]


def test_what_fails_in_one_process_ends_all_with_its_sentence(fresh):
    """The second of two reads the last two subjects of a batch; one volume of the cache is damaged."""
    (shards,) = (fresh.folder / "cache").glob("T1_nonlinear-*")
    for shard in shards.glob("*.volumes"):
        content = bytearray(shard.read_bytes())
        for place in range(20_000, len(content), 60_000):
            content[place] ^= 1
        shard.write_bytes(content)
    code, said = ended(torchrun(fresh, *TRAIN))
    assert code == 1
    failed = [line for line in said if line.startswith("train failed:")]
    assert len(failed) == 1 and "its prepared volume is damaged (checksum)" in failed[0]
    assert "With 2 processes a volume that fails while they run ends them all" in failed[0]
    assert not any("Traceback" in line for line in said)


@pytest.mark.parametrize("mode", ["study", "test", "predict"])
def test_other_modes_are_the_work_of_one_process(study, monkeypatch, mode):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    refused = study.run(mode)
    assert refused.code == 2
    assert refused.err.strip() == (
        f"-m {mode} is the work of one process: start run.py without torchrun. Only -m train is shared by "
        "several (2 were started)."
    )
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert study.run(mode).err == ""


def test_the_others_write_no_file_of_the_experiment(study, monkeypatch):
    from utils.common.messages import also_log_to

    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    also_log_to(study.folder / "other" / "run.log")
    assert not (study.folder / "other").exists()
