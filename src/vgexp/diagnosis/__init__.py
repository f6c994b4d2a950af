"""The diagnosis of a run or of a network: signal, verdict, rules, and the text of their findings.

Names are imported when they are asked for, pandas with them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgexp.diagnosis.at_start import summarise_start
    from vgexp.diagnosis.causes import CAUSES
    from vgexp.diagnosis.diagnosis import (
        Diagnosis,
        cause_metrics,
        compose,
        conclude,
        diagnose,
        examine,
        partial_sentence,
        sentence,
        start_sentence,
    )
    from vgexp.diagnosis.evidence import Evidence, evidence_of_run, evidence_of_tables
    from vgexp.diagnosis.findings import Finding, Remedy
    from vgexp.diagnosis.learning import Learning, has_learned, learning_of
    from vgexp.diagnosis.rules import CAUSE_RULES, RULES
    from vgexp.diagnosis.signal import Signal, main_path, signal_of, underflow
    from vgexp.diagnosis.verdict import summarise, verdict_of

_HOMES = {
    "CAUSES": "causes",
    "CAUSE_RULES": "rules",
    "RULES": "rules",
    "Diagnosis": "diagnosis",
    "Evidence": "evidence",
    "evidence_of_run": "evidence",
    "evidence_of_tables": "evidence",
    "Finding": "findings",
    "Remedy": "findings",
    "cause_metrics": "diagnosis",
    "compose": "diagnosis",
    "conclude": "diagnosis",
    "diagnose": "diagnosis",
    "examine": "diagnosis",
    "partial_sentence": "diagnosis",
    "sentence": "diagnosis",
    "start_sentence": "diagnosis",
    "Signal": "signal",
    "main_path": "signal",
    "signal_of": "signal",
    "underflow": "signal",
    "Learning": "learning",
    "has_learned": "learning",
    "learning_of": "learning",
    "summarise": "verdict",
    "summarise_start": "at_start",
    "verdict_of": "verdict",
}

__all__ = [
    "CAUSES",
    "CAUSE_RULES",
    "RULES",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Learning",
    "Remedy",
    "Signal",
    "cause_metrics",
    "compose",
    "conclude",
    "diagnose",
    "evidence_of_run",
    "evidence_of_tables",
    "examine",
    "has_learned",
    "learning_of",
    "main_path",
    "partial_sentence",
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
