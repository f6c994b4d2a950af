"""Runs as lines and sweeps as maps: what is drawn of folders written by hand with known numbers.

Holds: report/figures/comparing.py, cli/compare.py, report/comparing/bands.py,
report/comparing/charts.py, report/comparing/groups.py, report/comparing/histories.py,
report/comparing/layer_values.py, report/comparing/results.py, report/comparing/sweep_grid.py,
report/comparing/swept.py, report/figures/color_scales.py, report/figures/looks.py,
report/figures/sweep_maps.py
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure

from vgexp import config
from vgexp.cli import main
from vgexp.cli.verbs import VERBS
from vgexp.errors import QuestionError
from vgexp.quantities import SUMMARY, TABLES, VERDICTS, Quantity, column_of
from vgexp.report.comparing.bands import Line, fold, running_mean, window_for
from vgexp.report.comparing.charts import Curve
from vgexp.report.comparing.groups import Group
from vgexp.report.comparing.histories import histories
from vgexp.report.comparing.layer_values import at_layer, history_of_layer, layer_values
from vgexp.report.comparing.runs import load_runs
from vgexp.report.comparing.spread import spread_of
from vgexp.report.comparing.sweep_grid import sweep_grid
from vgexp.report.comparing.swept import columns_of, find_key, split_runs, texts_of
from vgexp.report.figures import comparing, style, sweep_maps
from vgexp.report.figures.color_scales import scale_of
from vgexp.report.figures.comparing import compare_figure
from vgexp.report.figures.sweep_maps import (
    NO_RUN,
    NO_VALUE,
    SEVERAL,
    STATES,
    short_number,
    sweep_map,
)
from vgexp.report.grid import grid_of
from vgexp.report.terminal.metric import layers_of

LOSS, GRAD_NORM = column_of("steps", "loss"), column_of("steps", "grad_norm")


def write_table(folder: Path, table: str, rows: Sequence[dict[str, Any]]) -> None:
    names = [column.name for column in TABLES[table]]
    lines = [",".join(names), *(",".join(str(row.get(n, "")) for n in names) for row in rows)]
    (folder / f"{table}.csv").write_text("\n".join(lines) + "\n")


def make_run(
    folder: Path,
    overrides: dict[str, Any] | None = None,
    losses: Sequence[Any] | None = None,
    deltas: Sequence[Any] = (0.25, 0.5, 1.0),
    **figures: Any,
) -> Path:
    """A run of the defaults with nested overrides; layers measured at steps 0 and 20."""
    folder.mkdir(parents=True)
    choices = config.choices(config.Config())
    content: dict[str, Any] = {"defaults": ["schema", *({k: v} for k, v in choices.items())]}
    content |= {group: {} for group in choices}
    (folder / "config.yaml").write_text(yaml.safe_dump(content | (overrides or {})))
    if losses is not None:
        steps = [
            {"step": s, "loss": loss, "lr": 0.1, "clipped": 0} for s, loss in enumerate(losses)
        ]
        write_table(folder, "steps", steps)
        ends = ((0, 0.1), (len(losses), 0.9))
        evals = [{"step": s, "split": "val", "loss": 1, "accuracy": share} for s, share in ends]
        write_table(folder, "evals", evals)
    rows = [
        {
            "step": step,
            "layer": layer,
            "name": f"l{layer}",
            "kind": "readout" if layer > len(deltas) else "linear",
            "delta_rms": delta if step == 0 else float(delta) * 2,
            "act_mean": -layer,
        }
        for step in (0, 20)
        for layer, delta in enumerate([*deltas, 0.5], start=1)
    ]
    write_table(folder, "layers", rows)
    summary = {"status": "completed", "verdict": "healthy", "attenuation": 0.25}
    (folder / "summary.json").write_text(json.dumps(summary | figures))
    return folder


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Depths 3 and 30, three seeds each, of 5 steps; the last run diverged after 3."""
    job = 0
    for depth in (30, 3):
        for seed in range(3):
            diverged = job == 5
            make_run(
                tmp_path / "sweep" / str(job),
                {"model": {"depth": depth}, "seed": seed},
                [depth + seed - step / 10 for step in range(3 if diverged else 5)],
                [10.0**-seed * layer for layer in range(1, depth + 1)],
                attenuation=depth * 10.0**-seed,
                status="diverged" if diverged else "completed",
            )
            job += 1
    return tmp_path / "sweep"


