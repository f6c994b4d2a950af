"""One line in the terminal for as long as there is nothing else to show. It never stays.

Where standard error is no terminal, nothing is written.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_num_shown: ContextVar[int] = ContextVar("_num_shown", default=0)
"""Characters of the line that is there now."""
_NUM_ECHOED = 2
"""Characters that the terminal adds for Ctrl-C: ^C."""
_STARTS_WORK = re.compile(r"(-m|--multirun|-c[dnp]|--config-(dir|name|path))(=.*)?|[^-].*")
_QUIET = re.compile(r"output\.quiet=(true|yes|on|1)", re.IGNORECASE)


def put(words: str) -> None:
    """Shows the words instead of what was shown before."""
    take_back()
    if not _is_watched():
        return
    with suppress(OSError):
        print(words, end="", file=sys.stderr, flush=True)
        _num_shown.set(len(words))


def take_back() -> None:
    """Removes the line. What writes to the terminal calls this first."""
    num_shown = _num_shown.get()
    if not num_shown:
        return
    _num_shown.set(0)
    blank = " " * (num_shown + _NUM_ECHOED)
    with suppress(OSError):
        print(f"\r{blank}\r", end="", file=sys.stderr, flush=True)


@contextmanager
def starting(argv: Sequence[str]) -> Iterator[None]:
    """Says that the command has begun, unless it only prints something or is to be quiet."""
    if all(map(_STARTS_WORK.fullmatch, argv)) and not any(map(_QUIET.fullmatch, argv)):
        put("starting ...")
    try:
        yield
    finally:
        take_back()


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
