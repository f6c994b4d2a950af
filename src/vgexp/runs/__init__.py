"""Runs: made from a configuration, gone on with, and read back from their folders."""

from vgexp.runs.making import finish, resume, run, write_failure
from vgexp.runs.past import Run, load

__all__ = ["Run", "finish", "load", "resume", "run", "write_failure"]
