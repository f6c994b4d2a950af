"""A sweep: a folder of runs, with its jobs in `plan.json` and their results in `sweep.csv`."""

from vgexp.resuming import FAILED
from vgexp.sweep.table import FILE, JobRow, cell, metrics, read, record

__all__ = ["FAILED", "FILE", "JobRow", "cell", "metrics", "read", "record"]
