"""What the tables of a run say about its gradient: signal, verdict, cause, words, metrics.

Names are imported when they are asked for, pandas with them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgexp.diagnosis.at_start import summarise_start
    from vgexp.diagnosis.signal import Signal, main_path, signal_of, underflow
    from vgexp.diagnosis.start_words import start_sentence
    from vgexp.diagnosis.verdict import learned, summarise, verdict_of
    from vgexp.diagnosis.words import Diagnosis, diagnose, sentence

_HOMES = {
    "Diagnosis": "words",
    "diagnose": "words",
    "sentence": "words",
    "start_sentence": "start_words",
    "Signal": "signal",
    "main_path": "signal",
    "signal_of": "signal",
    "underflow": "signal",
    "learned": "verdict",
    "summarise": "verdict",
    "summarise_start": "at_start",
    "verdict_of": "verdict",
}

__all__ = [
    "Diagnosis",
    "Signal",
    "diagnose",
    "learned",
    "main_path",
    "sentence",
    "signal_of",
    "start_sentence",
    "summarise",
    "summarise_start",
    "underflow",
    "verdict_of",
]


def __getattr__(name: str) -> Any:
    """Imports a name from its module when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vgexp.diagnosis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"vgexp.diagnosis.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
