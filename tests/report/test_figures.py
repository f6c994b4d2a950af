"""Every figure of a run on known tables: what is drawn, what is said, which files there are.

Holds: report/cut_short.py, report/figures/bins.py, report/figures/by_depth.py,
report/figures/depth.py, report/figures/directions.py, report/figures/heat.py,
report/figures/hessian.py, report/figures/of_run.py, report/figures/overview.py,
report/figures/ridges.py, report/figures/shares.py, report/figures/signature.py,
report/figures/start.py, report/figures/style.py, report/figures/thinning.py,
report/figures/through_time.py, report/figures/training.py
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from blank_figures import leave_blank
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from vgexp import folders
from vgexp.cli.main import main
from vgexp.config import Config, MlpConfig
from vgexp.errors import QuestionError
from vgexp.quantities import TABLES
from vgexp.report import figures
from vgexp.report.figures import FIGURES, bins, style

Tables = dict[str, pd.DataFrame]
STEPS = (0, 20, 39)


def layers(num_hidden: int = 3, steps: tuple[int, ...] = STEPS) -> pd.DataFrame:
    """delta_rms falls tenfold a layer from the read-out down; later steps have twice as much."""
    rows = [
        {
            "step": step,
            "layer": layer,
            "name": f"w{layer}",
            "kind": "readout" if layer > num_hidden else "linear",
            "grad_norm": layer * 10.0 ** (when % 3),
            "grad_max": float(layer),
            "update_ratio": layer * 1e-4,
            "preact_std": layer + 0.5,
            "delta_rms": 10.0 ** (layer - num_hidden) * 2 ** (when % 3),
            "saturated_fraction": np.nan if layer > num_hidden else layer / 10,
            "dead_fraction": np.nan if layer > num_hidden else when % 3 / 10,
        }
        for when, step in enumerate(steps)
        for layer in range(1, num_hidden + 2)
    ]
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["layers"]])


def steps_table(num: int = 40) -> pd.DataFrame:
    frame = pd.DataFrame(index=range(num), columns=[column.name for column in TABLES["steps"]])
    index = np.arange(num)
    return frame.assign(
        step=index,
        epoch=0,
        lr=0.1,
        loss=2.0 - index / num,
        accuracy=index / num,
        grad_norm=1.0 + index,
        grad_norm_clipped=np.minimum(1.0 + index, 30.0),
        clipped=(index >= 30).astype(int),
        skipped=0,
        loss_scale=np.nan,
    )


def evals() -> pd.DataFrame:
    rows = [(0, 0, "train", 9.0, 0.0), (0, 0, "val", 2.5, 0.1), (40, 1, "val", 1.5, 0.6)]
    return pd.DataFrame(
        [*rows, (40, 1, "test", 1.6, 0.5)], columns=["step", "epoch", "split", "loss", "accuracy"]
    )


def time(steps: tuple[int, ...] = STEPS) -> pd.DataFrame:
    rows = [
        (step, layer, f"layers.{layer - 1}.{state}", t, 0.5 ** (9 - t) * (step + 1) * layer, 1.0)
        for step in steps
        for layer in (1, 2)
        for state in ("h", "c")
        for t in (9, 1, 5)
    ]
    frame = pd.DataFrame(rows, columns=[c.name for c in TABLES["time"] if not c.is_predicted])
    at_start = (frame["step"] == steps[0]) & frame["name"].str.endswith("h")
    return frame.assign(predicted_delta_rms=frame["delta_rms"].where(at_start) * 2)


def attention() -> pd.DataFrame:
    rows = [(s, b, f"b{b}", h, 1.0, 0.2 * b + 0.1 * h, 1.0) for s in (0, 9) for b in (2, 3)
            for h in (0, 1)]  # fmt: skip
    return pd.DataFrame(rows, columns=[column.name for column in TABLES["attention"]])


SEEDS = (0, 1, 2)


def over_seeds() -> pd.DataFrame:
    """Step 0 of three nets, each ten times the one before; theory has a half more."""
    frames = [layers(steps=(0,)).assign(seed=seed) for seed in SEEDS]
    for power, frame in enumerate(frames):
        frame["delta_rms"] *= 10.0**power
        frame["backward_gain"] = 0.1
    whole = pd.concat(frames, ignore_index=True)
    for name in ("delta_rms", "preact_std", "backward_gain"):
        whole[f"predicted_{name}"] = 1.5 * whole[name]
    return whole.assign(predicted_log_delta_std=0.5)


BINS = ["step", "layer", "name", "quantity", "lower", "upper", "share"]


def histograms(num_layers: int = 3, steps: tuple[int, ...] = (0, 9, 39)) -> pd.DataFrame:
    """Triangles of five bins, twice as wide in each layer."""
    rows = [
        (step, layer, f"w{layer}", quantity, b * 2.0**layer, (b + 1) * 2.0**layer, share)
        for step in steps
        for layer in range(1, num_layers + 1)
        for quantity in ("preact", "act")
        for b, share in zip(range(-2, 3), (0.1, 0.2, 0.4, 0.2, 0.1), strict=True)
    ]
    return pd.DataFrame(rows, columns=BINS)


def time_over_seeds() -> pd.DataFrame:
    """Each net has ten times the one before; theory has twice the gradient."""
    frames = [time((0,)).assign(seed=seed) for seed in SEEDS]
    for power, frame in enumerate(frames):
        frame["delta_rms"] *= 10.0**power
        frame["predicted_delta_rms"] *= 10.0**power
    return pd.concat(frames, ignore_index=True)


def curvature() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "step": [0, 50, 100],
            "hessian_max": [1.0, 30.0, 40.0],
            "hessian_min": [-2.0, 0.0, -0.5],
            "stability_limit": [40.0, 40.0, 20.0],
            "hessian_trace": [5.0, 60.0, np.nan],
            "hessian_trace_error": [1.0, 10.0, np.nan],
        }
    )


def jacobians() -> pd.DataFrame:
    """The product's smallest value is 0 from layer 2 on, and its largest beyond float64."""
    logs = {"product_largest_log10": [0.0, 2.0, 400.0], "product_median_log10": [-1.0, -2.0, -3.0],
            "product_smallest_log10": [-5.0, -np.inf, -np.inf],
            "product_bound_log10": [0.0, 3.0, 500.0]}  # fmt: skip
    names = [*(f"layers.{n}.linear.weight" for n in (0, 1)), "readout.weight"]
    values = {"largest": [2.0, 3.0, 4.0], "median": 1.0, "smallest": [0.1, 0.0, 0.2]}
    return pd.DataFrame({"layer": [1, 2, 3], "name": names, **values, **logs})


