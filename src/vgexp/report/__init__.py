"""Shows tables and diagnoses to a reader; reads files and DataFrames only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgexp.report import figures

__all__ = ["figures"]


def __getattr__(name: str) -> Any:
    """Imports the figures, and matplotlib with them, when they are first asked for (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'vgexp.report' has no attribute {name!r}")
    return importlib.import_module(f"vgexp.report.{name}")
