"""What a run prints when it ends: at the width of a small terminal, and with odd names.

Holds: report/terminal/closing.py, report/terminal/layout.py
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from vgexp.diagnosis import summarise
from vgexp.quantities import TABLES
from vgexp.report.terminal.axes import ticks
from vgexp.report.terminal.closing import show_closing
from vgexp.report.terminal.layout import Column, show_table

FILES = ["layers.csv", "steps.csv", "evals.csv", "timing.csv", "summary.json", "train.log"]
NO_EVALS = pd.DataFrame({column.name: [] for column in TABLES["evals"]})


def layers_of(deltas: Any, step: int = 0, **columns: Any) -> pd.DataFrame:
    num = len(deltas)
    frame = pd.DataFrame({column.name: np.nan for column in TABLES["layers"]}, range(num + 1))
    frame["step"], frame["layer"] = step, range(1, num + 2)
    frame["name"] = [f"layers.{i}" for i in range(num)] + ["readout"]
    frame["kind"] = ["linear"] * num + ["readout"]
    frame["delta_rms"], frame["grad_norm"] = [*deltas, 0.3], [*(2 * d for d in deltas), 0.7]
    frame["backward_gain"] = [0.16] * num + [np.nan]
    return frame.assign(**columns)


def printed(layers: pd.DataFrame, folder: Path = Path("run"), **changes: Any) -> str:
    steps = pd.DataFrame({"step": range(30), "loss": 2.302, "accuracy": 0.1, "clipped": 0})
    arguments: dict[str, Any] = {"status": "completed", "divergence": None, "dtype": "float32"}
    summary = summarise(
        layers,
        steps,
        NO_EVALS,
        constant_loss=math.log(10),
        num_examples=64,
        **(arguments | changes),
    )
    console = Console(file=io.StringIO(), width=80)
    show_closing(console, folder, summary, layers, [folder / name for name in FILES])
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def labels_in(text: str) -> list[str]:
    """The first words of the table's rows."""
    lines = text.split("\n\n")[0].splitlines()
    start = next(i for i, line in enumerate(lines) if set(line) == {"-", " "})
    return [line.split()[0] for line in lines[start + 1 :]]


@pytest.mark.parametrize("depth", [1, 2, 10, 11, 12, 20, 1000])
def test_at_most_twelve_layers_are_shown_with_both_ends_and_the_readout(depth: int) -> None:
    labels = labels_in(printed(layers_of(np.full(depth, 0.5))))
    assert len(labels) == min(depth + 1, 12)
    assert labels[0] == "1"
    assert labels[-2:] == [str(depth), "readout"]
    shown = np.array([int(label) for label in labels[:-1]])
    gaps = np.diff(shown)
    assert not gaps.size or gaps.max() - gaps.min() <= 1
    assert np.abs(shown - np.linspace(1, depth, len(shown))).max() < 0.51, "the nearest there are"


@pytest.mark.parametrize("last_step", [1, 480, 100_000])
def test_every_cell_is_whole_in_eighty_columns(last_step: int) -> None:
    deltas = 1.234e-5 ** np.arange(20, 0, -1)
    first = layers_of(deltas, saturated_fraction=0.123, dead_fraction=0.0625)
    text = printed(pd.concat([first, first.assign(step=last_step)]), dtype="float64")
    assert all(cell_len(line) <= 80 for line in text.splitlines())
    assert "…" not in text
    for value in ("6.7e-99", "1.3e-98", "0.16", "0.12", "0.062", f" {last_step} "):
        assert value in text


def test_columns_that_were_never_measured_are_left_out() -> None:
    text = printed(layers_of([0.1, 0.2], backward_gain=np.nan))
    assert "grad_norm" in text
    assert "backward_gain" not in text
    assert "saturated_fraction" not in text
    assert "dead" not in printed(layers_of([0.1, 0.2], dead_fraction=0.0))
    assert "dead_fraction" in printed(layers_of([0.1, 0.2], dead_fraction=[0.0, 0.5, np.nan]))


def test_a_block_is_shown_by_its_stream_and_what_that_lacks_by_its_weights() -> None:
    layers = layers_of([0.1, 0.2], dead_fraction=[0.25, 0.125, np.nan])
    streams = layers.iloc[:2].assign(kind="stream", grad_norm=np.nan, delta_rms=[0.5, 0.625])
    streams["dead_fraction"] = np.nan
    beside = layers.iloc[:2].assign(name="beside", grad_norm=[0.15, 0.3], dead_fraction=0.1875)
    text = printed(pd.concat([streams, layers, beside], ignore_index=True))
    first, second = (
        line.split() for line in text.splitlines() if line[:5].split() in (["1"], ["2"])
    )
    # The norm over 0.2 and 0.15, and over 0.4 and 0.3; the larger share of dead units.
    assert first == ["1", "0.5", "0.25", "0.16", "0.25"]
    assert second == ["2", "0.62", "0.5", "0.16", "0.19"]