def paths() -> pd.DataFrame:
    shares = {"share": [0.5, 0.6, -0.1], "binomial": [0.25, 0.5, 0.25]}
    return pd.DataFrame({"name": "layers.0.linear.weight", "length": [0, 1, 2], **shares})


def shattering() -> pd.DataFrame:
    rows = [(layer, "line", distance, 0.1 * layer / distance)
            for distance in np.arange(1, 11) / 4 for layer in (0, 1, 2)]  # fmt: skip
    rows += [(layer, "data", 1.5, -0.2) for layer in (0, 1, 2)]
    return pd.DataFrame(rows, columns=["layer", "inputs", "distance", "correlation"])


REFERENCES: dict[str, tuple[Callable[[], pd.DataFrame], ...]] = {
    "gradient_map": (layers,),
    "backward_signal": (layers,),
    "forward_signal": (layers,),
    "distributions": (histograms,),
    "shares": (layers,),
    "update_ratios": (layers,),
    "learning_curves": (steps_table, evals),
    "gradient_norms": (steps_table,),
    "through_time": (time,),
    "attention_entropy": (attention,),
    "at_start": (over_seeds,),
    "curvature": (curvature,),
    "time_at_start": (time_over_seeds,),
    "jacobian": (jacobians,),
    "paths": (paths,),
    "shattering": (shattering,),
}


def draw(name: str, *frames: pd.DataFrame, **facts: Any) -> Figure:
    """The figure of the frames, or of its reference."""
    return FIGURES[name].make(*(frames or [make() for make in REFERENCES[name]]), **facts)


def render(figure: Figure) -> Figure:
    """Draws a figure, warnings being errors; without a layout, which takes longest."""
    figure.set_layout_engine(None)
    figure.draw_without_rendering()
    return figure


def named(axes: Axes) -> dict[str, tuple[list[float], list[float]]]:
    """Label -> the x and y of its line."""
    return {
        str(line.get_label()): (
            np.asarray(line.get_xdata(), float).tolist(),
            np.asarray(line.get_ydata(), float).tolist(),
        )
        for line in axes.get_lines()
        if not str(line.get_label()).startswith("_")
    }


def words(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def mesh_of(figure: Figure) -> QuadMesh:
    (mesh,) = [m for m in figure.axes[0].collections if isinstance(m, QuadMesh)]
    return mesh


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def test_every_figure_has_a_reference_and_every_reference_a_figure() -> None:
    assert set(REFERENCES) == set(FIGURES)
    assert all(len(FIGURES[name].columns) == len(makes) for name, makes in REFERENCES.items())


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_needs_only_the_columns_that_it_names(name: str) -> None:
    picture = FIGURES[name]
    frames = [
        make()[[column for column in columns if column in make().columns]]
        for make, columns in zip(REFERENCES[name], picture.columns.values(), strict=True)
    ]
    assert not words(draw(name, *frames)) or name == "distributions"
    assert set(picture.measured) <= set(picture.columns[picture.table])
    assert FIGURES.summary(name) == picture.summary
    assert "\n" not in picture.summary


@pytest.mark.parametrize("name", FIGURES)
def test_every_panel_has_a_title_and_says_what_its_axes_are(name: str) -> None:
    figure = draw(name)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert all(axes.get_title(loc="left") for axes in panels)
    assert all(axes.get_xlabel() for axes in panels)
    assert panels[0].get_ylabel()


@pytest.mark.parametrize("name", FIGURES)
def test_equal_tables_give_equal_files(tmp_path: Path, name: str) -> None:
    figures_of_it = [draw(name), draw(name)]
    for figure in figures_of_it:
        figure.set_layout_engine(None)
    first, again = (
        style.write(figure, tmp_path / f"{file}.svg")
        for file, figure in zip("ab", figures_of_it, strict=True)
    )
    assert first.read_bytes() == again.read_bytes()


def test_a_map_has_a_cell_for_each_layer_and_step() -> None:
    figure = draw("gradient_map")
    mesh = mesh_of(figure)
    expected = [[layer * 10.0**when for when in range(3)] for layer in (1, 2, 3, 4)]
    np.testing.assert_allclose(np.asarray(mesh.get_array()).reshape(4, 3), expected)
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], [-0.5, 10, 29.5, 39.5])
    top, bottom = figure.axes[0].get_ylim()[::-1]
    assert top < bottom
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        "1", "2", "3", "read-out",
    ]  # fmt: skip
    # About 20, three decades.
    assert mesh.get_clim() == pytest.approx((20 / 10**1.5, 20 * 10**1.5))


def test_of_a_map_of_more_than_three_decades_the_ends_are_those_of_the_values() -> None:
    frame = layers()
    frame["grad_norm"] = 100.0 ** frame["layer"]
    assert mesh_of(draw("gradient_map", frame)).get_clim() == pytest.approx((1e2, 1e8))


def test_a_map_hatches_zeros_underflow_and_what_is_not_finite_and_says_so() -> None:
    frame = layers()
    at = {(row.step, row.layer): row.Index for row in frame.itertuples()}
    frame.loc[at[0, 1], ["grad_norm", "grad_max"]] = 0.0
    frame.loc[at[20, 2], ["grad_norm", "grad_max"]] = 1e-39
    frame.loc[at[39, 3], "grad_norm"] = np.inf
    frame.loc[at[39, 4], "grad_norm"] = np.nan
    figure = draw("gradient_map", frame)
    shown = np.asarray(np.ma.filled(mesh_of(figure).get_array(), np.nan)).reshape(4, 3)
    assert np.argwhere(np.isnan(shown)).tolist() == [[0, 0], [1, 1], [2, 2], [3, 2]]
    assert legend_of(figure.axes[0]) == ["underflow", "exactly 0", "not finite"]
    hatched = {
        str(patch.get_hatch()): path.vertices[:4].tolist()
        for patch in figure.axes[0].collections
        if isinstance(patch, PolyCollection)
        for path in patch.get_paths()
    }
    assert hatched[style.ZERO.hatch] == [[-0.5, -0.5], [10, -0.5], [10, 0.5], [-0.5, 0.5]]
    assert hatched[style.UNDERFLOW.hatch] == [[10, 0.5], [29.5, 0.5], [29.5, 1.5], [10, 1.5]]
    assert hatched[style.NOT_FINITE.hatch][0] == [29.5, 1.5]


def test_float64_underflows_later_and_half_precision_has_weights_in_float32() -> None:
    frame = layers().assign(grad_max=1e-39)
    assert legend_of(draw("gradient_map", frame, dtype="float64").axes[0]) == []
    assert legend_of(draw("gradient_map", frame, dtype="float16").axes[0]) == ["underflow"]
    assert not legend_of(draw("gradient_map", layers(), dtype="float16").axes[0])


