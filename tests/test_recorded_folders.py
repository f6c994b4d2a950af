"""Folders of an earlier version (`tests/recorded`) are read, compared, shown and resumed.

Holds: past/run.py, resuming.py, tests/recorded
"""

from __future__ import annotations

import csv
import dataclasses
import json
import platform
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import vgexp
from vgexp import checkpoints, config
from vgexp.cli.main import main

RECORDED = Path(__file__).parent / "recorded"
EXPECTED = RECORDED / "expected"

RUNS = sorted(
    path.parent.relative_to(RECORDED).as_posix()
    for path in RECORDED.rglob("config.yaml")
    if path.parent.name != ".hydra"
)
ENDED = [run for run in RUNS if run not in ("interrupted", "interrupted_sweep/2")]
LOADED: dict[str, dict[str, Any]] = json.loads((EXPECTED / "loaded.json").read_text())
SHOWN = ("run", "uninterrupted", "recurrent", "sweep/2", "interrupted_sweep/2")
"""Training runs that have a summary, and whose page was recorded."""

COMPARISONS: dict[str, tuple[str, ...]] = {
    "sweep": ("sweep",),
    "sweep_seeds": ("sweep", "--seeds"),
    "sweep_metric": ("sweep", "--metric", "grad_norm", "--step", "last"),
    "sweep_layers": ("sweep", "--layers"),
    "sweep_layers_seeds": ("sweep", "--layers", "delta_rms", "--seeds"),
    "sweep_layers_grad_norm_last": (
        *("sweep", "--layers", "grad_norm", "--step", "last", "--seeds"),
    ),
    "sweep_layers_preact_std": ("sweep", "--layers", "preact_std", "--step", "16", "--seeds"),
    "runs": ("run", "uninterrupted", "recurrent"),
    "runs_layers": ("run", "uninterrupted", "--layers", "backward_gain"),
    "signal_sweep": ("signal_sweep",),
    "signal_sweep_layers": ("signal_sweep", "--layers"),
    "interrupted_sweep": ("interrupted_sweep",),
}
"""Name in `expected` -> what `vgexp compare` was asked."""

OF_THE_PROCESS = {
    "seconds",
    "processor_seconds_per_step",
    "probe_overhead",
    "versions",
    "host",
    "process",
}
"""What a summary says of the process, not of the training."""
RTOL, ATOL = 1e-9, 1e-14
"""Of what is computed again in float64 by nets whose numbers are of order 1: processors differ in
the last bits, and a mean that is nearly 0 has no others."""

Row = dict[str, str]


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of everything that was recorded, which is only read."""
    return Path(shutil.copytree(RECORDED, tmp_path_factory.mktemp("recorded") / "copied"))


@pytest.fixture(autouse=True)
def _in_the_copy(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are named as they were when they were recorded, in a terminal of 80 columns."""
    monkeypatch.chdir(copied)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of the recorded folders that a test may change."""
    for name in ("run", "sweep", "signal_sweep", "interrupted", "interrupted_sweep"):
        shutil.copytree(RECORDED / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows_of(path: Path) -> list[Row]:
    """The cells of a CSV file, as they are written."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def number_in(cell: str) -> float | None:
    """The number that a cell holds; None of any other."""
    try:
        return float(cell)
    except ValueError:
        return None


def require_close(found: str, expected: str, place: object, rtol: float, atol: float = 0.0) -> None:
    """Checks that two cells hold numbers that are close, or the same text."""
    number = number_in(expected)
    if number is None:
        assert found == expected, place
    else:
        close = pytest.approx(number, rel=rtol, abs=atol, nan_ok=True)
        assert number_in(found) == close, place


def require_close_rows(
    found: Sequence[Row], expected: Sequence[Row], rtol: float, atol: float = 0.0
) -> None:
    """Checks every cell that is expected, row by row; there may be further columns."""
    assert len(found) == len(expected)
    for number, (mine, other) in enumerate(zip(found, expected, strict=True)):
        assert mine.keys() >= other.keys()
        for name, cell in other.items():
            require_close(mine[name], cell, (number, name), rtol, atol)


def is_same(value: Any, cell: str) -> bool:
    """Whether a value of a loaded table is what the cell of the file says, in every bit."""
    if not cell or cell == "nan":
        return bool(pd.isna(value))
    return value == cell if isinstance(value, str) else float(value) == float(cell)


def summary_of(run: Path | str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run) / "summary.json").read_text())
    return found


