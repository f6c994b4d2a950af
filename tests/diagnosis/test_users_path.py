"""Which layers of a user's own model are compared, and why none are.

Holds: diagnosis/users_path.py
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from vgexp.diagnosis.users_path import (
    BRANCHES,
    JUMPS,
    NO_SIGNAL,
    ZERO_READOUT,
    UsersPath,
    users_main_path,
    users_path,
)


def rows_of(
    *cells: tuple[float | None, float | None], readout_norm: float | None = 1.0
) -> pd.DataFrame:
    """Weights with a layer and delta_rms each, and a read-out behind them."""
    rows = [
        {"name": f"w{i}", "layer": layer, "kind": "linear", "delta_rms": delta, "weight_norm": 1.0}
        for i, (layer, delta) in enumerate(cells)
    ]
    last = {"name": "out", "layer": 99, "kind": "readout", "delta_rms": 1.0}
    return pd.DataFrame([*rows, {**last, "weight_norm": readout_norm}]).astype(
        {"layer": "float64", "delta_rms": "float64", "weight_norm": "float64"}
    )


def path_of(deltas: Sequence[float | None], **readout: float | None) -> UsersPath:
    layers = rows_of(*((i, delta) for i, delta in enumerate(deltas, start=1)), **readout)
    return users_path(layers, len(deltas))


def test_the_first_and_the_last_layer_that_have_a_signal_are_compared() -> None:
    assert path_of([None, 0.5, 1.0, None]) == UsersPath(2, 3)
    assert path_of([0.0, 0.0]) == UsersPath(1, 2)
    assert path_of([None, None]) == UsersPath(1, 2, NO_SIGNAL)
    assert users_path(rows_of(), 0) == UsersPath(1, 0)


def test_a_layer_is_its_first_row_that_has_a_signal() -> None:
    layers = rows_of((1, None), (1, 0.0), (1, 0.25), (2, 0.0), (2, 0.5), (None, 3.0))
    assert users_main_path(layers)["name"].tolist() == ["w2", "w3"]


def test_beside_a_frozen_weight_whose_z_is_known_no_adapter_stands_for_the_layer() -> None:
    layers = rows_of((1, None), (1, 1e-6), (2, 0.5), (2, 1e-6), (3, 1.0))
    assert users_path(layers.assign(preact_std=1.0), 3) == UsersPath(2, 3)
    # Of a free parameter, which may come first, no z is known.
    first_is_free = layers.assign(preact_std=[np.nan, *[1.0] * 5])
    assert users_path(first_is_free, 3) == UsersPath(1, 3)


@pytest.mark.parametrize(("readout_norm", "reason"), [(0.0, ZERO_READOUT), (1.0, ""), (None, "")])
def test_a_read_out_of_zeros_sends_nothing_back_by_design(
    readout_norm: float | None, reason: str
) -> None:
    assert path_of([0.0, 0.0], readout_norm=readout_norm).reason == reason
    assert path_of([0.0, 0.1], readout_norm=readout_norm).reason == ""


@pytest.mark.parametrize(("num_branches", "reason"), [(1, ""), (2, BRANCHES)])
def test_one_layer_beside_more_weights_on_branches_is_no_path(
    num_branches: int, reason: str
) -> None:
    layers = rows_of((1, 1.0), *[(None, 1.0)] * num_branches, (None, None))
    assert users_path(layers, 1).reason == reason


@pytest.mark.parametrize(
    ("powers", "reason"),
    [
        ([0, -4, 0, -4, 0], JUMPS),
        ([0, -4, 0, -4], ""),
        ([0, -1, 0, -1, 0, -1, 0], ""),
        ([0, -9, -18, -27, -36, -45], ""),
    ],
)
def test_a_signal_that_jumps_up_and_down_by_turns_is_that_of_branches(
    powers: list[int], reason: str
) -> None:
    assert path_of(list(10.0 ** np.array(powers))).reason == reason
