"""Runs: made from a configuration, gone on with, and read back from their folders."""

from vgexp.runs.making import finish, resume, run
from vgexp.runs.past import Run, load
from vgexp.runs.signaling import finish_signal, signal
from vgexp.runs.start import Manner, write_failure

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
