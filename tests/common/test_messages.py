"""Messages go to standard error and the log, never to standard output."""

from __future__ import annotations

import logging

import pytest

from utils.common.messages import also_log_to, progress, say, start_messages, warn


@pytest.fixture
def messages():
    """Messages as the command line starts them; the logger is put back afterwards."""
    logger = logging.getLogger("brain_age")
    before = list(logger.handlers), logger.level, logger.propagate
    logger.handlers.clear()
    start_messages()
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_standard_error_and_log_file(messages, capsys, tmp_path):
    log = tmp_path / "logs" / "run.log"
    also_log_to(log)
    say("trained ü")
    warn("two subjects are left out")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "trained ü\nwarning: two subjects are left out\n"
    lines = log.read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith(" INFO trained ü")
    assert lines[1].endswith(" WARNING warning: two subjects are left out")


def test_starting_twice_says_everything_once(messages, capsys, tmp_path):
    also_log_to(tmp_path / "first.log")
    start_messages()
    say("once")
    assert capsys.readouterr().err == "once\n"
    assert (tmp_path / "first.log").read_text() == ""  # the next run has its own log


def test_no_bar_where_there_is_no_terminal(messages, capsys):
    assert list(progress(range(3), description="epochs")) == [0, 1, 2]
    shown = capsys.readouterr()
    assert shown.out == shown.err == ""