def test_half_precision_underflows_below_its_own_smallest_number_over_the_loss_scale() -> None:
    frame = layers()
    frame["grad_max"] = np.where(frame["layer"] == 2, 1e-6, 1.0)
    scales = pd.Series({0: 1.0, 20: 32.0, 39: 128.0})

    def places(**facts: Any) -> list[list[float]]:
        return [
            path.vertices[:4, 0].tolist()
            for patch in draw("gradient_map", frame, **facts).axes[0].collections
            if isinstance(patch, PolyCollection)
            for path in patch.get_paths()
        ]

    # 2^-14 is 6.1e-5: over 32 it is 1.9e-6, over 128 4.8e-7.
    assert places(dtype="float16", loss_scale=scales) == [[-0.5, 29.5, 29.5, -0.5]]
    assert places(dtype="float16") == [[-0.5, 39.5, 39.5, -0.5]]
    assert places(dtype="bfloat16", loss_scale=scales) == places() == places(dtype=None) == []


def test_a_step_whose_gradients_were_all_nan_is_a_column_that_is_not_finite() -> None:
    frame = layers().assign(grad_zero_fraction=0.0)
    frame.loc[frame["step"] == 20, ["grad_norm", "grad_max"]] = np.nan
    figure = draw("gradient_map", frame)
    assert legend_of(figure.axes[0]) == ["not finite"]
    (patch,) = [p for p in figure.axes[0].collections if isinstance(p, PolyCollection)]
    assert {tuple(np.unique(p.vertices[:, 0])) for p in patch.get_paths()} == {(10.0, 29.5)}
    assert len(patch.get_paths()) == 4


def test_a_step_without_a_value_is_blank_and_not_in_the_colour_of_its_neighbours() -> None:
    frame = layers()
    frame.loc[frame["step"] == 20, ["grad_norm", "grad_max"]] = np.nan
    figure = draw("gradient_map", frame)
    shown = np.asarray(np.ma.filled(mesh_of(figure).get_array(), np.nan)).reshape(4, 3)
    assert np.isnan(shown).all(axis=0).tolist() == [False, True, False]
    assert legend_of(figure.axes[0]) == []


