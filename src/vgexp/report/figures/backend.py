"""Imports matplotlib, whatever backend the environment asks for.

matplotlib refuses to be imported where `MPLBACKEND` names a backend that it does not know. Jupyter
exports its own to every command that it starts, in environments without Jupyter as well. Pictures
are written to files here, which needs no backend.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

_VARIABLE = "MPLBACKEND"


def import_matplotlib() -> None:
    """Imports matplotlib, and chooses the backend that was asked for if matplotlib knows it.

    Where it is imported already, nothing is changed.
    """
    if "matplotlib" in sys.modules:
        return
    asked = os.environ.pop(_VARIABLE, None)
    try:
        import matplotlib as mpl
    finally:
        if asked is not None:
            os.environ[_VARIABLE] = asked
    if asked:
        with suppress(ValueError):
            mpl.rcParams["backend"] = asked


import_matplotlib()
