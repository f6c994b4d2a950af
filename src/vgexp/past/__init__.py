"""Reads runs and sweeps from their folders, for all that shows or returns them."""

from vgexp.past.run import UNFINISHED, PastRun
from vgexp.past.sweep import job_of, jobs_of, problems_of_sweeps

__all__ = ["UNFINISHED", "PastRun", "job_of", "jobs_of", "problems_of_sweeps"]
