"""Shows the results of a single run when it has ended: first its table, then its figures."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from vgexp.cli import error_blocks
from vgexp.cli.actions import Work
from vgexp.cli.interrupts import exit_code
from vgexp.config import OutputConfig

if TYPE_CHECKING:
    from vgexp.runs import Run


def close(done: Run, output: OutputConfig, work: Work) -> int:
    """Prints the results of a run and draws its figures, if they are wanted. Returns the exit code.

    Ctrl-C, SIGTERM and SIGHUP end the drawing, which takes a while. The table is printed before it.
    """
    from vgexp.runs.start import draw_figures

    try:
        if not output.quiet:
            work.close(done)
            sys.stdout.flush()
        if not work.makes_run:
            return work.exit_code(done)
        num_figures = draw_figures(done, is_wanted=output.figures is not False)
        if num_figures and not output.quiet:
            print(f"  figures ({num_figures} of them)", flush=True)
    except KeyboardInterrupt as error:
        error_blocks.show_interruption(error, done.folder)
        return exit_code(error)
    return 0
