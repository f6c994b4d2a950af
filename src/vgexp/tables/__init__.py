"""Reads files of runs: tables as DataFrames, summaries, configurations; and finds runs.

A cell of a table may hold a value that is not finite (`nan`, `inf`, `-inf`) or be empty (not
measured here). In a frame both `nan` and empty are NaN; `empty_cells` tells them apart.
"""

from vgexp.tables.documents import read_config, read_settings, read_summary
from vgexp.tables.extents import Extent, extent_of
from vgexp.tables.folders import find_runs
from vgexp.tables.frames import (
    ABSENT,
    HALF_LINE,
    HAS_VALUE,
    column_names,
    empty_cells,
    may_hold_nan,
    read,
)
from vgexp.tables.sweeps import SweepJob, sweep_jobs, sweep_problems

__all__ = [
    "ABSENT",
    "HALF_LINE",
    "HAS_VALUE",
    "Extent",
    "SweepJob",
    "column_names",
    "empty_cells",
    "extent_of",
    "find_runs",
    "may_hold_nan",
    "read",
    "read_config",
    "read_settings",
    "read_summary",
    "sweep_jobs",
    "sweep_problems",
]
