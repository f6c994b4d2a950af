"""Runs: made from a configuration, gone on with, and read back from their folders."""

from vgexp.runs.past import Run, load
from vgexp.runs.signaling import finish_signal, signal
from vgexp.runs.start import Manner, write_failure
from vgexp.runs.training import finish, resume, run

__all__ = [
    "Manner",
    "Run",
    "finish",
    "finish_signal",
    "load",
    "resume",
    "run",
    "signal",
    "write_failure",
]
