"""Handles Ctrl-C, SIGTERM and SIGHUP: none is lost in an import, and none ends a step halfway.

Both contexts replace the handler that is set (Python's own raises `KeyboardInterrupt`), and call it
themselves. Signals without a handler, and threads other than the main one, are left alone.
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
def repeat_lost_signals() -> Iterator[None]:
    """Within, calls the handler of a signal at once, and again at the end.

    The second call is for libraries that swallow what is raised while they are imported, or make
    another error of it.
    """
    with _replace_handlers(lambda _arrived, before: before) as hand_on:
        try:
            yield
        except Exception:
            hand_on()
            raise
    hand_on()


@contextmanager
def defer_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within, the first signal calls `stop`, and at the end its handler; a second calls its own."""

    def hold(arrived: Arrived, before: Handler) -> Handler:
        return before if len(arrived) > 1 else lambda *_: stop()

    with _replace_handlers(hold) as hand_on:
        yield
    hand_on()


@contextmanager
def _replace_handlers(
    choose: Callable[[Arrived, Handler], Handler],
) -> Iterator[Callable[[], None]]:
    """Replaces the handler of each signal. Yields a function that calls the first one's own."""
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
