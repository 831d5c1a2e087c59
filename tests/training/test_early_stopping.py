"""Early stopping by hand."""

from __future__ import annotations

import math

from utils.training.early_stopping import EarlyStopping


def run(stopping: EarlyStopping, losses: list[float]) -> tuple[list[bool], int]:
    """(which epochs were best, epoch after which it stops, 0: never)."""
    best = []
    for epoch, loss in enumerate(losses, start=1):
        best.append(stopping.update(loss, epoch))
        if stopping.should_stop(epoch):
            return best, epoch
    return best, 0


def test_patience_counts_epochs_since_the_best():
    best, stopped = run(EarlyStopping(3), [5.0, 4.0, 4.5, 3.9, 4.0, 4.0, 3.9, 1.0])
    assert best == [True, True, False, True, False, False, False] and stopped == 7


def test_min_delta_is_what_counts_as_a_gain():
    best, stopped = run(EarlyStopping(2, min_delta=0.5), [5.0, 4.6, 4.5, 4.0, 1.0])
    assert best == [True, False, False] and stopped == 3
    best, stopped = run(EarlyStopping(2, min_delta=0.5), [5.0, 4.6, 4.4, 4.0, 3.0])
    assert best == [True, False, True, False, True] and stopped == 0


def test_never_before_min_epochs():
    assert run(EarlyStopping(1, min_epochs=4), [1.0] * 9)[1] == 4
    assert run(EarlyStopping(1), [1.0] * 9)[1] == 2


def test_nan_is_never_best_and_uses_up_patience():
    assert run(EarlyStopping(2), [math.nan, math.nan, 1.0]) == ([False, False], 2)
    assert run(EarlyStopping(2), [3.0, math.nan, 2.0, math.nan])[0] == [True, False, True, False]


def test_a_kept_state_goes_on():
    losses = [5.0, 4.0, 4.5, 4.2, 4.1, 4.3]
    whole = run(EarlyStopping(4), losses)
    first, second = EarlyStopping(4), EarlyStopping(4)
    run(first, losses[:3])
    second.load_state_dict(first.state_dict())
    assert (second.best_loss, second.best_epoch) == (4.0, 2)
    stops = []
    for epoch, loss in enumerate(losses[3:], start=4):
        second.update(loss, epoch)
        stops.append(second.should_stop(epoch))
    assert whole[1] == 6 and stops == [False, False, True]
