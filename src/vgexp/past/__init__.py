"""Runs and sweeps read back from their folders; every other room that reads one asks here."""

from vgexp.past.run import UNFINISHED, PastRun
from vgexp.past.sweep import job_of, jobs_of

__all__ = ["UNFINISHED", "PastRun", "job_of", "jobs_of"]
