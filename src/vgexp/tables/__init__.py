"""Runs read back from disk: tables as DataFrames, summaries, configurations, and where runs are.

A cell of a table may hold a value that is not finite (`nan`, `inf`, `-inf`) or be empty (not
measured here). In a frame both `nan` and empty are NaN; `empty_cells` tells them apart.
"""

from vgexp.tables.documents import read_config, read_summary
from vgexp.tables.extents import Extent, extent_of
from vgexp.tables.folders import find_runs
from vgexp.tables.frames import ABSENT, HALF_LINE, column_names, empty_cells, read
from vgexp.tables.sweeps import SweepJob, sweep_jobs

__all__ = [
    "ABSENT",
    "HALF_LINE",
    "Extent",
    "SweepJob",
    "column_names",
    "empty_cells",
    "extent_of",
    "find_runs",
    "read",
    "read_config",
    "read_summary",
    "sweep_jobs",
]
