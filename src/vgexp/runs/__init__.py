"""Runs: made from a configuration, resumed, and read back from their folders."""

from vgexp.runs.making import finish, resume, run, signal
from vgexp.runs.past import Run, load
from vgexp.runs.start import Display, write_failure

__all__ = [
    "Display",
    "Run",
    "finish",
    "load",
    "resume",
    "run",
    "signal",
    "write_failure",
]
