"""A sweep is a folder of runs, `plan.json` of its jobs, and `sweep.csv` of what came of them."""

from vgexp.resuming import FAILED
from vgexp.sweep.table import FILE, JobRow, cell, figures, read, record

__all__ = ["FAILED", "FILE", "JobRow", "cell", "figures", "read", "record"]
