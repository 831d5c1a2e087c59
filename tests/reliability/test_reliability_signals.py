"""R4: after SIGTERM or SIGUSR2 the same command goes on; what comes out is what would have come out."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from BrainAgeNetworks.checkpoints import load_checkpoint
from tests.reliability.test_reliability_kills import CELL, assert_same_state, start_training
from utils.common.errors import EXIT_DONE, EXIT_STOPPED
from utils.common.interruption import SIGNALS, STOP, StopRequested


def train_until_told(folder: Path, number: int, after: str, moment_s: float) -> str:
    """Start the training, send a signal a moment after a line that begins with `after`; what it said."""
    said = []
    with start_training(folder) as training:
        for line in training.stderr:
            said.append(line)
            if line.startswith(after):
                time.sleep(moment_s)
                training.send_signal(number)
                break
        said += training.stderr.readlines()
    assert training.returncode == EXIT_STOPPED, "".join(said)
    return "".join(said)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_told_to_stop_twice_and_gone_on_with(
    golden: Path, untrained: Path, number: int, repetitions
):
    for repetition in range(repetitions(1, 5)):
        moment_s = 0.02 * (repetition + 1)
        said = train_until_told(untrained, number, "  epoch 1/4", moment_s)
        assert (
            f"stopped by {number.name}; everything done is kept, the same command goes on" in said
        )
        said = train_until_told(untrained, number, "  epoch 2/4", moment_s)
        assert "goes on after epoch 1" in said and "Traceback" not in said
        with start_training(untrained) as last:
            said = last.stderr.read()
        assert last.returncode == EXIT_DONE and "goes on after epoch 2" in said
        for network in (1, 2):
            here, there = (
                folder / "experiments" / "golden" / CELL / f"network_{network}"
                for folder in (untrained, golden)
            )
            assert (here / "history.csv").read_bytes() == (there / "history.csv").read_bytes()
            for name in ("last.pt", "best.pt", "epoch_0003.pt"):
                assert_same_state(load_checkpoint(here / name), load_checkpoint(there / name))
            for path in here.iterdir():
                path.unlink()


def test_a_signal_before_the_first_step_stops_at_once(untrained: Path):
    with start_training(untrained) as training:
        for line in training.stderr:
            if line.startswith("training "):
                training.send_signal(signal.SIGTERM)
                break
        said = training.stderr.read()
    assert training.returncode == EXIT_STOPPED and "Traceback" not in said


def test_between_steps_a_signal_waits_and_elsewhere_it_does_not():
    before = signal.getsignal(signal.SIGTERM)
    with STOP.listening():
        with pytest.raises(StopRequested, match="SIGTERM"), STOP.between_steps():
            signal.raise_signal(signal.SIGTERM)
            assert STOP.requested == "SIGTERM"
        signal.raise_signal(signal.SIGTERM)  # a second time, while what was asked for is under way
    # an error in one cell is no reason to begin the next
    with pytest.raises(StopRequested), STOP.listening(), STOP.between_steps():
        signal.raise_signal(signal.SIGUSR2)
        raise ValueError
    with STOP.listening():
        assert STOP.requested == ""
        with pytest.raises(StopRequested, match="SIGUSR2"):
            signal.raise_signal(signal.SIGUSR2)
    STOP.requested = ""
    assert signal.getsignal(signal.SIGTERM) == before
