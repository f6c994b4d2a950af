"""Each rule about a cause, on tables in which it finds it and on tables in which it does not.

Holds: diagnosis/depths.py, diagnosis/outcome.py, diagnosis/rules/graph_cuts.py,
diagnosis/rules/wiring.py, diagnosis/rules/wiring_rows.py,
diagnosis/rules/losses.py, diagnosis/rules/probabilities.py, diagnosis/rules/not_finite.py,
diagnosis/rules/flat_losses.py,
diagnosis/rules/inputs.py, diagnosis/rules/initial_weights.py, diagnosis/rules/multiplied.py,
diagnosis/rules/depth.py, diagnosis/rules/recurrence.py, diagnosis/rules/attention.py,
diagnosis/rules/clipping.py, diagnosis/rules/updates.py, diagnosis/rules/units.py,
diagnosis/rules/dtypes.py, diagnosis/rules/landscapes.py, diagnosis/rules/notes.py
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from layer_tables import layers_of, steps_of

from vgexp.config import Config, SgdConfig
from vgexp.diagnosis import CAUSE_RULES, CAUSES, Evidence, Finding, cause_metrics, conclude
from vgexp.diagnosis.depths import factors_of
from vgexp.diagnosis.evidence import evidence_of_tables
from vgexp.diagnosis.outcome import (
    constant_loss,
    has_learned,
    is_short,
    loss_of_constant,
    stays_at_start,
)
from vgexp.diagnosis.root import find_root
from vgexp.errors import QuestionError
from vgexp.explain import TOPICS
from vgexp.quantities import TABLES
from vgexp.unseen import RAN_SILENTLY

NAN = math.nan
NAMES = ["layers.0", "layers.1", "layers.2", "readout"]


def layers(steps: Any = (0, 20), deltas: Any = (0.5, 0.5, 0.5), **columns: Any) -> pd.DataFrame:
    """Three usual layers and a read-out; columns are of all steps, or functions of the step."""
    usual: dict[str, Any] = {
        "grad_norm": 0.1,
        "grad_max": 0.01,
        "grad_zero_fraction": 0.0,
        "update_ratio": 1e-2,
        "preact_mean": 0.0,
        "preact_std": 1.0,
        "act_mean": 0.0,
        "act_std": 0.7,
    }
    parts = []
    for step in steps:
        made = {n: v(step) if callable(v) else v for n, v in {**usual, **columns}.items()}
        parts.append(layers_of(np.asarray(deltas), step=step, **made))
    return pd.concat(parts, ignore_index=True)


def wiring(**columns: Any) -> pd.DataFrame:
    usual = {
        "requires_grad": 1,
        "in_optimizer": 1,
        "lr": 0.1,
        "gradient_came": 1,
        "gradient": "finite",
        "gradient_kept": 0,
        "updated": 1,
        "other_optimizer": 0,
    }
    return pd.DataFrame({"step": 0, "name": NAMES, **usual, **columns})


def loss(
    output: str = "64x10",
    target: str = "64",
    kind: str = "int64",
    name: str = "CrossEntropyLoss",
    step: int = 0,
    **output_columns: Any,
) -> pd.DataFrame:
    """A call of a loss: its output, its target and its result."""
    frame = pd.DataFrame({column.name: NAN for column in TABLES["loss"]}, range(3))
    frame = frame.astype(
        dict.fromkeys(("function", "name", "role", "shape", "dtype", "made_by"), object)
    )
    frame["step"], frame["function"] = step, name
    frame["name"], frame["role"] = ["input", "target", "result"], ["output", "target", "loss"]
    frame["shape"], frame["dtype"] = [output, target, "scalar"], ["float32", kind, "float32"]
    frame["mean"], frame["std"], frame["not_finite"] = [0.0, 4.5, 2.3], [0.1, 2.9, 0.0], 0.0
    frame["min"], frame["max"] = [-0.2, 0.0, 2.3], [0.2, 9.0, 2.3]
    frame["row_sum_min"], frame["row_sum_max"] = [-0.5, NAN, NAN], [0.7, NAN, NAN]
    for column, value in output_columns.items():
        frame.loc[0, column] = value
    return frame


def said(column: str, value: str, *shapes: str) -> pd.DataFrame:
    """A call of a loss of whose graph this is known."""
    frame = loss(*shapes, name="mine")
    frame[column] = pd.Series([None, None, value], dtype="object")
    return frame


def of_graph(**known: Any) -> pd.DataFrame:
    """A call of a loss with this known of its graph."""
    frame = loss(name="mine")
    for column, value in known.items():
        frame[column] = pd.Series([None, None, value], dtype="object")
    return frame


def returns(least: float, most: float, **known: Any) -> pd.DataFrame:
    """A call of a loss that is given returns in this range."""
    frame = of_graph(**{"reaches_output": 1, **known}).assign(dtype="float32")
    frame.loc[1, ["shape", "name", "min", "max"]] = "32", "returns", least, most
    return frame


def flat(share: float) -> pd.DataFrame:
    """A call of a loss with such a share of flat entries in front of it, and no target."""
    frame = loss(name="mine").assign(flat_fraction=[NAN, NAN, share])
    return frame[frame["role"] != "target"]


def of_rates(last: float, rates: list[float]) -> pd.DataFrame:
    """Steps of 120 updates at these rates, whose losses end so."""
    return steps_of([2.3] * 40 + [last] * 80, grad_norm=1.0, lr=rates)


def squared(name: str, value: float) -> pd.DataFrame:
    """A call of a squared error, of outputs of std 0.4 and targets of std 1."""
    table = loss("64", "64", "float32", name)
    return table.assign(mean=[0.0, 0.0, value], std=[0.4, 1.0, 0.0])


def of(
    *,
    dtype: str = "float32",
    unseen: Any = (),
    settings: Any = None,
    extra: Any = None,
    **tables: Any,
) -> Evidence:
    """Evidence of these tables; usual layers and steps where none are given."""
    tables = {"layers": layers(), "steps": steps_of([2.3] * 120, grad_norm=1.0), **tables}
    kept = {name: table for name, table in tables.items() if table is not None}
    return evidence_of_tables(
        kept, dtype=dtype, num_examples=64, unseen=unseen, settings=settings, ending=extra
    )


def radius(*radii: float) -> pd.DataFrame:
    """A row of recurrence.csv for each layer."""
    layer = [*range(1, len(radii) + 1)]
    return pd.DataFrame({"step": 0, "layer": layer, "name": "readout", "spectral_radius": radii})


def broadcast(value: float) -> pd.DataFrame:
    """A squared error of somebody's own, which is given a column and a row."""
    return squared("mine", value).assign(shape=["64x1", "64", "scalar"])


def with_adapter(frame: pd.DataFrame) -> pd.DataFrame:
    """The same layers, and beside the read-out a weight that begins at 0 and gets a gradient."""
    beside = frame.tail(1).assign(name="readout.b", weight_norm=0.0, grad_norm=0.1)
    return pd.concat([frame, beside], ignore_index=True)


ZEROS = steps_of([0.0] * 120, grad_norm=0.0)
FALLS_SILENT = steps_of([0.5] * 120, grad_norm=[0.25] * 10 + [1e-9] * 110)
VARYING = [1e-4 * (1 + 0.01 * (step % 7)) for step in range(120)]
FOREIGN = "the model: modules ran that are not registered in it, and have no rows; their weights: a"
PROBABILITIES = {"min": 0.08, "max": 0.12, "row_sum_min": 1.0, "row_sum_max": 1.0}
VANISHING = (1e-9, 1e-6, 1e-3)
EXPLODING = (1e9, 1e6, 1e3)
RNN = {"time_attenuation": 1e-5, "backward_factor_per_time_step": 0.5}
ALL_ANSWER = {"time_attenuation": 1.1}
TIME = pd.DataFrame({"step": 0, "layer": 1, "name": "rnn.h", "t": [0, 20, 40], "delta_rms": 0.1})
OVERFLOWING = TIME.loc[[0, 0, 1, 2]].assign(t=[0, 10, 20, 40], delta_rms=[NAN, NAN, 1e30, 1.0])
EVERY_20 = {"probe.activations_every": 20}
NEVER = steps_of([NAN] * 30, grad_norm=NAN)
NO_GRADIENT = steps_of([2.3], grad_norm=NAN)
BAD_GRADIENT = wiring(gradient="not_finite", updated=0)
MEMORISED = {"constant_loss": 2.303, "val_loss_last": 2.6}
POST = {"model.norm_position": "post", "optimizer.lr": 1e-3}
POST_IN_LOOP = {**POST, "optimizer.class": "torch.optim.adam.Adam", "optimizer.betas": [0.9, 0.99]}
ATTENTION = layers(kind=["attention", "linear", "linear", "readout"])
NORM = pd.DataFrame({"step": 0, "name": ["norm.weight"], "kind": "norm", "entries": 16})
BIASES = pd.DataFrame(
    {"step": [0, 20], "name": "layers.0.bias", "kind": "bias", "entries": 16, "grad_norm": 0.05}
)
UNREACHED = wiring(gradient_came=0, gradient="none", updated=0)
ALL_FROZEN = UNREACHED.assign(requires_grad=0)
UNSEEN = {"preact_std": NAN, "act_std": NAN, "delta_rms": NAN, "grad_norm": NAN}
SILENT_READOUT = {
    "dead_fraction": [0.2, 0.2, 0.2, 1.0],
    "act_max": [1.0, 1.0, 1.0, 0.0],
    "grad_norm": 0.0,
}
BY_SIGMOID = {"made_by": "SigmoidBackward0"}
BINARY = loss("64x1", "64x1", "float32", "BCEWithLogitsLoss").assign(
    min=[0.4, 0.0, 0.77], max=[0.6, 1.0, 0.77], mean=[0.52, 0.4, 0.779], std=[0.05, 0.49, 0.0]
)
LOG_PROBABILITIES = loss("64x10", "64", "int64", "NLLLoss", min=-2.35, max=-2.2, mean=-2.3)
SUDDENLY = steps_of([2.3] * 3 + [NAN], grad_norm=[1.0] * 3 + [NAN])


