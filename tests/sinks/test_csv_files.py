"""Sinks: CSV files that only ever hold whole lines.

Holds: sinks/csv_files.py, records.py
"""

from __future__ import annotations

import csv
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vgexp.folders import Prefix
from vgexp.quantities import STEPS, TABLES
from vgexp.records import Rows
from vgexp.sinks.csv_files import CsvFiles


def steps(first: int, num: int, **columns: Any) -> Rows:
    numbers = list(range(first, first + num))
    values = [np.float32(0.1 * n) for n in numbers]
    return Rows(
        "steps",
        {"step": numbers, "loss": values, "accuracy": values, "grad_norm": values, **columns},
    )


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_every_table_begins_with_its_header(tmp_path: Path) -> None:
    CsvFiles(tmp_path, TABLES).close()
    for table, columns in TABLES.items():
        assert lines(tmp_path / f"{table}.csv") == [[column.name for column in columns]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.1), "0.1"),
        (np.float64(0.1), "0.1"),
        (np.float32(1 / 3), "0.33333334"),
        (1 / 3, "0.3333333333333333"),
        (np.float32(1e-45), "1e-45"),
        (np.float32(0.0), "0.0"),
        (np.float32("nan"), "nan"),
        (np.float32("inf"), "inf"),
        (np.float64("-inf"), "-inf"),
        (None, ""),
        (7, "7"),
    ],
)
def test_a_cell_is_the_shortest_text_that_reads_back_in_its_own_dtype(
    value: Any, text: str, tmp_path: Path
) -> None:
    files = CsvFiles(tmp_path)
    files(steps(0, 1, loss=[value]))
    files.close()
    assert lines(tmp_path / "steps.csv")[1][3] == text
    if isinstance(value, np.floating) and np.isfinite(value):
        assert type(value)(text) == value


def test_columns_that_were_not_measured_are_empty_cells(tmp_path: Path) -> None:
    files = CsvFiles(tmp_path)
    files(steps(0, 2))
    files.close()
    for row in lines(tmp_path / "steps.csv")[1:]:
        empty = [c.name for c, cell in zip(STEPS, row, strict=True) if not cell]
        assert empty == ["epoch", "lr", "grad_norm_clipped", "clipped", "skipped", "loss_scale"]


def test_a_name_with_commas_and_quotes_reads_back(tmp_path: Path) -> None:
    files = CsvFiles(tmp_path)
    name = 'a,b "c"'
    files(Rows("layers", {"step": [0], "layer": [1], "name": [name], "kind": ["linear"]}))
    files.close()
    assert lines(tmp_path / "layers.csv")[1][2] == name


def test_rows_are_on_disk_as_soon_as_they_are_handed_over(tmp_path: Path) -> None:
    files = CsvFiles(tmp_path)
    for first in (0, 3, 6):
        files(steps(first, 3))
        assert len(lines(tmp_path / "steps.csv")) == 1 + first + 3
    files.close()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("written", [0, 1, 7, 30])
def test_a_write_that_fails_half_way_is_cut_back_to_whole_lines(
    written: int, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = CsvFiles(tmp_path)
    files(steps(0, 5))
    before = (tmp_path / "steps.csv").read_bytes()
    write = os.write

    def full(descriptor: int, content: bytes) -> int:
        write(descriptor, content[:written])
        raise error

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(type(error)) as caught:
        files(steps(5, 5))
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert str(tmp_path / "steps.csv") in str(caught.value), "the file is named"
    assert (tmp_path / "steps.csv").read_bytes() == before
    files(steps(5, 5))
    files.close()
    assert [row[0] for row in lines(tmp_path / "steps.csv")[1:]] == [str(i) for i in range(10)]


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = CsvFiles(tmp_path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:11]))
    files(steps(0, 20))
    files.close()
    assert len(lines(tmp_path / "steps.csv")) == 21


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "evals.csv").write_text("mine")
    open_before = len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(FileExistsError):
        CsvFiles(tmp_path)
    assert len(list(Path("/dev/fd").iterdir())) == open_before
    assert (tmp_path / "evals.csv").read_text() == "mine"


def test_a_table_that_an_earlier_version_began_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text("step,loss\n0,0.5\n")
    prefix = Prefix(len(path.read_bytes()), zlib.crc32(path.read_bytes()))
    files = CsvFiles(tmp_path, ["steps"], {"steps": prefix})
    files(steps(1, 2))
    files.close()
    assert lines(path) == [["step", "loss"], ["0", "0.5"], ["1", "0.1"], ["2", "0.2"]]
