"""Functions that Numba compiles to machine code."""

from __future__ import annotations

from numba import njit


def compiled(function):
    """Compile a function when it is first called, without Python's lock; keep the result on disk."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:
        # neither this folder nor the user's can be written to: compile in every run
        return njit(nogil=True)(function)