def read(**shares: float) -> pd.DataFrame:
    """A call at step 3 whose result is nan, and what the model read; shares are of what is not
    finite, by role."""
    call = loss(step=3)
    more = call.head(2).assign(role=["input", "weight"], name=["x", "layers.0"])
    table = pd.concat([call, more], ignore_index=True)
    known = {"loss": 1.0, **shares}
    return table.assign(not_finite=table["role"].map(lambda role: known.get(role, 0.0)))


BAD_LOSS = loss(step=3).assign(not_finite=[0, 0, 1.0])

ADAPTER = [0.0, 0.0, 1.0, 1.0]
"""The norms of two weights that begin at 0, and of two others."""

_OF_THIS_RUN = {
    "rate_too_large": ["optimizer.lr"],
    "rate_too_small": ["optimizer.lr"],
    "clip_throttles": ["clip.threshold"],
    "flat_landscape": ["model.gain"],
    "optimizer_epsilon": [],
}
"""Causes whose first remedy depends on the run: the keys that it sets."""
TELLS: list[tuple[str, Evidence]] = [
    ("no_update", of(wiring=wiring(updated=0, lr=0.0), layers=layers(update_ratio=0.0))),
    ("no_update", of(wiring=wiring(updated=0), layers=layers(update_ratio=0.0))),
    ("not_registered", of(unseen=[FOREIGN])),
    ("not_in_optimizer", of(wiring=wiring(in_optimizer=[0, 0, 0, 1]))),
    ("frozen", of(wiring=wiring(requires_grad=[0, 0, 1, 1]))),
    # All of it, so that no pass has a gradient, and none is seen.
    ("frozen", of(wiring=ALL_FROZEN, steps=NEVER, layers=layers(weight_norm=8.0, **UNSEEN))),
    ("gradient_cleared", of(wiring=wiring(gradient="none", updated=0))),
    ("gradient_cleared", of(wiring=wiring(gradient="zero", updated=0))),
    (
        "graph_cut",
        of(
            wiring=wiring(gradient_came=[0, 0, 1, 1], gradient=["none", "none", "finite", "finite"])
        ),
    ),
    ("graph_cut", of(wiring=wiring(), layers=layers(deltas=(0.0, 0.0, 0.5)))),
    (
        "graph_cut",
        of(wiring=wiring(), extra={"constant_loss": 2.303, "cut_states": [NAMES[1]]}),
    ),
    # A branch that no gradient comes back to, at any step; the others get theirs past it.
    ("graph_cut", of(wiring=wiring(), layers=layers(deltas=(0.5, 0.0, 0.5)))),
    # The loss was made anew as a leaf: nothing behind it is seen.
    ("graph_cut", of(wiring=UNREACHED, layers=layers(deltas=(NAN,) * 3, **UNSEEN), loss=loss())),
    # Under no_grad, and not trained by anyone else.
    (
        "graph_cut",
        of(
            unseen=[f"layers.0, layers.1: {RAN_SILENTLY}"],
            wiring=wiring(
                gradient_came=[0, 0, 1, 1], gradient=["none", "none", "finite", "finite"]
            ),
            layers=layers(preact_std=[NAN, NAN, 1.0, 1.0], weight_norm=8.0),
        ),
    ),
    # The loss function rounds what it is given, or detaches it, and trains something else.
    ("graph_cut", of(wiring=wiring(gradient="zero"), loss=of_graph(cut_by="RoundBackward0"))),
    (
        "graph_cut",
        of(
            wiring=pd.concat([UNREACHED, wiring().tail(1).assign(name="log_z")]),
            layers=layers(deltas=(NAN,) * 3, **UNSEEN),
            loss=of_graph(reaches_output=0),
        ),
    ),
    ("gradient_kept", of(wiring=wiring(gradient_kept=1))),
    # As the probe has it: a row of a step that was looked at alone, and zeros later.
    (
        "gradient_kept",
        of(
            wiring=pd.concat(
                [
                    wiring(gradient_kept=NAN),
                    wiring(step=1, gradient_kept=1, requires_grad=NAN, in_optimizer=NAN),
                    wiring(step=200, gradient_kept=0, gradient="zero"),
                ]
            )
        ),
    ),
    (
        "graph_cut",
        of(
            wiring=wiring(gradient_came=[0, 0, 0, 1], gradient=["none"] * 3 + ["finite"]),
            layers=layers(preact_std=[NAN, NAN, NAN, 1.0]),
        ),
    ),
    (
        "clip_throttles",
        of(
            steps=steps_of([2.3] * 120, grad_norm=1e-4, grad_norm_clipped=1e-4),
            layers=layers(update_ratio=1e-5),
        ),
    ),
    # Every entry is clipped to the same value: norms differ, the largest entries do not.
    (
        "clip_throttles",
        of(
            steps=steps_of([2.3] * 120, grad_norm=VARYING, grad_norm_clipped=VARYING),
            layers=layers(update_ratio=1e-5, grad_max=[1e-6, 1e-6, 1e-6, 4e-7]),
        ),
    ),
    ("double_softmax", of(loss=loss(**PROBABILITIES))),
    (
        "double_softmax",
        of(
            loss=loss("64x1", "64x1", "float32", "BCEWithLogitsLoss", made_by="SigmoidBackward0"),
        ),
    ),
    # As outputs show it that happen to fill the range, or as autograd says.
    (
        "output_range",
        of(
            loss=loss(
                "64", "64", "float32", "MSELoss", min=0.4, max=0.6, made_by="SigmoidBackward0"
            )
        ),
    ),
    (
        "double_softmax",
        of(
            loss=loss(name="mine", **PROBABILITIES),
            layers=layers().assign(delta_rms=0.03),
        ),
    ),
    ("double_softmax", of(loss=BINARY, layers=layers(preact_mean=0.1))),
    ("double_softmax", of(loss=BINARY.assign(function="mine"), layers=layers(preact_mean=0.1))),
    (
        "double_softmax",
        of(
            loss=pd.concat([LOG_PROBABILITIES, LOG_PROBABILITIES.assign(step=20)]),
            layers=layers().assign(delta_rms=0.03),
        ),
    ),
    ("double_softmax", of(loss=loss(name="NLLLoss", **PROBABILITIES))),
    # As autograd says, of classes on any axis and of functions of any name.
    ("double_softmax", of(loss=said("squashed_twice", "SoftmaxBackward0 LogSoftmaxBackward0"))),
    ("double_softmax", of(loss=said("squashed_twice", "SigmoidBackward0 LogSoftmaxBackward0"))),
    ("double_softmax", of(loss=said("squashed_twice", "SoftmaxBackward0 NllLossBackward0"))),
    (
        "double_softmax",
        of(loss=said("squashed_twice", "SigmoidBackward0 BinaryCrossEntropyWithLogitsBackward0")),
    ),
    # A loss function that squeezes the output itself, in front of a column.
    ("target_shape", of(loss=said("broadcast_to", "64x64", "64x1", "64x1", "float32"))),
    (
        "output_range",
        of(loss=loss("64x1", "64x1", "float32", min=1.0, max=1.0, made_by="SoftmaxBackward0")),
    ),
    # Labels from 0 to 9, and one probability for each.
    ("output_range", of(loss=loss("64x1", "64", name="mine", min=0.4, max=0.6, **BY_SIGMOID))),
    ("output_range", of(loss=loss(name="nll_loss", max=2.5))),
    ("target_shape", of(loss=loss("64x1", "64", "float32", "MSELoss"))),
    # The mean square over all pairs, of a function that somebody wrote.
    ("target_shape", of(loss=broadcast(1.16))),
    (
        "output_range",
        of(loss=loss("64", "64", "float32", "MSELoss", min=0.0, max=0.99)),
    ),
    ("nan_from_loss", of(loss=BAD_LOSS, steps=steps_of([2.3] * 3 + [NAN], grad_norm=1.0))),
    (
        "nan_in_backward",
        of(steps=steps_of([2.3] * 3 + [NAN], grad_norm=[1.0, 1.0, NAN, NAN])),
    ),
    (
        "saturated_loss",
        of(
            layers=layers(saturated_fraction=[0, 0, 0, 1.0]),
            steps=steps_of([25.0] * 120, grad_norm=[1.0] * 60 + [0.0] * 60),
        ),
    ),
    # Within the loss function, or of a network that another one trains against.
    ("saturated_loss", of(loss=flat(1.0), steps=steps_of([0.5] * 120, grad_norm=1e-6))),
    (
        "saturated_loss",
        of(
            loss=flat(1.0),
            steps=steps_of([-1e-9] * 120, grad_norm=1e-9),
            extra={"takes_turns": True},
        ),
    ),
    # The generator's loss by its first formula, where the discriminator is sure.
    (
        "saturated_loss",
        of(steps=steps_of([-0.3] + [-1e-9] * 119, grad_norm=[1.0] * 3 + [1e-6] * 117)),
    ),
    ("inputs_unscaled", of(layers=layers(preact_std=[90.0, 1, 1, 1]))),
    ("inputs_unscaled", of(layers=layers(preact_std=[1e-3, 0.7, 0.7, 0.7]))),
    # Biases make z what it is; gradients of weights, beside theirs, show what these read.
    ("inputs_unscaled", of(layers=layers(grad_norm=1e-5), parameters=BIASES)),
    (
        "inputs_not_finite",
        of(
            steps=steps_of([2.3] * 20 + [NAN], grad_norm=[1.0] * 20 + [NAN]),
            layers=layers(preact_std=lambda step: 1.0 if step == 0 else NAN),
        ),
    ),
    (
        "inputs_not_finite",
        of(
            steps=steps_of([2.3] * 20 + [NAN], grad_norm=[1.0] * 20 + [NAN], clipped=0).assign(
                step=range(100, 121)
            )
        ),
    ),
    (
        "inputs_not_finite",
        of(settings=EVERY_20, steps=NEVER, layers=layers(kind="recurrent", preact_std=NAN)),
    ),
    # The model's own inputs at the step are known; or the targets', where all else is finite.
    ("inputs_not_finite", of(loss=read(input=0.01), steps=SUDDENLY)),
    ("inputs_not_finite", of(loss=read(target=0.01), steps=SUDDENLY)),
    (
        "zero_weights",
        of(layers=layers(deltas=(0.0, 0.0, 0.0), weight_norm=[0.0, 0.0, 0.0, 1.0])),
    ),
    # Both factors of a product begin at 0, and so each one's gradient is.
    ("zero_weights", of(layers=layers(weight_norm=ADAPTER, grad_norm=[0.0, 0.0, 0.1, 0.1]))),
    # A recurrent cell has no weights on the main path, where z is.
    ("zero_weights", of(layers=layers(kind="recurrent", weight_norm=0.0))),
    ("zero_weights", of(extra={"constant_weights": ["layers.0", "layers.1"]})),
    ("zero_weights", of(extra={"constant_weights": ["layers.2", "readout"]})),
    ("weights_small", of(layers=layers(deltas=VANISHING, preact_std=1e-3, act_std=1.0))),
    (
        "weights_large",
        of(layers=layers(deltas=EXPLODING, preact_std=1e3, act_std=1.0)),
    ),
    (
        "weights_large",
        of(layers=layers(deltas=VANISHING, preact_std=5.0, saturated_fraction=0.9)),
    ),
    ("weights_large", of(layers=layers(preact_std=5.0, saturated_fraction=0.9))),
    ("saturating_activation", of(layers=layers(deltas=VANISHING))),
    (
        "batchnorm_depth",
        of(layers=layers(deltas=EXPLODING), parameters=NORM),
    ),
    ("residual_growth", of(layers=layers(deltas=EXPLODING), settings={"model.skip": "residual"})),
    # The stream grows less than a thousand times, and the first loss shows it.
    (
        "residual_growth",
        of(
            layers=layers(preact_std=[1.0, 5.0, 25.0, 50.0]),
            steps=steps_of([300.0, NAN], grad_norm=1.0),
            settings={"model.skip": "residual"},
            extra={"constant_loss": 2.303},
        ),
    ),
    # Of a stream nothing tells what weights multiply by.
    (
        "residual_growth",
        of(
            layers=layers(
                deltas=EXPLODING, kind=["stream"] * 3 + ["readout"], act_mean=NAN, act_std=NAN
            )
        ),
    ),
    ("dead_at_start", of(layers=layers(dead_fraction=[0.0, 1.0, 0.0, 0.0]))),
    ("recurrence_vanishing", of(extra=RNN)),
    ("recurrence_vanishing", of(extra=ALL_ANSWER, time=TIME, recurrence=radius(0.3))),
    ("recurrence_exploding", of(extra={**RNN, "time_attenuation": 1e5})),
    ("recurrence_exploding", of(time=OVERFLOWING)),
    ("no_warmup", of(settings=POST, layers=ATTENTION)),
    ("no_warmup", of(settings=POST_IN_LOOP, layers=ATTENTION)),
    ("rate_too_large", of(layers=layers(update_ratio=2.0))),
    ("rate_too_large", of(steps=steps_of([2.3, 2.3, 30.0]))),
    # Ten steps on, a weight that began at 0 has a size.
    (
        "rate_too_large",
        of(layers=layers((0, 20), update_ratio=2.0, weight_norm=lambda step: 0.1 * step)),
    ),
    ("rate_too_large", of(extra={"sharpness_over_limit": 2.0})),
    # A schedule that is stepped at each batch leaves a hundredth of the rate, to a network that has
    # learned little.
    (
        "rate_too_small",
        of(
            extra={"constant_loss": 2.303},
            steps=steps_of([2.3] * 40 + [1.8] * 80, grad_norm=1.0, lr=[0.1] * 40 + [1e-3] * 80),
        ),
    ),
    # A schedule takes the rate to nothing between two measured steps.
    (
        "rate_too_small",
        of(
            layers=layers((0, 100), update_ratio=lambda step: 1e-2 if step == 0 else 1e-12),
            steps=steps_of([2.3] * 120, grad_norm=1.0, lr=[0.1] * 2 + [1e-8] * 118),
        ),
    ),
    ("rate_too_small", of(layers=layers(update_ratio=1e-5), settings={"optimizer.lr": 1e-5})),
    (
        "clip_throttles",
        of(
            steps=steps_of([2.3] * 120, grad_norm=100.0, grad_norm_clipped=1.0, clipped=1),
            layers=layers(update_ratio=1e-4),
        ),
    ),
    (
        "optimizer_epsilon",
        of(dtype="float16", settings={"optimizer.eps": 1e-8}, layers=layers(update_ratio=NAN)),
    ),
    ("optimizer_epsilon", of(settings={"optimizer.eps": 1.0}, layers=layers(update_ratio=1e-5))),
    ("dead_units", of(layers=layers(dead_fraction=lambda step: 0.0 if step == 0 else 0.95))),
    # The read-out's own ReLU, for good.
    ("dead_units", of(layers=pd.concat([layers((0,)), layers((20, 40), **SILENT_READOUT)]))),
    ("dead_at_start", of(layers=layers(**SILENT_READOUT))),
    (  # Nearly all entries of one layer are 0, and soon all of it.
        "dead_at_start",
        of(
            layers=layers(
                dead_fraction=lambda step: [0.0, float(step > 0), 0.0, 0.0],
                act_std=[0.7, 0.02, 0.7, 0.7],
            )
        ),
    ),
    ("saturated_units", of(layers=layers(saturated_fraction=lambda step: 0.1 + 0.04 * step))),
    # Not even the read-out gets anything: 64 examples share a loss of 1e-6.
    (
        "underflow",
        of(
            dtype="float16",
            layers=layers(deltas=(0.0,) * 3).assign(delta_rms=0.0),
            steps=steps_of([1e-6] * 120, grad_norm=0.0, loss_scale=1.0),
        ),
    ),
    # Weights are float32, and autocast makes the outputs float16.
    (
        "underflow",
        of(
            layers=layers(deltas=(1e-7, 1e-4, 1e-2)),
            loss=loss().assign(dtype=["float16", "int64", "float32"]),
        ),
    ),
    ("underflow", of(layers=layers(deltas=(1e-37, 1e-36, 1e-35)))),
    (
        "overflow",
        of(
            dtype="float16",
            layers=layers(act_max=6e4),
            steps=steps_of([2.3, NAN], grad_norm=[1.0, NAN]),
        ),
    ),
    # A product of two values of size 300 is not finite in the first forward pass.
    (
        "overflow",
        of(
            dtype="float16",
            layers=layers((0,), preact_std=[300.0, 310.0, NAN, NAN], act_max=NAN),
            steps=steps_of([NAN] * 120, grad_norm=NAN),
            loss=loss().assign(not_finite=[1.0, 0.0, 1.0]),
        ),
    ),
    # Finite inputs and weights of float16 give outputs that are not.
    ("overflow", of(dtype="float16", loss=read(output=1.0), steps=SUDDENLY)),
    # The square of a target is beyond.
    (
        "overflow",
        of(
            dtype="float16",
            loss=read(result=1.0).assign(dtype="float16", max=400.0),
            steps=SUDDENLY,
        ),
    ),
    # The scaler counts the first step as skipped, and no loss is finite.
    (
        "overflow",
        of(
            dtype="float16",
            layers=layers((0,), act_max=[5e3, 2e4, math.inf, math.inf]),
            steps=steps_of([NAN], grad_norm=NAN, skipped=1),
            extra={"nonfinite_step": 0, "nonfinite_maker": "forward"},
        ),
    ),
    ("flat_landscape", of(extra={"curvature_over_limit_max": 1e-4})),
    # All returns are the same; or what is left of a squared error does not depend on weights.
    ("flat_landscape", of(steps=ZEROS, loss=returns(-24.0, -24.0))),
    ("flat_landscape", of(steps=FALLS_SILENT, loss=of_graph(is_steep=1))),
    (
        "labels_unlearnable",
        of(
            layers=layers(steps=(0, 299)),
            steps=steps_of([2.303] * 300, grad_norm=1.0),
            extra={"constant_loss": 2.303},
        ),
    ),
    (
        "labels_unlearnable",
        of(layers=layers((0, 119)), extra={"constant_loss": 2.303}, wiring=wiring()),
    ),
    # It has begun to memorise.
    (
        "labels_unlearnable",
        of(
            layers=layers(steps=(0, 299)),
            steps=steps_of([2.1] * 300, grad_norm=1.0),
            extra={**MEMORISED, "val_accuracy_last": 0.11},
        ),
    ),
    (
        "overfitting",
        of(extra={"val_loss_last": 2.0, "val_loss_best": 1.0, "loss_last_mean_20": 0.1}),
    ),
    ("idle_clip", of(settings={"clip": "norm"}, extra={"clip_fraction": 0.0})),
    (
        "relapsed",
        of(
            steps=steps_of([2.3] * 20 + [1.0] * 60 + [2.3] * 40),
            extra={"loss_best_mean_20": 1.0, "loss_last_mean_20": 2.3, "constant_loss": 2.3},
        ),
    ),
    (
        "unused_parameters",
        of(
            wiring=wiring(gradient_came=[0, 1, 1, 1], gradient=["none", *["finite"] * 3]),
            layers=layers(preact_std=[NAN, 1, 1, 1]),
        ),
    ),
    (
        "idle_layers",
        of(layers=layers(grad_norm=[0.0, 1, 1, 1]), steps=steps_of([2.3] + [0.1] * 120)),
    ),
    (
        "idle_layers",
        of(
            wiring=wiring(requires_grad=[0, 1, 1, 1]),
            layers=layers(grad_norm=[NAN, 1, 1, 1]),
            steps=steps_of([2.3] + [0.1] * 120),
        ),
    ),
]

