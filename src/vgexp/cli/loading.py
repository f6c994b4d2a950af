"""Loads torch before the first run, which takes most of the time until the run begins."""

from __future__ import annotations

import gc
import sys

from vgexp.cli import notice


def load_torch(*, is_quiet: bool) -> None:
    """Imports the libraries that a run needs, and shows a line meanwhile.

    Ctrl-C and SIGTERM wait until it is loaded, and the line says that they do: what is raised in
    the middle of torch's import can end the process.
    """
    if "vgexp.assembly" in sys.modules:
        notice.take_back()
        return
    from vgexp.runs import start

    if not is_quiet:
        notice.put("loading torch ...")
    try:
        start.load_libraries(
            lambda: notice.put("interrupted: stops as soon as torch is loaded ...")
        )
    finally:
        notice.take_back()
    # The collector need not look at torch's own objects again and again.
    gc.freeze()
