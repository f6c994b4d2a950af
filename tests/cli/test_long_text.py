"""Text and numbers without end, as a file may hold them: cut where they are shown.

Holds: cli/progress.py, cli/screen.py, errors.py, report/terminal/words.py
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from vgexp import tables
from vgexp.cli.main import main
from vgexp.cli.progress import format_line
from vgexp.cli.screen import Screen
from vgexp.errors import QuestionError, unknown
from vgexp.past import PastRun
from vgexp.quantities import LAYERS, TABLES
from vgexp.report.comparing.layer_values import layer_values
from vgexp.report.comparing.runs import ComparedRun
from vgexp.report.terminal import layout
from vgexp.report.terminal.layout import MOST_OF_CELL, Column, cut_to_width, shorten, show_table
from vgexp.report.terminal.words import show_ending, show_numbers
from vgexp.sweep import JobRow


def shown(key: Column, columns: list[Column], width: int = 60) -> str:
    file = io.StringIO()
    show_table(Console(file=file, width=width, color_system=None), key, columns)
    return file.getvalue()


@pytest.mark.parametrize("text", ["x" * 10**6, "ab cd " * 10**5, "\x1b" * 10**5, "本" * 10**5])
def test_a_cell_without_end_is_cut(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []

    def counted(piece: str) -> int:
        measured.append(len(piece))
        return cell_len(piece)

    monkeypatch.setattr(layout, "cell_len", counted)
    table = shown(
        Column(text, ["a", text]), [Column("verdict", [text, "b"]), Column(text, ["", ""])]
    )
    assert len(table) < 6_000
    assert "..." in table
    # What is measured is bounded too: no more than each of the few short texts a few times.
    assert sum(measured) < 100_000


def test_a_cell_that_a_person_reads_is_whole() -> None:
    text = "y" * MOST_OF_CELL
    table = shown(Column("run", ["a"]), [Column("verdict", [text])])
    assert table.count("y") == MOST_OF_CELL
    assert shorten(text) == text
    assert shorten(text + "y") == "y" * (MOST_OF_CELL - 3) + "..."


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [("abc", 2, "ab"), ("abc", 3, "abc"), ("本a本", 3, "本a"), ("本", 1, ""), ("", 5, "")],
)
def test_the_beginning_is_as_wide_as_there_is_room(text: str, width: int, expected: str) -> None:
    assert cut_to_width(text, width) == expected


def test_the_line_of_a_job_is_cut_in_its_middle() -> None:
    row = JobRow(3, "completed", metrics={"verdict": "healthy"})
    typed = [f"probe.layers={'a' * 10**5}{'z' * 10**5}"]
    text = format_line(row, typed, {"probe.layers"}, 60)
    assert cell_len(text) <= 60
    assert text.startswith("#3  layers=aaa")
    assert text.endswith("zzz  healthy")


@pytest.mark.parametrize("digits", [310, 4_000, 9_000])
def test_a_whole_number_of_thousands_of_digits_is_infinite(tmp_path: Path, digits: int) -> None:
    (tmp_path / "summary.json").write_text(
        f'{{"steps": -{"9" * digits}, "loss_last": {"9" * digits}, "seed": {"9" * 19}}}'
    )
    summary = tables.read_summary(tmp_path)
    assert summary["seed"] == 10**19 - 1
    assert summary["steps"] == -float("inf")
    assert summary["loss_last"] == float("inf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a run that failed, with text without end."""
    run = tmp_path / "run"
    run.mkdir()
    long = "q" * 10**6
    summary = {"status": "failed", "reason": long, "verdict": long, "dtype": long, "cause": long}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


@pytest.mark.parametrize("options", [(), ("--seeds",), ("--metric", "dtype")])
def test_compare_shows_a_page_of_it(
    folder: Path, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(folder), *options]) == 0
    assert len(capsys.readouterr().out) < 5_000


def test_show_tells_a_page_of_it(folder: Path) -> None:
    file = io.StringIO()
    console, run = Console(file=file, width=80), PastRun(folder, is_strict=False)
    summary = run.summary
    show_ending(console, run, summary, None)
    show_numbers(console, summary)
    assert len(file.getvalue()) < 5_000
    assert file.getvalue().count("...") >= 3


def test_an_unknown_name_without_end_is_told_in_a_line() -> None:
    error = unknown("key", "depth" * 10**5, ["depth", "width"])
    assert isinstance(error, QuestionError)
    assert len(str(error)) < 400


# ---------------------------------------------------------------- tables


def test_a_comparison_reads_the_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once more only where a value is missing, which may be a nan or an empty cell."""
    header = [column.name for column in TABLES["layers"]]
    rows = [
        {"step": step, "layer": layer, "name": f"l{layer}", "kind": "linear", "delta_rms": 0.5}
        for step in (0, 1)
        for layer in (1, 2)
    ]
    path = tmp_path / "layers.csv"
    frame = pd.DataFrame(rows).reindex(columns=header)
    frame.assign(grad_norm=["nan", "", 2.5, 3.5]).to_csv(path, index=False, lineterminator="\n")
    calls: list[Any] = []

    def noted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def reads(*given: Any) -> Any:
            calls.append((name, *sorted({*given[2]} - {"step", "layer", "kind"})))
            return call(*given)

        return reads

    for name in ("read", "empty_cells"):
        monkeypatch.setattr(tables, name, noted(name, getattr(tables, name)))
    run = PastRun(tmp_path)
    assert all(run.is_numeric("layers", c.name) for c in LAYERS if c.kind == "float")
    assert run.is_numeric("layers", "predicted_delta_rms")
    assert not run.is_numeric("layers", "name")
    assert not run.is_numeric("layers", "no_such")
    assert calls == []
    compared = ComparedRun(run, "run", {}, {})
    assert layer_values(compared, "delta_rms", "last") == {"1": 0.5, "2": 0.5}
    assert calls == [("read", "delta_rms")]
    first = layer_values(compared, "grad_norm", "first")
    assert str(first["1"]) == "nan"
    assert first["2"] is None
    assert calls[1:] == [("read", "grad_norm"), ("empty_cells", "grad_norm")]
    # Where no cell of the file says nan, those without a value are empty.
    frame.to_csv(path, index=False, lineterminator="\n")
    compared = ComparedRun(PastRun(tmp_path), "run", {}, {})
    assert layer_values(compared, "act_std", "0") == {"1": None, "2": None}
    assert calls[3:] == [("read", "act_std")]


@pytest.mark.parametrize(("columns", "width"), [("100000", 500), ("120", 120), ("20", 20)])
def test_no_screen_is_wider_than_any_is(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert Screen().width == width