SILENT: list[tuple[str, Evidence]] = [
    # A part of the network gets nothing.
    (
        "labels_unlearnable",
        of(
            layers=layers((0, 119)),
            extra={"constant_loss": 2.303, "cut_states": ["cell"]},
            wiring=wiring(),
        ),
    ),
    ("no_update", of(wiring=wiring())),
    ("output_range", of(loss=loss(name="NLLLoss", max=-0.1))),
    # Labels of two classes, and ten probabilities for each label.
    (
        "output_range",
        of(loss=loss("64x1", "64", name="mine", **BY_SIGMOID).assign(max=[0.6, 1.0, 0.7])),
    ),
    ("output_range", of(loss=loss("64x10", "64", name="mine", min=0.4, **BY_SIGMOID))),
    ("output_range", of(loss=loss("64x1", "64", name="mine", min=-3.0, max=9.0))),
    # A warm-up may begin at a rate of 0: one step tells nothing.
    ("no_update", of(wiring=wiring(updated=0, lr=0.0), layers=layers((0,), update_ratio=0.0))),
    ("not_registered", of(unseen=["layers.0: no known activation was called"])),
    # Weights that move although this optimizer does not hold them have one of their own.
    (
        "not_in_optimizer",
        of(wiring=wiring(in_optimizer=[0, 0, 0, 1]), layers=layers(weight_norm=lambda s: 8.0 + s)),
    ),
    # So does one whose optimizer was seen to make a step.
    ("not_in_optimizer", of(wiring=wiring(in_optimizer=[0, 0, 0, 1], other_optimizer=1))),
    ("frozen", of(wiring=wiring())),
    # The optimizer holds something else; or holds, and moves, what was let loose in between.
    (
        "frozen",
        of(wiring=ALL_FROZEN.assign(in_optimizer=0), layers=layers(weight_norm=8.0, **UNSEEN)),
    ),
    (
        "frozen",
        of(wiring=ALL_FROZEN, layers=layers(weight_norm=lambda step: 8.0 + step, **UNSEEN)),
    ),
    ("gradient_cleared", of(wiring=wiring())),
    ("gradient_cleared", of(wiring=wiring(gradient="zero"), layers=layers(deltas=(0.0, 0.0, 0.0)))),
    # They are 0 because weights are.
    (
        "gradient_cleared",
        of(
            wiring=wiring(gradient="zero", updated=0),
            layers=layers(weight_norm=ADAPTER, grad_norm=[0.0, 0.0, NAN, NAN]),
        ),
    ),
    ("graph_cut", of(wiring=wiring())),
    # Dead units and a read-out of zeros send back exactly 0 too.
    (
        "graph_cut",
        of(
            wiring=wiring(),
            layers=layers(deltas=(0.0, 0.0, 0.5), dead_fraction=[0, 1.0, 0, 0]),
        ),
    ),
    (
        "graph_cut",
        of(
            wiring=wiring(),
            layers=layers(deltas=(0.0, 0.0, 0.0), weight_norm=[1.0, 1.0, 1.0, 0.0]),
        ),
    ),
    # Branches whose factor begins at 0, as ReZero's and LayerScale's do, and is none after it.
    (
        "graph_cut",
        of(
            wiring=wiring(),
            layers=pd.concat(
                [layers((0,), deltas=(0.5, 0.0, 0.5)), layers((20,), deltas=(0.5, 0.1, 0.5))]
            ),
        ),
    ),
    ("graph_cut", of(wiring=wiring(), layers=layers((0,), deltas=(0.5, 0.0, 0.5)))),
    # Copies of several views of an example, detached by intent: the network learned.
    (
        "graph_cut",
        of(
            wiring=wiring(),
            steps=steps_of([2.3] * 20 + [0.5] * 100, grad_norm=1.0),
            extra={"constant_loss": 2.303, "cut_states": ["encoder"]},
        ),
    ),
    # The second factor of an adapter begins at 0 beside a weight that is frozen.
    (
        "graph_cut",
        of(
            wiring=wiring(),
            layers=layers((0,), deltas=(0.0, 0.0, 0.5)).pipe(with_adapter),
        ),
    ),
    ("gradient_kept", of(wiring=wiring())),
    # Another network's optimizer clears these.
    ("gradient_kept", of(wiring=wiring(gradient_kept=1, in_optimizer=0))),
    # Another optimizer, or an average, changes them.
    (
        "graph_cut",
        of(
            unseen=[f"layers.0, layers.1: {RAN_SILENTLY}"],
            wiring=wiring(
                gradient_came=[0, 0, 1, 1], gradient=["none", "none", "finite", "finite"]
            ),
            layers=layers(preact_std=[NAN, NAN, 1.0, 1.0], weight_norm=lambda step: 8.0 + step),
        ),
    ),
    ("double_softmax", of(loss=loss())),
    # The read-out gives these numbers itself: they are logits.
    ("double_softmax", of(loss=BINARY, layers=layers(preact_mean=0.52))),
    # Outputs of no network: the exponential of so low a mean overflows.
    ("double_softmax", of(loss=BINARY, layers=layers(preact_mean=-800.0))),
    # A binary cross-entropy of probabilities is right.
    (
        "double_softmax",
        of(
            loss=BINARY.assign(function="mine", mean=[0.52, 0.4, 0.69]),
            layers=layers(preact_mean=0.1),
        ),
    ),
    # Logarithms of a softmax of logits, that send back what they should.
    (
        "double_softmax",
        of(
            loss=pd.concat([LOG_PROBABILITIES, LOG_PROBABILITIES.assign(step=20)]),
            layers=layers().assign(delta_rms=0.3),
        ),
    ),
    # -log(p) of one's own making takes probabilities, and sends back what it should.
    (
        "double_softmax",
        of(loss=loss(name="mine", **PROBABILITIES), layers=layers().assign(delta_rms=0.3)),
    ),
    ("double_softmax", of(loss=loss(kind="float32", target="64x10", **PROBABILITIES))),
    ("target_shape", of(loss=loss("64x1", "64x1", "float32", "MSELoss"))),
    ("target_shape", of(loss=loss())),
    # Outputs are compared with something that is no target.
    ("target_shape", of(loss=said("broadcast_to", "32x32", "64x1", "64x1", "float32"))),
    # A function that squeezes for itself compares each output with its own target.
    ("target_shape", of(loss=broadcast(1.14))),
    ("target_shape", of(loss=loss("64x1", "scalar", "float32", "BCELoss"))),
    ("output_range", of(loss=loss("64", "64", "float32", "MSELoss", min=-3.0, max=12.0))),
    # A read-out's outputs may all be small and above 0 in the first batch.
    (
        "output_range",
        of(loss=loss("64", "64", "float32", min=0.01, max=0.2, made_by="AddmmBackward0")),
    ),
    (
        "double_softmax",
        of(loss=loss("64x1", "64x1", "float32", "BCELoss", made_by="SigmoidBackward0")),
    ),
    ("nan_from_loss", of(loss=loss(), steps=steps_of([2.3] * 4))),
    (
        "nan_from_loss",
        of(loss=BAD_LOSS.assign(not_finite=1.0), steps=steps_of([2.3] * 3 + [NAN], grad_norm=1.0)),
    ),
    ("nan_in_backward", of()),
    # The gradient grows back through time, or from layer to layer, until it is not finite.
    ("nan_in_backward", of(steps=NO_GRADIENT, wiring=BAD_GRADIENT, time=OVERFLOWING)),
    (
        "nan_in_backward",
        of(
            steps=NO_GRADIENT,
            wiring=BAD_GRADIENT,
            layers=layers(deltas=(NAN, NAN, 1e30, 1e15, 1.0)),
        ),
    ),
    # In a frame a column that nobody measured is nan as well.
    ("nan_in_backward", of(steps=steps_of([2.3] * 120), layers=layers(grad_zero_fraction=NAN))),
    # A scaler skips what is not finite, and goes on.
    (
        "nan_in_backward",
        of(steps=steps_of([2.3] * 4, grad_norm=[NAN, 1, 1, 1], skipped=[1, 0, 0, 0])),
    ),
    ("saturated_loss", of(layers=layers(saturated_fraction=[0, 0, 0, 1.0]))),
    # What was learned sends nothing back either.
    (
        "saturated_loss",
        of(steps=steps_of([2.3] + [1e-6] * 119, grad_norm=[1.0] * 3 + [1e-6] * 117)),
    ),
    # What is right is flat as well, and what flattens later was steep.
    ("saturated_loss", of(loss=flat(1.0), steps=steps_of([1e-3] * 120, grad_norm=1e-6))),
    ("saturated_loss", of(loss=flat(0.5), steps=steps_of([0.5] * 120, grad_norm=1e-6))),
    (
        "saturated_loss",
        of(
            loss=flat(1.0),
            steps=steps_of([-1e-9] * 60 + [-2.0] * 60, grad_norm=1e-9),
            extra={"takes_turns": True},
        ),
    ),
    # Dead units are another thing.
    (
        "saturated_loss",
        of(
            steps=steps_of([2.3] * 120, grad_norm=[1.0] * 3 + [1e-6] * 117),
            layers=layers(dead_fraction=[0.0, 1.0, 0.0, 0.0]),
        ),
    ),
    ("inputs_unscaled", of(layers=layers(grad_norm=1e-2), parameters=BIASES)),
    # What reads the units of one layer parts them.
    ("zero_weights", of(extra={"constant_weights": ["layers.0", "layers.2"]})),
    # Pooling over positions takes most of the signal, in one place.
    ("saturating_activation", of(layers=layers(deltas=(1e-5, 2e-5, 4e-5, 0.1)))),
    ("inputs_unscaled", of()),
    # Data of vgexp's own are scaled.
    ("inputs_unscaled", of(layers=layers(preact_std=[90.0, 1, 1, 1]), settings={"data": "digits"})),
    # What the model read as its loss was not finite is known, and usual.
    (
        "inputs_unscaled",
        of(
            loss=read(output=1.0).assign(mean=0.0, std=1.0),
            layers=layers(preact_std=[90.0, 1, 1, 1]),
            steps=SUDDENLY,
        ),
    ),
    # Weights this small or large may be why.
    ("inputs_unscaled", of(layers=layers(preact_std=1e-3))),
    ("inputs_unscaled", of(layers=layers(preact_std=90.0))),
    ("inputs_not_finite", of()),
    # No loss and no gradient was seen, since nothing requires one.
    (
        "inputs_not_finite",
        of(settings=EVERY_20, steps=NEVER, wiring=ALL_FROZEN, layers=layers(**UNSEEN)),
    ),
    # Of a recurrence z is not measured; that of the read-out is finite.
    (
        "inputs_not_finite",
        of(
            settings=EVERY_20,
            steps=NEVER,
            layers=layers(preact_std=[NAN, NAN, NAN, 1.0]).assign(
                kind=["recurrent", "recurrent", "recurrent", "readout"] * 2
            ),
        ),
    ),
    # States that grow are not finite either.
    (
        "inputs_not_finite",
        of(
            settings=EVERY_20,
            steps=NEVER,
            layers=layers(kind="recurrent", preact_std=NAN),
            recurrence=radius(1.5),
        ),
    ),
    # The step is none at which z is measured.
    (
        "inputs_not_finite",
        of(
            settings=EVERY_20,
            steps=steps_of([2.3, 9.0, 80.0, NAN], grad_norm=[1.0, 9, 80, NAN]),
            layers=layers((0, 3), preact_std=lambda step: 1.0 if step == 0 else NAN),
        ),
    ),
    # Too few updates show what is usual.
    (
        "inputs_not_finite",
        of(
            steps=steps_of([2.3] * 4 + [NAN], grad_norm=[1.0] * 4 + [NAN]).assign(
                step=range(100, 105)
            )
        ),
    ),
    # The loss was given finite outputs at that step: it made the nan itself.
    (
        "inputs_not_finite",
        of(
            steps=steps_of([2.3] * 20 + [NAN], grad_norm=[1.0] * 20 + [NAN]).assign(
                step=range(100, 121)
            ),
            loss=loss(step=120).assign(not_finite=[0, 0, 1.0]),
        ),
    ),
    # What the model read is known to be finite.
    ("inputs_not_finite", of(loss=read(output=1.0), steps=SUDDENLY)),
    ("inputs_not_finite", of(loss=read(target=0.01, weight=1.0), steps=SUDDENLY)),
    # A bias moves z as well, all units alike.
    ("inputs_unscaled", of(layers=layers(preact_mean=[-50.0, 0, 0, 0]))),
    (
        "inputs_not_finite",
        of(
            steps=steps_of([2.3] * 20 + [NAN], grad_norm=[1.0] * 20 + [NAN]),
            layers=layers(weight_norm=lambda step: 8.0 if step == 0 else NAN, preact_std=NAN),
        ),
    ),
    ("inputs_not_finite", of(steps=steps_of([2.3, 9.0, 80.0, NAN], grad_norm=[1.0, 9, 80, NAN]))),
    ("zero_weights", of()),
    # Adapters begin by changing nothing of what is frozen.
    (
        "zero_weights",
        of(
            wiring=wiring(requires_grad=[0, 0, 1, 1]),
            layers=layers(deltas=(NAN, 0.0, 0.5), weight_norm=[1.0, 0.0, 1.0, 0.0]),
        ),
    ),
    # One weight at 0 whose gradient is 0 is no product.
    ("zero_weights", of(layers=layers(weight_norm=[1, 1, 0.0, 1], grad_norm=[1, 1, 0.0, 1]))),
    # A linear model may begin at 0.
    ("zero_weights", of(layers=layers(kind="readout", weight_norm=0.0))),
    ("weights_small", of()),
    ("weights_small", of(layers=layers(deltas=VANISHING))),
    ("weights_large", of()),
    ("saturating_activation", of()),
    ("saturating_activation", of(layers=layers(deltas=VANISHING, preact_std=1e-3, act_std=1.0))),
    ("batchnorm_depth", of(layers=layers(deltas=EXPLODING, preact_std=1e3, act_std=1.0))),
    ("residual_growth", of(layers=layers(deltas=EXPLODING))),
    ("dead_at_start", of(layers=layers(dead_fraction=0.5))),
    ("dead_at_start", of(layers=layers(dead_fraction=0.0, act_std=[0.7, 0.02, 0.7, 0.7]))),
    (
        "dead_at_start",
        of(layers=layers(dead_fraction=lambda step: [0.0, float(step > 0), 0.0, 0.0])),
    ),
    ("recurrence_vanishing", of(extra={"time_attenuation": 0.1})),
    ("recurrence_vanishing", of(extra=ALL_ANSWER, time=TIME, recurrence=radius(0.9))),
    # No float64 holds what is left after 700 steps.
    (
        "recurrence_vanishing",
        of(extra=ALL_ANSWER, time=TIME.assign(t=[0, 350, 700]), recurrence=radius(3.0)),
    ),
    # One layer of two remembers.
    ("recurrence_vanishing", of(extra=ALL_ANSWER, time=TIME, recurrence=radius(0.3, 1.0))),
    # Of a gate's matrix the radius is not what a state is multiplied by.
    (
        "recurrence_vanishing",
        of(extra=ALL_ANSWER, time=TIME, recurrence=radius(0.3, 0.3).assign(layer=1)),
    ),
    ("recurrence_exploding", of(extra={"time_attenuation": 0.1})),
    ("recurrence_exploding", of(time=OVERFLOWING.assign(delta_rms=[NAN, NAN, 1.0, 1.0]))),
    ("no_warmup", of(settings={**POST, "scheduler.warmup_fraction": 0.1}, layers=ATTENTION)),
    ("no_warmup", of(settings={**POST, "model.norm_position": "pre"}, layers=ATTENTION)),
    # Of a loop: usual steps, another optimizer, a rate that rises.
    ("no_warmup", of(settings=POST_IN_LOOP, layers=ATTENTION.assign(update_ratio=1e-3))),
    ("no_warmup", of(settings={**POST, "optimizer.class": "SGD"}, layers=ATTENTION)),
    (
        "no_warmup",
        of(
            settings=POST_IN_LOOP,
            layers=ATTENTION,
            steps=steps_of([2.3] * 120, lr=[1e-5, 2e-5] + [1e-3] * 118),
        ),
    ),
    ("no_warmup", of(settings=POST_IN_LOOP, layers=ATTENTION, steps=steps_of([2.3] * 30))),
    # At such a rate no warm-up helps.
    ("no_warmup", of(settings=POST_IN_LOOP, layers=ATTENTION.assign(update_ratio=3.0))),
    ("rate_too_large", of(steps=steps_of([2.3, 2.3, 20.0]))),
    # The update of a loss that is not finite.
    ("rate_too_large", of(layers=layers((3,), update_ratio=2.0), loss=read(), steps=SUDDENLY)),
    # Nor has one that began at 0 and has had one small update, in a warm-up.
    (
        "rate_too_large",
        of(
            layers=layers(
                range(4), update_ratio=[0.1, 0.1, 0.1, 2.0], weight_norm=lambda step: 1e-3 * step
            )
        ),
    ),
    # A weight of 0 has no size to compare with.
    ("rate_too_large", of(layers=layers(update_ratio=2.0, weight_norm=0.0))),
    ("rate_too_small", of()),
    # One that has learned by then, usual schedules, and a warm-up.
    *(
        ("rate_too_small", of(extra={"constant_loss": 2.303}, steps=of_rates(last, rates)))
        for last, rates in (
            (0.3, [0.1] * 40 + [1e-3] * 80),
            (2.3, [0.1 * 0.95**step for step in range(120)]),
            (2.3, [1e-4] * 80 + [0.1] * 40),
            (2.3, [0.1] * 120),
        )
    ),
    # So few updates are small together at any rate.
    ("gradient_kept", of(wiring=wiring(gradient_kept=NAN))),
    # Small updates of gradients that nobody clipped.
    (
        "clip_throttles",
        of(
            steps=steps_of([2.3] * 120, grad_norm=VARYING, grad_norm_clipped=VARYING),
            layers=layers(update_ratio=1e-5, grad_max=[1e-6, 2e-6, 3e-6, 4e-6]),
        ),
    ),
    (
        "clip_throttles",
        of(steps=steps_of([2.3] * 120, grad_norm=10.0, grad_norm_clipped=1.0, clipped=1)),
    ),
    # The scaler multiplies the loss, so that each example's share is a number of float16.
    (
        "underflow",
        of(
            dtype="float16",
            layers=layers(deltas=(0.0,) * 3).assign(delta_rms=0.0),
            steps=steps_of([1e-6] * 120, grad_norm=0.0, loss_scale=65536.0),
        ),
    ),
    # Values of size 300 are far from the end of the range, and the loss itself made the nan.
    (
        "overflow",
        of(
            dtype="float16",
            layers=layers((0,), preact_std=300.0, act_max=300.0),
            steps=steps_of([NAN] * 120, grad_norm=NAN),
            loss=loss().assign(not_finite=[0.0, 0.0, 1.0]),
        ),
    ),
    ("optimizer_epsilon", of(settings={"optimizer.eps": 1e-8})),
    ("optimizer_epsilon", of(dtype="float16", settings={"optimizer.eps": 1e-4})),
    (
        "residual_growth",
        of(
            layers=layers(preact_std=[1.0, 5.0, 25.0, 50.0]),
            steps=steps_of([2.5, 2.4], grad_norm=1.0),
            settings={"model.skip": "residual"},
            extra={"constant_loss": 2.303},
        ),
    ),
    # Without a loss that was watched nobody knows that the model was called.
    ("graph_cut", of(wiring=UNREACHED, layers=layers(deltas=(NAN,) * 3, **UNSEEN))),
    # It diverged before its first update.
    (
        "no_update",
        of(wiring=wiring(updated=0, gradient=["not_finite"] * 2 + ["finite"] * 2), steps=None),
    ),
    (
        "rate_too_small",
        of(
            layers=layers((0, 100), update_ratio=1e-2),
            steps=steps_of([2.3] * 120, grad_norm=1.0, lr=0.1),
        ),
    ),
    # No gradient is no small gradient.
    (
        "optimizer_epsilon",
        of(settings={"optimizer.eps": 1.0}, layers=layers(update_ratio=1e-5, grad_max=0.0)),
    ),
    ("dead_units", of(layers=layers(dead_fraction=0.85))),
    # It comes back; or gives 1 everywhere, as a sigmoid does.
    ("dead_units", of(layers=pd.concat([layers((20,), **SILENT_READOUT), layers((40,))]))),
    (
        "dead_units",
        of(layers=layers((20, 40), **{**SILENT_READOUT, "act_max": 1.0})),
    ),
    # What is so at the start did not become so.
    ("dead_units", of(layers=layers((0,), dead_fraction=0.95))),
    ("saturated_units", of(layers=layers(saturated_fraction=0.85))),
    ("underflow", of()),
    ("overflow", of(dtype="float16")),
    ("overflow", of(steps=steps_of([2.3, NAN], grad_norm=[1.0, NAN]), layers=layers(act_max=6e4))),
    ("flat_landscape", of(extra={"curvature_over_limit_max": 0.5})),
    ("flat_landscape", of(steps=ZEROS, loss=returns(-24.0, 0.0))),
    ("flat_landscape", of(steps=ZEROS, loss=returns(-24.0, -24.0, cut_by="RoundBackward0"))),
    ("flat_landscape", of(steps=ZEROS, loss=returns(1.0, 1.0).head(1))),
    ("flat_landscape", of(loss=returns(-24.0, -24.0))),
    ("flat_landscape", of(steps=FALLS_SILENT, loss=of_graph(is_steep=0))),
    ("flat_landscape", of(loss=of_graph(is_steep=1))),
    ("saturated_loss", of(steps=FALLS_SILENT, loss=of_graph(is_steep=1))),
    ("graph_cut", of(wiring=wiring(), loss=of_graph(reaches_output=0))),
    # A layer is trained by way of what the loss function was not given.
    (
        "graph_cut",
        of(
            wiring=wiring(gradient_came=[0, 0, 0, 1], gradient=["none"] * 3 + ["finite"]),
            layers=layers(deltas=(NAN,) * 3, **UNSEEN),
            loss=of_graph(reaches_output=0),
        ),
    ),
    ("graph_cut", of(wiring=wiring(), loss=pd.concat([of_graph(cut_by="Round"), loss(step=20)]))),
    (
        "graph_cut",
        of(
            wiring=pd.concat([UNREACHED, wiring().tail(1).assign(name="log_z")]),
            layers=layers(deltas=(NAN,) * 3, **UNSEEN),
            loss=of_graph(reaches_output=1),
        ),
    ),
    (
        "labels_unlearnable",
        of(
            layers=layers(steps=(0, 299)),
            steps=steps_of([1.0] * 300, grad_norm=1.0),
            extra={"constant_loss": 2.303},
        ),
    ),
    # It learns, slowly, and some of it holds for other examples.
    (
        "labels_unlearnable",
        of(
            layers=layers(steps=(0, 299)),
            steps=steps_of([2.1] * 300, grad_norm=1.0),
            extra={**MEMORISED, "val_accuracy_last": 0.3},
        ),
    ),
    # Nothing comes back through time.
    (
        "labels_unlearnable",
        of(
            layers=layers(steps=(0, 299)),
            steps=steps_of([2.303] * 300, grad_norm=1.0),
            extra={**RNN, "constant_loss": 2.303},
        ),
    ),
    (
        "overflow",
        of(
            dtype="float16",
            layers=layers((0,), act_max=5.0),
            steps=steps_of([NAN], grad_norm=NAN, skipped=1),
            extra={"nonfinite_step": 0, "nonfinite_maker": "forward"},
        ),
    ),
    (
        "labels_unlearnable",  # what is lost on its way through time
        of(
            layers=layers(steps=(0, 299)),
            steps=steps_of([2.303] * 300, grad_norm=1.0),
            extra={"constant_loss": 2.303, "time_attenuation": 1e-6},
        ),
    ),
    (
        "overfitting",
        of(extra={"val_loss_last": 1.1, "val_loss_best": 1.0, "loss_last_mean_20": 0.1}),
    ),
    ("idle_clip", of(settings={"clip": "norm"}, extra={"clip_fraction": 0.5})),
    ("idle_clip", of(settings={"clip": "none"}, extra={"clip_fraction": 0.0})),
    (
        "relapsed",
        of(extra={"loss_best_mean_20": 1.0, "loss_last_mean_20": 1.1, "constant_loss": 2.3}),
    ),
    (  # the luckiest of many windows
        "relapsed",
        of(
            steps=steps_of(2.1 + np.random.default_rng(0).normal(0.0, 0.3, 800)),
            extra={"loss_best_mean_20": 2.0, "loss_last_mean_20": 2.1, "constant_loss": 2.3},
        ),
    ),
    ("unused_parameters", of(wiring=wiring())),
    ("idle_layers", of(layers=layers(grad_norm=[0.0, 1, 1, 1]))),
]


