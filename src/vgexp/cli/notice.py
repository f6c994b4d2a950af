"""Shows one line in the terminal until there is something else to show, and then removes it.

It writes nothing where standard error is no terminal.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_num_shown: ContextVar[int] = ContextVar("_num_shown", default=0)
"""Characters of the line that is shown now."""
_NUM_ECHOED = 2
"""Characters that the terminal shows for Ctrl-C: ^C."""
_STARTS_WORK = re.compile(r"(-m|--multirun|-c[dnp]|--config-(dir|name|path))(=.*)?|[^-].*")
_QUIET = re.compile(r"output\.quiet=(true|yes|on|1)", re.IGNORECASE)


def put(words: str) -> None:
    """Shows a line in place of the one before."""
    take_back()
    if not _is_watched():
        return
    with suppress(OSError):
        print(words, end="", file=sys.stderr, flush=True)
        _num_shown.set(len(words))


def take_back() -> None:
    """Removes the line. Call it before anything else is written to the terminal."""
    num_shown = _num_shown.get()
    if not num_shown:
        return
    _num_shown.set(0)
    blank = " " * (num_shown + _NUM_ECHOED)
    with suppress(OSError):
        print(f"\r{blank}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def show_starting(argv: Sequence[str]) -> Iterator[None]:
    """Shows that the command has begun, unless it is quiet or only prints something."""
    if all(map(_STARTS_WORK.fullmatch, argv)) and not any(map(_QUIET.fullmatch, argv)):
        put("starting ...")
    try:
        yield
    finally:
        take_back()


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