def contents(place: Path) -> dict[str, bytes]:
    """Every file but those of Hydra, which it writes anew."""
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file() and ".hydra" not in path.parts and path.name != "multirun.yaml"
    }


def versions_now() -> dict[str, str]:
    return {
        "vgexp": vgexp.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def adopt(run: Path) -> checkpoints.Checkpoint:
    """Makes a checkpoint say that the versions at hand wrote it: those of others are refused."""
    path = run / checkpoints.NEWEST
    found = checkpoints.load(path)
    path.unlink()
    versions = {**found.versions, **versions_now()}
    checkpoints.save(run, dataclasses.replace(found, versions=versions))
    return found


# ---------------------------------------------------------------- load


@pytest.mark.parametrize("run", RUNS)
def test_every_table_of_a_recorded_run_is_loaded_as_it_is_written(run: str) -> None:
    tables = sorted(path.stem for path in (RECORDED / run).glob("*.csv"))
    assert "layers" in tables
    for table in tables:
        frame = vgexp.load(run).table(table)
        cells = rows_of(RECORDED / run / f"{table}.csv")
        assert len(frame) == len(cells) > 0
        for name in cells[0]:
            column = zip(frame[name], cells, strict=True)
            wrong = [(value, row[name]) for value, row in column if not is_same(value, row[name])]
            assert not wrong, (table, name)
        # A column that later versions have was not measured.
        assert frame.drop(columns=[*cells[0]]).isna().all(axis=None)


@pytest.mark.parametrize(
    ("run", "table"), [(run, table) for run, tables in LOADED.items() for table in tables]
)
def test_a_recorded_table_has_the_rows_types_and_values_that_it_had(run: str, table: str) -> None:
    expected = LOADED[run][table]
    frame = vgexp.load(run).table(table)
    assert len(frame) == expected["rows"]
    types = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert {name: types.get(name) for name in expected["columns"]} == expected["columns"]
    last = frame.iloc[-1]
    for name, value in expected["last_row"].items():
        assert (None if pd.isna(last[name]) else last[name]) == value, name


@pytest.mark.parametrize("run", [*ENDED, "interrupted_sweep/2"])
def test_every_number_of_a_recorded_summary_is_loaded_as_it_is_written(run: str) -> None:
    recorded = summary_of(run)
    loaded = vgexp.load(run).summary
    assert {name: loaded.get(name) for name in recorded} == recorded


@pytest.mark.parametrize("run", [*ENDED, "interrupted_sweep/2"])
def test_the_configuration_of_a_recorded_run_is_the_one_that_it_was(run: str) -> None:
    assert config.identity(vgexp.load(run).config) == summary_of(run)["config_hash"]


# ---------------------------------------------------------------- compare


@pytest.mark.parametrize("name", COMPARISONS)
def test_recorded_runs_compare_as_they_did(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *COMPARISONS[name], "--csv", str(tmp_path / "now.csv")]) == 0
    assert capsys.readouterr().out
    expected = rows_of(EXPECTED / f"compare_{name}.csv")
    # Means are of logarithms, in whose last bit processors differ.
    require_close_rows(rows_of(tmp_path / "now.csv"), expected, rtol=1e-13)


def test_every_recorded_comparison_is_tested() -> None:
    assert {f"compare_{name}" for name in COMPARISONS} == {
        path.stem for path in EXPECTED.glob("compare_*.csv")
    }


# ---------------------------------------------------------------- show


def key_numbers(page: str, names: Mapping[str, Any]) -> dict[str, str]:
    """What the page of a run says of the summary's metrics: each name and the word after it."""
    found = re.findall(r"\b([a-z]\w*) +(\S+)", page[page.index("\nVerdict: ") :])
    return {name: word for name, word in found if name in names}


