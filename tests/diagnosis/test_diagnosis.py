"""What a run and a table of layers are told: the text, and what it is composed of."""

import math

import numpy as np
import pandas as pd
import pytest
from layer_tables import STEADY, VANISHING, layers_of, summary_of

from vgexp.diagnosis import diagnose, sentence, signal_of
from vgexp.errors import QuestionError


def test_a_vanishing_run_is_told_with_its_numbers_and_the_hint_at_float64() -> None:
    layers = layers_of(1e-3 * 0.01 ** np.arange(19, -1.0, -1))
    text = sentence(summary_of(layers, [2.31, *[2.302] * 30]))
    assert "vanishes" in text
    assert "layer 1 gets 1e-38 of what layer 20 gets, a fitted factor of 0.01 a layer" in text
    assert "was 2.30 over the last 20 steps, which is what guessing gives (2.30)" in text
    assert "In 3 of 20 layers" in text
    assert "dtype=float64 shows the true value" in text


def test_a_run_that_learned_despite_its_signal_is_told_so() -> None:
    text = sentence(summary_of(VANISHING, [2.3] + [0.5] * 30))
    assert "vanishes" in text
    assert "Even so it learned: the training loss went from 2.30 to 0.500" in text


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (
            [1, 2, 3],
            "layer 1 was not measured and cannot be compared with layer 4; the fitted factor",
        ),
        (
            [0, 1, 4],
            "layer 4 was not measured and cannot be compared with layer 1; the fitted factor",
        ),
        (
            [1, 2],
            "layer 1 and layer 4 were not measured; the fitted factor of those measured is 0.5 a"
            " layer",
        ),
        ([1, 4], "layer 1 and layer 4 were not measured."),
    ],
)
def test_an_end_without_rows_is_told_with_what_the_measured_layers_show(
    kept: list[int], words: str
) -> None:
    layers = layers_of([0.125, 0.25, 0.5, 1.0]).iloc[kept]
    summary = summary_of(layers, [2.3] * 30, num_layers=4)
    assert f"The gradient at step 0: {words}" in sentence(summary)
    assert words.rstrip(".") in summary["cause"]
    assert summary["attenuation"] is None


def test_the_only_hidden_layer_without_rows_is_told() -> None:
    summary = summary_of(layers_of([1.0]).iloc[[1]], [2.3] * 30, num_layers=1)
    assert "step 0: layer 1 was not measured." in sentence(summary)


def test_a_run_that_was_cut_short_says_so() -> None:
    assert "interrupted" in sentence(summary_of(STEADY, [2.3], status="interrupted"))


def test_a_frame_alone_is_diagnosed_at_its_first_and_last_measured_step() -> None:
    weights_only = STEADY.assign(step=30, delta_rms=np.nan)
    diagnosis = diagnose(pd.concat([VANISHING, STEADY.assign(step=20), weights_only]))
    assert (diagnosis.first_step, diagnosis.last_step) == (0, 20)
    assert (diagnosis.first.signal, diagnosis.last.signal) == ("vanishing", "steady")
    assert str(diagnosis) == diagnosis.sentence
    assert "vanishes at step 0" in str(diagnosis)
    assert "is steady at step 20" in str(diagnosis)


def test_a_frame_with_nothing_to_diagnose_is_a_question_gone_wrong() -> None:
    with pytest.raises(QuestionError, match="lacks the columns delta_rms"):
        diagnose(STEADY.drop(columns="delta_rms"))
    with pytest.raises(QuestionError, match="no row of the table has a backward signal"):
        diagnose(STEADY.assign(delta_rms=np.nan))
    with pytest.raises(QuestionError, match="lacks the column step"):
        diagnose(STEADY.drop(columns="step"))


@pytest.mark.parametrize(
    ("norms", "words"),
    [
        ([2.0, 1.0, 4.0], "grad_norm of layer 1 is 0.5 of layer 3's"),
        ([12.0, 1.0, 4.0], "grad_norm of layer 1 is 3 times layer 3's"),
        # It falls by more than the root of what dL/dz falls by.
        ([1e-3, 1.0, 4.0], None),
        ([0.0, 1.0, 4.0], None),
        ([math.nan, 1.0, 4.0], None),
    ],
)
def test_it_is_said_where_gradients_of_weights_hide_a_lost_signal(
    norms: list[float], words: str | None
) -> None:
    rows = layers_of([1e-5, 1e-3, 1.0]).assign(grad_norm=[*norms, 1.0])
    said = sentence(summary_of(rows, [2.3] * 30))
    assert ("hide it" in said) == (words is not None)
    assert words is None or words in said
    ratio = norms[0] / norms[-1]
    assert signal_of(rows).weight_gradient_ratio == pytest.approx(ratio, nan_ok=True)
    assert math.isnan(signal_of(rows[rows["layer"] != 1], 3).weight_gradient_ratio)
    steady = layers_of([0.5, 0.7, 1.0]).assign(grad_norm=[*norms, 1.0])
    assert "hide it" not in sentence(summary_of(steady, [2.3] * 30))