def test_one_special_cell_among_thousands_of_steps_is_seen_and_others_are_medians() -> None:
    frame = layers(2, tuple(range(2500)))
    frame["grad_norm"] = np.random.default_rng(0).lognormal(size=len(frame))
    by_layer = {n: frame.index[frame["layer"] == n].to_numpy() for n in (1, 2, 3)}
    frame.loc[by_layer[1][1000], "grad_norm"] = 0.0
    frame.loc[by_layer[2][2000], "grad_norm"] = np.inf
    frame.loc[by_layer[2][1999], "grad_norm"] = 0.0
    figure = draw("gradient_map", frame)
    shown = np.asarray(np.ma.filled(mesh_of(figure).get_array(), np.nan)).reshape(3, -1)
    assert shown.shape[1] == -(-2500 // 3)
    assert np.argwhere(np.isnan(shown)).tolist() == [[0, 333], [1, 666]]
    third = frame["grad_norm"].to_numpy()[by_layer[3]]
    expected = [sorted(third[i : i + 3])[(len(third[i : i + 3]) - 1) // 2]
                for i in range(0, 2500, 3)]  # fmt: skip
    np.testing.assert_allclose(shown[2], expected)
    hatched = {
        str(patch.get_hatch()): patch.get_paths()[0].vertices[:4, 0].tolist()
        for patch in figure.axes[0].collections
        if isinstance(patch, PolyCollection)
    }
    assert hatched == {
        style.ZERO.hatch: [998.5, 1001.5, 1001.5, 998.5],
        style.NOT_FINITE.hatch: [1997.5, 2000.5, 2000.5, 1997.5],
    }


def test_a_single_step_is_a_narrow_column() -> None:
    axes = draw("gradient_map", layers(steps=(7,))).axes[0]
    assert axes.get_xlim() == (4.5, 9.5)
    assert axes.get_xticks().tolist() == [7]


def test_of_very_many_steps_a_map_shows_some_and_says_so() -> None:
    figure = draw("gradient_map", layers(1, tuple(range(0, 6006, 3))).assign(grad_norm=1.0))
    assert figure.axes[0].get_xlabel() == "step (medians of 3 measured)"
    assert mesh_of(figure).get_coordinates()[0, [0, -1], 0].tolist() == [-0.5, 6003.5]


def test_the_backward_signal_is_drawn_at_the_first_middle_and_last_step() -> None:
    axes = draw("backward_signal").axes[0]
    lines = named(axes)
    assert list(lines) == [f"step {step}" for step in STEPS]
    for when, step in enumerate(STEPS):
        x, y = lines[f"step {step}"]
        assert x == [1, 2, 3, 4]
        np.testing.assert_allclose(y, 10.0 ** np.arange(-2, 2) * 2**when)
    assert axes.get_yscale() == "log"


@pytest.mark.parametrize(
    ("name", "column"), [("backward_signal", "delta_rms"), ("forward_signal", "preact_std")]
)
def test_what_theory_predicts_is_a_line_beside(name: str, column: str) -> None:
    frame = layers()
    frame[f"predicted_{column}"] = np.where(frame["step"] == 0, 2.0 * frame[column], np.nan)
    x, y = named(draw(name, frame).axes[0])["theory, step 0"]
    first = frame[frame["step"] == 0]
    assert x == first["layer"].tolist()
    np.testing.assert_allclose(y, 2 * first[column])
    assert "theory" not in str(legend_of(draw(name).axes[0]))


def test_the_forward_signal_is_the_spread_of_z() -> None:
    assert named(draw("forward_signal").axes[0])["step 20"][1] == [1.5, 2.5, 3.5, 4.5]


def test_shares_have_a_panel_each_that_was_measured() -> None:
    figure = draw("shares")
    assert len(figure.axes) == 2
    assert named(figure.axes[0])["step 39"] == ([1, 2, 3], [0.1, 0.2, 0.3])
    assert named(figure.axes[1])["step 39"] == ([1, 2, 3], [0.2, 0.2, 0.2])
    alone = draw("shares", layers().assign(saturated_fraction=np.nan))
    assert [axes.get_ylabel() for axes in alone.axes] == ["share of dead units"]
    assert alone.axes[0].get_ylim() == (0, 1)


def test_networks_at_the_start_are_geometric_means_over_seeds_with_theory_beside() -> None:
    backward, forward, gain = draw("at_start").axes
    x, y = named(backward)["measured, 3 seeds"]
    assert x == [1, 2, 3, 4]
    np.testing.assert_allclose(y, [0.1, 1.0, 10.0, 100.0], err_msg="of 1, 10 and 100 times: 10")
    # ln of 1, 10 and 100 deviates by ln 10 (n - 1 of three).
    (band,) = backward.collections
    edges = np.unique(np.round(band.get_paths()[0].vertices[:, 1], 9))
    np.testing.assert_allclose(edges, 10.0 ** np.arange(-2, 4))
    np.testing.assert_allclose(named(backward)["theory"][1], 1.5 * np.array(y))
    lines = [line.get_ydata() for line in backward.get_lines() if line.get_linestyle() == "--"]
    np.testing.assert_allclose(lines[0] / lines[1], math.e * np.ones(4))
    assert named(forward)["measured, 3 seeds"][1] == pytest.approx([1.5, 2.5, 3.5, 4.5])
    np.testing.assert_allclose(named(gain)["theory"][1], 0.15)
    alone = over_seeds().query("seed == 0").drop(columns="predicted_delta_rms")
    axes = draw("at_start", alone).axes[0]
    assert list(named(axes)) == ["measured, 1 seed"]
    assert not axes.collections, "one seed has no spread"


def _strip(axes: Axes) -> list[tuple[list[float], float]]:
    """The rows of exact zeros: steps and height."""
    return [
        (line.get_xdata().tolist(), float(line.get_ydata()[0]))
        for line in axes.get_lines()
        if line.get_marker() == "s"
    ]


def test_update_ratios_are_a_line_a_layer_with_the_guide() -> None:
    axes = draw("update_ratios").axes[0]
    curves = [line for line in axes.get_lines() if str(line.get_label()).startswith("_")]
    assert [line.get_ydata().tolist() for line in curves] == [
        [layer * 1e-4] * 3 for layer in (1, 2, 3, 4)
    ]
    assert all(line.get_xdata().tolist() == list(STEPS) for line in curves)
    assert named(axes)["guide 1e-3"][1] == [1e-3, 1e-3]
    low, high = axes.get_ylim()
    assert low < 1e-3 < high


def test_weights_that_do_not_move_stand_in_a_strip_below_all_curves() -> None:
    frame = layers()
    frame.loc[frame["layer"] == 2, "update_ratio"] = [0.0, 1e-5, 0.0]
    frame.loc[frame["layer"] == 1, "update_ratio"] = 0.0
    axes = draw("update_ratios", frame).axes[0]
    first, second = _strip(axes)
    assert first[0] == list(STEPS)
    assert second[0] == [0, 39]
    assert first[1] > second[1] > 0
    lowest = axes.transAxes.inverted().transform(axes.transData.transform((0, 1e-5)))[1]
    assert lowest > first[1]


def test_of_many_steps_medians_are_drawn_and_an_infinite_one_stays() -> None:
    frame = layers(1, tuple(range(1000)))
    frame["update_ratio"] = np.where(frame["step"] % 5 == 0, 0.0, 1e-3)
    frame.loc[(frame["step"] == 501) & (frame["layer"] == 1), "update_ratio"] = np.inf
    axes = draw("update_ratios", frame).axes[0]
    assert axes.get_xlabel() == "step (medians of 5 measured)"
    curve = axes.get_lines()[0]
    assert len(curve.get_xdata()) == 200
    assert set(curve.get_ydata()[np.isfinite(curve.get_ydata())]) == {1e-3}
    assert [x for line in axes.get_lines() if line.get_marker() == "^" for x in line.get_xdata()] \
        == [502.0]  # fmt: skip
    assert len(_strip(axes)) == 2


def test_a_median_stands_at_the_mean_of_its_steps_and_counts_zeros() -> None:
    steps = tuple(range(0, 20_000, 20))
    frame = layers(1, steps)
    place = frame["step"] // 20
    frame["update_ratio"] = np.where(place % 5 == 4, 5e-3, 1e-3)
    frame.loc[(place >= 500) & (place % 5 < 3), "update_ratio"] = 0.0
    axes = draw("update_ratios", frame).axes[0]
    curve = axes.get_lines()[0]
    assert curve.get_xdata().tolist() == [np.mean(steps[i : i + 5]) for i in range(0, 1000, 5)]
    assert set(curve.get_ydata()[:100]) == {1e-3}
    assert np.isnan(curve.get_ydata()[100:]).all(), "three of five are zeros"
    assert {x for row, _ in _strip(axes) for x in row} == {
        float(step) for i, step in enumerate(steps) if i >= 500 and i % 5 < 3
    }


def test_learning_curves_show_each_step_evaluations_and_the_constant_guess() -> None:
    figure = draw("learning_curves", constant_loss=2.3)
    loss, accuracy = (named(axes) for axes in figure.axes)
    steps = steps_table()
    assert loss["training step"] == (steps["step"].tolist(), steps["loss"].tolist())
    assert not [name for name in loss if "mean" in name], "of few steps there is no mean"
    assert loss["validation"] == ([0, 40], [2.5, 1.5])
    assert loss["test"] == ([40], [1.6])
    assert loss["constant guess 2.30"][1] == [2.3, 2.3]
    assert accuracy["validation"] == ([0, 40], [0.1, 0.6])
    assert figure.axes[0].get_yscale() == "linear"
    assert "clipped: 25 % of steps" in legend_of(figure.axes[0])


@pytest.mark.parametrize(("num_steps", "window"), [(60, 6), (120, 12), (500, 20)])
def test_the_mean_of_a_long_run_begins_where_its_window_is_full(
    num_steps: int, window: int
) -> None:
    losses = [10 / (1 + step) + (-1) ** step for step in range(num_steps)]
    steps = pd.DataFrame({"step": range(num_steps), "loss": losses, "accuracy": np.nan})
    axes = draw("learning_curves", steps).axes[0]
    lines = named(axes)
    assert lines["training step"][1] == losses
    drawn = np.array(lines[f"mean of the last {window} steps"][1])
    assert np.isnan(drawn[: window - 1]).all()
    means = [np.mean(losses[end - window : end]) for end in range(window, num_steps + 1)]
    np.testing.assert_allclose(drawn[window - 1 :], means)
    assert f"mean of the last {window} steps" in legend_of(axes)


def test_a_loss_over_many_powers_of_ten_is_on_a_logarithmic_scale() -> None:
    steps = steps_table().assign(loss=np.logspace(0, -6, 40))
    assert draw("learning_curves", steps, evals()).axes[0].get_yscale() == "log"


def test_a_loss_that_was_lost_is_marked_at_its_step() -> None:
    steps = steps_table()
    steps.loc[steps["step"] >= 38, "loss"] = np.inf
    axes = draw("learning_curves", steps, evals()).axes[0]
    assert named(axes)["not finite from step 38"][0] == [38, 38]
    assert np.isnan(named(axes)["training step"][1][38:]).all()


def test_without_accuracy_or_evaluations_there_is_the_loss_alone() -> None:
    figure = draw("learning_curves", steps_table().assign(accuracy=np.nan))
    assert len(figure.axes) == 1
    assert "validation" not in named(figure.axes[0])


def test_gradient_norms_show_both_sides_of_clipping_where_it_does_something() -> None:
    steps = steps_table()
    lines = named(draw("gradient_norms", steps).axes[0])
    assert lines["before clipping"][1] == steps["grad_norm"].tolist()
    assert lines["as the optimizer saw it"][1] == steps["grad_norm_clipped"].tolist()
    unclipped = steps.assign(grad_norm_clipped=steps["grad_norm"], clipped=0, skipped=1)
    axes = draw("gradient_norms", unclipped).axes[0]
    assert list(named(axes)) == ["gradient norm"]
    assert legend_of(axes) == ["gradient norm", "skipped: 100 % of steps"]


def test_through_time_shows_the_last_layer_in_the_order_of_time() -> None:
    lines = named(draw("through_time").axes[0])
    names = [f"{state}, step {step}" for state in "hc" for step in STEPS]
    assert list(lines) == [*names, "theory, step 0"]
    x, y = lines["c, step 20"]
    assert x == [1, 5, 9]
    np.testing.assert_allclose(y, [2 * 21 * 0.5**8, 2 * 21 * 0.5**4, 2 * 21])


def test_attention_is_a_mean_over_heads_for_each_block() -> None:
    axes = draw("attention_entropy").axes[0]
    found = [line.get_ydata().tolist() for line in axes.get_lines()]
    np.testing.assert_allclose(found, [[0.45, 0.45], [0.65, 0.65]])


def test_time_over_seeds_is_a_geometric_mean_of_the_last_layers_hidden_state() -> None:
    axes = draw("time_at_start").axes[0]
    lines = named(axes)
    assert list(lines) == ["measured, 3 seeds", "theory"]
    # The second of two layers has twice the first's.
    np.testing.assert_allclose(lines["measured, 3 seeds"][1], [20 / 2**8, 20 / 2**4, 20])
    np.testing.assert_allclose(lines["theory"][1], [40 / 2**8, 40 / 2**4, 40])
    assert lines["theory"][0] == [1, 5, 9]
    (band,) = axes.collections
    np.testing.assert_allclose(band.get_paths()[0].vertices[:, 1].max(), 200)


def test_curvature_shows_the_stability_limit_and_a_negative_eigenvalue_by_its_size() -> None:
    sharpness, trace = draw("curvature").axes
    lines = named(sharpness)
    assert lines["largest eigenvalue"] == ([0, 50, 100], [1, 30, 40])
    # An exact zero has no place on the scale and is a mark of its own.
    np.testing.assert_equal(lines["smallest eigenvalue"][1], [2, np.nan, 0.5])
    np.testing.assert_equal(lines["smallest, below 0: its size"][1], [2, np.nan, 0.5])
    positive = curvature().assign(hessian_min=[0.5, 0.25, 0.5])
    assert "smallest, below 0: its size" not in named(draw("curvature", positive).axes[0])
    assert lines["stability limit (sgd: 2 / lr)"][1] == [40, 40, 20]
    np.testing.assert_equal(trace.get_lines()[0].get_ydata(), [5, 60, np.nan])
    edges = trace.collections[0].get_paths()[0].vertices
    assert {tuple(edge) for edge in edges} >= {(0.0, 4.0), (0.0, 6.0), (50.0, 50.0), (50.0, 70.0)}
    adaptive = curvature().assign(stability_limit=np.nan)
    assert "stability limit" not in str(list(named(draw("curvature", adaptive).axes[0])))
    for nothing in (np.nan, np.inf):
        drawn = draw("curvature", curvature().assign(hessian_trace=nothing))
        assert words(drawn) == ["no trace was finite"]


def test_singular_values_of_a_product_beyond_float64_stand_at_the_edge_of_the_scale() -> None:
    each, product = draw("jacobian").axes
    # What the few outputs have stands apart: no line goes on to it.
    np.testing.assert_equal(named(each)["largest"][1], [2, 3, np.nan])
    np.testing.assert_allclose(named(product)["largest"][1], [1, 100, np.nan])
    np.testing.assert_allclose(named(product)["smallest"][1], [1e-5, np.nan, np.nan])
    apart = [line for line in product.get_lines() if np.asarray(line.get_xdata()).tolist() == [3]]
    heights = [np.asarray(line.get_ydata()).tolist() for line in apart if line.get_gid() is None]
    assert [1e300] in heights
    zeros = [line for line in product.get_lines() if line.get_gid() == "zeros"]
    assert sorted(x for line in zeros for x in np.asarray(line.get_xdata()).tolist()) == [2, 3]
    assert [text.get_text() for text in each.get_xticklabels()] == ["1", "2", "read-out"]


def test_paths_are_bars_beside_their_number_and_may_be_negative() -> None:
    axes = draw("paths").axes[0]
    bars = [patch.get_height() for patch in axes.patches]
    assert bars == [0.5, 0.6, -0.1]
    assert named(axes)["share of the paths (binomial)"] == ([0, 1, 2], [0.25, 0.5, 0.25])
    for nothing in (np.nan, np.inf):
        assert words(draw("paths", paths().assign(share=nothing))) == ["no gradient came back"]


def test_shattering_has_a_line_a_distance_over_depth_and_one_of_the_examples() -> None:
    lines = named(draw("shattering").axes[0])
    first, *_, last, examples = lines
    assert (first, last, examples) == ("distance 0.25", "distance 2.5", "examples (1.5)")
    assert len(lines) == 7
    np.testing.assert_allclose(lines["distance 2.5"][1], [0, 0.04, 0.08])
    assert lines["examples (1.5)"] == ([0, 1, 2], [-0.2] * 3)


def ridges(axes: Axes) -> Iterator[np.ndarray]:
    return (patch.get_xy() for patch in axes.patches if isinstance(patch, Polygon))


def test_distributions_are_a_ridge_a_layer_at_the_first_and_the_last_step() -> None:
    figure = draw("distributions")
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "Activations h, step 0", "Activations h, step 39",
    ]  # fmt: skip
    for place, (layer, ridge) in enumerate(zip((1, 2, 3), ridges(figure.axes[0]), strict=True)):
        heights = place - ridge[:, 1]
        assert (ridge[:, 0].min(), ridge[:, 0].max()) == (-2 * 2.0**layer, 3 * 2.0**layer)
        # A density: half of the share of the highest is half as high, whatever the bins' width.
        assert sorted({round(height, 9) for height in heights}) == [0, 0.22, 0.44, 0.88]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["1", "2", "3"]


def test_bins_of_unequal_width_are_as_high_as_they_are_dense() -> None:
    rows = [(0, 1, "w", "act", 0.0, 1.0, 0.2), (0, 1, "w", "act", 1.0, 5.0, 0.8)]
    rows += [(0, 1, "w", "act", 5.0, 5.5, 0.0), (0, 1, "w", "act", -1.0, 0.0, 0.2)]
    (ridge,) = ridges(draw("distributions", pd.DataFrame(rows, columns=BINS)).axes[0])
    assert set(np.round(-ridge[:, 1], 9)) == {0, 0.88}


def test_ridges_of_real_activations_are_their_histogram_and_their_std() -> None:
    h = np.tanh(np.random.default_rng(0).normal(0.3, 0.7, 20_000))
    edges = np.array([-1, -0.9, -0.5, -0.25, 0, 0.25, 0.5, 0.625, 0.75, 0.875, 1])
    density, _ = np.histogram(h, edges, density=True)
    shares = density * np.diff(edges)
    rows = [(5, 1, "w", "act", *bin_) for bin_ in zip(edges, edges[1:], shares, strict=False)]
    figure = draw("distributions", pd.DataFrame(rows, columns=BINS))
    (ridge,) = ridges(figure.axes[0])
    np.testing.assert_allclose(-ridge[1:-1:2, 1][:10], density / density.max() * 0.88)
    assert float(_std_of(figure)[0]) == pytest.approx(h.std(), rel=0.05)


def _std_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_position()[0] == 1.02]