@pytest.mark.parametrize(("cause", "evidence"), TELLS)
def test_a_cause_is_found(cause: str, evidence: Evidence) -> None:
    found = CAUSE_RULES[cause](evidence)
    assert found is not None
    assert found.id == cause
    assert found.sentence.endswith(".")
    assert set(found.layers) <= set(NAMES)


@pytest.mark.parametrize(("cause", "evidence"), SILENT)
def test_a_cause_is_not_found(cause: str, evidence: Evidence) -> None:
    assert CAUSE_RULES[cause].reason_unchecked(evidence) is None
    assert CAUSE_RULES[cause](evidence) is None
    assert not evidence.raised


@pytest.mark.parametrize("cause", [id for id in CAUSE_RULES if not CAUSES[id].is_note])
def test_the_first_remedy_of_a_cause_is_the_same_in_its_rule_its_page_and_the_docs(
    cause: str,
) -> None:
    firsts = [
        finding.remedies[0]
        for id, evidence in TELLS
        if id == cause and (finding := CAUSE_RULES[id](evidence)) and finding.remedies
    ]
    assert firsts
    page = TOPICS[cause].cures[0]
    overrides = {first.override for first in firsts if first.override}
    if page.override in overrides:
        pass
    elif overrides or cause in _OF_THIS_RUN:
        # A number that the rule makes of the run: what is set is the same.
        assert cause in _OF_THIS_RUN, (page.override, overrides)
        assert keys_of(page.override) in (_OF_THIS_RUN[cause], *map(keys_of, overrides))
    else:
        assert (page.override, page.code) in {("", first.code) for first in firsts}
    first = page.override or page.code.partition("  # ")[0]
    docs = Path(__file__).parents[2] / "docs"
    (row,) = [
        line
        for line in (docs / "diagnosis.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| [{cause}](")
    ]
    assert f"`{first}" in row.split(" | ")[-1]
    (section,) = [
        part
        for part in (docs / "explain.md").read_text(encoding="utf-8").split('<a id="')
        if part.startswith(f'{cause}"')
    ]
    assert first in section.partition("\nWhat to type:\n")[2]


