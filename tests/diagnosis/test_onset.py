"""Since when layers are beyond a limit, how they are named, and the first value not finite.

Holds: diagnosis/onset.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from layer_tables import layers_of
from small_runs import CONFIG
from trainers import changed

import vgexp
from vgexp.config import SgdConfig
from vgexp.diagnosis.onset import (
    NotFinite,
    Onset,
    describe_layers,
    describe_since,
    first_not_finite,
    onsets,
)


def onset(layer: int, step: int = 0, is_always: bool = False) -> Onset:
    return Onset(f"w{layer}", layer, step, is_always, 0.0, 1.0)


def table(column: str, *values: list[float]) -> pd.DataFrame:
    """Layers that have these values in one column, at steps 0, 10, 20, ..."""
    return pd.concat(
        layers_of([1.0] * (len(each) - 1), step=10 * number, **{column: each})
        for number, each in enumerate(values)
    )


def test_a_layer_is_beyond_from_the_step_after_its_last_sound_one() -> None:
    frame = table("dead_fraction", [0.0, 1.0], [1.0, 1.0], [0.2, 1.0], [0.9, 1.0], [1.0, np.nan])
    assert onsets(frame, "dead_fraction", lambda shares: shares > 0.5) == [
        Onset("layers.0", 1, 30, False, 0.0, 1.0),
        Onset("readout", 2, 0, True, 1.0, 1.0),
    ]
    shuffled = frame.sample(frac=1.0, random_state=0)
    assert onsets(shuffled, "dead_fraction", lambda shares: shares > 0.5) == onsets(
        frame, "dead_fraction", lambda shares: shares > 0.5
    )


def test_what_is_not_there_or_not_measured_is_beyond_nothing() -> None:
    frame = table("dead_fraction", [np.nan, np.nan])
    assert onsets(frame, "dead_fraction", lambda shares: shares > 0.5) == []
    assert onsets(frame.head(0), "dead_fraction", lambda shares: shares > 0.5) == []
    assert onsets(frame, "no_such_column", lambda shares: shares > 0.5) == []
    unused = table("grad_norm", [0.0, 1.0]).assign(layer=[np.nan, 2.0])
    assert onsets(unused, "grad_norm", lambda norms: norms == 0) == []


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([3], "layer 3 (w3)"),
        ([3, 4], "layers 3 to 4 (w3 to w4)"),
        ([1, 4], "layers 1 and 4 (w1 and w4)"),
        ([1, 4, 6], "layers 1, 4 and 6 (w1, w4 and w6)"),
        ([1, 4, 6, 7, 9], "5 layers from 1 to 9 (w1, ..., w9)"),
    ],
)
def test_layers_are_named_with_their_numbers(layers: list[int], words: str) -> None:
    assert describe_layers([onset(layer) for layer in layers]) == words


def test_the_steps_of_the_first_and_of_the_last_are_said() -> None:
    assert describe_since([onset(1, 0, True), onset(2, 0, True)]) == "at every measured step"
    assert describe_since([onset(1, 20), onset(2, 20)]) == "since step 20"
    assert (
        describe_since([onset(1, 40), onset(2, 20)])
        == "since step 20 (layer 2) and, the last of them, step 40"
    )


def test_weights_come_before_z_and_z_before_gradients() -> None:
    sound = table("grad_norm", [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]).assign(
        preact_std=1.0, delta_rms=1.0
    )
    assert first_not_finite(sound) is None
    at_end = sound["step"] == 10
    gradients = sound.assign(grad_norm=sound["grad_norm"].mask(at_end, np.nan))
    assert first_not_finite(gradients) == NotFinite(10, "backward", "readout", 3)
    second = at_end & (sound["layer"] >= 2)
    passes = gradients.assign(preact_std=sound["preact_std"].mask(second, np.inf))
    assert first_not_finite(passes) == NotFinite(10, "forward", "layers.1", 2)
    weights = passes.assign(weight_norm=sound["weight_norm"].mask(second, np.nan))
    assert first_not_finite(weights) == NotFinite(10, "update", "layers.1", 2)
    # An earlier step comes before all of them.
    early = weights.assign(delta_rms=sound["delta_rms"].mask(~at_end, np.inf))
    assert first_not_finite(early) == NotFinite(0, "backward", "readout", 3)


@pytest.mark.parametrize(
    ("gradient", "zeros", "expected"),
    [
        # Not called; an empty batch; z that was nan; a frozen layer beside one that is.
        ([1.0, np.nan, 1.0], [0.0, np.nan, 0.0], None),
        ([1.0, 0.0, 1.0], [0.0, 1.0, 0.0], None),
        ([np.nan, np.nan, np.nan], [0.0, 0.0, 0.0], NotFinite(10, "forward", "layers.1", 2)),
        # Another layer's gradient is not finite, and the one without z was not called.
        ([1.0, np.nan, np.nan], [0.0, np.nan, 0.0], NotFinite(10, "backward", "readout", 3)),
    ],
)
def test_a_module_that_was_not_called_made_nothing_that_is_not_finite(
    gradient: list[float], zeros: list[float], expected: NotFinite | None
) -> None:
    frame = table("grad_norm", [1.0] * 3, gradient, [1.0] * 3)
    frame["grad_zero_fraction"] = [0.0] * 3 + zeros + [0.0] * 3
    frame["preact_std"] = [1.0] * 4 + [np.nan] + [1.0] * 4
    assert first_not_finite(frame) == expected


def test_a_layer_that_never_has_a_gradient_is_not_finite_where_others_are_not() -> None:
    frame = table("grad_norm", [np.nan, 1.0, 1.0], [np.nan, np.nan, np.nan])
    frame["grad_zero_fraction"] = [np.nan, 0.0, 0.0] * 2
    frame["preact_std"] = [1.0] * 3 + [np.nan] * 3
    assert first_not_finite(frame.assign(preact_std=frame["preact_std"].fillna(np.inf))) is not None
    frame.loc[frame["name"] == "readout", "preact_std"] = 1.0
    assert first_not_finite(frame) == NotFinite(10, "forward", "layers.0", 1)


def test_a_run_whose_units_die_after_the_start_is_told_when_and_which(tmp_path: Path) -> None:
    config = changed(
        CONFIG,
        model={"activation": "relu", "init": "he_normal"},
        optimizer=SgdConfig(lr=5.0),
        train={"steps": 12},
        probe={"every": 1, "activations_every": 1},
    )
    layers = vgexp.run(config, tmp_path / "run").layers
    since: dict[str, dict[str, int]] = {"dying_units": {}, "no_gradient": {}}
    for row in layers.sort_values("step").itertuples():
        for rule, is_so in (
            ("dying_units", row.dead_fraction >= 0.5),
            ("no_gradient", row.grad_norm == 0),
        ):
            if is_so:
                since[rule].setdefault(row.name, row.step)
            else:
                since[rule].pop(row.name, None)
    found = {each.id: each for each in vgexp.diagnose(layers).findings}
    for rule, steps in since.items():
        assert set(found[rule].layers) == set(steps)
        assert found[rule].step == min(steps.values()) > 0
    assert len(since["dying_units"]) == 2
    assert len(since["no_gradient"]) == 4