def test_beside_a_ridge_stands_its_standard_deviation() -> None:
    # Bins in the middle 2^layer apart with shares .1 .2 .4 .2 .1: a variance of 1.2 of these.
    expected = [f"{1.2**0.5 * 2**layer:.2g}" for layer in (1, 2, 3)]
    assert _std_of(draw("distributions")) == [*expected, "std"]


@pytest.mark.parametrize("power", [-160, 0, 160])
def test_standard_deviations_of_any_size_are_right(power: int) -> None:
    frame = histograms()
    frame[["lower", "upper"]] *= 10.0**power
    figure = draw("distributions", frame)
    assert "0" not in _std_of(figure)
    assert ("/ 10" in figure.axes[0].get_xlabel()) == (power != 0)


def test_a_layer_whose_entries_are_all_one_is_a_bar_with_its_share() -> None:
    frame = histograms(2)
    rows = pd.DataFrame([(0, 3, "w3", "act", 0.0, 0.25, 1.0)], columns=BINS)
    figure = draw("distributions", pd.concat([frame, rows]))
    assert "100 %" in words(figure)
    assert "< 0.2" in words(figure)
    # The others are as high as without it.
    heights = [place - ridge[:, 1].min() for place, ridge in enumerate(ridges(figure.axes[0]))]
    np.testing.assert_allclose(heights[:2], 0.88)
    assert "no finite entry" in [text.get_text() for text in figure.axes[1].texts]