def keys_of(override: str) -> list[str]:
    return [word.partition("=")[0] for word in override.split()]


def test_every_cause_has_a_rule_and_every_rule_two_cases_and_a_reason() -> None:
    assert {*CAUSES} - {*CAUSE_RULES} == {"unknown", "hidden_by_weights"}
    for cases in (TELLS, SILENT):
        assert {cause for cause, _ in cases} == {*CAUSE_RULES}
    assert all(rule.why_this_limit for rule in CAUSE_RULES.values())


def test_the_weights_factor_is_told_by_their_norm_where_a_bias_tells_the_number_of_units() -> None:
    parameters = pd.DataFrame(
        {"step": 0, "name": [f"{name}.bias" for name in NAMES], "kind": "bias", "entries": 16}
    )
    table = layers((0,)).assign(name=[f"{name}.weight" for name in NAMES], weight_norm=2.0)
    factors = factors_of(of(layers=table, parameters=parameters))
    assert factors is not None
    assert factors.weights == 0.5


def test_a_flat_landscape_of_small_weights_is_left_by_weights_of_the_usual_scale() -> None:
    flat = {"curvature_over_limit_max": 1e-4}
    for gain, first in ((0.001, "model.gain=1"), (1.0, "model.init=orthogonal")):
        found = CAUSE_RULES["flat_landscape"](of(extra=flat, settings={"model.gain": gain}))
        assert found is not None
        assert found.remedies[0].override == first


