"""Rows are kept in little memory, in a file beyond a limit, and come back as they were.

Holds: probe/results.py, probe/store.py
"""

from __future__ import annotations

import errno
import tempfile
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from vgexp.probe import Probe
from vgexp.probe.store import RowStore
from vgexp.records import Floats, Rows

NAMES = ["step", "layer", "name", "kind", "grad_norm", "delta_rms"]


def _rows(step: int, *, with_delta: bool) -> Rows:
    norms = Floats(np.array([step, step + 0.5], np.float32), np.array([True, step % 3 > 0]))
    columns: dict[str, Any] = {
        "step": [step, step],
        "layer": [1, None] if step % 2 else [1, 2],
        "name": ["a.weight", "b.weight"],
        "kind": ["linear", None],
        "grad_norm": norms,
    }
    if with_delta:
        columns["delta_rms"] = [step / 7, None]
    return Rows("layers", columns)


def _cells(rows: list[Rows]) -> list[dict[str, Any]]:
    return [
        {name: each.columns[name][i] if name in each.columns else None for name in NAMES}
        for each in rows
        for i in range(len(each))
    ]


@pytest.mark.parametrize("limit", [2**24, 2000, 0])
def test_rows_come_back_as_they_were_from_memory_and_from_the_file(limit: int) -> None:
    given = [_rows(step, with_delta=step % 4 == 0) for step in range(150)]
    store = RowStore(pytest.fail, limit)
    taken: list[Rows] = []
    for number, rows in enumerate(given):
        store.add(rows)
        store.add(Rows("steps", {"step": [number], "loss": [None], "lr": [0.5]}))
        if number in (3, 3, 90):
            taken += store.take_new()
    taken += store.take_new()
    assert store.take_new() == []
    assert _cells([each for each in taken if each.table == "layers"]) == _cells(given)
    columns = {name: list(cells) for name, cells in store.columns("layers", NAMES).items()}
    wanted = _cells(given)
    for name in NAMES:
        assert columns[name] == [row[name] for row in wanted], name
    norms = store.columns("layers", ["grad_norm"])["grad_norm"]
    assert isinstance(norms, Floats)
    assert norms.values.dtype == np.float32
    assert list(store.columns("steps", ["lr", "loss"])["loss"]) == [None] * 150
    assert list(store.columns("timing", ["step"])["step"]) == []


def test_where_no_file_can_be_written_rows_stay_in_memory_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    said: list[str] = []
    store = RowStore(said.append, 100)
    given = [_rows(step, with_delta=True) for step in range(9)]
    for rows in given:
        store.add(rows)
    assert _cells(store.take_new()) == _cells(given)
    assert said == [
        "its rows stay in memory: no temporary file: [Errno 28] No space left on device"
    ]


def test_a_probe_that_nobody_drains_holds_a_limited_number_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames, most = [], 0
    for limit in (2**24, 4000):
        monkeypatch.setattr("vgexp.probe.store.MOST_BYTES", limit)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        drained = 0
        with Probe(model, optimizer, every=1, histograms_every=10) as probe:
            loss_of = probe.watch_loss(functional.cross_entropy)
            for step in range(230):
                optimizer.zero_grad()
                loss_of(model(torch.randn(5, 3)), torch.tensor([0, 1, 1, 0, 1])).backward()
                optimizer.step()
                most = max(most, probe._results.store._num_bytes)
                if step == 77:
                    drained = sum(len(rows) for rows in probe.drain() if rows.table == "layers")
        assert drained == 2 * 78
        frames.append({table: probe.to_frame(table) for table in probe.tables})
        assert len(frames[-1]["layers"]) == 2 * 230
        rest = sum(len(rows) for rows in probe.drain() if rows.table == "layers")
        assert rest == 2 * (230 - 78)
    assert most < 2**24
    assert probe._results.store._num_bytes < 4000 + 2000
    assert [*frames[0]] == ["layers", "steps", "parameters", "wiring", "loss", "histograms"]
    for table, frame in frames[0].items():
        assert frame.equals(frames[1][table]), table