def test_a_spike_within_a_ridge_is_named_and_does_not_flatten_the_rest() -> None:
    shares = [0.6, *[0.04] * 10]
    rows = [(0, 1, "w", "act", b / 8, (b + 1) / 8, share) for b, share in enumerate(shares)]
    figure = draw("distributions", pd.DataFrame(rows, columns=BINS))
    assert "60 %" in words(figure)
    (legend,) = legend_of(figure.axes[0])
    assert "its share of the entries" in legend
    (ridge,) = ridges(figure.axes[0])
    assert -ridge[:, 1].min() == pytest.approx(0.88 * 0.6)


@pytest.mark.parametrize(
    ("densities", "shares", "num_spikes"),
    [
        ([4.1, 1.0, 0.9, 0.8], [0.15, 0.1, 0.1, 0.1], 1),
        ([3.9, 1.0, 0.9, 0.8], [0.15, 0.1, 0.1, 0.1], 0),
        ([4.1, 1.0, 0.9, 0.8], [0.14, 0.1, 0.1, 0.1], 0),
        ([9.0, 8.0, 1.0, 0.9], [0.08, 0.08, 0.1, 0.1], 2),
        ([9.0, 9.0, 9.0, 9.0, 1.0, 0.9], [0.04] * 6, 4),
        ([9.0, 9.0, 9.0, 9.0, 9.0, 1.0], [0.04] * 6, 0),
    ],
)
def test_few_bins_that_hold_much_and_tower_fourfold_are_spikes(
    densities: list[float], shares: list[float], num_spikes: int
) -> None:
    found = bins.spikes_of(np.array(shares), np.array(densities))
    assert found.tolist() == [place < num_spikes for place in range(len(densities))]


def test_without_a_spike_none_is_explained() -> None:
    assert all(axes.get_legend() is None for axes in draw("distributions").axes)


def test_spikes_at_both_ends_are_two_bars() -> None:
    rows = [(0, 1, "w", "act", b / 8, (b + 1) / 8, share)
            for b, share in enumerate([0.3, *[0.01] * 10, 0.3, 0.3])]  # fmt: skip
    found = words(draw("distributions", pd.DataFrame(rows, columns=BINS)))
    assert found.count("30 %") == 1
    assert found.count("60 %") == 1


def test_what_is_not_finite_is_said() -> None:
    frame = histograms(1).assign(share=lambda rows: rows["share"] * 0.75)
    assert words(draw("distributions", frame)).count("25 % not finite") == 2


def test_of_many_layers_twelve_are_shown_with_both_ends() -> None:
    axes = draw("distributions", histograms(100, (0,))).axes[0]
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(labels) == 12
    assert (labels[0], labels[-1]) == ("1", "100")
    assert "(12 of 100)" in axes.get_ylabel()


def test_where_no_h_was_measured_it_is_z() -> None:
    frame = histograms()
    figure = draw("distributions", frame[frame["quantity"] == "preact"])
    assert figure.axes[0].get_xlabel() == "pre-activations z"


NUMBERS = ("loss", "accuracy", "delta_rms", "entropy_fraction", "share", *layers().columns[4:],
           *curvature().columns[1:], *jacobians().columns[2:], "correlation")  # fmt: skip