def test_weights_that_no_forward_pass_used_have_no_row() -> None:
    layers = layers_of([0.1, 0.2])
    unused = layers.iloc[:1].assign(layer=np.nan, name="unused")
    assert labels_in(printed(pd.concat([layers, unused]))) == ["1", "2", "readout"]
    assert printed(unused).startswith("The gradient at step 0")


def test_one_measured_step_is_shown_once() -> None:
    text = printed(layers_of([0.1, 0.2]))
    assert text.splitlines()[1].split() == ["step"] * 3
    assert text.splitlines()[2].split() == ["layer", "0", "0", "0"]


def test_the_sentence_the_verdict_and_the_files_follow_the_table() -> None:
    text = printed(layers_of([1e-9, 1.0]))
    assert "The gradient vanishes at step 0" in text
    assert "Verdict: vanishing" in text
    assert "Written to run\n" in text
    assert f"  {', '.join(FILES)}\n" in text


def test_numbers_lost_at_the_divergence_are_shown_as_nan() -> None:
    first = layers_of([0.1, 0.2])
    text = printed(
        pd.concat([first, layers_of([np.nan, 0.2], step=9)]),
        status="diverged",
        divergence="z of layers.0 became inf",
    )
    row = next(line for line in text.splitlines() if line.startswith("1 "))
    assert row.split()[1:3] == ["0.1", "nan"]
    assert "nan" not in next(line for line in text.splitlines() if line.startswith("readout"))


def test_names_are_text_and_neither_markup_nor_control_sequences() -> None:
    text = printed(layers_of([0.1, 0.2]), Path("[red]run[/] :smile: \x1b[31m"))
    assert r"Written to [red]run[/] :smile: \x1b[31m" in text


def test_a_long_path_stays_in_one_piece() -> None:
    folder = Path("/a/very/long" * 12)
    assert f"Written to {folder}\n" in printed(layers_of([0.1, 0.2]), folder)


def test_a_pipe_gets_no_control_sequence_and_a_terminal_the_same_text() -> None:
    assert "\x1b" not in printed(layers_of([0.1, 0.2]))


def test_a_run_without_a_single_row_still_gets_its_sentence() -> None:
    text = printed(layers_of([0.1]).head(0), status="interrupted")
    assert "interrupted" in text


def test_a_table_too_wide_is_split_and_each_part_led_by_the_key() -> None:
    console = Console(file=io.StringIO(), width=40)
    columns = [Column(f"column_{i}", [f"{i}.00000001", "x" * 9]) for i in range(7)]
    show_table(console, Column("run", ["a", "b"]), columns)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    parts = text.split("\n\n")
    assert len(parts) == 3
    assert all("run" in part and len(part.splitlines()) == 4 for part in parts)
    assert all(f"{i}.00000001" in text and f"column_{i}" in text for i in range(7))


def test_a_cell_wider_than_the_console_is_folded_and_loses_nothing() -> None:
    console = Console(file=io.StringIO(), width=40)
    cell, wide = "abcdefghij" * 9, "漢字" * 30
    show_table(console, Column("run", ["a" * 50]), [Column("x", [cell]), Column("y", [wide])])
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(cell_len(line) <= 40 for line in text.splitlines())
    letters = "".join(c for c in text if c in "bcdefghij漢字")
    assert letters == cell.replace("a", "") + wide
    assert text.count("a") == 2 * 50 + 9


def test_names_that_the_encoding_lacks_are_escaped() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, width=80)
    show_table(console, Column("run", ["é"]), [])
    file.flush()
    assert rb"\xe9" in file.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("starts", "line"),
    [
        ([0, 4], "10  20"),
        ([0, 3], "10"),
        ([0, 8, 12], "10      20  30"),
        ([0, 7, 12], "10          30"),
        ([0, 8, 11], "10         30"),
        ([0, 8, 99], "10      20        30"),
    ],
)
def test_two_labels_of_an_axis_are_at_least_two_cells_apart(starts: list[int], line: str) -> None:
    labels = ["10", "20", "30"][: len(starts)]
    assert ticks(labels, starts, 20) == line