def test_a_rule_without_its_tables_is_unchecked() -> None:
    bare = evidence_of_tables({})
    assert CAUSE_RULES["graph_cut"].reason_unchecked(bare) == "needs wiring.csv"
    assert (
        CAUSE_RULES["optimizer_epsilon"].reason_unchecked(bare)
        == "the settings of the optimizer are not known"
    )


def test_a_rule_that_ends_in_an_error_is_unchecked_and_breaks_no_diagnosis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def judge(_: Evidence) -> Finding | None:
        raise ValueError("of no use")

    rule = replace(CAUSE_RULES["rate_too_large"], judge=judge)
    monkeypatch.setitem(CAUSE_RULES._entries, rule.id, rule)
    evidence = of(layers=layers(update_ratio=2.0))

    assert cause_metrics(evidence).keys() == {"cause_id", "cause_step", "cause_layer"}
    assert conclude(evidence).unchecked["rate_too_large"] == "raised ValueError: of no use"


def test_a_damaged_file_that_a_rule_reads_is_told() -> None:
    def judge(_: Evidence) -> Finding | None:
        raise QuestionError("layers.csv is damaged")

    with pytest.raises(QuestionError, match="damaged"):
        replace(CAUSE_RULES["rate_too_large"], judge=judge)(of())


def test_the_backward_factor_is_weights_times_slopes() -> None:
    factors = factors_of(of(layers=layers(deltas=(0.25, 0.5, 1.0), preact_std=2.0, act_std=1.0)))
    assert factors is not None
    assert (factors.backward, factors.weights, factors.slope) == (0.5, 2.0, 0.25)
    assert factors_of(of(layers=layers(deltas=(1.0,)))) is None


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (loss(), math.log(10)),
        (loss(name="mine"), math.log(10)),
        # No loss of usual outputs that is a cross-entropy of ten classes.
        (loss(name="mine", mean=0.0).assign(mean=[0.0, 4.5, 0.6]), None),
        (
            loss("64", "64", "float32", "MSELoss").assign(mean=[0.0, 1.0, 9.4], std=[0.1, 2.9, 0]),
            8.41,
        ),
        # Outputs may go with the targets by chance; a sum has another scale.
        (squared("MSELoss", 0.82), 1.0),
        (squared("mine", 0.82), None),
        # Each of 64 codes is to be found among those of 64 others.
        (squared("mine", 4.17).assign(shape=["64x16", "64x16", "scalar"]), math.log(64)),
        (squared("mine", 3.9).assign(shape=["64x16", "64x16", "scalar"]), None),
        (squared("MSELoss", 64 * 1.16), None),
        (loss("64", "64", "float32", "BCELoss").assign(mean=[0.5, 0.5, 0.7], max=1.0), math.log(2)),
        (loss("64x2", "64", "float32", "mine"), None),
        # Classes are on the axis that labels lack, last or first; a loss function may flatten
        # both, or leave out the first token. Else nobody knows which axis it is.
        (loss("8x11x7", "8x11", name="CrossEntropyLoss"), math.log(7)),
        (loss("8x7x11", "8x11", name="CrossEntropyLoss"), math.log(7)),
        (loss("8x11x7", "88", name="CrossEntropyLoss"), math.log(7)),
        (loss("8x11x7", "8x12", name="crossentropy_of_next"), math.log(7)),
        (loss("8x11x7", "8x5", name="crossentropy_of_some"), None),
    ],
)
def test_what_guessing_costs_is_known_where_the_loss_is_of_a_known_kind(
    table: pd.DataFrame, expected: float | None
) -> None:
    assert constant_loss(of(loss=table)) == (expected and pytest.approx(expected))