VALUES = [(name, value) for name in FIGURES for value in (np.nan, 0.0, np.inf, 1e308)]
VALUES += [(name, value) for name in ("gradient_map", "learning_curves", "distributions")
           for value in (-1.0, 5e-324)]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_a_table_of_nothing_but_one_value_is_drawn(name: str, value: float) -> None:
    frames = [
        frame.assign(**{column: value for column in NUMBERS if column in frame.columns})
        for frame in (make() for make in REFERENCES[name])
    ]
    figure = render(draw(name, *frames))
    if np.isnan(value):
        assert all(axes.texts for axes in figure.axes), "an empty panel says why it is empty"


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("name", FIGURES)
def test_tables_without_rows_and_of_one_row_are_drawn(name: str, rows: int) -> None:
    figure = render(draw(name, *(make().head(rows) for make in REFERENCES[name])))
    said = " ".join(words(figure))
    assert rows == 1 or "no " in said or "not " in said or "neither" in said


@pytest.mark.parametrize("name", [name for name in FIGURES if FIGURES[name].table == "layers"])
def test_a_thousand_layers_are_drawn(name: str) -> None:
    axes = render(draw(name, layers(1000).assign(seed=0))).axes[0]
    assert len(axes.get_xticks()) < 20
    assert len(axes.get_yticks()) < 20


@pytest.mark.parametrize("name", ["learning_curves", "gradient_norms"])
def test_a_hundred_thousand_steps_are_thinned(name: str) -> None:
    frames = [steps_table(100_000), evals()][: len(FIGURES[name].columns)]
    lines = [line for axes in render(draw(name, *frames)).axes for line in axes.get_lines()]
    assert max(len(line.get_xdata()) for line in lines) < 5000


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with every common table and a summary."""
    for name, frame in (("layers", layers()), ("steps", steps_table()), ("evals", evals())):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    summary = {"verdict": "vanishing", "cause": "too deep", "constant_loss": 2.3}
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return tmp_path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are written without being drawn, where only the files count."""
    leave_blank(monkeypatch)

    def write(_: Figure, path: Path) -> Path:
        path.write_text("picture", encoding="utf-8")
        return path

    monkeypatch.setattr(style, "write", write)


def names(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "figures").glob("*.svg")}


COMMON = {
    "gradient_map",
    "backward_signal",
    "forward_signal",
    "shares",
    "update_ratios",
    "learning_curves",
    "gradient_norms",
    "overview",
}


def test_a_run_has_a_png_and_an_svg_of_each_figure_that_has_something(run: Path) -> None:
    written = figures.draw(run)
    assert names(run) == COMMON
    assert written == [
        run / "figures" / f"{name}.{kind}"
        for name in (*FIGURES, figures.OVERVIEW)
        if name in COMMON
        for kind in ("png", "svg")
    ]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in written if path.suffix == ".png")
    assert {path.name for path in (run / "figures").iterdir()} == {path.name for path in written}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("content", ["", "header"])
def test_of_a_table_without_rows_nothing_is_drawn_and_older_pictures_go(
    content: str, run: Path
) -> None:
    figures.draw(run)
    path = run / "layers.csv"
    path.write_text(path.read_text(encoding="utf-8").split("\n")[0] + "\n" if content else "")
    figures.draw(run)
    assert names(run) == {"learning_curves", "gradient_norms", "overview"}


@pytest.mark.usefixtures("quick")
def test_figures_of_tables_that_are_gone_do_not_stay_and_others_files_do(run: Path) -> None:
    time().to_csv(run / "time.csv", index=False)
    figures.draw(run)
    assert "through_time" in names(run)
    (run / "figures" / "mine.svg").touch()
    (run / "time.csv").unlink()
    figures.draw(run)
    assert names(run) == COMMON | {"mine"}


@pytest.mark.usefixtures("quick")
def test_a_column_without_a_value_gives_no_figure(run: Path) -> None:
    layers().assign(saturated_fraction=np.nan, dead_fraction=np.nan).to_csv(
        run / "layers.csv", index=False
    )
    figures.draw(run)
    assert names(run) == COMMON - {"shares"}


@pytest.mark.usefixtures("quick")
def test_a_damaged_table_is_told_after_the_others_are_drawn_and_its_old_pictures_stay(
    run: Path,
) -> None:
    figures.draw(run)
    before = (run / "figures" / "gradient_norms.svg").stat().st_mtime_ns
    (run / "figures" / "gradient_map.svg").unlink()
    (run / "steps.csv").write_text("step,epoch\n1,2\n", encoding="utf-8")
    with pytest.raises(QuestionError, match="not drawn: learning_curves, gradient_norms"):
        figures.draw(run)
    assert names(run) == COMMON
    assert (run / "figures" / "gradient_norms.svg").stat().st_mtime_ns == before