@pytest.mark.parametrize("run", SHOWN)
def test_a_recorded_run_is_shown_with_the_numbers_it_had(
    run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", run]) == 0
    page = capsys.readouterr().out
    summary = summary_of(run)
    assert f"Verdict: {summary['verdict']}" in page
    then = (EXPECTED / f"show_{run.replace('/', '_')}.txt").read_text()
    expected = key_numbers(then, summary)
    assert {"attenuation", "loss_last", "status"} <= expected.keys()
    found = key_numbers(page, summary)
    assert {name: found.get(name) for name in expected} == expected
    assert float(found["attenuation"]) == pytest.approx(summary["attenuation"], rel=0.01)
    factor = summary["backward_factor_per_layer"]
    if factor is None:  # of one recurrent layer
        assert "backward_factor_per_layer" not in found
    else:
        assert float(found["backward_factor_per_layer"]) == pytest.approx(factor, rel=0.01)


def test_a_recorded_run_that_lost_power_is_shown_as_unfinished(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["show", "interrupted"]) == 0
    page = capsys.readouterr().out
    assert "unfinished" in page
    assert "vgexp resume interrupted" in page
    # What the whole run begins with.
    for name in ("attenuation", "backward_factor_per_layer"):
        assert f"{summary_of('uninterrupted')[name]:.2g}" in page


def test_a_recorded_measurement_of_a_signal_is_shown_with_the_numbers_it_had(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["show", "signal"]) == 0
    page = capsys.readouterr().out
    rows = rows_of(RECORDED / "signal" / "layers.csv")
    for layer in dict.fromkeys(row["layer"] for row in rows):
        of_seeds = [row for row in rows if row["layer"] == layer]
        centre = statistics.geometric_mean(float(row["delta_rms"]) for row in of_seeds)
        label = layer if of_seeds[0]["kind"] != "readout" else "readout"
        (line,) = (line for line in page.splitlines() if line.startswith(f"{label} "))
        assert f"{centre:.2g}" in line.split()
    summary = summary_of("signal")
    assert f"Signal: {summary['signal']}" in page
    for name in ("attenuation", "backward_factor_per_layer"):
        assert f"{summary[name]:.2g}" in page


# ---------------------------------------------------------------- resume


def require_kept(run: Path, before: Mapping[str, bytes], found: checkpoints.Checkpoint) -> None:
    """Checks that every row up to the checkpoint is there as it was, in every byte."""
    for table in ("layers", "steps", "evals"):
        num_bytes, _ = found.tables[table]
        kept = before[f"{table}.csv"][:num_bytes]
        assert len(kept) == num_bytes
        assert kept.count(b"\n") > 1, "a header alone"
        assert (run / f"{table}.csv").read_bytes().startswith(kept), table
    assert not list(run.glob("before_*")), "it began anew"


def require_ended_as(run: Path, whole: Path) -> None:
    """Checks that a run's tables and summary are those of a run that was never cut short."""
    for table in ("layers", "steps", "evals"):
        mine, other = (rows_of(place / f"{table}.csv") for place in (run, whole))
        require_close_rows(mine, other, RTOL, ATOL)
    mine, other = (summary_of(place) for place in (run, whole))
    assert versions_now().items() <= mine["versions"].items()
    if (mine["verdict"], other["verdict"]) == ("undecided", "stalled"):
        other |= {name: mine[name] for name in ("verdict", "cause")}
    for name in other.keys() - OF_THE_PROCESS:
        require_close(str(mine[name]), str(other[name]), name, RTOL, ATOL)


def test_a_recorded_run_that_lost_power_goes_on_from_its_checkpoint(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = own / "interrupted"
    before = contents(run)
    found = adopt(run)
    assert found.step == 8
    assert main(["resume", "interrupted"]) == 0
    shown = capsys.readouterr()
    assert "step 8" in shown.err
    # 30 steps with a steady signal: too few by the rule of today, by which the rest is judged.
    assert "Verdict: undecided" in shown.out
    require_kept(run, before, found)
    require_ended_as(run, RECORDED / "uninterrupted")


def test_a_recorded_sweep_that_was_interrupted_goes_on_and_has_every_row(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, whole = own / "interrupted_sweep", RECORDED / "sweep"
    before = {job: contents(sweep / job) for job in "012"}
    statuses = [row["status"] for row in rows_of(sweep / "sweep.csv")]
    assert statuses == ["completed", "completed", "interrupted"]
    found = adopt(sweep / "2")
    assert found.step == 16
    assert main(["resume", "interrupted_sweep"]) == 0
    assert "healthy" in capsys.readouterr().out
    assert [contents(sweep / job) for job in "01"] == [before[job] for job in "01"]
    require_kept(sweep / "2", before["2"], found)
    for job in "23":
        require_ended_as(sweep / job, whole / job)
    expected = [
        {name: cell for name, cell in row.items() if name not in OF_THE_PROCESS}
        for row in rows_of(whole / "sweep.csv")
    ]
    assert [row["status"] for row in expected] == ["completed"] * 4
    require_close_rows(rows_of(sweep / "sweep.csv"), expected, RTOL, ATOL)


@pytest.mark.parametrize("ended", ["run", "sweep", "signal_sweep"])
def test_what_had_ended_is_left_as_it_is(ended: str, own: Path) -> None:
    before = contents(own / ended)
    assert main(["resume", ended]) == 0
    assert contents(own / ended) == before