CUT = wiring(gradient_came=[0, 0, 1, 1], gradient=["none", "none", "finite", "finite"])
POOLED = {
    "wiring": wiring(gradient_came=[1, 1, 0, 1], gradient=["finite", "finite", "none", "finite"]),
    "layers": layers(update_ratio=0.01),
}


@pytest.mark.parametrize(
    ("losses", "changes", "cause"),
    [
        ([2.3] * 20 + [0.1] * 100, {}, None),
        ([2.3] * 120, {}, "graph_cut"),
        # Another cause is the one.
        ([2.3] * 120, {"layers": layers(update_ratio=1e-6)}, "rate_too_small"),
        # Those that read the data are cut off.
        ([2.3] * 20 + [0.1] * 100, {"wiring": CUT}, "graph_cut"),
    ],
)
def test_weights_beside_the_path_are_no_fault_of_a_network_that_learns(
    losses: Any, changes: dict[str, Any], cause: str | None
) -> None:
    root = find_root(
        of(steps=steps_of(losses, grad_norm=1.0), loss=loss(), **{**POOLED, **changes})
    )
    assert (root.cause and root.cause.id) == cause
    assert (root.findings[-1].id == "unused_parameters") is (changes.get("wiring") is None)


DRAWN = {"default_weights": [str(name) for name in wiring()["name"][:1]]}
FIRST_LAYERS = layers(
    deltas=np.geomspace(100, 0.5, 8), update_ratio=[3.0, 2.0, 1.0, 0.3, 0.1, 0.05, 0.02, 0.01, 0.01]
)


@pytest.mark.parametrize(
    ("cause", "last", "tables"),
    [
        ("weights_large", 1.6, {"layers": layers(deltas=EXPLODING, preact_std=1e3, act_std=1.0)}),
        ("batchnorm_depth", 1.6, {"layers": layers(deltas=EXPLODING), "parameters": NORM}),
        # The gradient grows less than a thousand times, and its first update replaces weights.
        ("batchnorm_depth", 1.6, {"layers": FIRST_LAYERS, "parameters": NORM}),
        ("rate_too_large", 1.6, {"layers": layers(update_ratio=2.0)}),
        (None, 0.5, {"layers": layers(deltas=EXPLODING, preact_std=1e3, act_std=1.0)}),
        # A single weight may be small by design.
        (None, 1.6, {"layers": layers(update_ratio=[2.0, 0.1, 0.1, 0.1])}),
        # What vanishes at the start may have come back, and hard tasks end above half.
        (None, 1.6, {"layers": layers(deltas=VANISHING)}),
        ("saturating_activation", 1.9, {"layers": layers(deltas=VANISHING)}),
        # Of what was trained before, nobody expects that it trains.
        (None, 1.9, {"wiring": wiring(requires_grad=[0, 0, 1, 1])}),
        ("frozen", 1.9, {"wiring": wiring(requires_grad=[0, 0, 1, 1]), "extra": DRAWN}),
        (None, 1.6, {"wiring": wiring(requires_grad=[0, 0, 1, 1])}),
        (None, 1.6, {}),
    ],
)
def test_a_network_that_learned_little_is_sick_of_what_it_did_not_overcome(
    cause: str | None, last: float, tables: dict[str, pd.DataFrame]
) -> None:
    losses = [2.3] * 20 + [last] * 100
    root = find_root(of(steps=steps_of(losses, grad_norm=1.0), loss=loss(), **tables))
    assert (root.cause and root.cause.id) == cause
    assert root.health == ("sick" if cause else "healthy")


