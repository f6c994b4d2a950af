"""What a network at initialisation does to directions: Jacobians, paths, shattering."""

from vgexp.spectra.tables import asked, require, rows_of

__all__ = ["asked", "require", "rows_of"]
