"""`vgexp show`: shows one run in the terminal."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vgexp.errors import QuestionError, reason

if TYPE_CHECKING:
    from rich.console import Console

DESCRIPTION = "A run in the terminal: layer-by-step heat map, curves, verdict, metrics."

_DEFAULT_METRIC = "grad_norm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("path", metavar="RUN", help="a run folder, or a folder above one run")
    parser.add_argument(
        "--metric",
        metavar="METRIC",
        help="of a training run: the heat map's column of layers.csv (`vgexp list metrics`; "
        f"default {_DEFAULT_METRIC})",
    )
    parser.add_argument(
        "--figures",
        action="store_true",
        help="draw its figures again, as PNG and SVG in RUN/figures (`vgexp list figures`)",
    )


def main(args: argparse.Namespace) -> int:
    """Prints the run. Returns the exit code."""
    from vgexp.cli import error_blocks
    from vgexp.cli.one_run import find_one_run
    from vgexp.cli.screen import Screen
    from vgexp.past import PastRun
    from vgexp.report.terminal.layout import show_line
    from vgexp.report.terminal.page import show

    folder = find_one_run(args.path, "vgexp", "show")
    if _is_signal(folder):
        if args.metric is not None:
            raise QuestionError(
                f"--metric is the column of a heat map over steps, and {folder} has none: it is a"
                " run of vgexp signal\n"
                f"allowed: {shlex.join(['vgexp', 'compare', str(folder), '--layers', args.metric])}"
            )
        return _show_signal(folder, draws=args.figures)
    console, run = Screen(), PastRun(folder, is_strict=False)
    show(console, run, args.metric or _DEFAULT_METRIC)
    if args.figures:
        _draw(console, run.folder)
    if run.can_go_on:
        show_line(console, f"Go on: {error_blocks.format_resume(run.folder)}")
    return 0


def _is_signal(folder: Path) -> bool:
    from vgexp import folders

    is_told = (folder / folders.CONFIG).is_file() and (folder / folders.SUMMARY).is_file()
    return is_told and folders.verb_of(folder) == folders.SIGNAL


def _show_signal(folder: Path, *, draws: bool) -> int:
    """Prints again the result that `vgexp signal` printed."""
    from vgexp import folders, runs
    from vgexp.cli.screen import Screen
    from vgexp.report.terminal.at_start import show_result
    from vgexp.report.terminal.layout import show_line

    done, console = runs.load(folder), Screen()
    if done.summary.get("status") != "completed":
        raise QuestionError(
            f"{folder} did not come to its end: {done.summary.get('status')}\n"
            f"allowed: {shlex.join(['vgexp', 'resume', str(folder)])}"
        )
    try:
        show_result(console, done.summary, done.layers)
    except QuestionError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise QuestionError(
            f"{folder / folders.SUMMARY} is not as vgexp signal writes it: {reason(error)}"
        ) from error
    show_line(console, f"Run folder: {folder}")
    if draws:
        _draw(console, folder)
    return 0


def _draw(console: Console, folder: Path) -> None:
    """Draws every figure, and names them.

    Raises:
        QuestionError: tables that cannot be read, after all that could be drawn was.
        OSError: files that cannot be written, likewise.
    """
    from vgexp.report import figures
    from vgexp.report.terminal.layout import show_line, show_words

    before = _names_of_figures(folder)
    drawn = figures.draw(folder)
    removed = [name for name in before if name not in _names_of_figures(folder)]
    names = ", ".join(dict.fromkeys(path.stem for path in drawn)) or "none: nothing was measured"
    show_line(console, f"Drawn in {folder / figures.FOLDER}:")
    show_words(console, f"  {names}", "  ")
    if removed:
        show_words(
            console, f"Removed, because their tables hold nothing any more: {', '.join(removed)}"
        )


def _names_of_figures(folder: Path) -> list[str]:
    """The names of the figures that are drawn already."""
    from vgexp.report import figures

    there = {path.stem for path in (folder / figures.FOLDER).glob("*") if path.is_file()}
    return [name for name in (*figures.FIGURES, figures.OVERVIEW) if name in there]
