"""Associations of deltas with non-imaging phenotypes (nIDPs): preparation, exact partial correlation, multiplicity."""
