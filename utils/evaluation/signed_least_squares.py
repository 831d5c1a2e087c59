"""Least squares on moments with non-negative weights or an absolute penalty: exact, by an active set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Relative to the largest element of the target: gains below it are rounding.
RELATIVE_TOLERANCE = 1e-12
STEPS_A_COLUMN = 30


def signed_least_squares(
    gram: Array,
    target: Array,
    absolute_penalty: float = 0.0,
    nonnegative: bool = False,
    start: Array | None = None,
) -> Array:
    r"""w that minimises w' G w / 2 - w' t + l |w|_1, over all w or over w >= 0.

    Weights enter one at a time with the sign of their gradient; on the weights and signs present the minimum is a
    linear solve, walked towards until a weight would change its sign and leaves. Each face of weights and signs is met
    at most once, so it ends at the minimum itself and not at a tolerance as descent by coordinates does. For
    w >= 0 and l = 0 this is Lawson and Hanson's NNLS on the normal equations; with signs, the feature-sign search.

    Parameters
    ----------
    gram : (C, C) float
        Positive semi-definite; of identical columns the first alone gets a weight.
    target : (C,) float
        Covariances with what is predicted.
    absolute_penalty : float
        l.
    nonnegative : bool
        Restrict to w >= 0.
    start : (C,) float, optional
        Where to begin, such as the minimum at a neighbouring penalty; the result does not depend on it.

    Source: Lawson and Hanson 1974, Solving Least Squares Problems, chapter 23; Bro and de Jong 1997, J Chemom 11:393;
    Lee et al. 2007, NIPS 19 (feature-sign search); not re-read: the tests compare with scipy's nnls, with
    scikit-learn's coordinate descent, and check the conditions of a minimum.
    """
    weights = np.zeros(len(target)) if start is None else start.copy()
    signs = np.sign(weights)
    blocked = np.zeros(len(target), dtype=bool)
    tolerance = RELATIVE_TOLERANCE * float(np.abs(target).max(initial=0.0))
    _settle(weights, signs, gram, target, absolute_penalty)
    # Far more steps than are ever taken; the weights are feasible and better after each of them.
    for _ in range(STEPS_A_COLUMN * max(1, len(target))):
        gradient = target - gram @ weights
        gain = (gradient if nonnegative else np.abs(gradient)) - absolute_penalty
        gain[(signs != 0) | blocked] = -np.inf
        entering = int(np.argmax(gain))
        if gain[entering] <= tolerance:
            break
        signs[entering] = np.sign(gradient[entering])
        _settle(weights, signs, gram, target, absolute_penalty)
        if signs[entering] == 0:  # its gain was rounding: not again before another weight has moved
            blocked[entering] = True
        else:
            blocked[:] = False
    return weights


def _settle(weights: Array, signs: Array, gram: Array, target: Array, penalty: float) -> None:
    """Walk to the minimum over the present weights and signs, dropping weights that reach zero on the way."""
    while (active := np.flatnonzero(signs)).size:
        goal = np.linalg.solve(
            gram[np.ix_(active, active)], target[active] - penalty * signs[active]
        )
        crossing = goal * signs[active] <= 0.0
        if not crossing.any():
            weights[active] = goal
            return
        now = weights[active]
        way = np.where(crossing, 0.0, np.inf)  # a weight that stays at zero leaves at once
        np.divide(now, now - goal, out=way, where=crossing & (now != goal))
        step = float(way.min())
        weights[active] = now + step * (goal - now)
        left = active[way <= step]
        weights[left], signs[left] = 0.0, 0.0