@pytest.mark.parametrize(("began", "cause"), [(1.95, None), (2.3, "rate_too_small")])
def test_short_steps_of_a_network_that_was_trained_before_are_meant(
    began: float, cause: str | None
) -> None:
    losses = list(np.linspace(began, 1.9, 120))
    found = of(steps=steps_of(losses, grad_norm=1.0), loss=loss(), layers=layers(update_ratio=1e-5))
    assert CAUSE_RULES["rate_too_small"](found) is not None
    root = find_root(found)
    assert (root.cause and root.cause.id) == cause


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.3] + [2.0] * 120, True),
        ([2.3] + [2.2] * 120, False),
        # It learned, and lost it.
        ([2.3] + [0.5] * 60 + [2.3] * 60, False),
        ([2.3, math.inf], False),
        ([2.3] + [0.5] * 60 + [NAN], False),
    ],
)
def test_whether_a_network_learned_is_judged_by_its_end(losses: Any, expected: bool) -> None:
    assert has_learned(of(steps=steps_of(losses), loss=loss())) is expected


def test_of_a_loss_of_unknown_kind_the_first_is_what_guessing_costs() -> None:
    assert stays_at_start(of(steps=steps_of([2.3] * 120)))
    assert not stays_at_start(of(steps=steps_of([2.3] + [2.0] * 120)))
    assert not stays_at_start(of(steps=steps_of([2.3] * 60)))
    # A loss below 0 has no scale.
    assert not stays_at_start(of(steps=steps_of([-2.3] * 120)))
    # The batch of the first step had nothing to learn from.
    assert has_learned(of(steps=steps_of([0.0, 2.3] + [1.1] * 120))) is True


def test_targets_beyond_an_activation_are_a_fact_where_many_are() -> None:
    """What is out of reach by rare targets is a fault only of a network that does not learn."""
    table = loss("64", "64", "float32", "MSELoss", min=0.0, max=0.99)
    rule = CAUSE_RULES["output_range"]
    many = rule(of(loss=table.assign(mean=[0.5, 0.0, 1.1], min=[0.0, -2.0, 1.1])))
    rare = rule(of(loss=table.assign(mean=[0.1, 1.0, 1.1], std=[0.1, 0.9, 0], max=[0.99, 1.2, 1])))
    assert many is not None
    assert many.is_fact
    assert rare is not None
    assert not rare.is_fact


def test_integers_beyond_a_sigmoid_are_a_fact_where_a_cross_entropy_falls_below_0() -> None:
    table = loss("64x1", "64", name="mine", min=0.4, max=0.6, **BY_SIGMOID)
    learned = {"steps": steps_of([2.3] * 20 + [0.1] * 100, grad_norm=1.0)}
    below = table.assign(max=[0.6, 9.0, -55.0])
    assert find_root(of(loss=table, **learned)).health == "healthy"  # the loss may scale it
    cause = find_root(of(loss=below, **learned)).cause
    assert cause is not None
    assert cause.id == "output_range"


def test_a_loss_that_two_networks_keep_in_balance_says_nothing_of_health() -> None:
    tables = {
        "loss": BINARY.assign(function="BCELoss", mean=[0.5, 0.4, 0.7]),
        "steps": steps_of([0.7] * 120, grad_norm=1.0),
    }
    alone, in_turns = of(**tables), of(**tables, extra={"takes_turns": True})
    assert (has_learned(alone), has_learned(in_turns)) == (False, None)
    assert not stays_at_start(in_turns)
    found = conclude(in_turns)
    assert (found.health, found.cause) == ("undecided", None)
    falls = steps_of([0.78 - 0.005 * step for step in range(120)], grad_norm=1.0)
    assert has_learned(of(loss=BINARY, steps=falls, extra={"takes_turns": True}))


def test_of_a_loss_of_unknown_kind_a_fall_by_half_is_learning() -> None:
    assert has_learned(of(steps=steps_of([2.3] + [1.1] * 120))) is True
    assert has_learned(of(steps=steps_of([2.3] + [1.2] * 120))) is None
    assert has_learned(of(steps=None)) is None


def test_a_run_is_short_below_a_hundred_steps_or_while_its_loss_falls() -> None:
    assert is_short(of(steps=steps_of([2.3] * 99)))
    assert not is_short(of(steps=steps_of([2.3] * 100)))
    assert is_short(of(steps=steps_of(np.linspace(5, 2.2, 200))))


# Where it is the usual one, 120 updates of 1e-5 would have to be 83 times longer.
@pytest.mark.parametrize(("rate", "better"), [(0.02, "0.1"), (1e-6, "1e-05"), (0.1, "1")])
def test_a_rate_that_is_too_small_is_raised_to_the_usual_one_by_ten_times_at_most(
    rate: float, better: str
) -> None:
    evidence = of(layers=layers(update_ratio=1e-5), settings={"optimizer.lr": rate})
    config = dataclasses.replace(Config(), optimizer=SgdConfig(lr=rate))
    (found,) = [CAUSE_RULES["rate_too_small"](dataclasses.replace(evidence, config=config))]
    assert found is not None
    assert found.remedies[0].override == f"optimizer.lr={better}"
    assert ("again" in found.remedies[0].why) == (rate != 0.02)


def test_a_model_that_is_frozen_whole_is_sick_whatever_became_of_its_loss() -> None:
    known = {"wiring": ALL_FROZEN, "layers": layers(weight_norm=8.0, **UNSEEN)}
    root = find_root(of(steps=NEVER, settings=EVERY_20, **known))
    assert root.cause is not None
    assert (root.health, root.cause.id, root.rivals) == ("sick", "frozen", ())
    assert "nothing else of the model does" in root.cause.sentence
    assert [each.id for each in root.findings] == ["frozen"]  # its passes are not seen, and ran
    part = {"wiring": wiring(requires_grad=[0, 0, 1, 1])}
    assert find_root(of(steps=steps_of([2.3] * 9 + [0.1] * 111), **part)).health != "sick"


def says(least: float, most: float) -> Evidence:
    """A loss that fell from 2e4 to 0.5, whose gradient is 0 from step 10 on, with such outputs."""
    calls = [loss("64x10", "64x10", "float32", "mine", step=step) for step in (0, 100, 118)]
    for call in calls:
        call.loc[1, ["mean", "std", "max"]] = 0.1, 0.3, 1.0
    for call in calls[1:]:
        call.loc[0, ["min", "max"]] = least, most
    grown = layers(preact_std=[4.0, 16.0, 30.0, 70.0], act_std=4.0, update_ratio=[2.0] * 4)
    steps = steps_of([2e4] * 10 + [0.5] * 110, grad_norm=[1.0] * 10 + [0.0] * 110)
    return of(loss=pd.concat(calls), steps=steps, layers=grown)


def test_a_network_that_ends_by_saying_one_number_did_not_learn_however_far_its_loss_fell() -> None:
    sick, healthy = says(0.0, 0.0), says(-0.2, 0.9)
    assert (loss_of_constant(sick), loss_of_constant(healthy)) == (0.5, None)
    assert (has_learned(sick), has_learned(healthy)) == (False, True)
    # What it says then costs no less than guessing, and 4e4 of it at the start is of weights.
    root = find_root(sick)
    assert root.cause is not None
    assert root.cause.id == "weights_large"
    assert "rate_too_large" in root.cause.explains
    assert find_root(healthy).health == "healthy"


def test_before_step_0_there_was_no_update() -> None:
    rows = layers(kind="recurrent", preact_std=NAN)
    at_start = of(settings=EVERY_20, steps=NEVER, layers=rows)
    later = of(
        steps=steps_of([2.3] * 20 + [NAN], grad_norm=[1.0] * 20 + [NAN]),
        layers=layers(preact_std=lambda step: 1.0 if step == 0 else NAN),
    )
    for evidence, has_update in ((at_start, False), (later, True)):
        found = CAUSE_RULES["inputs_not_finite"](evidence)
        assert found is not None
        assert ("the update before" in found.sentence) is has_update


@pytest.mark.parametrize(("norm", "cause"), [(1.0, None), (NAN, "unknown")])
def test_losses_that_nobody_saw_are_not_those_that_are_not_finite(
    norm: float, cause: str | None
) -> None:
    """As of a loss that is in the graph of `torch.compile` from the second step on."""
    unseen = ("the loss: step 1 had no backward pass through a call that watch_loss saw",)
    steps = steps_of([2.3] + [NAN] * 119, grad_norm=[1.0] * 119 + [norm])
    root = find_root(of(steps=steps, loss=loss(), unseen=unseen))
    assert (root.cause and root.cause.id) == cause
    assert (root.health == "sick") is (cause is not None)
