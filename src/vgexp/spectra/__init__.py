"""Measures how a network at initialisation maps directions: Jacobians, paths, shattering."""

from vgexp.spectra.tables import list_asked, require, rows_of

__all__ = ["list_asked", "require", "rows_of"]
