"""Rows of steps and times, held back until a flush.

Holds: training/history.py
"""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch

from vgexp.training import history
from vgexp.training.history import Clock, History, Step


def step(
    number: int, loss: float = 1.0, norm: float = 1.0, dtype: torch.dtype = torch.float32
) -> Step:
    return Step(
        step=number,
        epoch=number // 3,
        lr=0.1,
        num_targets=8,
        hits=torch.tensor(6),
        values=(
            torch.tensor(loss, dtype=dtype),
            torch.tensor(norm, dtype=torch.float64),
            torch.tensor(norm / 2, dtype=torch.float64),
            torch.tensor(True),
        ),
    )


@pytest.mark.parametrize(
    ("dtype", "kind"), [(torch.float32, np.float32), (torch.float64, np.float64)]
)
def test_numbers_come_out_in_the_dtype_of_the_network(dtype: torch.dtype, kind: type) -> None:
    kept = History(dtype, deferred=False)
    for number in range(4):
        kept.add(step(number, loss=1 / 3, norm=0.1, dtype=dtype))
    drained = kept.drain()
    assert drained is not None
    rows, first_bad = drained
    assert first_bad is None
    assert rows.table == "steps"
    assert rows.columns["step"] == [0, 1, 2, 3]
    assert rows.columns["epoch"] == [0, 0, 0, 1]
    assert list(rows.columns["loss"]) == [kind(1 / 3)] * 4
    assert list(rows.columns["accuracy"]) == [kind(0.75)] * 4
    assert list(rows.columns["grad_norm"]) == [kind(0.1)] * 4
    assert list(rows.columns["grad_norm_clipped"]) == [kind(0.05)] * 4
    assert rows.columns["clipped"] == [1] * 4
    assert all(type(value) is kind for value in rows.columns["loss"])
    assert kept.drain() is None


@pytest.mark.parametrize(
    ("losses", "norms", "first"),
    [
        ([1, math.nan, math.inf], [1, 1, 1], 11),
        ([1, 1, 1], [1, 1, -math.inf], 12),
        ([math.inf, 1, 1], [math.nan, 1, 1], 10),
        ([1, 1, math.nan], [1, math.nan, 1], 11),
        ([3e38, 1, 1], [1, 1, 1], None),
    ],
)
def test_the_first_step_that_is_not_finite_is_found(
    losses: list[float], norms: list[float], first: int | None
) -> None:
    kept = History(torch.float32, deferred=True)
    for number, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=10):
        kept.add(step(number, loss, norm))
    drained = kept.drain()
    assert drained is not None
    assert drained[1] == first


def test_a_norm_beyond_float32_is_no_divergence_though_its_cell_is_infinite() -> None:
    kept = History(torch.float32, deferred=False)
    kept.add(step(0, norm=1e39))
    drained = kept.drain()
    assert drained is not None
    assert drained[1] is None
    assert list(drained[0].columns["grad_norm"]) == [np.float32("inf")]


def test_a_flush_is_due_after_a_hundred_steps_at_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "FLUSH_SECONDS", 1e9)
    kept = History(torch.float32, deferred=False)
    for number in range(100):
        assert not kept.due
        kept.add(step(number))
    assert kept.due
    kept.drain()
    assert not kept.due


@pytest.mark.parametrize("deferred", [False, True])
def test_a_flush_is_due_after_a_while_where_looking_is_free(
    deferred: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "FLUSH_SECONDS", 0.0)
    kept = History(torch.float32, deferred)
    time.sleep(0.001)
    assert not kept.due, "nothing to flush yet"
    kept.add(step(0))
    assert kept.due is not deferred


def test_overhead_is_the_measured_steps_extra_time_by_medians() -> None:
    clock = Clock()
    assert clock.probe_overhead is None
    for number in range(100):
        measured = number % 20 == 0
        clock.step_done(3.0 if measured else 2.0, 8, measured)
    # One step in twenty takes half as much again.
    assert clock.probe_overhead == pytest.approx(0.5 / 20)
    clock.step_done(1e6, 8, True)
    assert clock.probe_overhead == pytest.approx(0.5 * 6 / 101)


def test_the_time_of_a_step_is_the_processors_by_median(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    clock = Clock()
    for processor, measured in ((9.0, True), (2.0, False), (3.0, False), (80.0, False)):
        assert measured or clock.processor_seconds_per_step in (None, 2.0, 3.0)
        now[0] += processor
        clock.step_done(1e6, 8, measured)
    assert clock.processor_seconds_per_step == 3.0


def test_a_row_of_times_counts_from_the_row_before() -> None:
    clock = Clock()
    for _ in range(10):
        clock.step_done(0.0, 8, False)
    time.sleep(0.02)
    (rate,) = clock.row(10).columns["examples_per_second"]
    assert 0 < rate <= 80 / 0.02
    (again,) = clock.row(10).columns["examples_per_second"]
    assert again == 0
    assert clock.row(11).columns["step"] == [11]
    assert clock.seconds >= 0.02
