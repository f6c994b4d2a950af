"""Reads runs and sweeps from their folders; no other room opens a run's files itself."""

from vgexp.past.run import UNFINISHED, PastRun
from vgexp.past.sweep import job_of, jobs_of

__all__ = ["UNFINISHED", "PastRun", "job_of", "jobs_of"]
