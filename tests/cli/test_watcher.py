"""Jobs that end in other processes are told of, each ending once.

Holds: cli/watcher.py
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vgexp import sweep
from vgexp.cli import watcher
from vgexp.sweep import JobRow


def test_each_new_ending_is_told_once_and_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "PAUSE_SECONDS", 0.01)
    heard: list[tuple[str, str]] = []
    came = threading.Event()

    def hear(row: dict[str, str]) -> None:
        heard.append((row["job"], row["status"]))
        came.set()

    sweep.record(tmp_path, [JobRow(0, "completed"), JobRow(1, "interrupted")])
    with watcher.watch_jobs(tmp_path, hear):
        sweep.record(tmp_path, [JobRow(2, "failed")])
        assert came.wait(10)
        sweep.record(tmp_path, [JobRow(1, "completed")])
    assert heard == [("2", "failed"), ("1", "completed")]


def test_without_a_table_nothing_is_told(tmp_path: Path) -> None:
    heard: list[dict[str, str]] = []
    with watcher.watch_jobs(tmp_path, heard.append):
        pass
    assert heard == []


def test_what_no_look_has_met_is_told_at_the_end_even_where_the_work_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "PAUSE_SECONDS", 1e6)
    heard: list[dict[str, str]] = []

    def work() -> None:
        with watcher.watch_jobs(tmp_path, heard.append):
            sweep.record(tmp_path, [JobRow(0, "completed")])
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        work()
    assert [(row["job"], row["status"]) for row in heard] == [("0", "completed")]