def lines(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Colour and dashes of a line drawn over data -> its points; marks and raw values left out."""
    found = {}
    for line in axes.get_lines():
        if line.get_linestyle() != "None" and line.get_alpha() is None:
            key = f"{line.get_color()}{line.get_linestyle()}{line.get_marker()}{len(found)}"
            found[key] = (list(line.get_xdata()), list(line.get_ydata()))
    return found


def drawn(axes: Axes) -> list[tuple[list[float], list[float]]]:
    return list(lines(axes).values())


def words(figure: Figure) -> list[str]:
    """The entries of the legends."""
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def remarks(figure: Figure) -> str:
    return figure._supxlabel.get_text() if figure._supxlabel else ""  # type: ignore[attr-defined]


def faces(axes: Axes) -> np.ndarray:
    """The colours of the cells [rows, columns, 3]."""
    (mesh,) = [found for found in axes.collections if isinstance(found, QuadMesh)]
    return np.asarray(mesh.get_array())


def hatches(axes: Axes) -> dict[tuple[int, int], str]:
    """Column and row of a hatched cell -> its hatching."""
    return {
        (round(path.vertices[0, 0] + 0.5), round(path.vertices[0, 1] + 0.5)): found.get_hatch()
        for found in axes.collections
        if isinstance(found, PolyCollection) and found.get_hatch()
        for path in found.get_paths()
    }


# ---------------------------------------------------------------- folding


@pytest.mark.parametrize("metric", [LOSS, GRAD_NORM])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_band_is_the_spread_of_the_seeds_at_each_place(metric: Quantity, scale: float) -> None:
    table = np.random.default_rng(0).lognormal(0, 2, (4, 7)) * scale
    table[0, 2], table[1, 3], table[2, 3] = math.nan, math.inf, 0.0
    band = fold([Line(np.arange(7.0), row) for row in table], metric)
    for place in range(7):
        found = spread_of(table[:, place].tolist(), metric)
        assert found.centre is not None
        assert found.spread is not None
        assert band.centre[place] == pytest.approx(found.centre, rel=1e-12)
        high = found.centre * found.spread if found.is_geometric else found.centre + found.spread
        low = found.centre / found.spread if found.is_geometric else found.centre - found.spread
        assert band.high[place] == pytest.approx(high, rel=1e-12)
        assert band.low[place] == pytest.approx(low, rel=1e-9, abs=scale * 1e-12)
        assert band.counts[place] == found.num_values


def test_seeds_of_unequal_length_are_folded_where_they_are_and_counted() -> None:
    long, short = Line(np.arange(4.0), np.array([1.0, 2, 3, 4])), Line(np.arange(2.0), np.ones(2))
    band = fold([long, short], LOSS)
    assert band.centre.tolist() == [1, 1.5, 3, 4]
    assert band.counts.tolist() == [2, 2, 1, 1]
    assert np.isnan(band.high).tolist() == [False, False, True, True]
    assert band.seeds == "2 seeds, 1 at the end"
    assert fold([short, short], LOSS).seeds == "2 seeds"
    assert fold([short, Line(np.empty(0), np.empty(0))], LOSS).seeds == "1 of 2 seeds"
    assert fold([Line(np.arange(3.0), np.array([1, math.nan, 1])), long], LOSS).seeds == (
        "2 seeds, 1 at the end"
    )
    gap = Line(np.arange(4.0), np.array([1, math.nan, 1, 1]))
    assert fold([gap, long], LOSS).seeds == "2 seeds, 1 at the fewest"


def test_a_place_that_a_seed_passes_over_is_not_folded() -> None:
    cut = Line(np.array([0.0, 20, 33]), np.array([1.0, 2, 900]))
    whole = Line(np.array([0.0, 20, 40, 60]), np.array([3.0, 4, 5, 6]))
    band = fold([cut, whole, whole], LOSS)
    assert band.x.tolist() == [0, 20, 40, 60]
    assert band.counts.tolist() == [3, 3, 2, 2]
    assert band.centre.tolist() == pytest.approx([7 / 3, 10 / 3, 5, 6])
    late = Line(np.array([20.0, 40]), np.array([1.0, 1]))
    assert fold([late, whole], LOSS).counts.tolist() == [1, 2, 2, 1]
    assert fold([Line(np.empty(0), np.empty(0)), whole], LOSS).x.tolist() == [0, 20, 40, 60]


def test_where_no_seed_has_a_logarithm_zeros_and_infinities_stay_what_they_are() -> None:
    rows = [[0.0, math.inf, 0.0, math.nan], [0.0, math.nan, 2.0, math.nan]]
    band = fold([Line(np.arange(4.0), np.array(row)) for row in rows], GRAD_NORM)
    assert band.centre[:3].tolist() == [0.0, math.inf, 2.0]
    assert math.isnan(band.centre[3])
    assert band.counts.tolist() == [2, 0, 1, 0]
    assert np.isnan(band.high).all()


def test_a_running_mean_is_over_a_tenth_of_the_steps_and_over_none_of_few() -> None:
    windows = {1: 1, 59: 1, 60: 6, 199: 19, 200: 20, 5000: 20}
    assert {num_steps: window_for(num_steps) for num_steps in windows} == windows


def test_a_running_mean_is_of_the_values_before_and_forgets_a_peak() -> None:
    values = [3.0, 1e30, 5.0, 7.0, 11.0, math.nan, 13.0, math.inf, 2.0]
    mean = running_mean(Line(np.arange(9.0), np.array(values)), 3)
    for place, value in enumerate(values):
        window = [v for v in values[max(0, place - 2) : place + 1] if math.isfinite(v)]
        if place < 2:
            assert math.isnan(mean.y[place]), "the window is not full"
        elif math.isfinite(value):
            assert mean.y[place] == pytest.approx(statistics.fmean(window), rel=1e-12)
        else:
            assert str(mean.y[place]) == str(value)
    assert running_mean(Line(np.empty(0), np.empty(0)), 3).y.size == 0


# ---------------------------------------------------------------- over steps


def test_the_training_loss_of_each_run_is_a_line(sweep: Path) -> None:
    axes = compare_figure([sweep]).axes[0]
    assert drawn(axes)[0] == ([0, 1, 2, 3, 4], [30, 29.9, 29.8, 29.7, 29.6])
    assert len(drawn(axes)) == 6
    assert axes.get_yscale() == "linear"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "training loss")


def test_seeds_become_a_mean_with_a_band_and_their_number(sweep: Path) -> None:
    figure = compare_figure([sweep], seeds=True)
    (axes,) = figure.axes
    (_, deep), (steps, shallow) = drawn(axes)
    assert deep == pytest.approx([31 - step / 10 for step in range(5)])
    means = [statistics.fmean([3 + seed - step / 10 for seed in range(3)]) for step in range(3)]
    rest = [statistics.fmean([3 + seed - step / 10 for seed in range(2)]) for step in (3, 4)]
    # No line leads from three seeds to two.
    assert math.isnan(shallow.pop(3))
    assert math.isnan(steps.pop(3))
    assert shallow == pytest.approx([*means, *rest])
    assert steps == [0, 1, 2, 3, 4]
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(32)
    assert band[:, 1].min() == pytest.approx(30 - 0.4)
    assert words(figure) == ["depth=30 (3 seeds)", "depth=3 (3 seeds, 2 at the end)"]
    assert "mean ± standard deviation" in remarks(figure)


def test_where_a_run_ended_before_it_was_done_is_marked(sweep: Path) -> None:
    figure = compare_figure([sweep], seeds=True)
    (mark,) = [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]
    assert (mark.get_xdata().item(), mark.get_ydata().item()) == (2, pytest.approx(3.8))
    assert "ended there before it was done" in remarks(figure)


def curve_of(lines: Sequence[Line], ends: Sequence[tuple[float, float]] = ()) -> Axes:
    """Some seeds' lines of a loss as one, drawn without markers."""
    curve = Curve(Group([], "a", "a", []), fold(lines, LOSS), ends=ends)
    axes = Figure().subplots()
    comparing._draw_curve(axes, curve, False, {"color": "k", "marker": ""})
    return axes


def test_the_mark_of_a_run_that_ended_between_the_others_steps_is_its_own_value() -> None:
    cut = Line(np.array([0.0, 20, 33]), np.array([1.0, 2, 900]))
    whole = Line(np.array([0.0, 20, 40, 60]), np.array([3.0, 4, 5, 6]))
    line, mark = curve_of([cut, whole], [(33.0, 900.0)]).get_lines()
    assert mark.get_xydata().tolist() == [[33, 900]]
    assert np.nan_to_num(line.get_ydata(), nan=-1).tolist() == [2, 3, -1, 5, 6]


def test_a_line_is_broken_wherever_the_number_of_seeds_behind_it_changes() -> None:
    gap = Line(np.arange(5.0), np.array([1, 1, math.inf, 1, 1]))
    whole = Line(np.arange(5.0), np.full(5, 3.0))
    line, point = curve_of([gap, whole]).get_lines()
    assert np.nan_to_num(line.get_ydata(), nan=-1).tolist() == [2, 2, -1, 3, -1, 2, 2]
    assert point.get_xydata().tolist() == [[2, 3]]


def test_a_long_run_is_shown_as_a_running_mean_beside_its_faint_raw_line(tmp_path: Path) -> None:
    losses = [2 + (-1) ** step for step in range(100)]
    figure = compare_figure([make_run(tmp_path / "run", None, losses)])
    faint, line = figure.axes[0].get_lines()
    assert list(faint.get_ydata()) == losses
    assert faint.get_alpha() < 1
    assert line.get_ydata()[9:] == pytest.approx(2)
    assert np.isnan(line.get_ydata()[:9]).all()
    assert "mean over 10 steps" in figure.axes[0].get_ylabel()
    rate = compare_figure([tmp_path / "run"], "lr").axes[0]
    assert rate.get_ylabel() == "lr"
    assert drawn(rate)[0][1] == [0.1] * 100


def test_beside_a_long_run_each_step_of_a_short_one_is_drawn_and_said(tmp_path: Path) -> None:
    make_run(tmp_path / "long", None, [2.0] * 300, optim__lr=1)
    short = make_run(tmp_path / "short", None, [5.0, 4.0, 3.0], optim__lr=2)
    figure = compare_figure([tmp_path / "long", short])
    assert ([0, 1, 2], [5.0, 4.0, 3.0]) in drawn(figure.axes[0])
    assert "fewer than 60 steps each step" in remarks(figure)
    assert "each step" not in remarks(compare_figure([tmp_path / "long"]))


def test_a_picture_over_steps_has_a_title_and_what_a_column_means_is_said_below(
    sweep: Path,
) -> None:
    loss = compare_figure([sweep])
    assert loss.get_suptitle() == "Training loss over steps"
    assert "mean over" not in remarks(loss)
    rates = compare_figure([sweep], "lr")
    assert rates.get_suptitle() == "lr over steps"
    assert "lr: " in remarks(rates)
    shares = compare_figure([sweep], "val_accuracy")
    assert shares.get_suptitle() == "val_accuracy over steps"
    assert "val split" in remarks(shares)


def test_over_depth_axes_are_called_as_in_the_figures_of_a_run_and_begin_at_layer_1(
    sweep: Path,
) -> None:
    (axes,) = compare_figure([sweep], "delta_rms", layers_at="first").axes
    assert axes.get_ylabel() == "delta_rms: rms of N dL/dz"
    assert axes.get_xlabel() == "layer"
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels[0] == "1"
    assert axes.get_xlim()[0] > 0
    panels = compare_figure([sweep], "delta_rms", layers_at="first", panels="depth")
    assert "1" in [text.get_text() for text in panels.axes[-1].get_xticklabels()]


def test_a_loss_is_drawn_of_runs_whose_layers_are_empty(sweep: Path) -> None:
    (sweep / "0" / "layers.csv").write_text("")
    axes = compare_figure([sweep / "0", sweep / "1"]).axes[0]
    assert len(drawn(axes)) == 2
    with pytest.raises(QuestionError, match="layers"):
        compare_figure([sweep / "0", sweep / "1"], "delta_rms")


def test_an_evaluation_is_drawn_at_its_steps(sweep: Path) -> None:
    axes = compare_figure([sweep / "0"], "val_accuracy").axes[0]
    assert drawn(axes) == [([0, 5], [0.1, 0.9])]
    assert "val split" in histories(load_runs([sweep]), "val_loss")[0].definition


def test_a_column_of_the_layers_has_a_panel_for_each_end_of_the_hidden_path(sweep: Path) -> None:
    figure = compare_figure([sweep / "1"], "delta_rms")
    first, last = figure.axes
    assert (first.get_title("left"), last.get_title("left")) == (
        "first hidden layer",
        "last hidden layer",
    )
    assert drawn(first) == [([0, 20], pytest.approx([0.1, 0.2]))]
    assert drawn(last) == [([0, 20], pytest.approx([3.0, 6.0]))]
    assert first.get_yscale() == "log"
    assert first.get_ylim() == last.get_ylim()


def test_the_ends_over_steps_are_the_main_paths_as_at_each_step_alone(tmp_path: Path) -> None:
    rows = [
        {"step": step, "layer": layer, "name": name, "kind": kind, "delta_rms": value}
        for step in (0, 20, 40)
        for layer, name, kind, value in (
            ("", "unused", "linear", 7.0),
            (2, "b", "linear", "" if step == 20 else 2.0 + step),
            (2, "b.gate", "linear", 99.0),
            (1, "a", "stream", "nan" if step == 40 else 1.0 + step),
            (1, "a.weight", "linear", 88.0),
            (3, "r", "readout", 77.0),
        )
    ]
    write_table(make_run(tmp_path / "run"), "layers", rows)
    (run,) = load_runs([tmp_path])
    for end, steps in ((0, [0, 20, 40]), (-1, [0, 40])):
        found = history_of_layer(run, "delta_rms", end)
        assert found.index.tolist() == steps
        alone = [at_layer("delta_rms", str(step), end, run) for step in steps]
        assert found.tolist() == pytest.approx(alone, nan_ok=True)


def test_a_block_has_in_a_comparison_what_it_has_on_screen(tmp_path: Path) -> None:
    rows = [
        {"step": step, "layer": 1, "name": name, "kind": kind, "grad_norm": value}
        for step in (0, 20)
        for name, kind, value in (("b", "stream", ""), ("b.q", "attention", 3.0 + step),
                                  ("b.k", "attention", 4.0))
    ]  # fmt: skip
    write_table(make_run(tmp_path / "run"), "layers", rows)
    (run,) = load_runs([tmp_path])
    assert layer_values(run, "grad_norm", "0") == {"1": pytest.approx(5.0)}
    found = history_of_layer(run, "grad_norm", 0)
    assert found.tolist() == pytest.approx([5.0, math.hypot(23.0, 4.0)])
    frame = layers_of(run.past, "grad_norm")["grad_norm"]
    assert grid_of(frame, "grad_norm").values_LS[0].tolist() == pytest.approx(found.tolist())


def test_a_name_that_two_tables_have_is_the_steps_unless_it_says_layers(sweep: Path) -> None:
    runs = load_runs([sweep])
    assert [found.where for found in histories(runs, "grad_norm")] == [""]
    assert len(histories(runs, "layers.grad_norm")) == 2
    with pytest.raises(QuestionError, match="nearest: loss"):
        histories(runs, "los")
    with pytest.raises(QuestionError, match="--heatmap color=attenuation"):
        histories(runs, "attenuation")


def test_a_metric_above_zero_that_spans_much_gets_a_logarithmic_axis(tmp_path: Path) -> None:
    make_run(tmp_path / "0", None, [1e6, 1.0, 1e-2])
    assert compare_figure([tmp_path]).axes[0].get_yscale() == "log"
    make_run(tmp_path / "1", {"seed": 1}, [1e6, 0.0, -2])
    assert compare_figure([tmp_path]).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("by_seed", [False, True])
@pytest.mark.parametrize(
    "losses",
    [[], [2.5], ["nan"] * 3, [0.0] * 3, ["inf"] * 3, [1e-150, 1e150], [1, "nan", 3], None],
    ids=str,
)
def test_a_run_with_little_or_nothing_in_its_table_is_drawn_as_far_as_it_goes(
    tmp_path: Path, losses: Any, by_seed: bool
) -> None:
    make_run(tmp_path / "run", None, losses)
    figure = compare_figure([tmp_path], seeds=by_seed)
    style.write(figure, tmp_path / "run.png")
    if not losses or set(losses) == {"nan"}:
        (text,) = figure.axes[0].texts
        assert text.get_text() == "no run has a value here"
    elif losses != ["inf"] * 3:
        assert np.isfinite(drawn(figure.axes[0])[0][1]).any()


def test_a_point_alone_has_a_marker(tmp_path: Path) -> None:
    for job in range(20):
        make_run(tmp_path / str(job), {"seed": job}, [job])
    (axes,) = compare_figure([tmp_path]).axes
    assert all(line.get_marker() not in ("", "None") for line in axes.get_lines())


def test_a_failed_job_without_tables_is_told_and_the_others_are_drawn(sweep: Path) -> None:
    shutil.rmtree(sweep / "4")
    (sweep / "4").mkdir()
    (sweep / "4" / "summary.json").write_text(json.dumps({"status": "failed", "reason": "no"}))
    (sweep / "1" / "steps.csv").write_text("a,b\n1,2\n")
    figure = compare_figure([sweep])
    assert len(drawn(figure.axes[0])) == 4
    assert "without a value: run 1; run 4" in remarks(figure)
    with pytest.raises(QuestionError, match=r"steps\.csv lacks the columns"):
        compare_figure([sweep / "1"])


# ---------------------------------------------------------------- over depth


def test_nets_of_different_depth_stand_on_one_axis_with_hollow_read_outs(sweep: Path) -> None:
    figure = compare_figure([sweep / "1", sweep / "4"], layers_at="first")
    (axes,) = figure.axes
    (x, deep), (short_x, shallow) = drawn(axes)
    assert x[:30] == list(range(1, 31))
    assert deep[29] == pytest.approx(3.0)
    # No line leads into the read-out.
    assert (short_x[:3], short_x[4]) == ([1, 2, 3], 4)
    assert (shallow[:3], shallow[4]) == (pytest.approx([0.1, 0.2, 0.3]), 0.5)
    assert math.isnan(shallow[3])
    hollow = [line for line in axes.get_lines() if line.get_markerfacecolor() == style.PAPER]
    assert [line.get_xdata().item() for line in hollow] == [31, 4]
    assert "hollow: the read-out" in remarks(figure)


def test_seeds_over_depth_are_folded_geometrically(sweep: Path) -> None:
    figure = compare_figure([sweep], layers_at="last", seeds=True)
    shallow = drawn(figure.axes[0])[1][1]
    assert math.isnan(shallow.pop(3))
    expected = [
        math.exp(statistics.fmean(math.log(2 * layer * 10.0**-seed) for seed in range(3)))
        for layer in (1, 2, 3)
    ]
    assert shallow == pytest.approx([*expected, 1.0])
    band = figure.axes[0].collections[1].get_paths()[0].vertices
    factor = math.exp(statistics.stdev(math.log(10.0**-seed) for seed in range(3)))
    assert band[:, 1].max() == pytest.approx(expected[2] * factor)
    assert "geometric" in remarks(figure)


def test_a_step_and_a_column_that_were_not_measured_are_questions_gone_wrong(sweep: Path) -> None:
    assert drawn(compare_figure([sweep / "0"], layers_at="20").axes[0])
    with pytest.raises(QuestionError, match="not measured at step 7"):
        compare_figure([sweep], layers_at="7")
    with pytest.raises(QuestionError, match="nearest: delta_rms"):
        compare_figure([sweep], "delta", layers_at="first")
    with pytest.raises(QuestionError, match="preact_std was measured at no step"):
        compare_figure([sweep], "preact_std", layers_at="first")


@pytest.mark.parametrize("deltas", [[0.0, 0.0], [math.nan] * 2, [3.0], [math.inf, 1.0]], ids=str)
def test_layers_without_a_place_on_the_axis_are_drawn(tmp_path: Path, deltas: Any) -> None:
    make_run(tmp_path / "run", None, None, deltas)
    figure = compare_figure([tmp_path], layers_at="first")
    style.write(figure, tmp_path / "run.png")
    hidden, readout = list(range(1, len(deltas) + 1)), len(deltas) + 1
    places = drawn(figure.axes[0])[0][0]
    assert (places[: len(deltas)], places[-1]) == (hidden, readout)


# ---------------------------------------------------------------- panels, looks, legends


def test_panels_part_the_runs_by_a_key_and_share_their_scale(sweep: Path) -> None:
    figure = compare_figure([sweep], seeds=True, panels="depth")
    first, second = figure.axes
    assert (first.get_title("left"), second.get_title("left")) == ("depth=3", "depth=30")
    assert len(drawn(first)) == len(drawn(second)) == 1
    assert first.get_ylim() == second.get_ylim()
    assert drawn(second)[0][1] == pytest.approx([31 - step / 10 for step in range(5)])
    with pytest.raises(QuestionError, match=r"key of --panels: 'dept'[\s\S]*nearest: model.depth"):
        compare_figure([sweep], panels="dept")


@pytest.mark.parametrize("panels", [None, "depth"])
def test_the_scale_that_panels_share_holds_every_line_and_band(sweep: Path, panels: Any) -> None:
    figure = compare_figure([sweep], layers_at="first", seeds=True, panels=panels)
    low, high = figure.axes[0].get_ylim()
    for axes in figure.axes:
        bands = [path.vertices[:, 1] for c in axes.collections for path in c.get_paths()]
        values = np.concatenate([*bands, *(np.array(y) for _, y in drawn(axes))])
        assert low <= np.nanmin(values)
        assert high >= np.nanmax(values)
        assert axes.get_ylim() == (low, high)


def test_lines_of_seeds_look_alike_and_are_named_once(sweep: Path) -> None:
    figure = compare_figure([sweep])
    shown = [line for line in figure.axes[0].get_lines() if line.get_linestyle() != "None"]
    assert len({tuple(line.get_color()) for line in shown}) == 2
    assert words(figure) == ["depth=30 (3 runs)", "depth=3 (3 runs)"]


def test_a_key_of_numbers_gives_shades_in_their_order(tmp_path: Path) -> None:
    for job, depth in enumerate((9, 100, 20)):
        make_run(tmp_path / str(job), {"model": {"depth": depth}}, [1, 2])
    figure = compare_figure([tmp_path])
    colours = [line.get_color() for line in figure.axes[0].get_lines()]
    assert colours == [style.choose_shade(0), style.choose_shade(1), style.choose_shade(0.5)]


def test_two_keys_are_colours_and_dashes_and_of_many_lines_the_legend_names_these(
    tmp_path: Path,
) -> None:
    job = 0
    for activation in ("relu", "tanh", "selu"):
        for depth in (3, 5, 7, 9):
            overrides = {"model": {"depth": depth, "activation": activation}}
            make_run(tmp_path / str(job), overrides, [1, 2])
            job += 1
    figure = compare_figure([tmp_path])
    shown = figure.axes[0].get_lines()
    assert len({line.get_color() for line in shown}) == 3
    assert len({line._dash_pattern[1] and tuple(line._dash_pattern[1]) for line in shown}) == 4
    names = ["activation=relu", "activation=tanh", "activation=selu"]
    assert words(figure) == [*names, *(f"depth={depth}" for depth in (3, 5, 7, 9))]


def test_of_sixty_lines_ten_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    for job in range(60):
        make_run(tmp_path / str(job), {"model": {"depth": job + 1}}, [job, job])
    figure = compare_figure([tmp_path])
    assert len(drawn(figure.axes[0])) == 60
    named = words(figure)
    assert (named[0], named[9], named[10]) == ("depth=1", "depth=60", "and 50 more")
    assert len(named) == 11


def test_names_that_are_not_ours_are_no_mathematics(tmp_path: Path) -> None:
    for name in ("$x$", "$y$"):
        make_run(tmp_path / name, None, [1, 2])
    figure = compare_figure([tmp_path])
    assert words(figure) == [r"run \$x\$", r"run \$y\$"]
    style.write(figure, tmp_path / "x.png")


# ---------------------------------------------------------------- maps


def cells(figure: Figure) -> dict[tuple[int, int], str]:
    """Column and row -> what is written there."""
    return {
        (round(text.get_position()[0]), round(text.get_position()[1])): text.get_text()
        for text in figure.axes[0].texts
    }


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Gains 10, 0.5 and depths 30, 3 with two seeds; one pair of values has no run."""
    job = 0
    for gain in (10.0, 0.5):
        for depth in (30, 3):
            for seed in (1, 2):
                if (gain, depth) != (10.0, 3):
                    make_run(
                        tmp_path / "grid" / str(job),
                        {"model": {"depth": depth, "gain": gain}, "seed": seed},
                        attenuation=gain * depth * 100.0**seed / 1e3,
                        val_accuracy_last=seed / 10,
                    )
                job += 1
    return tmp_path / "grid"


def test_a_cell_is_the_right_mean_over_seeds_in_the_order_of_numbers(grid: Path) -> None:
    found = sweep_grid(load_runs([grid]), "gain", "model.depth")
    assert (list(found.x.texts), list(found.y.texts)) == (["0.5", "10.0"], ["3", "30"])
    (panel,) = found.panels
    for gain, depth in ((10.0, 30), (0.5, 30), (0.5, 3)):
        values = [gain * depth * 100.0**seed / 1e3 for seed in (1, 2)]
        cell = panel.cells[str(gain), str(depth)]
        assert cell.value == pytest.approx(math.exp(statistics.fmean(map(math.log, values))))
        assert (cell.num_counted, cell.num_runs) == (2, 2)
    assert ("10.0", "3") not in panel.cells
    plain = sweep_grid(load_runs([grid]), "gain", "depth", "val_accuracy_last").panels[0]
    assert plain.cells["0.5", "3"].value == pytest.approx(0.15)


def test_a_map_shows_values_and_where_no_run_is(grid: Path) -> None:
    figure = sweep_map([grid], "gain", "depth")
    axes = figure.axes[0]
    assert cells(figure) == {(0, 0): "1.5", (0, 1): "15", (1, 1): "300"}
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.5", "10.0"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("gain", "depth")
    assert axes.get_ylim() == (-0.5, 1.5)
    (expected,) = scale_of(SUMMARY["attenuation"], [1.5, 15, 300]).colours_of([15]).values()
    assert faces(axes)[1, 0] == pytest.approx(expected)
    assert NO_RUN.label in words(figure)
    assert "geometric mean of 2 runs" in figure.get_suptitle()


def test_factors_are_white_at_one_and_as_far_from_it_below_as_above() -> None:
    scale = scale_of(SUMMARY["backward_factor_per_layer"], [0.5, 1.25])
    assert scale.norm is not None
    assert (scale.norm.vmin, scale.norm.vmax) == pytest.approx((0.5, 2.0))
    below, steady, above = scale.colours_of([0.5, 1.0, 2.0]).values()
    assert min(steady) > 0.95
    assert below[0] > below[2]  # orange
    assert above[2] > above[1]  # purple
    assert scale.ticks == pytest.approx([1 / 2, 1 / 1.5, 1, 1.5, 2])
    assert scale_of(SUMMARY["attenuation"], [1e-310]).norm.vmax <= 1e300  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("figure", "least"), [("backward_factor_per_layer", 1.2), ("attenuation", 10.0)]
)
def test_a_map_of_factors_near_one_reaches_some_way_from_it(figure: str, least: float) -> None:
    norm = scale_of(SUMMARY[figure], [0.95, 1.05]).norm
    assert norm is not None
    assert (norm.vmin, norm.vmax) == pytest.approx((1 / least, least))


@pytest.mark.parametrize(
    ("figure", "values", "is_log"),
    [
        ("val_accuracy_last", [0.001, 0.9], False),
        ("attenuation_log_std", [0.1, 0.3], False),
        ("backward_factor_log_std", [0.1, 0.3], False),
        ("weight_gradient_ratio", [1.0, 2.0], True),
        ("loss_last", [1.0, 2.0], False),
        ("loss_last", [1.0, 100.0], False),
        ("loss_last", [1.0, 101.0], True),
        ("loss_last", [1.0, 2000.0], True),
        ("loss_last", [-1.0, 2000.0], False),
        ("predicted_attenuation", [1.0, 2.0], True),
        ("loss_last", [3.0], False),
        ("loss_last", [], False),
        ("attenuation", [], True),
        ("attenuation", [0.0, math.inf], True),
        ("loss_last", [0.0], False),
    ],
)
def test_a_scale_of_numbers_has_a_colour_for_each_of_them(
    figure: str, values: list[float], is_log: bool
) -> None:
    scale = scale_of(SUMMARY[figure], values)
    assert scale.is_log == is_log
    found = scale.colours_of(values)
    assert list(found) == [v for v in values if math.isfinite(v) and (v > 0 or not is_log)]
    assert all(0 <= part <= 1 for colour in found.values() for part in colour)
    assert len(set(found.values())) == len(found)


@pytest.mark.parametrize("figure", ["time_attenuation", "backward_factor_per_time_step_last"])
def test_factors_over_time_are_folded_as_those_over_depth(grid: Path, figure: str) -> None:
    for job, value in (("0", 0.01), ("1", 100.0)):
        path = grid / job / "summary.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), figure: value}))
    found = sweep_grid(load_runs([grid]), "gain", "depth", figure).panels[0]
    assert found.cells["10.0", "30"].value == pytest.approx(1.0)


def test_words_have_colours_and_too_many_of_them_none(grid: Path) -> None:
    figure = sweep_map([grid], "gain", "depth", "verdict")
    assert words(figure) == ["healthy", NO_RUN.label]
    assert set(cells(figure).values()) == {"healthy"}
    known = [*VERDICTS, "steady"]
    assert len(set(scale_of(SUMMARY["verdict"], known).colours_of(known).values())) == len(known)
    most = [str(number) for number in range(10)]
    assert len(set(scale_of(SUMMARY["cause"], most).colours_of(most).values())) == len(most)
    with pytest.raises(QuestionError, match="11 different values"):
        scale_of(SUMMARY["cause"], [str(number) for number in range(11)])


def test_the_most_frequent_word_stands_with_its_share(grid: Path) -> None:
    path = grid / "0" / "summary.json"
    path.write_text(path.read_text().replace("healthy", "stalled"))
    figure = sweep_map([grid], "gain", "depth", "verdict")
    assert cells(figure)[1, 1] == "stalled\nhealthy\n1 of 2 each", "neither is a majority"
    assert hatches(figure.axes[0])[1, 1] == SEVERAL.hatch
    assert SEVERAL.label in words(figure)


def test_hatching_is_light_on_a_dark_cell(grid: Path) -> None:
    for job in (0, 1, 4, 5, 6, 7):
        status = {"status": "diverged", "attenuation": 1e-9 if job < 2 else 1.0}
        (grid / str(job) / "summary.json").write_text(json.dumps(status))
    figure = sweep_map([grid], "gain", "depth")
    (mesh,) = [found for found in figure.axes[0].collections if isinstance(found, QuadMesh)]
    faces = np.asarray(mesh.get_array())
    inks = {tuple(np.round(c.get_edgecolor()[0][:3], 2)) for c in figure.axes[0].collections
            if isinstance(c, PolyCollection) and c.get_hatch()}  # fmt: skip
    lightness = faces.reshape(-1, faces.shape[-1])[:, :3].mean(axis=1)
    assert lightness.min() < 0.5 < lightness.max()
    assert len(inks) == 2


def test_a_failed_jobs_numbers_are_typed_like_the_others(grid: Path) -> None:
    job = {"job": 9, "folder": "9", "overrides": ["model.gain=-1", "model.depth=3"]}
    (grid / "plan.json").write_text(json.dumps({"jobs": [job]}))
    (grid / "9").mkdir()
    (grid / "9" / "summary.json").write_text(json.dumps({"status": "failed", "reason": "no"}))
    found = sweep_grid(load_runs([grid]), "gain", "depth")
    assert list(found.x.texts) == ["-1.0", "0.5", "10.0"]
    assert list(found.y.texts) == ["3", "30"]


def test_runs_that_diverged_failed_or_have_no_value_are_hatched_and_named(grid: Path) -> None:
    for job, ending in {
        "0": {"status": "diverged", "attenuation": 3.0},
        "1": {"status": "completed", "attenuation": 3.0},
        "4": {"status": "failed"},
        "5": {"status": "interrupted"},
        "6": {"status": "completed", "attenuation": None},
        "7": {"status": "completed"},
    }.items():
        (grid / job / "summary.json").write_text(json.dumps(ending))
    figure = sweep_map([grid], "gain", "depth")
    found = hatches(figure.axes[0])
    assert found == {
        (1, 1): STATES["diverged"].hatch,
        (0, 1): STATES["failed"].hatch,
        (0, 0): NO_VALUE.hatch,
    }
    assert cells(figure) == {(1, 1): "3"}
    assert set(words(figure)) == {"diverged", "failed", "no value", "no run"}
    style.write(figure, grid / "map.png")


def test_an_exact_zero_and_an_infinity_have_no_colour_of_a_logarithmic_scale(
    tmp_path: Path,
) -> None:
    for job, value in enumerate((0.0, math.inf, 2.0)):
        make_run(tmp_path / str(job), {"model": {"depth": job + 1}}, attenuation=value)
    figure = sweep_map([tmp_path], "depth", "activation")
    assert set(words(figure)) == {"exactly 0", "not finite"}
    assert cells(figure) == {(0, 0): "0", (1, 0): "inf", (2, 0): "2"}
    style.write(figure, tmp_path / "map.png")


def test_the_two_keys_that_vary_are_the_axes_and_more_are_asked_for(grid: Path) -> None:
    found = sweep_grid(load_runs([grid]))
    assert {found.x.label, found.y.label} == {"gain", "depth"}
    assert sweep_grid(load_runs([grid]), y="gain").x.label == "depth"
    make_run(grid / "20", {"model": {"activation": "selu"}})
    with pytest.raises(QuestionError, match=r"vary: model\.depth, model\.activation, model\.gain"):
        sweep_grid(load_runs([grid]))
    with pytest.raises(QuestionError, match=r"both model\.gain"):
        sweep_grid(load_runs([grid]), "gain", "model.gain")


def test_further_keys_are_panels_up_to_a_number(tmp_path: Path) -> None:
    job = 0
    for rate in range(13):
        for depth in (3, 5):
            for gain in (1.0, 2.0):
                overrides = {"model": {"depth": depth, "gain": gain},
                             "train": {"steps": 10 + rate}}  # fmt: skip
                make_run(tmp_path / str(job // 4) / str(job), overrides, attenuation=job + 1.0)
                job += 1
    two = [tmp_path / "0", tmp_path / "1"]
    figure = sweep_map(two, "gain", "depth")
    titles = [axes.get_title("left") for axes in figure.axes[:2]]
    assert titles == ["steps=10", "steps=11"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["5", "6", "7", "8"]
    with pytest.raises(QuestionError, match=r"13 panels.*train\.steps \(13 values\)"):
        sweep_map([tmp_path], "gain", "depth")


def test_a_key_that_goes_with_an_axis_is_named_there_and_is_no_panel(tmp_path: Path) -> None:
    for job, depth in enumerate((3, 5, 7)):
        for seed in (1, 2):
            overrides = {"model": {"depth": depth}, "train": {"steps": 10 * depth}, "seed": seed}
            make_run(tmp_path / f"{job}-{seed}", overrides)
    found = sweep_grid(load_runs([tmp_path]), "depth", "seed")
    assert found.x.label == "depth (with it steps)"
    assert len(found.panels) == 1
    assert found.folded == ""


def test_categories_stand_in_the_order_of_appearance_from_the_top(tmp_path: Path) -> None:
    for job, activation in enumerate(("tanh", "relu", "elu")):
        make_run(tmp_path / str(job), {"model": {"activation": activation}}, attenuation=job + 1.0)
    figure = sweep_map([tmp_path], "depth", "activation")
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["tanh", "relu", "elu"]
    assert axes.get_ylim() == (2.5, -0.5)


def test_a_column_of_the_layers_colours_a_map_at_either_end(sweep: Path) -> None:
    runs = load_runs([sweep])
    first = sweep_grid(runs, "seed", "depth", "delta_rms").panels[0]
    last = sweep_grid(runs, "seed", "depth", "delta_rms_last_layer", "last").panels[0]
    assert first.cells["1", "30"].value == pytest.approx(0.1)
    title = sweep_grid(runs, "seed", "depth", "delta_rms_last_layer", "20").title
    assert title == "delta_rms_last_layer: of the last hidden layer, at step 20"
    assert last.cells["1", "30"].value == pytest.approx(6.0)
    with pytest.raises(QuestionError, match="nearest: attenuation"):
        sweep_grid(runs, "seed", "depth", "atenuation")


def test_a_large_map_is_drawn_without_numbers_and_with_some_ticks(grid: Path) -> None:
    found = sweep_grid(load_runs([grid]))
    cell = next(iter(found.panels[0].cells.values()))
    texts = [str(number) for number in range(60)]
    many = {(x, y): cell for x in texts for y in texts}
    axis = type(found.x)("x", texts, True)
    whole = type(found)(axis, axis, found.color, [type(found.panels[0])("", many)])
    figure = sweep_maps.draw(whole)
    assert not figure.axes[0].texts
    assert len(figure.axes[0].get_xticks()) <= 24


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00016, "0.00016"), (1.034, "1.03"), (2.1e-16, "2.1e-16"), (123.4, "123"), (3e5, "3e5"),
     (1234.5, "1234"), (0.0, "0"), (-0.5, "-0.5"), (math.inf, "inf"), (12345.0, "1.2e4")],
)  # fmt: skip
def test_a_number_in_a_cell_is_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_values_are_numbers_in_order_or_texts_as_they_appear(tmp_path: Path) -> None:
    make_run(tmp_path / "0", {"model": {"gain": 10.0, "activation": "tanh"}})
    make_run(tmp_path / "1", {"model": {"gain": 9.0, "activation": "elu"}})
    runs = load_runs([tmp_path])
    assert texts_of(runs, "model.gain") == ["9.0", "10.0"]
    assert texts_of(runs, "model.activation") == ["tanh", "elu"]
    assert texts_of(runs, "no.key") == ["not set"]
    assert [run.name for (run,) in split_runs(runs, ["model.gain"]).values()] == ["1", "0"]
    assert find_key(runs, "gain", "--panels") == "model.gain"


def test_panels_stand_three_abreast_and_four_as_a_square() -> None:
    assert list(map(columns_of, range(1, 8))) == [1, 2, 3, 2, 3, 3, 3]


# ---------------------------------------------------------------- the verb


def compared(*arguments: str | Path) -> str:
    with redirect_stdout(StringIO()) as out:
        assert VERBS["compare"].run("compare", [str(argument) for argument in arguments]) == 0
    return out.getvalue()


@pytest.mark.parametrize("kind", style.FORMATS)
def test_the_verb_draws_beside_the_table_and_says_where(
    sweep: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"picture.{kind}"
    out = compared(sweep, "--plot", path, "--csv", tmp_path / "out.csv")
    assert out.splitlines()[-1] == f"figure: {path}"
    assert "attenuation" in out
    assert path.stat().st_size > 1000
    assert (tmp_path / "out.csv").is_file()


def shown_by(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is handed on to be drawn; no file is written."""
    found: list[Any] = []

    def keeping(draw: Callable[[Any], Figure]) -> Callable[[Any], Figure]:
        def kept(asked: Any) -> Figure:
            found.append(asked)
            return draw(asked)

        return kept

    monkeypatch.setattr(style, "write", lambda _, path: path)
    monkeypatch.setattr(comparing, "draw", keeping(comparing.draw))
    monkeypatch.setattr(sweep_maps, "draw", keeping(sweep_maps.draw))
    return found


def test_words_of_a_map_and_paths_are_told_apart_in_any_order(
    grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = shown_by(monkeypatch)
    end = ("--plot", tmp_path / "map.png")
    compared("--heatmap", "x=gain", "y=depth", "color=verdict", grid, *end)
    compared(grid, "--heatmap", "y=depth", "colour=verdict", "x=gain", *end)
    compared("--heatmap", grid, "--metric", "verdict", *end)
    compared(grid, "--heatmap", *end, "x=gain", "y=depth", "color=verdict")
    shutil.copytree(grid, tmp_path / "lr=3")
    monkeypatch.chdir(tmp_path)
    compared("--heatmap", "lr=3", "x=gain", "y=depth", "color=verdict", *end)
    assert [found.color.name for found in asked] == ["verdict"] * 5
    assert [asked[place].x.label for place in (0, 1, 3, 4)] == ["gain"] * 4
    with pytest.raises(QuestionError, match=r"x of --heatmap is ''\nallowed: x=NAME"):
        compared(grid, "--heatmap", "x=", *end)
    with pytest.raises(QuestionError, match=r"word of --heatmap: 'z'\nallowed: color, x, y"):
        compared(grid, "--heatmap", "z=gain", *end)


def test_the_verb_draws_over_depth_over_steps_and_in_panels(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = shown_by(monkeypatch)
    table = tmp_path / "table.csv"
    end = ("--plot", tmp_path / "lines.png", "--csv", table)
    compared("--layers", sweep, "--step", "last", *end)
    compared(sweep, "--metric", "val_accuracy", *end)
    assert "val_accuracy" not in table.read_text().splitlines()[0].split(",")
    compared(sweep, "--metric", "layers.delta_rms", "--panels", "depth", "--seeds", *end)
    assert "delta_rms_first_layer_geometric_mean" in table.read_text().splitlines()[0].split(",")
    depth, steps, panels = asked
    assert (depth.x_label, depth.title) == ("layer", "delta_rms at the last measured step")
    assert steps.y_label == "val_accuracy"
    assert panels.panels[0].title == "depth=3, first hidden layer"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--plot", "x.gif"], "figure format of x.gif: 'gif'"),
        (["--plot", "nowhere"], "figure format"),
        (["--plot", "no/where.png"], "cannot write"),
        (["--heatmap"], "--heatmap with --plot FILE"),
        (["--panels", "depth"], "--panels with --plot FILE"),
        (["--heatmap", "--panels", "depth", "--plot", "x.png"], "exclude each other"),
        (["--heatmap", "--layers", "--plot", "x.png"], "exclude each other"),
        (["--metric", "los", "--plot", "x.png"], "nearest: loss"),
    ],
)
def test_what_cannot_be_drawn_is_one_readable_error_before_anything_is_shown(
    sweep: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["compare", str(sweep), *arguments]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert words in captured.err
    assert "Traceback" not in captured.err


def test_only_a_picture_needs_matplotlib_and_none_needs_pyplot_or_torch(
    sweep: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from vgexp.cli.main import main; "
        f"assert main(['compare', {str(sweep)!r}]) == 0; assert 'matplotlib' not in sys.modules; "
        f"assert main(['compare', {str(sweep)!r}, '--plot', {str(tmp_path / 'x.svg')!r}]) == 0; "
        "assert 'matplotlib' in sys.modules; "
        "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
