"""Figures and the report: a table goes in, a Figure or one self-contained page comes out."""
