"""Ctrl-C, SIGTERM and SIGHUP: none is lost while a run is set up, none tears a row in training.

Both contexts put their handler before the one that is there (Python's own raises
`KeyboardInterrupt`). Signals without a handler, and other threads than the main one, are left as
they are.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]
Arrived = list[tuple[int, FrameType | None]]

HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""SIGHUP: the terminal was closed, or its connection lost; None on a system without that signal."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, *([] if HANG_UP is None else [HANG_UP]))


@contextmanager
def pass_signals_on() -> Iterator[None]:
    """Passes a signal on at once, within, and again at the end if it had no effect.

    Libraries swallow an exception that is raised in the middle of their import, or replace it.
    """
    with _instead(lambda _arrived, before: before) as hand_on:
        try:
            yield
        except Exception:
            hand_on()
            raise
    hand_on()


@contextmanager
def hold_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Holds the first signal back until the end, within, and calls `stop`; passes a second on."""

    def hold(arrived: Arrived, before: Handler) -> Handler:
        return before if len(arrived) > 1 else lambda *_: stop()

    with _instead(hold) as hand_on:
        yield
    hand_on()


@contextmanager
def _instead(choose: Callable[[Arrived, Handler], Handler]) -> Iterator[Callable[[], None]]:
    """Puts a handler before each signal's own; yields what passes the first arrival on to that."""
    arrived: Arrived = []
    before: dict[int, Handler] = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in _SIGNALS}
        before = {number: handler for number, handler in found.items() if callable(handler)}

    def handle(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))
        choose(arrived, before[number])(number, frame)

    def hand_on() -> None:
        for number, frame in arrived[:1]:
            before[number](number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield hand_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
