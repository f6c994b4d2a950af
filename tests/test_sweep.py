"""sweep.csv: grows a row a job, is never half there, loses nothing."""

from __future__ import annotations

import csv
import math
import threading
from pathlib import Path

import pytest

from vgexp import sweep
from vgexp.errors import QuestionError, reason
from vgexp.sweep import Row


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_a_row_is_written_as_each_job_ends(tmp_path: Path) -> None:
    sweep.record(tmp_path, [Row(0, "completed", {"model.depth": "5"}, {"loss_last": "0.1"})])
    assert rows_of(tmp_path) == [
        ["job", "status", "model.depth", "loss_last", "reason"],
        ["0", "completed", "5", "0.1", ""],
    ]
    sweep.record(tmp_path, [Row(1, "failed", {"model.depth": "0"}, reason="too shallow, by 1")])
    assert rows_of(tmp_path)[2] == ["1", "failed", "0", "", "too shallow, by 1"]


def test_the_header_grows_and_reason_stays_last(tmp_path: Path) -> None:
    sweep.record(tmp_path, [Row(0, "failed", {"a": "1"}, reason="no")])
    sweep.record(tmp_path, [Row(1, "completed", {"a": "2", "b": "3"}, {"loss": "4"})])
    header, first, second = rows_of(tmp_path)
    assert header == ["job", "status", "a", "b", "loss", "reason"]
    assert first == ["0", "failed", "1", "", "", "no"]
    assert second == ["1", "completed", "2", "3", "4", ""]


def test_a_job_that_ends_again_replaces_its_row(tmp_path: Path) -> None:
    for status in ("interrupted", "completed"):
        sweep.record(tmp_path, [Row(0, status), Row(1, "completed")])
    assert [row[:2] for row in rows_of(tmp_path)[1:]] == [["0", "completed"], ["1", "completed"]]


def test_jobs_that_end_at_once_all_keep_their_rows(tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=sweep.record, args=(tmp_path, [Row(i, "completed", {"i": str(i)})]))
        for i in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(row["job"]) for row in sweep.read(tmp_path)) == list(range(12))


def test_a_write_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep.record(tmp_path, [Row(0, "completed")])
    before = (tmp_path / "sweep.csv").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(OSError, match="No space left"):
        sweep.record(tmp_path, [Row(1, "completed")])
    assert (tmp_path / "sweep.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]


def test_a_cell_of_any_kind_reads_back_as_it_was(tmp_path: Path) -> None:
    strange = 'a,b "c"\nd'
    sweep.record(tmp_path, [Row(0, "completed", {"k": strange})])
    assert sweep.read(tmp_path)[0]["k"] == strange


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "True"),
        (3, "3"),
        (0.1, "0.1"),
        (1e-30, "1e-30"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ("healthy", "healthy"),
    ],
)
def test_a_summary_figure_is_written_in_its_shortest_form(value: object, text: str) -> None:
    summary = {"status": "completed", "figure": value, "versions": {"torch": "2"}, "list": [1]}
    assert sweep.figures(summary) == {"figure": text}


def test_a_reason_is_one_line() -> None:
    assert reason(QuestionError("depth is 0\nallowed: 1")) == "depth is 0; allowed: 1"
    assert reason(MemoryError()) == "MemoryError"
    assert reason(RuntimeError("out of\n memory")) == "RuntimeError: out of; memory"


def test_a_folder_that_holds_a_sweep_or_is_a_file_is_refused(tmp_path: Path) -> None:
    sweep.refuse_used(tmp_path)
    sweep.refuse_used(tmp_path / "new" / "folder")
    sweep.record(tmp_path, [])
    with pytest.raises(QuestionError, match="holds a sweep already"):
        sweep.refuse_used(tmp_path)
    with pytest.raises(QuestionError, match="is a file"):
        sweep.refuse_used(tmp_path / "sweep.csv" / "below")