def test_a_place_where_nothing_can_be_written_is_told_once_with_all_that_is_missing(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    leave_blank(monkeypatch)
    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(OSError, match="No space left") as raised:
        figures.draw(run)
    assert len(str(raised.value).splitlines()) == 2
    assert str(raised.value).count("cannot write into") == 1
    assert all(name in str(raised.value) for name in COMMON)


def test_pictures_that_cannot_be_written_are_work_that_failed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    leave_blank(monkeypatch)
    monkeypatch.setattr(Figure, "savefig", full)
    assert main(["show", str(run), "--figures"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the work failed")
    assert " ".join(said.split()).count("No space left") == 1


def test_a_file_in_the_place_of_the_figures_folder_is_a_question(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "figures").write_text("mine")
    assert main(["show", str(run), "--figures"]) == 2
    assert "figures is a file" in " ".join(capsys.readouterr().err.split())
    assert (run / "figures").read_text() == "mine"


def test_the_overview_is_drawn_by_name_beside_the_others(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = style.write

    def only_it(figure: Figure, path: Path) -> Path:
        return write(figure, path) if path.name == "overview.svg" else path

    with monkeypatch.context() as patch:
        patch.setattr(style, "write", only_it)
        leave_blank(patch, with_overview=False)
        figures.draw(run)
    by_name = figures.run_figure(run, "overview")
    assert by_name.get_suptitle() == "vanishing: too deep"
    style.write(by_name, run / "again.svg")
    assert (run / "again.svg").read_bytes() == (run / "figures" / "overview.svg").read_bytes()


def test_a_folder_without_tables_gets_no_figures(tmp_path: Path) -> None:
    assert figures.draw(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_nan_in_a_file_is_drawn_as_not_finite_and_an_empty_cell_is_not(run: Path) -> None:
    frame = layers().astype({"delta_rms": "object"})
    frame.loc[(frame["step"] == 39) & (frame["layer"] == 1), "delta_rms"] = "nan"
    frame.loc[(frame["step"] == 39) & (frame["layer"] == 2), "delta_rms"] = None
    frame.to_csv(run / "layers.csv", index=False)
    axes = figures.run_figure(run, "backward_signal").axes[0]
    marks = [x for line in axes.get_lines() if line.get_marker() == "^" for x in line.get_xdata()]
    assert marks == [1]
    assert np.isnan(named(axes)["step 39"][1][:2]).all()


@pytest.mark.usefixtures("quick")
def test_a_table_with_a_cut_last_line_is_drawn(run: Path) -> None:
    path = run / "layers.csv"
    path.write_text(path.read_text(encoding="utf-8") + "59,1,w", encoding="utf-8")
    assert len(figures.draw(run)) == 2 * len(COMMON)


def test_the_dtype_and_the_constant_guess_come_from_the_summary(run: Path) -> None:
    layers().assign(grad_max=1e-39).to_csv(run / "layers.csv", index=False)
    for dtype, expected in (("float32", ["underflow"]), ("float64", []), (None, []), (7, [])):
        summary = {"dtype": dtype, "constant_loss": 1.25}
        (run / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
        for name in ("gradient_map", None):
            assert legend_of(figures.run_figure(run, name).axes[0]) == expected
    curves = named(figures.run_figure(run, "learning_curves").axes[0])
    assert "constant guess 1.25" in curves


def test_the_loss_scale_comes_from_the_steps(run: Path) -> None:
    layers().assign(grad_max=1e-6).to_csv(run / "layers.csv", index=False)
    (run / "summary.json").write_text(json.dumps({"dtype": "float16"}), encoding="utf-8")
    for scale, expected in ((32.0, ["underflow"]), (128.0, [])):
        steps_table().assign(loss_scale=scale).to_csv(run / "steps.csv", index=False)
        for name in ("gradient_map", None):
            assert legend_of(figures.run_figure(run, name).axes[0]) == expected


def test_a_killed_run_has_figures_without_a_summary(run: Path) -> None:
    (run / "summary.json").unlink()
    figure = figures.run_figure(run)
    assert "no summary" in figure.get_suptitle()
    assert not any(name.startswith("constant") for name in named(figure.axes[4]))


@pytest.mark.parametrize("name", [None, "gradient_map", "learning_curves"])
def test_a_figure_of_a_run_says_which_run_it_is_and_one_of_a_table_does_not(
    name: str | None, run: Path
) -> None:
    called = run / "a $b"
    called.mkdir()
    for table in ("layers", "steps"):
        (run / f"{table}.csv").rename(called / f"{table}.csv")
    assert figures.run_figure(called, name).get_supxlabel() == r"a \$b"
    asked = Config(model=MlpConfig(depth=7, activation="tanh"))
    folders.write_config(called, asked, "vgexp train")
    assert figures.run_figure(called, name).get_supxlabel() == r"a \$b: mlp, depth 7, tanh"
    job = called.rename(run / "12")
    assert figures.run_figure(job, name).get_supxlabel().startswith(f"{run.name}/12: mlp")
    assert draw(name or "gradient_map").get_supxlabel() == ""


@pytest.mark.parametrize("name", ["backward_signal", "forward_signal", "shares"])
def test_a_last_step_of_which_layers_are_missing_is_left_out_and_said(name: str) -> None:
    whole = layers()
    cut = whole[(whole["step"] < 39) | (whole["layer"] < 3)]
    axes = draw(name, cut).axes[0]
    assert {"step 0", "step 20"} <= named(axes).keys()
    assert "step 39" not in named(axes)
    assert axes.get_xlabel() == "layer (step 39 left out: some layers have no row)"
    # What is not finite has a row.
    whole.loc[(whole["step"] == 39) & (whole["layer"] < 3), whole.columns[4:]] = np.nan
    axes = draw(name, whole).axes[0]
    assert "step 39" in named(axes)
    assert axes.get_xlabel() == "layer"


@pytest.mark.parametrize(("steps", "is_left_out"), [((0,), False), ((0, 39), True)])
def test_of_one_step_there_is_nothing_to_leave_out_and_of_two_there_is(
    steps: tuple[int, ...], is_left_out: bool
) -> None:
    whole = layers()
    few = whole[whole["step"].isin(steps) & ((whole["step"] < 39) | (whole["layer"] < 3))]
    axes = draw("backward_signal", few).axes[0]
    assert "step 0" in named(axes)
    assert ("left out" in axes.get_xlabel()) == is_left_out


def test_distributions_leave_out_a_last_step_of_which_layers_are_missing() -> None:
    whole = histograms()
    figure = draw("distributions", whole[(whole["step"] < 39) | (whole["layer"] == 1)])
    assert figure.axes[1].get_title(loc="left") == "Activations h, step 9"
    assert "step 39 left out" in figure.axes[1].get_xlabel()


def test_the_name_of_the_shades_stands_between_their_bar_and_the_panel() -> None:
    (bar,) = [a for a in draw("update_ratios").axes if a.get_label() == "<colorbar>"]
    assert bar.yaxis.get_label_position() == "left"


def test_the_overview_has_six_panels_and_the_verdict(run: Path) -> None:
    figure = figures.run_figure(run)
    render(figure)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "Gradient norm of each layer",
        "Backward signal",
        "Forward signal",
        "Update ratio",
        "Loss",
        "Saturated entries",
    ]
    assert figure.get_suptitle() == "vanishing: too deep"


@pytest.mark.parametrize(
    ("more", "title"),
    [({"time": time}, "Backward through time"), ({"attention": attention}, "Attention entropy")],
)
def test_the_last_panel_is_what_the_run_has_besides(
    more: dict[str, Callable[[], pd.DataFrame]], title: str
) -> None:
    tables = {"layers": layers(), **{name: make() for name, make in more.items()}}
    titles = [axes.get_title(loc="left") for axes in figures.overview(tables).axes]
    assert title in titles


def test_an_overview_of_nothing_says_what_is_missing() -> None:
    figure = render(figures.overview({}))
    assert words(figure) == ["there is no layers.csv"] * 4 + ["there is no steps.csv"] * 2


def test_the_title_is_neither_mathematics_nor_beyond_the_page() -> None:
    summary = {"verdict": "diverged", "cause": "$x$ " + "long " * 60}
    title = figures.overview({}, summary).get_suptitle()
    assert "$" not in title.replace(r"\$", "")
    assert max(map(len, title.split("\n"))) <= 140


def test_an_unknown_figure_is_a_question_with_the_nearest(run: Path) -> None:
    with pytest.raises(QuestionError, match="nearest: gradient_map"):
        figures.run_figure(run, "gradient_mpa")


def test_a_figure_of_a_table_that_is_not_there_is_a_question(run: Path) -> None:
    with pytest.raises(QuestionError, match=r"time\.csv"):
        figures.run_figure(run, "through_time")


def test_pictures_are_entries_that_nobody_changes() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        FIGURES["shares"].summary = "other"  # type: ignore[misc]
