"""When a run is saved: by steps, or by what it costs.

Holds: training/saving.py
"""

from __future__ import annotations

import pytest

from vgexp.training import saving
from vgexp.training.saving import Saving


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(saving.time, "perf_counter", lambda: self.now)

    def let_pass(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_by_steps_it_is_every_so_many_whatever_the_time() -> None:
    every = Saving(3)
    assert [step for step in range(1, 10) if every.wants(step, handed_on=False)] == [3, 6, 9]
    assert [step for step in range(1, 10) if every.wants_step(step)] == [3, 6, 9]


def test_0_is_never(clock: Clock) -> None:
    never = Saving(0)
    clock.let_pass(1e6)
    assert not any(never.wants(step, handed_on=True) for step in range(1, 10))


def test_by_time_a_run_of_less_than_a_second_is_never_saved(clock: Clock) -> None:
    by_time = Saving(None)
    clock.let_pass(0.9)
    assert not by_time.wants(100, handed_on=True)
    clock.let_pass(0.2)
    assert by_time.wants(200, handed_on=True)
    assert not by_time.wants(200, handed_on=False)
    assert not by_time.wants_step(200)


@pytest.mark.parametrize(("cost", "pause"), [(0.001, 1.0), (0.05, 5.0), (2.0, 200.0)])
def test_by_time_saving_costs_at_most_1_percent(clock: Clock, cost: float, pause: float) -> None:
    by_time = Saving(None)
    clock.let_pass(1.0)
    by_time.done_by(lambda: clock.let_pass(cost))
    clock.let_pass(pause - 0.01)
    assert not by_time.wants(1, handed_on=True)
    clock.let_pass(0.02)
    assert by_time.wants(1, handed_on=True)


def test_by_time_the_first_save_waits_for_what_it_may_cost(clock: Clock) -> None:
    by_time = Saving(None, num_bytes=40_000_000)
    clock.let_pass(19.0)
    assert not by_time.wants(1, handed_on=True)
    clock.let_pass(2.0)
    assert by_time.wants(1, handed_on=True)
