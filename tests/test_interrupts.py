"""Signals are not lost while libraries are loaded, nor taken for their errors.

Holds: interrupts.py
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from vgexp.interrupts import hold_signals, pass_signals_on


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_an_error_that_a_signal_brought_about_is_the_signal() -> None:
    def load() -> None:
        try:
            interrupt()
        except KeyboardInterrupt:
            raise ImportError("cannot load module more than once per process") from None

    with pytest.raises(KeyboardInterrupt), pass_signals_on():
        load()


def test_a_signal_that_is_swallowed_comes_once_more() -> None:
    with pytest.raises(KeyboardInterrupt), pass_signals_on(), suppress(KeyboardInterrupt):
        interrupt()


def test_an_error_of_its_own_stays_one() -> None:
    with pytest.raises(ImportError, match="none"), pass_signals_on():
        raise ImportError("none")


def test_a_signal_that_is_held_comes_at_the_end() -> None:
    heard: list[str] = []

    def load() -> None:
        interrupt()
        heard.append("goes on")

    with pytest.raises(KeyboardInterrupt), hold_signals(lambda: heard.append("stop")):
        load()
    assert heard == ["stop", "goes on"]


def test_a_second_signal_while_one_is_held_is_handed_on_at_once() -> None:
    heard: list[str] = []

    def load() -> None:
        interrupt()
        heard.append("goes on")
        interrupt()
        heard.append("waits")

    with pytest.raises(KeyboardInterrupt), hold_signals(lambda: heard.append("stop")):
        load()
    assert heard == ["stop", "goes on"]


def test_a_second_signal_of_another_kind_is_handed_on_to_its_own_handler() -> None:
    heard: list[str] = []
    signal.signal(signal.SIGINT, lambda *_: heard.append("ctrl-c"))
    signal.signal(signal.SIGTERM, lambda *_: heard.append("terminate"))
    with hold_signals(lambda: heard.append("stop")):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        heard.append("end")
    assert heard == ["stop", "terminate", "end", "ctrl-c"], "the first is handed on at the end"
