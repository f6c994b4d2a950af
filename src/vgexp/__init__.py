"""Why deep networks stop learning, seen layer by layer.

Checked types of what is imported when it is asked for stand in `__init__.pyi`.
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOMES = {
    "Probe": "vgexp.guests",
    "check": "vgexp.guests",
    "Run": "vgexp.runs",
    "run": "vgexp.runs",
    "load": "vgexp.runs",
    "resume": "vgexp.runs",
    "diagnose": "vgexp.diagnosis",
}

_PACKAGES = ("report", "theory")
"""Packages of functions for a user's own tables, reached as `vgexp.report.figures.overview`."""

__all__ = [
    "Probe",
    "Run",
    "__version__",
    "check",
    "diagnose",
    "load",
    "report",
    "resume",
    "run",
    "theory",
]


def __getattr__(name: str) -> object:
    """Imports a public name from its home when it is first asked for (PEP 562)."""
    if name not in (*_HOMES, *_PACKAGES):
        raise AttributeError(f"module 'vgexp' has no attribute {name!r}")
    import importlib

    if name in _PACKAGES:
        return importlib.import_module(f"vgexp.{name}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
