"""Raises an exception for SIGTERM and SIGHUP, as Ctrl-C does, so that a run can save its state."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from vgexp.interrupts import HANG_UP

INTERRUPTED = 130
TERMINATED = 143
HUNG_UP = 129


class Terminated(KeyboardInterrupt):
    """SIGTERM. It is a KeyboardInterrupt, so that code which saves on Ctrl-C saves on it too."""


class HungUp(KeyboardInterrupt):
    """SIGHUP: the terminal was closed, or its connection was lost. Handled as Ctrl-C is."""


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP raise as Ctrl-C raises `KeyboardInterrupt`.

    SIGHUP stays ignored where it is ignored already: that is what `nohup` asks for.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Callable[[int, FrameType | None], None]] = {signal.SIGTERM: _terminate}
    if HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN:
        handlers[HANG_UP] = _hang_up
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, found in before.items():
            if found is not None:  # None: not installed by Python, and not to be put back by it
                signal.signal(number, found)


def exit_code(error: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    codes = {Terminated: TERMINATED, HungUp: HUNG_UP}
    return codes.get(type(error), INTERRUPTED)


def headline(error: KeyboardInterrupt) -> str:
    """The first words of the error block that says what ended the work."""
    return _HEADLINES[exit_code(error)]


_HEADLINES = {INTERRUPTED: "interrupted", TERMINATED: "terminated", HUNG_UP: "hung up"}


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _hang_up(_signal: int, _frame: FrameType | None) -> None:
    raise HungUp
