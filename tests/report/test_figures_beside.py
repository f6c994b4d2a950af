"""Runs beside one another: one scale, each run's own precision, and one legend for all.

Holds: report/figures/beside.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from vgexp.quantities import TABLES
from vgexp.report.figures.beside import Beside, read_beside, side_by_side


def layers(norm: float) -> pd.DataFrame:
    rows = [(step, layer, f"w{layer}", "linear", norm * layer, norm)
            for step in (0, 9) for layer in (1, 2)]  # fmt: skip
    names = ["step", "layer", "name", "kind", "grad_norm", "grad_max"]
    return pd.DataFrame(rows, columns=names).reindex(columns=[c.name for c in TABLES["layers"]])


def steps(losses: list[float], loss_scale: float = np.nan, clipped: int = 0) -> pd.DataFrame:
    frame = pd.DataFrame({"step": range(len(losses)), "loss": losses})
    frame = frame.reindex(columns=[column.name for column in TABLES["steps"]])
    return frame.assign(epoch=0, clipped=clipped, skipped=0, loss_scale=loss_scale)


def words_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("dtype", "scale", "expected"),
    [
        ("float32", np.nan, []),
        ("float16", np.nan, ["underflow"]),
        ("float16", 1024.0, []),
        ("bfloat16", np.nan, []),
        (None, np.nan, []),
    ],
)
def test_each_run_underflows_by_its_own_dtype_and_loss_scale(
    dtype: str | None, scale: float, expected: list[str]
) -> None:
    runs = [
        Beside("whole", layers(1e-6), steps([1.0, 0.5])),
        Beside("its own", layers(1e-6), steps([1.0, 0.5], scale), dtype=dtype),
    ]
    figure = side_by_side(runs)
    assert words_of(figure.axes[0]) == []
    assert words_of(figure.axes[1]) == expected


def test_one_legend_says_what_any_curve_shows_and_whose_a_number_is() -> None:
    runs = [
        Beside("a", layers(1.0), steps([1.0] * 10), 2.3),
        Beside("b $x$", layers(1.0), steps([1.0] * 7 + [np.nan] * 3, clipped=1), 2.3),
    ]
    figure = side_by_side(runs)
    assert [words_of(axes) for axes in figure.axes[2:4]] == [[], []]
    (legend,) = figure.legends
    words = [text.get_text() for text in legend.get_texts()]
    assert words[:2] == ["training step", "constant guess 2.30"]
    assert r"not finite from step 7 (b \$x\$)" in words
    assert sum(word.startswith("clipped") for word in words) == 1
    assert len(set(words)) == len(words) == 4


def test_a_loss_that_leaves_the_common_axis_is_told() -> None:
    spike = [1.0] * 500 + [80.0]
    figure = side_by_side(
        [
            Beside("a", layers(1.0), steps(spike)),
            Beside("b", layers(1.0), steps([1.0, 0.5])),
        ]
    )
    first, second = figure.axes[2:4]
    assert first.get_ylim() == second.get_ylim() == (0, pytest.approx(1.2))
    assert [text.get_text() for text in first.texts] == ["cut off: up to 80"]
    assert not second.texts


def test_what_was_nan_in_a_file_is_not_finite(tmp_path: Path) -> None:
    for name, norm in (("plain", "2.0"), ("lost", "nan"), ("empty", "")):
        folder = tmp_path / name
        folder.mkdir()
        frame = layers(1.0).astype({"grad_norm": "object"})
        frame.loc[3, "grad_norm"] = norm
        frame.to_csv(folder / "layers.csv", index=False)
        steps([1.0, 0.5]).to_csv(folder / "steps.csv", index=False)
        summary = {"dtype": "float16", "constant_loss": 2.3}
        (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    runs = [read_beside(tmp_path / name, name) for name in ("plain", "lost", "empty")]
    assert [run.dtype for run in runs] == ["float16"] * 3
    assert [run.constant_loss for run in runs] == [2.3] * 3
    assert [words_of(axes) for axes in side_by_side(runs).axes[:3]] == [[], ["not finite"], []]
