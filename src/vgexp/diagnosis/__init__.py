"""What the tables of a run say about its gradient: signal, verdict, cause, words."""

from vgexp.diagnosis.sentence import Diagnosis, diagnose, sentence
from vgexp.diagnosis.signal import Signal, main_path, signal_of, underflow
from vgexp.diagnosis.verdict import learned, summarise, verdict_of

__all__ = [
    "Diagnosis",
    "Signal",
    "diagnose",
    "learned",
    "main_path",
    "sentence",
    "signal_of",
    "summarise",
    "underflow",
    "verdict_of",
]
