"""What all runs have in common: folder, parts, warnings, figures, and a failure written down."""

from __future__ import annotations

import datetime
import gc
import logging
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgexp import config as configuration
from vgexp import folders, resuming
from vgexp.config import Config
from vgexp.errors import printable, reason
from vgexp.interrupts import hold_signals, pass_signals_on
from vgexp.location import Location

if TYPE_CHECKING:
    from vgexp.runs.past import Run
    from vgexp.training import Trainer

_log = logging.getLogger("vgexp")
_WIDTH = 80
"""Columns of a warning, as of the error blocks of the command line."""


@dataclass(frozen=True)
class Display:
    """What one call shows of its run; unlike the configuration, it is not recorded."""

    is_quiet: bool
    """No progress."""
    draws: bool
    """Whether figures are drawn at the end."""
    remarks: bool = True
    """Whether what is odd in the data is shown, and not only written down."""


def display_of(config: Config) -> Display:
    """What the configuration asks for; figures only where it says so."""
    return Display(config.output.quiet, draws=bool(config.output.figures))


def build_trainer(config: Config) -> Trainer:
    """Builds all that a run needs; a signal meanwhile ends that, and is not lost."""
    load_libraries(_ignore_signal)
    from vgexp import sinks
    from vgexp.assembly import assemble
    from vgexp.runs import stopping

    stopping.require(config.train.stop_on)
    with pass_signals_on():
        trainer = assemble(config)
        # Later: what the user's code draws as it is imported belongs to the run.
        sinks.require(config.output.sinks)
    return trainer


def show_remarks(trainer: Trainer, display: Display) -> None:
    """Shows what is odd in the data, or writes it into the log; the summary has it too."""
    for text in trainer.facts.dataset.remarks:
        if display.remarks:
            warn(text)
        else:
            _log.info(text)


def load_libraries(stop: Callable[[], None]) -> None:
    """Imports torch and what else a run needs; a signal meanwhile calls `stop`, then waits."""
    # Nothing of an import is garbage, and a fifth of its time went into the search for some.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        with hold_signals(stop):
            import vgexp.assembly  # noqa: F401
    finally:
        if is_collecting:
            gc.enable()


def free_folder(asked: Path | str | None, config: Config, verb: str) -> Path:
    """The folder that was asked for; None: outputs/<verb>/<model>/<date_time_microseconds>.

    Raises:
        QuestionError: it is a file, or holds a run already.
    """
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")
    own = Path("outputs") / verb / configuration.choice("model", config.model) / now
    folder = own if asked is None else Path(asked)
    folders.require_free(folder)
    return folder


@contextmanager
def open_run(folder: Path, config: Config, command: str, verb: str) -> Iterator[None]:
    """Takes a folder for a run and writes its configuration; within, no other process has it.

    Raises:
        QuestionError: another process was faster.
    """
    with folders.occupy(folder):
        folders.require_free(folder)
        folders.write_config(folder, config, command, verb)
        folders.sync_names(folder)
        yield


def require_same(folder: Path, there: Config, asked: Config) -> None:
    """Requires that two configurations give the same tables.

    Raises:
        QuestionError: with every difference.
    """
    deciding = configuration.deciding
    path = folder / folders.CONFIG
    resuming.require_equal(path, "configuration", deciding(there), deciding(asked))


def ending_of(error: BaseException) -> dict[str, Any]:
    """Makes the summary's status of a run that an error ended."""
    if isinstance(error, Exception):
        return {"status": resuming.FAILED, "reason": reason(error)}
    # Ctrl-C, SIGTERM and SIGHUP, and a cluster's end of time, which leaves the process
    return {"status": resuming.INTERRUPTED}


def write_failure(
    folder: Path, config: Config | None, error: Exception, verb: str = folders.TRAIN
) -> None:
    """Makes a folder whose run failed say so: configuration, status and reason."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None and not (folder / folders.CONFIG).exists():
        folders.write_config(folder, config, "", verb)
    known = folders.summary_of(folder)
    folders.write_summary(folder, {**known, **ending_of(error)})


def draw_figures(done: Run, *, is_wanted: bool) -> int:
    """Draws the figures of a run that has come to its end; a failure ends the drawing alone.

    Returns:
        How many there are now; 0 where none were drawn, or not every one.
    """
    if not is_wanted or resuming.is_open(done.folder):
        return 0
    try:
        with pass_signals_on():
            from vgexp.report import figures
        return len({path.stem for path in figures.draw(done.folder)})
    except Exception as error:
        command = shlex.join(["vgexp", "show", str(done.folder), "--figures"])
        warn(f"not every figure was drawn: {reason(error)}; once more: {command}")
        return 0


def locate(folder: Path) -> Location:
    """Follows a run folder that is written to; the user is told where it was moved to."""
    return Location(
        folder, lambda now: warn(f"the run folder was moved to {now}; it goes on there")
    )


def warn(text: str) -> None:
    """Writes a warning into the log, and to standard error if somebody still reads that."""
    _log.info(text)
    with suppress(OSError):
        print(_wrap(f"warning: {text}"), file=sys.stderr, flush=True)


def _wrap(text: str) -> str:
    """The text in lines of `_WIDTH`; one with a command stays whole, so that it can be copied."""
    text = printable(text)
    if ": vgexp " in text:
        return text
    return textwrap.fill(
        text,
        _WIDTH,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _ignore_signal() -> None:
    """Does nothing, since an error in the middle of torch's import can end the process."""
