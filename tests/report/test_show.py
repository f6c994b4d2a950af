"""`vgexp show`: what is drawn for known numbers, at every width, of runs whole and broken.

Holds: cli/show.py, report/terminal/axes.py, report/terminal/bands.py, report/terminal/curve.py,
report/terminal/heat_map.py, report/terminal/inks.py, report/terminal/learning.py,
report/terminal/metric.py, report/terminal/page.py, report/terminal/scale.py,
report/terminal/signals.py, report/terminal/words.py
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len
from rich.color import ColorSystem
from rich.console import Console

from vgexp import folders
from vgexp.cli import main
from vgexp.config import Config
from vgexp.diagnosis import summarise
from vgexp.errors import QuestionError
from vgexp.past import PastRun
from vgexp.quantities import TABLES
from vgexp.report.grid import Grid, grid_of, underflows
from vgexp.report.terminal.axes import LABEL_WIDTH, labels_of, ticks
from vgexp.report.terminal.bands import make_bands
from vgexp.report.terminal.curve import Plot, Points, show_plot
from vgexp.report.terminal.heat_map import show_heat_map
from vgexp.report.terminal.inks import BARS, inks_for
from vgexp.report.terminal.learning import of_accuracy, of_loss
from vgexp.report.terminal.metric import make_grid
from vgexp.report.terminal.page import show
from vgexp.report.terminal.scale import Scale, linear_scale, log_scale, scale_for
from vgexp.report.terminal.signals import against_depth, against_time

LEFT = LABEL_WIDTH + 1
"""Cells left of what is drawn."""
SYSTEMS = {"256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}


def console_of(width: int = 80, encoding: str = "utf-8", **options: Any) -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    return Console(file=file, width=width, highlight=False, **options)


def lines_of(console: Console) -> list[str]:
    console.file.flush()
    raw = console.file.buffer.getvalue()  # type: ignore[attr-defined]
    return raw.decode(console.encoding).splitlines()  # type: ignore[no-any-return]


def frame_of(values: Mapping[int, Sequence[float | None]], metric: str = "grad_norm") -> Any:
    """Step -> values of layers 1 to L and the read-out; None: an empty cell."""
    rows = []
    for step, norms in values.items():
        for layer, norm in enumerate(norms, start=1):
            kind = "readout" if layer == len(norms) else "linear"
            row = {"step": step, "layer": layer, "name": f"l{layer}", "kind": kind}
            cell = math.nan if norm is None else norm
            rows.append(row | {metric: cell, "has_value": norm is not None})
    return pd.DataFrame(rows)


def drawn(grid: Grid, metric: str = "grad_norm", width: int = 80, **options: Any) -> list[str]:
    console = console_of(width, **options)
    show_heat_map(console, grid, metric)
    return lines_of(console)


def rows_in(lines: Sequence[str]) -> dict[str, str]:
    """Label -> cells, of the lines above the axis."""
    end = next(i for i, line in enumerate(lines) if line[:LEFT].strip() == "step")
    return {line[:LABEL_WIDTH].strip(): line[LEFT:] for line in lines[:end]}


# ---------------------------------------------------------------- scales


@pytest.mark.parametrize(
    "scale",
    [
        Scale(1e-12, 1.0, is_log=True),
        Scale(5e-324, 1.7e308, is_log=True),
        Scale(-1.7e308, 1.7e308, is_log=False),
        Scale(-3.0, 5.0, is_log=False),
    ],
)
def test_a_place_on_a_scale_and_the_value_there_are_inverse(scale: Scale) -> None:
    assert scale.share(scale.low) == 0
    assert scale.share(scale.high) == 1
    for share in (0.125, 0.5, 0.75):
        assert scale.share(scale.at(share)) == pytest.approx(share, abs=2e-3)
    assert [scale.level(scale.at(share), 8) for share in (0.0, 0.26, 0.51, 0.99, 1.0)] == [
        *(0, 2, 4, 7, 7)
    ]


def test_a_log_scale_is_at_least_three_decades_wide_and_leaves_out_what_has_no_logarithm() -> None:
    values = np.array([0.5, 2.0, 0.0, math.nan, math.inf, -1.0])
    assert log_scale(values) == Scale(0.002, 2.0, is_log=True)
    assert log_scale(np.array([1e-9, 1.0])) == Scale(1e-9, 1.0, is_log=True)
    assert log_scale(np.array([0.0, math.nan])) is None
    tiny = log_scale(np.array([5e-324]))
    assert tiny is not None
    assert tiny.share(5e-324) == 1


def test_the_scale_suits_the_column() -> None:
    values = np.array([0.25, 0.5])
    assert scale_for("dead_fraction", values) == Scale(0.0, 1.0, is_log=False)
    assert scale_for("preact_mean", np.array([-0.25, 0.5])) == Scale(-0.25, 0.5, is_log=False)
    assert scale_for("act_std", values) == Scale(0.0005, 0.5, is_log=True)
    assert scale_for("dead_fraction", np.array([math.nan])) is None
    assert linear_scale(np.array([])) is None


# ---------------------------------------------------------------- the grid


def test_the_grid_has_layer_one_first_and_the_readout_last() -> None:
    frame = frame_of({20: [3.0, 4.0, 5.0], 0: [0.5, 1.0, 2.0]}).iloc[::-1]
    grid = grid_of(frame, "grad_norm")
    assert grid.labels == ["1", "2", "readout"]
    assert grid.steps == [0, 20]
    assert grid.values_LS.tolist() == [[0.5, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_weights_side_by_side_count_by_the_first_and_weights_without_a_layer_not() -> None:
    frame = frame_of({0: [0.5, 1.0, 2.0]})
    frame["layer"] = frame["layer"].astype("Int64")
    gate = frame.iloc[:1].assign(name="gate", grad_norm=7.0)
    unused = frame.iloc[:1].assign(name="unused", grad_norm=9.0)
    unused["layer"] = pd.array([pd.NA], "Int64")
    grid = grid_of(pd.concat([frame, gate, unused]), "grad_norm")
    assert grid.values_LS.tolist() == [[0.5], [1.0], [2.0]]
    assert not grid.has_blocks


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_a_block_has_the_norm_of_all_its_weights_at_any_scale(scale: float) -> None:
    rows = [
        (0, 1, "stream", None),
        (0, 1, "attention", 3 * scale),
        (0, 1, "linear", 4 * scale),
        (0, 2, "stream", None),
        (0, 2, "attention", 0.0),
        (0, 2, "linear", 0.0),
        (0, 3, "stream", None),
        (0, 3, "attention", math.nan),
        (0, 3, "linear", scale),
        (0, 4, "stream", None),
        (0, 4, "linear", None),
    ]
    frame = pd.DataFrame(rows, columns=["step", "layer", "kind", "grad_norm"])
    frame["has_value"] = frame["grad_norm"].notna() | (frame.index == 7)
    frame["grad_norm"] = frame["grad_norm"].astype("float64")
    grid = grid_of(frame, "grad_norm")
    assert grid.has_blocks
    values = grid.values_LS[:, 0]
    assert values[:2].tolist() == pytest.approx([5 * scale, 0.0], rel=1e-15, abs=0)
    assert math.isinf(values[2])
    assert grid.measured_LS[:, 0].tolist() == [True, True, True, False]
    largest = grid_of(frame.rename(columns={"grad_norm": "grad_max"}), "grad_max").values_LS[0, 0]
    assert largest == 4 * scale


def test_steps_at_which_nothing_was_measured_have_no_column() -> None:
    frame = frame_of({0: [1.0, 2.0], 10: [None, None], 20: [None, 3.0]})
    grid = grid_of(frame, "grad_norm")
    assert grid.steps == [0, 20]
    assert grid.measured_LS.tolist() == [[True, False], [True, True]]
    assert grid_of(frame_of({0: [None, None]}), "grad_norm").labels == []


@pytest.mark.parametrize(("num_layers", "num_steps"), [(1000, 150), (47, 71), (24, 72), (3, 9)])
def test_a_band_is_the_lower_median_of_its_cells(num_layers: int, num_steps: int) -> None:
    generator = np.random.default_rng(0)
    norms = generator.lognormal(0, 3, (num_layers + 1, num_steps)).tolist()
    norms[0][0], norms[num_layers // 2][num_steps // 2], norms[-1][-1] = 0.0, math.nan, None
    steps = {3 * step: [row[step] for row in norms] for step in range(num_steps)}
    bands = make_bands(grid_of(frame_of(steps), "grad_norm"), 24, 71)
    size = next(n for n in range(1, 1001) if math.ceil(num_layers / n) <= 23)
    width = next(n for n in range(1, 1001) if math.ceil(num_steps / n) <= 71)
    assert (bands.layers_a_row, bands.steps_a_column) == (size, width)
    parts = [range(i, min(i + size, num_layers)) for i in range(0, num_layers, size)]
    parts.append(range(num_layers, num_layers + 1))
    assert len(bands.values) == len(parts) <= 24
    assert bands.labels[-1] == "readout"
    assert bands.labels[0] == ("1" if size == 1 else f"1-{size}")
    for row, layers in zip(bands.values, parts, strict=True):
        for start, value in zip(range(0, num_steps, width), row, strict=True):
            cells = [
                norms[i][s] for i in layers for s in range(start, start + width) if s < num_steps
            ]
            kept = sorted(cell for cell in cells if cell is not None)
            if any(math.isnan(cell) for cell in kept):
                assert value is not None
                assert math.isnan(value)
            else:
                assert value == (kept[(len(kept) - 1) // 2] if kept else None)


# ---------------------------------------------------------------- the heat map


def test_a_cell_is_as_high_as_its_value_is_far_up_the_log_scale() -> None:
    norms = {0: [1e-12, 2e-9, 3e-5, 0.5], 20: [1e-7, 1e-6, 0.25, 1.0], 39: [2e-3, 0.03, 0.1, 0.9]}
    rows = rows_in(drawn(grid_of(frame_of(norms), "grad_norm")))
    for index, label in enumerate(("1", "2", "3", "readout")):
        values = [norms[step][index] for step in norms]
        levels = [min(7, math.floor((math.log10(value) + 12) / 12 * 8)) for value in values]
        assert rows[label] == "".join(BARS[level] * 8 for level in levels)


def test_the_legend_gives_the_ends_of_the_scale_and_the_axis_the_steps() -> None:
    lines = drawn(grid_of(frame_of({0: [2.5e-11, 1.0], 480: [0.5, 0.25]}), "grad_norm"))
    assert lines[2].split() == ["step", "0", "480"]
    assert lines[3] == "grad_norm, log scale: 2.5e-11 ▁▁▂▂▃▃▄▄▅▅▆▆▇▇██ 1"
    shares = drawn(
        grid_of(frame_of({0: [0.5, 0.25]}, "dead_fraction"), "dead_fraction"), "dead_fraction"
    )
    assert rows_in(shares) == {"1": "▅" * 8, "readout": "▃" * 8}
    assert shares[-1] == "dead_fraction, linear: 0 ▁▁▂▂▃▃▄▄▅▅▆▆▇▇██ 1"


def test_zero_underflow_nan_inf_and_not_measured_are_each_seen_and_told() -> None:
    norms = {0: [0.0, 1e-39, math.nan, math.inf, None, 1.0]}
    grid = grid_of(frame_of(norms), "grad_norm", "float32")
    lines = drawn(grid)
    assert [cells[0] for cells in rows_in(lines).values()] == ["0", "u", "!", "!", "·", "█"]
    told = " ".join(lines)
    for words in ("0 exactly 0", "u underflow", "! nan or inf", "· not measured", "0.001 ▁"):
        assert words in told
    only = drawn(grid_of(frame_of({0: [0.5, 1.0]}), "grad_norm"))
    assert not any(word in " ".join(only) for word in ("exactly", "underflow", "nan", "measured"))


def test_a_zero_on_a_linear_scale_is_a_value_like_others() -> None:
    lines = drawn(grid_of(frame_of({0: [-1.0, 0.0, 1.0]}, "act_mean"), "act_mean"), "act_mean")
    assert list(rows_in(lines).values()) == ["▁" * 8, "▅" * 8, "█" * 8]


def test_the_dtype_of_each_step_decides_what_underflow_is() -> None:
    frame = frame_of({0: [1e-5, 1.0], 20: [1e-5, 1.0], 30: [1e-5, 1.0]})
    scales = pd.Series({0: math.nan, 20: 1.0, 25: 65536.0})
    grid = grid_of(frame, "grad_norm", "float16", scales)
    assert grid.is_tiny_LS[0].tolist() == [True, True, False], "step 30 as the step before"


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("num_steps", [1, 2, 26, 71, 300])
@pytest.mark.parametrize("num_layers", [1, 23, 1000, 25_000])
def test_no_line_of_the_map_is_wider_than_the_terminal(
    width: int, num_steps: int, num_layers: int
) -> None:
    grid = Grid(
        [*map(str, range(1, num_layers + 1)), "readout"],
        [1000 * step for step in range(num_steps)],
        np.full((num_layers + 1, num_steps), 0.5),
        np.ones((num_layers + 1, num_steps), bool),
        np.zeros((num_layers + 1, num_steps), bool),
    )
    lines = drawn(grid, width=width)
    assert all(cell_len(line) <= width for line in lines)
    rows = rows_in(lines)
    assert len(rows) <= 24
    assert len({len(cells) for cells in rows.values()}) == 1
    assert len(rows["readout"]) > min(8 * num_steps, width - LEFT) // 2, "the width is used"
    assert any("bands of" in line for line in lines) == (
        num_layers > 23 or num_steps > width - LEFT
    )
    if num_layers == 1000:
        assert "bands of 44 layers" in " ".join(lines)


def test_an_encoding_without_bars_gets_ascii() -> None:
    norms = {0: [0.0, None, 1e-12, 1e-6, 1.0]}
    lines = drawn(grid_of(frame_of(norms), "grad_norm"), encoding="latin-1")
    assert [cells[0] for cells in rows_in(lines).values()] == ["0", ".", ":", "*", "@"]
    assert "\n".join(lines).isascii()


def test_a_terminal_with_colours_gets_viridis_and_one_without_none() -> None:
    grid = grid_of(frame_of({0: [1e-12, 1.0]}), "grad_norm")
    coloured = drawn(grid, force_terminal=True, color_system="truecolor", no_color=False)
    assert coloured[0].count("\x1b[48;2;68;1;84m        ") == 1
    assert coloured[1].count("\x1b[48;2;253;231;37m        ") == 1
    for options in ({"no_color": True, "color_system": "truecolor"}, {"color_system": "standard"}):
        plain = "\n".join(drawn(grid, force_terminal=True, **options))  # type: ignore[arg-type]
        assert "▁▁▁" in plain
        assert "\x1b[48" not in plain


def test_every_level_and_mark_is_one_cell_and_unlike_the_others() -> None:
    terminal = {"force_terminal": True, "no_color": False}
    for options in (
        {"encoding": "latin-1"},
        {},
        *(terminal | {"color_system": c} for c in SYSTEMS),
    ):
        console = console_of(**options)  # type: ignore[arg-type]
        inks = inks_for(console)
        every = [*inks.levels, inks.zero, inks.underflow, inks.not_finite, inks.not_measured]
        looks = {(mark, console.get_style(style).bgcolor) for mark, style in every}
        assert len(looks) == len(every)
        assert all(cell_len(mark) == 1 for mark, _ in every)


@pytest.mark.parametrize("system", SYSTEMS)
def test_colours_go_from_dark_to_light_as_the_terminal_shows_them(system: str) -> None:
    console = console_of(force_terminal=True, no_color=False, color_system=system)
    lightness = []
    for _, style in inks_for(console).levels:
        colour = console.get_style(style).bgcolor
        assert colour is not None
        red, green, blue = colour.downgrade(SYSTEMS[system]).get_truecolor()
        linear = [(part / 255) ** 2.2 for part in (red, green, blue)]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        lightness.append(116 * luminance ** (1 / 3) - 16)
    assert np.diff(lightness).min() > 3


# ---------------------------------------------------------------- curves


def canvas(plot: Plot, width: int = 80, **options: Any) -> tuple[list[str], list[str]]:
    """What is drawn, row by row, and the lines below it."""
    console = console_of(width, **options)
    show_plot(console, plot)
    lines = lines_of(console)
    assert all(cell_len(line) <= width for line in lines)
    cells = [line[LEFT:].ljust(width - LEFT) for line in lines[1 : 1 + plot.height]]
    return cells, lines[1 + plot.height :]


def points_at(cells: Sequence[str], mark: str) -> list[tuple[int, int]]:
    """(column, row from the top)."""
    return sorted(
        (x, y) for y, row in enumerate(cells) for x, cell in enumerate(row) if cell == mark
    )


def test_a_point_stands_where_its_two_values_are() -> None:
    y = [1e-6, 1e-5, 3e-3, 0.1, 1.0]
    x = [1.0, 2.0, 5.0, 8.0, 11.0]
    points = Points("step 0", np.array(x), np.array(y), ("o", ""))
    cells, below = canvas(Plot("t", "layer", [points], Scale(1e-6, 1.0, is_log=True), 1, 11))
    expected = [
        (round((a - 1) / 10 * (80 - LEFT - 1)), round((-math.log10(b)) / 6 * 8))
        for a, b in zip(x, y, strict=True)
    ]
    assert points_at(cells, "o") == sorted(expected)
    assert below[0].split() == ["layer", "1", "3", "5", "7", "9", "11"]
    assert below[1] == "o step 0"


def test_zero_lies_at_the_bottom_and_what_is_not_finite_at_the_top() -> None:
    points = Points("a", np.arange(5.0), np.array([0.0, math.nan, math.inf, 1.0, 0.0]), ("o", ""))
    cells, below = canvas(Plot("t", "x", [points], Scale(0.001, 1.0, is_log=True), 0, 4))
    places = [round(x / 4 * (80 - LEFT - 1)) for x in range(5)]
    assert points_at(cells, "0") == [(places[0], 8), (places[4], 8)]
    assert points_at(cells, "!") == [(places[1], 0), (places[2], 0)]
    assert "0 exactly 0   ! nan or inf" in below[1]


def test_of_points_in_one_cell_the_later_is_seen_and_that_is_told() -> None:
    x, y = np.array([0.0, 1.0]), np.array([1.0, 2.0])
    marks = [Points(name, x, y + shift, (name, "")) for name, shift in (("o", 0.0), ("x", 0.0))]
    cells, below = canvas(Plot("t", "x", marks, Scale(1.0, 2.0, is_log=False), 0, 1))
    assert not points_at(cells, "o")
    assert len(points_at(cells, "x")) == 2
    assert "(later over earlier)" in below[1]
    apart = [marks[0], Points("x", x, y[::-1].copy(), ("x", ""))]
    _, below = canvas(Plot("t", "x", apart, Scale(1.0, 2.0, is_log=False), 0, 1))
    assert "later" not in below[1]


def test_the_signal_is_drawn_at_the_first_middle_and_last_measured_step() -> None:
    uneven = against_depth(frame_of({n: [1.0, 1.0, 1.0] for n in (40, 0, 20, 38, 39)}, "delta_rms"))
    assert uneven is not None
    middle = [points.name for points in uneven.points][1]
    assert middle == "step 20", "as in figures: the nearest to half-way, not the middle measured"
    frame = frame_of(
        {0: [1e-4, 1.0, 9.0], 10: [1e-3, 1.0, 9.0], 20: [1e-2, 1.0, 9.0], 30: [None, None, None]},
        "delta_rms",
    )
    plot = against_depth(frame)
    assert plot is not None
    assert [points.name for points in plot.points] == ["step 0", "step 10", "step 20"]
    assert [points.y.tolist() for points in plot.points] == [[1e-4, 1.0], [1e-3, 1.0], [1e-2, 1.0]]
    assert (plot.first, plot.last) == (1, 2), "the read-out is no hidden layer"
    assert against_depth(frame_of({0: [None, 1.0]}, "delta_rms")) is None


def test_against_time_is_h_of_the_last_layer() -> None:
    rows = [
        (step, layer, f"layers.{layer - 1}.{state}", t, 10.0 ** (t - 5 - layer - (state == "c")))
        for step in (0, 9)
        for layer in (1, 2)
        for state in ("h", "c")
        for t in (0, 2, 5)
    ]
    plot = against_time(pd.DataFrame(rows, columns=["step", "layer", "name", "t", "delta_rms"]))
    assert plot is not None
    assert "layers.1.h" in plot.title
    assert plot.points[0].y.tolist() == [1e-7, 1e-5, 1e-2]
    assert plot.points[0].x.tolist() == [0, 2, 5]
    assert (
        against_time(pd.DataFrame(rows[:0], columns=["step", "layer", "name", "t", "delta_rms"]))
        is None
    )


def steps_of(losses: Sequence[float], **columns: Any) -> pd.DataFrame:
    base = {"step": range(len(losses)), "loss": losses, "accuracy": math.nan}
    return pd.DataFrame({**base, "clipped": 0, "skipped": 0} | columns)


NO_EVALS = pd.DataFrame({"step": [], "split": [], "loss": [], "accuracy": []})


def test_a_column_of_many_steps_shows_their_median_and_range() -> None:
    generator = np.random.default_rng(1)
    losses = generator.uniform(1, 2, 100_000)
    plot = of_loss(steps_of(losses.tolist()), NO_EVALS, 71, inks_for(console_of()))
    assert plot is not None
    points = plot.points[0]
    assert len(points.y) == 36
    column = [i for i in range(100_000) if round(i / 99_999 * 70) in (26, 27)]
    assert points.y[13] == pytest.approx(np.median(losses[column]), rel=1e-12)
    assert points.least is not None
    assert points.least[13] == losses[column].min()
    assert points.most is not None
    assert points.most[13] == losses[column].max()
    assert "median and range" in points.name
    cells, _ = canvas(plot)
    ranges = [any(row[x] == "│" for row in cells) for x in range(71)]
    assert sum(ranges) == 36
    assert not any(left and right for left, right in itertools.pairwise(ranges[1:-1]))


def test_ranges_do_not_break_the_line_of_what_guessing_gives() -> None:
    losses = [2.0 + (-1) ** step for step in range(1000)]
    plot = of_loss(steps_of(losses), NO_EVALS, 71, inks_for(console_of()), constant_loss=2.4)
    assert plot is not None
    cells, _ = canvas(plot)
    assert max(row.count("┄") for row in cells) == 71


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([2.3034, 2.3026, 2.3018], ["2.3034", "2.3026", "2.3018"]),
        ([2.31, 2.3, 2.29], ["2.31", "2.3", "2.29"]),
        ([1.0, 1.0, 1.0], ["1", "1", "1"]),
        ([-1.234561e-30, -1.2345e-30, -1.2344e-30], ["-1.2e-30"] * 3),
    ],
)
def test_labels_of_an_axis_have_as_many_digits_as_tell_them_apart_and_fit(
    values: list[float], labels: list[str]
) -> None:
    assert labels_of(values) == labels


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([0.0, 0.14], 0, 0.2), ([0.3, 0.7], 0.3, 0.7), ([0.55], 0.5, 0.6), ([1.0], 0.9, 1),
     ([0.0], 0, 0.1), ([0.12, 0.98], 0.1, 1)],
)  # fmt: skip
def test_the_axis_of_accuracies_is_that_of_the_values(
    values: list[float], low: float, high: float
) -> None:
    steps = steps_of([1.0] * len(values), accuracy=values)
    plot = of_accuracy(steps, NO_EVALS, 71)
    assert plot is not None
    assert plot.scale is not None
    assert (plot.scale.low, plot.scale.high) == pytest.approx((low, high))


def test_the_loss_is_drawn_by_its_logarithm_from_a_ratio_of_a_hundred_on() -> None:
    for losses, is_log in (([1.0, 2.0], False), ([0.01, 2.0], True), ([-1.0, 200.0], False)):
        plot = of_loss(steps_of(losses), NO_EVALS, 71, inks_for(console_of()))
        assert plot is not None
        assert plot.scale is not None
        assert plot.scale.is_log == is_log


def test_evaluations_clipping_and_guessing_are_marked() -> None:
    evals = pd.DataFrame(
        {"step": [0, 0, 4, 4, 4], "split": ["train", "val", "train", "val", "test"]}
        | {"loss": [2.0, 3.0, 1.0, 2.5, 9.0], "accuracy": [0.0, 0.25, 1.0, 0.5, 0.75]}
    )
    steps = steps_of([2.0, 1.5, 1.0, 1.0], clipped=[0, 1, 1, 0], accuracy=0.5)
    plot = of_loss(steps, evals, 71, inks_for(console_of()), constant_loss=2.25)
    assert plot is not None
    cells, below = canvas(plot)
    assert points_at(cells, "x") == [(0, 0), (70, 2)], "from 3 at the top to 1 at the bottom"
    assert "┄" in cells[3]
    assert below[0].split() == ["clipped", "█", "█"]
    assert [x for x, cell in enumerate(below[0][LEFT:]) if cell == "█"] == [18, 35]
    assert "guessing gives 2.25" in " ".join(below)
    assert "clipped: share of the steps" in " ".join(below)
    assert "skipped" not in " ".join(below)
    accuracy = of_accuracy(steps, evals, 71)
    assert accuracy is not None
    assert accuracy.points[1].y.tolist() == [0.25, 0.5]
    assert of_accuracy(steps_of([1.0]), evals, 71) is None


def test_without_a_validation_split_the_training_splits_evaluations_are_marked() -> None:
    evals = pd.DataFrame({"step": [0], "split": ["train"], "loss": [2.0], "accuracy": [0.5]})
    plot = of_loss(steps_of([2.0, 1.0]), evals, 71, inks_for(console_of()))
    assert plot is not None
    assert plot.points[1].name == "training split"


def test_the_last_label_of_an_axis_never_leaves_it() -> None:
    assert (
        ticks(["0", "50", "100000"], [0, 20, 40], 41) == "0                   50             100000"
    )
    assert ticks(["0"], [0], 5) == "0"
    assert ticks(["0", "1"], [0, 1], 3) == "0"
    assert ticks(["0", "50", "90"], [0, 18, 20], 22) == "0" + 19 * " " + "90"
    assert ticks([], [], 3) == ""


# ---------------------------------------------------------------- whole runs


@dataclasses.dataclass
class Recording:
    """What is written into a run folder."""

    layers: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    summary: dict[str, Any] | None
    config: Config | None = dataclasses.field(default_factory=Config)


def recording(
    deltas: Sequence[Any], steps: Sequence[int] = (0, 20, 39), **changes: Any
) -> Recording:
    """Layers 1..L of these delta_rms at every step, and a read-out."""
    layers = [
        {"step": step, "layer": layer, "name": f"l{layer}", "delta_rms": delta, "grad_norm": delta}
        | {"kind": "linear" if layer <= len(deltas) else "readout"}
        for step in steps
        for layer, delta in enumerate([*deltas, 0.5], start=1)
    ]
    losses = [
        {"step": step, "loss": 2.3 - 0.001 * step, "accuracy": 0.1, "clipped": int(step == 3)}
        | {"skipped": 0}
        for step in range(40)
    ]
    evals = [{"step": s, "split": "val", "loss": 2.3, "accuracy": 0.1} for s in (0, 40)]
    built = Recording(layers, losses, evals, None)
    built.summary = summary_of(built, **changes)
    return built


def summary_of(of: Recording, status: str = "completed", **changes: Any) -> dict[str, Any]:
    frames = {name: full_frame(name, rows) for name, rows in tables_of(of).items()}
    figures = summarise(
        **frames,
        constant_loss=math.log(10),
        num_examples=64,
        dtype="float32",
        status=status,
        divergence=None,
    )
    return figures | {"steps": 40, "seconds": 1.25, "device": "cpu", "seed": 0} | changes


def tables_of(of: Recording) -> dict[str, list[dict[str, Any]]]:
    return {"layers": of.layers, "steps": of.steps, "evals": of.evals}


def full_frame(table: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=[column.name for column in TABLES[table]])
    floats = [c.name for c in TABLES[table] if c.kind == "float"]
    return frame.astype(dict.fromkeys(floats, "float64"))


def write(folder: Path, of: Recording, **tables: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True)
    for table, rows in (tables_of(of) | tables).items():
        with (folder / f"{table}.csv").open("w", newline="") as file:
            names = [column.name for column in TABLES[table]]
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if of.config is not None:
        folders.write_config(folder, of.config, "")
    if of.summary is not None:
        (folder / "summary.json").write_text(json.dumps(of.summary))
    return folder


def told(folder: Path) -> PastRun:
    """The run as `vgexp show` reads it."""
    return PastRun(folder, is_strict=False)


def page(folder: Path, metric: str = "grad_norm", width: int = 80, **options: Any) -> str:
    console = console_of(width, **options)
    show(console, told(folder), metric)
    lines = lines_of(console)
    assert all(cell_len(line) <= width or "Run folder" in line for line in lines)
    return "\n".join(lines)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_a_page_has_map_curves_verdict_figures_and_folder(
    width: int, encoding: str, tmp_path: Path
) -> None:
    run = write(tmp_path / "run", recording([1e-9, 1e-5, 1.0]))
    text = page(run, width=width, encoding=encoding)
    order = ["grad_norm by layer", "(delta_rms) against depth", "Loss over steps", "clipped"]
    order += ["Accuracy over steps", "Verdict: vanishing", "layer 1 gets 1e-09", "attenuation"]
    words = " ".join(text.split())
    places = [words.index(part) for part in order]
    assert places == sorted(places)
    assert text.endswith(f"Run folder: {run}")
    assert re.search(r"^status +completed", text, re.MULTILINE)
    assert "Note" not in text
    assert "underflow" not in text, "there was none"
    assert encoding == "utf-8" or text.isascii()


def test_figures_stand_in_two_columns_where_there_is_room(tmp_path: Path) -> None:
    run = write(tmp_path / "run", recording([1e-9, 1.0]))
    rows = [line for line in page(run).splitlines() if line.startswith("status")]
    assert len(rows[0].split()) == 4
    rows = [line for line in page(run, width=50).splitlines() if line.startswith("status")]
    assert rows == ["status                          completed"]


def test_a_recurrent_run_shows_its_gradient_against_time(tmp_path: Path) -> None:
    time = [
        {"step": s, "layer": 1, "name": "layers.0.h", "t": t, "delta_rms": 0.1 ** (9 - t)}
        for s in (0, 39)
        for t in range(10)
    ]
    text = page(write(tmp_path / "run", recording([1.0]), time=time))
    assert "(delta_rms) of layers.0.h against time, log scale" in text
    assert "   1e-09 +" in text


def test_another_metric_is_mapped(tmp_path: Path) -> None:
    text = page(write(tmp_path / "run", recording([1e-9, 1.0])), "delta_rms")
    assert text.startswith("delta_rms by layer")
    assert "grad_norm" not in text


def without_summary(of: Recording) -> Recording:
    return dataclasses.replace(of, summary=None)


def test_a_run_without_a_summary_says_so_and_what_its_layers_tell(tmp_path: Path) -> None:
    run = write(tmp_path / "run", without_summary(recording([1e-9, 1.0])))
    text = " ".join(page(run).split())
    assert "The run is unfinished" in text
    assert "The gradient vanishes at step 0" in text
    assert "status unfinished" in text
    assert "Verdict" not in text
    with folders.occupy(run):
        assert "being written by another process" in " ".join(page(run).split())


@pytest.mark.parametrize("metric", ["grad_norm", "delta_rms"])
def test_a_run_without_a_summary_is_told_that_gradients_of_weights_hide_it(
    metric: str, tmp_path: Path
) -> None:
    of = without_summary(recording([1e-9, 1.0]))
    for row in of.layers:
        row["grad_norm"] = 1.0
    text = " ".join(page(write(tmp_path / "run", of), metric).split())
    assert "hide it: grad_norm of layer 1 is 1 of layer 2's" in text


def test_a_run_killed_within_a_line_shows_what_is_whole(tmp_path: Path) -> None:
    run = write(tmp_path / "run", without_summary(recording([1e-9, 1.0])))
    for table in ("layers", "steps"):
        content = (run / f"{table}.csv").read_bytes()
        (run / f"{table}.csv").write_bytes(content[:-4])
    text = page(run)
    assert "Note: layers.csv ends within a line" in text
    assert "Note: steps.csv ends within a line" in text
    rows = rows_in(text.splitlines()[1:])
    assert rows["readout"].endswith("·" * 8), "the last row is the cut one"
    assert rows["2"].endswith("█" * 8)


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_run_that_failed_says_why(status: str, tmp_path: Path) -> None:
    ending = {"status": status, "reason": "ValueError: \x1b[31mno; more"}
    of = dataclasses.replace(recording([1e-9, 1.0]), summary=ending)
    text = " ".join(page(write(tmp_path / "run", of)).split())
    assert f"The run did not reach its end: {status}: ValueError: \\x1b[31mno; more." in text
    assert "The gradient vanishes at step 0" in text


def test_a_sweeps_table_tells_how_a_job_without_a_summary_ended(tmp_path: Path) -> None:
    run = write(tmp_path / "sweep" / "0", without_summary(recording([1.0, 1.0])))
    (tmp_path / "sweep" / "sweep.csv").write_text("job,status,reason\n0,failed,no memory\n")
    text = " ".join(page(run).split())
    assert "The run did not reach its end: failed: no memory." in text


def test_tables_without_a_row_are_told_of(tmp_path: Path) -> None:
    of = Recording([], [], [], {"status": "completed", "steps": 40})
    text = page(write(tmp_path / "run", of))
    assert "grad_norm was measured at no step" in text
    assert "Note: layers.csv has no row" in text
    assert "Note: steps.csv has no row" in text
    assert "Loss over steps" not in text


def test_tables_that_are_not_there_are_told_of(tmp_path: Path) -> None:
    run = write(tmp_path / "run", recording([1.0, 1.0]))
    for table in ("layers", "steps", "evals"):
        (run / f"{table}.csv").unlink()
    text = page(run)
    assert "Note: layers.csv is not there" in text
    assert "Note: steps.csv is not there" in text
    assert "Verdict: undecided" in text


def test_damaged_files_are_told_of_and_the_rest_is_shown(tmp_path: Path) -> None:
    run = write(tmp_path / "run", recording([1.0, 1.0]))
    (run / "summary.json").write_text("{")
    (run / "steps.csv").write_text("step,loss\n0,1\n")
    (run / "config.yaml").write_text("a: [")
    text = " ".join(page(run, "delta_rms").split())
    assert "Note: summary.json is not JSON" in text
    assert "Note: steps.csv lacks the columns epoch" in text
    assert "delta_rms by layer" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("deltas", "said"),
    [
        ([math.nan] * 3, "! nan or inf"),
        ([0.0] * 3, "0 exactly 0"),
        ([math.inf] * 3, "! nan or inf"),
        ([None] * 3, "log scale: 0.0005 "),
        ([0.5], "log scale: 0.0005 "),
        ([], "log scale: 0.0005 "),
    ],
)
@pytest.mark.parametrize("steps", [(0,), (0, 39)])
def test_odd_tables_are_shown_as_they_are(
    deltas: list[Any], said: str, steps: tuple[int, ...], tmp_path: Path
) -> None:
    text = page(write(tmp_path / "run", recording(deltas, steps)))
    assert said in text
    assert len(rows_in(text.splitlines()[1:])) == len(deltas) + 1


def test_a_single_row_is_enough(tmp_path: Path) -> None:
    of = recording([0.5], (0,))
    of = dataclasses.replace(of, layers=of.layers[:1], steps=of.steps[:1], evals=[])
    text = page(write(tmp_path / "run", of))
    assert rows_in(text.splitlines()[1:]) == {"1": "█" * 8}


def test_layers_that_were_not_measured_are_counted(tmp_path: Path) -> None:
    of = recording([0.5] * 20, num_layers=20)
    kept = [row for row in of.layers if row["layer"] in (3, 7, 21)]
    text = page(write(tmp_path / "run", dataclasses.replace(of, layers=kept)))
    assert list(rows_in(text.splitlines()[1:])) == ["3", "7", "readout"]
    assert "Not measured, hence not shown: 18 of 20 hidden layers" in text


def test_a_loss_that_nobody_recorded_is_not_drawn_as_one_that_is_nan(tmp_path: Path) -> None:
    of = recording([0.5, 0.5])
    for cell, is_drawn in (("", False), ("nan", True)):
        steps = [row | {"loss": cell} for row in of.steps]
        text = page(write(tmp_path / f"run{cell}", dataclasses.replace(of, steps=steps)))
        assert ("Loss over steps" in text) is is_drawn


def test_weights_that_have_no_layer_are_counted(tmp_path: Path) -> None:
    of = recording([0.5, 0.5])
    unused = [row | {"layer": "", "name": f"unused{i}"} for i in (0, 1) for row in of.layers[:1]]
    text = page(write(tmp_path / "run", dataclasses.replace(of, layers=of.layers + unused)))
    assert "since they have no layer: 2 weights" in " ".join(text.split())


def test_what_underflow_is_follows_dtype_examples_and_loss_scale(tmp_path: Path) -> None:
    of = recording([1.0])
    assert of.summary is not None
    of.summary["dtype"] = "float16"
    scaled = [row | {"loss_scale": 1024.0 * (1 + row["step"] % 2)} for row in of.steps]
    run = told(write(tmp_path / "half", dataclasses.replace(of, steps=scaled)))

    def is_tiny(of_run: PastRun, metric: str, *values: float) -> list[bool]:
        """At steps 0, 1, ..."""
        frame = frame_of({step: [value, 1e9] for step, value in enumerate(values)}, metric)
        return make_grid(of_run, frame, metric).is_tiny_LS[0].tolist()  # type: ignore[no-any-return]

    limit, examples = 2**-14 / 1024, Config().data.batch_size
    assert is_tiny(run, "grad_norm", 0.9 * limit, 0.6 * limit) == [True, False]
    assert is_tiny(run, "grad_norm", 1.1 * limit, 0.4 * limit) == [False, True]
    assert is_tiny(run, "delta_rms", 0.9 * limit * examples, 1.1 * limit * examples) == [
        True,
        False,
    ]
    whole = told(write(tmp_path / "whole", recording([1.0])))
    assert is_tiny(whole, "grad_norm", 0.9 * 2.0**-126, 1.1 * 2.0**-126) == [True, False]
    assert is_tiny(whole, "weight_norm", 1e-39) == [False]
    unknown = dataclasses.replace(recording([1.0]), summary=None, config=None)
    nameless = told(write(tmp_path / "unknown", unknown))
    assert is_tiny(nameless, "grad_norm", 1e-39) == [False]


def test_the_screen_and_a_picture_call_the_same_cells_underflow() -> None:
    frame = frame_of({0: [3e-5, 3e-5, 1.0], 5: [3e-5, 0.0, 1.0]})
    # The norm is that of many entries, of which the largest underflows last.
    frame["grad_max"] = [1e-5, 4e-5, 1.0, 1e-5, 0.0, 1.0]
    scales = pd.Series({0: 2.0, 5: 1.0})
    seen = grid_of(frame, "grad_norm", "float16", scales).is_tiny_LS
    assert seen.tolist() == [[True, True], [False, False], [False, False]]
    rows = underflows(frame, "grad_norm", "float16", scales)
    assert rows.tolist() == [True, False, True, False, False, False]


@pytest.mark.parametrize("value", ["x", [1], math.nan, "absent"])
def test_a_summary_that_somebody_changed_stops_nothing(value: Any, tmp_path: Path) -> None:
    of = recording([1e-9, 1.0], underflow=1)
    assert of.summary is not None
    run = write(tmp_path / "run", of)
    for name in ("status", "verdict", "attenuation", "underflow", "num_layers", "dtype", "steps"):
        changed = {**of.summary, name: value, "constant_loss": value, "unmeasured_ends": value}
        if value == "absent":
            del changed[name]
        (run / "summary.json").write_text(json.dumps(changed))
        assert "Run folder" in page(run)


# ---------------------------------------------------------------- the verb


def test_a_folder_above_one_run_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "above" / "2026" / "run", recording([1e-9, 1.0]))
    monkeypatch.chdir(tmp_path)
    assert main.main(["show", "above"]) == 0
    shown = capsys.readouterr()
    assert "Verdict: vanishing" in shown.out
    assert shown.out.endswith("Run folder: above/2026/run\n")
    assert not shown.err


def test_a_run_that_can_be_gone_on_with_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, summary in (
        ("cut", None),
        ("failed", {"status": "failed"}),
        ("ended", {"status": "completed"}),
    ):
        write(tmp_path / name, dataclasses.replace(recording([1.0]), summary=summary))
    for name, is_open in (("cut", True), ("failed", True), ("ended", False)):
        assert main.main(["show", name]) == 0
        told = capsys.readouterr().out.splitlines()[-1]
        assert told == (f"Go on: vgexp resume {name}" if is_open else f"Run folder: {name}")


def test_several_runs_are_named_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in range(8):
        write(tmp_path / "my sweep" / str(job), recording([1.0]))
    monkeypatch.chdir(tmp_path)
    assert main.main(["show", "my sweep"]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    told = shown.err.splitlines()
    assert told[:2] == ["error: my sweep holds 8 runs", "  allowed: one run"]
    assert told[2:8] == [f"  vgexp show 'my sweep/{job}'" for job in range(6)]
    assert told[8:] == ["  and 2 more", "  all of them side by side: vgexp compare 'my sweep'"]


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_of_a_folder_without_a_run_no_sweep_is_said_to_be_allowed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main.main(["show", str(tmp_path / name)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "  allowed: a run folder, or a folder above one run"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["run", "--metric", "grad_nrm"], "nearest: grad_norm"),
        (["run", "--metric", "name"], "unknown metric of layers.csv: 'name'"),
        (["rnu"], "nearest: run"),
        (["run/layers.csv"], "nearest: run"),
        (["run", "--metrik"], "nearest: --metric"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_a_wrong_question_is_one_block(
    argv: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path / "run", recording([1.0]))
    monkeypatch.chdir(tmp_path)
    assert main.main(["show", *argv]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("error: ")
    assert said in shown.err
    assert "Traceback" not in shown.err


def test_a_column_of_the_users_own_is_mapped_if_it_holds_numbers(tmp_path: Path) -> None:
    run = write(tmp_path / "run", recording([1.0]))
    lines = (run / "layers.csv").read_text().splitlines()
    ends = ["mine,word,count", ",a,", *(f"{10**-i},a,{i}" for i in range(len(lines) - 2))]
    (run / "layers.csv").write_text("".join(f"{a},{b}\n" for a, b in zip(lines, ends, strict=True)))
    for metric in ("mine", "count"):
        text = page(run, metric)
        assert text.startswith(f"{metric} by layer")
        assert rows_in(text.splitlines()[1:])["1"].startswith("········")
    with pytest.raises(QuestionError, match="is a text"):
        page(run, "word")


def test_its_help_fits_and_it_imports_neither_torch_nor_matplotlib(tmp_path: Path) -> None:
    run = write(tmp_path / "run", recording([1.0]))
    code = (
        "import sys; from vgexp.cli.main import main; "
        f"code = main(['show', '--help']) or main(['show', {str(run)!r}]); "
        "loaded = sorted({'torch', 'matplotlib', 'hydra', 'sklearn'} & set(sys.modules)); "
        "sys.exit(f'loaded: {loaded}' if loaded or code else 0)"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "--metric" in done.stdout
    assert max(map(cell_len, done.stdout.split("Run folder")[0].splitlines())) <= 80


def test_a_steady_signal_stands_in_the_middle_of_its_plot() -> None:
    plot = against_depth(frame_of({n: [1.0, 0.9, 0.8] for n in range(3)}, "delta_rms"))
    assert plot is not None
    assert plot.scale is not None
    assert plot.scale.high / plot.scale.low == pytest.approx(10)
    assert 0.4 < plot.scale.share(0.9) < 0.6
    wide = against_depth(frame_of({0: [1.0, 1e-5, 1.0]}, "delta_rms"))
    assert wide is not None
    assert wide.scale is not None
    assert (wide.scale.low, wide.scale.high) == (1e-5, 1.0)
