"""What is told of a user's model: layers that have a signal are compared, and no verdict is made of
branches.

Holds: diagnosis/phrases.py, diagnosis/signal.py, diagnosis/rules/backward_signal.py
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from vgexp.diagnosis import diagnose, signal_of
from vgexp.diagnosis.users_path import BRANCHES, JUMPS, NO_SIGNAL, ZERO_READOUT, users_path

NAN = float("nan")


def table(deltas: Sequence[float], **columns: object) -> pd.DataFrame:
    """One row a layer, the last of which is the read-out."""
    num_rows = len(deltas)
    return pd.DataFrame(
        {
            "step": 0,
            "layer": np.arange(1, num_rows + 1),
            "name": [f"layers.{index}" for index in range(num_rows)],
            "kind": [*["linear"] * (num_rows - 1), "readout"],
            "weight_norm": 1.0,
            "grad_norm": 1.0,
            "delta_rms": deltas,
            **columns,
        }
    )


@pytest.mark.parametrize(
    ("deltas", "words", "attenuation"),
    [
        ([1, 2, 4, 8, 9], "layer 1 gets 0.12 of what layer 4 gets,", 1 / 8),
        ([NAN, 2, 4, 8, 9], "layer 2 gets 0.25 of what layer 4 gets (layer 1 has none)", 2 / 8),
        (
            [NAN, NAN, 4, 8, 9],
            "layer 3 gets 0.5 of what layer 4 gets (layers 1 to 2 have none)",
            4 / 8,
        ),
        ([1, 2, 4, NAN, 9], "layer 1 gets 0.25 of what layer 3 gets (layer 4 has none)", 1 / 4),
        (
            [NAN, 2, 4, NAN, 9],
            "layer 2 gets 0.5 of what layer 3 gets (layers 1 and 4 have none)",
            2 / 4,
        ),
        ([NAN, 2, NAN, NAN, 9], "layer 2 alone has a signal (layers 1 and 3 to 4 have none)", 1),
    ],
)
def test_the_first_and_the_last_layer_that_have_a_signal_are_compared(
    deltas: list[float], words: str, attenuation: float
) -> None:
    diagnosis = diagnose(table(deltas))
    assert words in diagnosis.sentence
    assert diagnosis.first.attenuation == attenuation
    assert diagnosis.first.signal == "steady"


def test_of_vgexps_own_models_layers_1_and_l_are_compared_or_none() -> None:
    signal = signal_of(table([NAN, 2, 4, 8, 9]))
    assert np.isnan(signal.attenuation)
    assert (signal.signal, signal.compared) == ("steady", None)


def test_the_ratio_of_weight_gradients_is_that_of_the_compared_layers() -> None:
    frame = table([NAN, 2, 4, 8, 9], grad_norm=[NAN, 3.0, 1.0, 6.0, 1.0])
    assert signal_of(frame, is_users=True).weight_gradient_ratio == 0.5


def test_a_row_without_a_signal_does_not_stand_for_a_layer_that_has_one() -> None:
    frame = table([1, 2, 4, 9])
    beside = frame.iloc[[0]].assign(name="pos", delta_rms=NAN)
    frame = pd.concat([beside, frame])
    assert signal_of(frame, is_users=True).attenuation == 0.25


def test_of_rows_that_have_a_signal_the_first_stands_for_the_layer() -> None:
    frame = table([1, 2, 4, 9])
    beside = frame.iloc[[0]].assign(name="beside", delta_rms=100.0)
    assert signal_of(pd.concat([frame, beside]), is_users=True).attenuation == 0.25


def test_a_zero_counts_where_it_comes_first_and_not_beside_a_frozen_weight() -> None:
    frame = table([0, 2, 4, 9])
    assert signal_of(frame, is_users=True).signal == "vanishing"
    frozen = frame.iloc[[0]].assign(name="frozen", delta_rms=NAN)
    signal = signal_of(pd.concat([frozen, frame]), is_users=True)
    assert (signal.signal, signal.compared) == ("steady", (2, 3))


ZIGZAG = [0.015, 44.0, 0.023, 67.0]
"""Gains of GPT-2's layers where its branches are taken for a chain."""


@pytest.mark.parametrize(
    ("gains", "is_told"),
    [
        (ZIGZAG, True),
        ([1e-6, 1e6, 1e-6, 1e6], True),
        ([1e-6, 1e6, 1, 1e-6, 1e6], False),
        ([1e-6, 1, 1, 1, 1], False),
        ([1e-2, 10, 1e-2, 10], False),
        ([0.1] * 8, False),
        ([1e4] * 4, False),
    ],
)
def test_no_verdict_is_made_of_a_zigzag(gains: list[float], is_told: bool) -> None:
    deltas = [*np.cumprod([1.0, *gains[::-1]])[::-1], 1.0]
    frame = table(deltas)
    found = users_path(frame, len(deltas) - 1)
    assert found.reason == (JUMPS if is_told else "")
    signal = signal_of(frame, is_users=True)
    assert (signal.signal is None) == np.isnan(signal.attenuation) == is_told
    assert ("jumps up and down" in diagnose(frame).sentence) == is_told
    assert signal_of(frame).signal is not None


def test_one_layer_among_branches_is_no_path() -> None:
    frame = table([1.0, 2.0])
    branches = pd.concat([frame.iloc[[0]].assign(layer=NAN, name=f"f.{i}") for i in range(3)])
    said = diagnose(pd.concat([frame, branches]))
    assert said.first.signal is None
    assert BRANCHES in said.sentence
    assert "there is one hidden layer" in diagnose(frame).sentence


def test_a_read_out_of_zeros_is_no_vanishing_gradient() -> None:
    frame = table([0.0, 0.0, 0.0, 1.0], weight_norm=[1.0, 1.0, 1.0, 0.0])
    said = diagnose(frame)
    assert (said.first.signal, said.first.no_path) == (None, ZERO_READOUT)
    assert said.sentence.startswith(f"The gradient at step 0: {ZERO_READOUT}.")
    assert diagnose(frame.assign(weight_norm=1.0)).first.signal == "vanishing"
    assert diagnose(frame.drop(columns="weight_norm")).first.signal == "vanishing"


def test_a_read_out_alone_leaves_nothing_to_compare() -> None:
    said = diagnose(table([NAN, NAN, 1.0]))
    assert said.first.no_path == NO_SIGNAL
    assert NO_SIGNAL in said.sentence
