"""Where every run begins: its folder's name, its parts put together, its failure written down."""

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
from vgexp.interrupts import defer_signals, repeat_lost_signals
from vgexp.location import Location

if TYPE_CHECKING:
    from vgexp.runs.past import Run
    from vgexp.training import Trainer

_log = logging.getLogger("vgexp")
_WIDTH = 80
"""Columns of a warning, as of the error blocks of the command line."""


@dataclass(frozen=True)
class Manner:
    """What one call shows of a run; no part of what the run is, and recorded nowhere."""

    is_quiet: bool
    """No progress."""
    draws: bool
    """Whether figures are drawn at the end."""
    remarks: bool = True
    """Whether what is odd in the data is shown, and not only written down."""


def manner_of(config: Config) -> Manner:
    """What the configuration asks for; pictures only where it says so."""
    return Manner(config.output.quiet, draws=bool(config.output.figures))


def assembled(config: Config) -> Trainer:
    """Everything that a run needs, built; a signal meanwhile ends it, and is not lost."""
    load_libraries(_wait)
    from vgexp.assembly import assemble

    with repeat_lost_signals():
        return assemble(config)


def remark(trainer: Trainer, manner: Manner) -> None:
    """Says what is odd in the data: on the screen or in the log; the summary has it too."""
    for text in trainer.remarks:
        if manner.remarks:
            warn(text)
        else:
            _log.info(text)


def load_libraries(stop: Callable[[], None]) -> None:
    """Imports torch and what else a run needs; a signal meanwhile calls `stop`, then waits."""
    # Nothing of an import is garbage, and a fifth of its time went into the search for some.
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        with defer_signals(stop):
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
def begun(folder: Path, config: Config, command: str, verb: str) -> Iterator[None]:
    """Within, nobody else writes the run in this folder, whose configuration is on the disk.

    Raises:
        QuestionError: somebody was faster.
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
    """What a summary says of a run that was torn off."""
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


def drawn(done: Run, *, is_wanted: bool) -> int:
    """Draws the figures of a run that has come to its end; without them it is as whole.

    Returns:
        How many there are now; 0 where none were drawn, or not every one.
    """
    if not is_wanted or resuming.is_open(done.folder):
        return 0
    try:
        with repeat_lost_signals():
            from vgexp.report import figures
        return len({path.stem for path in figures.draw(done.folder)})
    except Exception as error:
        command = shlex.join(["vgexp", "show", str(done.folder), "--figures"])
        warn(f"not every figure was drawn: {reason(error)}; once more: {command}")
        return 0


def located(folder: Path) -> Location:
    """A run folder that is written to from now on; the user is told where it was moved to."""
    return Location(
        folder, lambda now: warn(f"the run folder was moved to {now}; it goes on there")
    )


def warn(text: str) -> None:
    """Into the log and, where somebody is there to read it (not `2>&1 | head`), on the screen."""
    _log.info(text)
    with suppress(OSError):
        print(_wrapped(f"warning: {text}"), file=sys.stderr, flush=True)


def _wrapped(text: str) -> str:
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


def _wait() -> None:
    """Nothing: what is raised in the middle of torch's import can end the process."""
