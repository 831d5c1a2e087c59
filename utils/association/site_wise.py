"""Confounds built site by site: a scanner's motion, table position or drift acts on its own images alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def split_by_site(values: Array, sites: NDArray[np.intp]) -> list[Array]:
    """A column for each site: mean 0 and SD 1 among the subjects of the site, 0 for everyone else.

    With the sites themselves among the confounds this lets the slope on the confound differ from site to site. The
    values come complete: gaps and outliers hold the median of the site before (see `confound_columns`). A site where
    the column does not vary gives only zeros, which are dropped later.

    Parameters
    ----------
    values : (S,) float
        Complete.
    sites : (S,) int
        Number of each subject's site, 0 .. n_sites - 1.

    Returns
    -------
    list of (S,) float
        One for each site.

    Source: Alfaro-Almagro et al. 2021, NeuroImage 224:117002: duplicated for each site, demedianed, normalised within
    the site and zero elsewhere. Checked against a Python port of the authors' `duplicateDemedianNormBySite` (outliers
    by the median and MAD of all sites, filled with the median of the site, then mean 0 and SD 1 with n - 1). The
    overall median and MAD of its first step cancel in the last, so they are left out here; gaps are filled with the
    median of the present values, as there.
    """
    columns = []
    for site in range(int(sites.max(initial=-1)) + 1):
        there = sites == site
        of_site = values[there]
        column = np.zeros(len(values))
        if of_site.size > 1:
            centred = of_site - of_site.mean()
            sd = float(centred.std(ddof=1))
            if sd > 1e-10 * np.abs(of_site).max():
                column[there] = centred / sd
        columns.append(column)
    return columns
