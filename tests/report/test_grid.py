"""A column of `layers.csv` as layers by steps, against rows looked up one by one.

Holds: report/grid.py
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from vgexp.errors import QuestionError
from vgexp.quantities import READOUT
from vgexp.report.grid import first_middle_last, grid, grid_of, numbers, underflows

COLUMNS = ["step", "layer", "name", "kind", "grad_norm", "update_ratio"]


def frame(*rows: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_cell_is_the_value_of_that_layer_at_that_step() -> None:
    rows = [(s, k, f"w{k}", "linear", 10.0 * s + k, 0.1) for s in (0, 7, 9) for k in (1, 2, 3)]
    table = grid(frame(*rows[::-1]), "grad_norm")
    assert table.index.tolist() == ["1", "2", "3"]
    assert table.columns.tolist() == [0, 7, 9]
    assert [[table.loc[str(k), s] for s in (0, 7, 9)] for k in (1, 2, 3)] == [
        [10.0 * s + k for s in (0, 7, 9)] for k in (1, 2, 3)
    ]


def test_the_read_out_is_named_and_numbered_after_the_last_layer() -> None:
    table = grid(
        frame((0, 1, "a", "linear", 1.0, 0.0), (0, 2, "b", "readout", 2.0, 0.0)), "grad_norm"
    )
    assert table.index.tolist() == ["1", READOUT]
    assert numbers(table).tolist() == [1, 2]


def test_of_weights_side_by_side_the_first_is_taken() -> None:
    rows = frame((0, 1, "main", "linear", 1.0, 0.0), (0, 1, "gate", "linear", 5.0, 0.0))
    assert grid(rows, "grad_norm").loc["1", 0] == 1.0


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_a_block_has_the_norm_of_its_weights_together_and_their_largest_ratio(scale: float) -> None:
    rows = frame(
        (0, 1, "block", "stream", np.nan, np.nan),
        (0, 1, "q", "attention", 3.0 * scale, 0.2),
        (0, 1, "k", "attention", 4.0 * scale, 0.1),
    )
    assert grid(rows, "grad_norm").loc["1", 0] == pytest.approx(math.hypot(3, 4) * scale)
    assert grid(rows, "update_ratio").loc["1", 0] == 0.2


def test_steps_without_a_value_and_weights_without_a_layer_are_left_out() -> None:
    rows = frame(
        (0, 1, "a", "linear", 1.0, np.nan),
        (1, 1, "a", "linear", 2.0, 0.3),
        (1, None, "unused", "linear", 9.0, 9.0),
    )
    assert grid(rows, "update_ratio").columns.tolist() == [1]
    assert grid(rows, "grad_norm").index.tolist() == ["1"]


def test_a_layer_that_was_never_measured_keeps_its_row() -> None:
    rows = frame((0, 1, "a", "linear", 1.0, 0.1), (0, 2, "b", "linear", np.nan, 0.1))
    assert grid(rows, "grad_norm").index.tolist() == ["1", "2"]


def test_nan_that_was_measured_is_told_apart_where_the_frame_can() -> None:
    norms = {(0, 1): 1.0, (0, 2): np.nan, (5, 1): np.nan, (5, 2): np.nan}
    rows = frame(*((s, k, f"w{k}", "linear", norm, 0.1) for (s, k), norm in norms.items()))
    assert grid(rows, "grad_norm").columns.tolist() == [0]
    assert grid_of(rows, "grad_norm", every_step=True).steps == [0, 5]
    told = grid(rows.assign(has_value=[True, False, True, False]), "grad_norm")
    np.testing.assert_array_equal(told, [[1.0, np.inf], [np.nan, np.nan]])
    # A gradient that is nan has a share of zeros all the same; one that is not there has none.
    witnessed = grid(rows.assign(grad_zero_fraction=[0.0, np.nan, 0.0, np.nan]), "grad_norm")
    np.testing.assert_array_equal(witnessed, told)
    other = grid(rows.assign(grad_zero_fraction=0.0, act_std=np.nan), "act_std")
    assert other.empty


def test_a_block_underflows_by_the_largest_entry_of_its_weights() -> None:
    rows = frame(
        (0, 1, "block", "stream", np.nan, np.nan),
        (0, 1, "q", "attention", 1e-6, 0.2),
        (0, 1, "k", "attention", 2e-5, 0.1),
    ).assign(grad_max=[np.nan, 1e-7, 1e-5])
    for scale, expected in ((1.0, True), (6.0, True), (6.2, False)):
        assert underflows(rows, "grad_norm", "float16", pd.Series({0: scale})).tolist() == [
            expected
        ]
    assert not underflows(rows, "update_ratio", "float16").any()


def test_without_the_largest_entry_the_norm_tells_what_underflows() -> None:
    rows = frame((0, 1, "a", "linear", 1e-39, 0.1), (0, 2, "b", "linear", 0.0, 0.1))
    assert underflows(rows, "grad_norm", "float32").tolist() == [True, False]
    assert not underflows(rows, "grad_norm", None).any()
    some = rows.assign(grad_max=[np.nan, np.nan])  # a column that was not measured
    assert underflows(some, "grad_norm", "float32").tolist() == [True, False]
    with pytest.raises(QuestionError, match="nearest: float16"):
        underflows(rows, "grad_norm", "flaot16")


def test_an_empty_table_gives_an_empty_grid() -> None:
    assert grid(frame(), "grad_norm").empty


def test_a_column_that_is_not_there_is_a_question_with_the_nearest() -> None:
    with pytest.raises(QuestionError, match="nearest: grad_norm"):
        grid(frame(), "grad_nrom")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], []),
        ([5], [5]),
        ([5, 9], [5, 9]),
        ([0, 20, 40, 60, 80, 99], [0, 40, 99]),
        ([99, 0, 51, 49], [0, 49, 99]),
        ([0, 1, 2, 1000], [0, 2, 1000]),
    ],
)
def test_the_middle_is_nearest_to_half_way(steps: list[int], expected: list[int]) -> None:
    assert first_middle_last(steps) == expected
