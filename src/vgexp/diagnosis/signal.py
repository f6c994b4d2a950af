"""The backward signal along the main path: how it changes with depth, and where it underflows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vgexp.diagnosis.users_path import UsersPath, hidden_rows, users_main_path, users_path
from vgexp.errors import QuestionError, unknown

VANISHING_BELOW = 1e-3
EXPLODING_ABOVE = 1e3

SMALLEST_NORMAL: Mapping[str, float] = {
    "float32": 1.1754943508222875e-38,
    "float64": 2.2250738585072014e-308,
    "bfloat16": 1.1754943508222875e-38,
    "float16": 6.103515625e-05,
}
"""dtype -> its smallest normal number, below which precision is lost and soon the number itself.
Under autocast z is in half precision, and so is dL/dz. bfloat16 has the range of float32."""

_FAR_ABOVE: Mapping[str, float] = {
    "float32": 1e8,
    "float64": 1e8,
    "bfloat16": 1e8,
    "float16": 3e4,
}
"""dtype -> how many times its smallest normal number a signal has to be, not to be lost within one
layer unless that layer passes on nothing. Of float16 it is the root of its whole range, 1e9, for
1e8 is nearly all of that."""
_NEEDED = ("layer", "kind", "delta_rms")


@dataclass(frozen=True)
class Signal:
    """The backward signal of one step over the hidden layers 1..L of the main path."""

    attenuation: float
    """delta_rms(1) / delta_rms(L); nan where that is undefined."""
    backward_factor_per_layer: float
    """exp(-slope) of the line of ln delta_rms on layer; nan with fewer than two layers to fit."""
    num_layers: int
    """L; where nobody gave it, as many as the rows show."""
    num_layers_used: int
    """Layers in the fit."""
    num_left_out: int
    """Layers that are not in the fit, for their delta_rms is zero, not finite or not measured."""
    unmeasured_ends: tuple[int, ...]
    """Those of layers 1 and L that have no row."""
    signal: str | None
    """`vanishing`, `exploding` or `steady`; None where no path can be told."""
    weight_gradient_ratio: float = math.nan
    """grad_norm(1) / grad_norm(L), by the conventions of `attenuation`; nan without such a column.
    It does not measure the backward signal. A weight's gradient is dL/dz times what the layer
    reads: if one grows towards layer 1 as the other shrinks, it is the same in every layer."""
    compared: tuple[int, int] | None = None
    """The layers that stand for 1 and L in a user's model: those that have a signal."""
    no_path: str = ""
    """Why they cannot be compared, of a user's model; empty where they can."""


def main_path(layers_at_step: pd.DataFrame) -> pd.DataFrame:
    """The hidden layers of one step, as the first row of each `layer`.

    The read-out is left out, and so are weights without a layer: on branches, or never used.
    Modules side by side (gate, shortcut, q/k/v) share a layer's number and come after its first
    row; a stream comes before the weights of its block.
    """
    hidden = hidden_rows(layers_at_step)
    numbers = layers_at_step["layer"].to_numpy(dtype="float64", na_value=np.nan)[hidden]
    _, first = np.unique(numbers, return_index=True)  # sorted, and the first row of each
    return layers_at_step.iloc[hidden[first]]


def signal_of(
    layers_at_step: pd.DataFrame, num_layers: int | None = None, *, is_users: bool = False
) -> Signal:
    """The signal of one step, from its rows of `layers.csv`.

    Conventions where attenuation = delta_rms(1) / delta_rms(L) is not a finite quotient:

    - layer 1 gets exactly 0: attenuation 0, hence `vanishing`, whatever layer L gets (0/0 too:
      a network through which nothing passes has not kept its signal);
    - layer L gets exactly 0 but layer 1 does not: the ratio compares nothing: nan, `steady`;
    - layer 1 infinite, layer L finite: inf, `exploding`; layer L not finite: nan, `steady`;
    - layer 1 or L has no row or no value: nan, `steady`;
    - one layer: attenuation 1 (unless it gets 0), factor nan.

    Of a user's model, layers 1 and L are the first and the last that have a signal. Frozen layers
    have none, nor have those that the loss goes on through after the layers that are trained. Where
    no path can be told, the signal is None and the attenuation nan.

    Args:
        num_layers: L; None to take it from the rows, which do not show it where neither the
            read-out nor layer L was measured.
        is_users: whether it is a user's model, whose path the probe has learnt.

    Raises:
        QuestionError: columns are missing.
    """
    require_columns(layers_at_step)
    path = users_main_path(layers_at_step) if is_users else main_path(layers_at_step)
    numbers = path["layer"].to_numpy(dtype="float64")
    deltas = path["delta_rms"].to_numpy(dtype="float64")
    usable = np.isfinite(deltas) & (deltas > 0)
    if num_layers is None:
        num_layers = _num_layers(layers_at_step, numbers)
    ends = sorted({1, num_layers}) if num_layers else []
    unmeasured_ends = tuple(end for end in ends if end not in numbers)
    ratio = of_weights = math.nan
    found = None
    if is_users:
        whole = UsersPath(1, num_layers)
        found = whole if unmeasured_ends else users_path(layers_at_step, num_layers, path)
    no_path = "" if found is None else found.reason
    if numbers.size and not unmeasured_ends and numbers[-1] == num_layers and not no_path:
        compared = (1, num_layers) if found is None else (found.first, found.last)
        places = [int(np.flatnonzero(numbers == layer)[0]) for layer in compared]
        ratio = attenuation_of(*(float(deltas[place]) for place in places))
        if "grad_norm" in path:
            norms = path["grad_norm"].to_numpy(dtype="float64")[places]
            of_weights = attenuation_of(*(float(norm) for norm in norms))
    return Signal(
        attenuation=ratio,
        backward_factor_per_layer=fit_factor(numbers[usable], np.log(deltas[usable])),
        num_layers=num_layers,
        num_layers_used=int(usable.sum()),
        num_left_out=max(num_layers, usable.size) - int(usable.sum()),
        unmeasured_ends=unmeasured_ends,
        signal=None if no_path else classify(ratio),
        weight_gradient_ratio=of_weights,
        compared=None if found is None else (found.first, found.last),
        no_path=no_path,
    )


def smallest_held(
    dtype: str,
    steps: Sequence[int] | pd.Series,
    loss_scale: pd.Series | None = None,
    num_examples: int = 1,
) -> np.ndarray:
    """The smallest derivative that was a normal number, at each of the steps [S].

    It is the dtype's smallest normal number times `num_examples` over the loss scale: under
    autocast derivatives are computed in half precision, multiplied by the loss scale, which is
    divided out in float32; and `delta_rms` is dL/dz times the number of examples.

    Args:
        loss_scale: by step; nan stands for 1, and a step that it lacks has that of the step before.

    Raises:
        QuestionError: no such dtype.
    """
    if dtype not in SMALLEST_NORMAL:
        raise unknown("dtype", dtype, SMALLEST_NORMAL)
    smallest = SMALLEST_NORMAL[dtype] * num_examples
    if loss_scale is None or not len(loss_scale):
        return np.full(len(steps), smallest)
    known = loss_scale[~loss_scale.index.duplicated()].sort_index().astype("float64").fillna(1.0)
    places = known.index.searchsorted(np.asarray(steps, dtype="int64"), side="right") - 1
    limits: np.ndarray = smallest / known.to_numpy()[np.maximum(places, 0)]
    return limits


def loss_scales(steps: pd.DataFrame) -> pd.Series | None:
    """The loss scale by step, from rows as in `steps.csv`; None without such a column."""
    if "loss_scale" not in steps:
        return None
    return steps.drop_duplicates("step").set_index("step")["loss_scale"]


def underflow(
    layers: pd.DataFrame, num_examples: int, dtype: str, loss_scale: pd.Series | None = None
) -> int:
    """The number of main-path layers whose backward signal underflowed at any step.

    The dtype must hold dL/dz, whose rms is delta_rms / `num_examples`, times the loss scale of the
    step (`smallest_held`). A zero that is exact is no underflow. It is exact if, going down from
    the read-out, the first layer below the limit holds exactly 0, and one of these is true:

    - it, or a layer above it, has dead units only;
    - the weights of the layer above it are all 0;
    - the signal of the nearest layer above it that has one is far above the limit: slopes of
      exactly 0 cut it off (dead units that were not measured, a saturated activation). Where layers
      between were not measured each may have lost as much as one;
    - no layer above it, the read-out included, has a signal: then nothing tiny was ever measured.

    Weights that were not measured at a step are those of the step before.
    """
    lowest = smallest_held(dtype, layers["step"], loss_scale, num_examples)
    if not (layers["delta_rms"].to_numpy(dtype="float64", na_value=np.nan) < lowest).any():
        return 0
    tables = layers.sort_values("step", kind="stable", ignore_index=True)
    tables["weight_norm"] = tables.groupby("name")["weight_norm"].ffill()
    limits = smallest_held(dtype, tables["step"], loss_scale, num_examples)
    smallest = pd.Series(limits, index=tables.index)
    steps = tables.loc[tables["delta_rms"] < smallest, "step"].unique()
    below: set[int] = set()
    for step in steps:
        of_step = tables["step"] == step
        limit = float(smallest[of_step].iloc[0])
        below |= _fallen_below(tables[of_step], limit, _FAR_ABOVE[dtype])
    return len(below)


def require_columns(frame: pd.DataFrame) -> None:
    """Checks that a frame has the columns that a signal is computed from, each of them once.

    Raises:
        QuestionError: it has not.
    """
    names = list(frame.columns)
    missing = [name for name in _NEEDED if name not in names]
    twice = [name for name in _NEEDED if names.count(name) > 1]
    if missing or twice:
        problem = "lacks" if missing else "has twice"
        raise QuestionError(
            f"the table {problem} the columns {', '.join(missing or twice)}\n"
            "allowed: a table of layers, as in layers.csv or Probe.to_frame()"
        )


def _num_layers(layers_at_step: pd.DataFrame, numbers: np.ndarray) -> int:
    """L from the read-out's number, else the highest hidden layer that has a row."""
    # A weight on a branch, or that no forward pass used, has no number.
    readouts = layers_at_step.loc[layers_at_step["kind"] == "readout", "layer"].dropna()
    if len(readouts):
        return int(readouts.min()) - 1
    return int(numbers[-1]) if numbers.size else 0


def attenuation_of(first: float, last: float) -> float:
    """The first value over the last, by the conventions of `signal_of`."""
    if not math.isfinite(last) or math.isnan(first):
        return math.nan
    if first == 0:
        return 0.0
    return first / last if last > 0 else math.nan


def fit_factor(numbers: np.ndarray, logs: np.ndarray) -> float:
    """exp(-slope) of the least-squares line through the points; nan for fewer than two."""
    if numbers.size < 2:
        return math.nan
    offsets = numbers - numbers.mean()
    slope = float(offsets @ (logs - logs.mean()) / (offsets @ offsets))
    try:
        return math.exp(-slope)
    except OverflowError:
        return math.inf


def classify(attenuation: float) -> str:
    """`vanishing`, `exploding` or, also where it is nan, `steady`."""
    if attenuation < VANISHING_BELOW:
        return "vanishing"
    return "exploding" if attenuation > EXPLODING_ABOVE else "steady"


def _fallen_below(layers_at_step: pd.DataFrame, smallest: float, far: float) -> set[int]:
    path = main_path(layers_at_step).set_index("layer")
    fallen = path.index[path["delta_rms"] < smallest]
    if not len(fallen):
        return set()
    top = int(fallen.max())
    is_dead = bool((path.loc[path.index >= top, "dead_fraction"] == 1).any())
    above = layers_at_step[layers_at_step["layer"] == top + 1]
    is_cut = len(above) > 0 and float(above["weight_norm"].iloc[0]) == 0
    is_exact = is_dead or is_cut or not _has_tiny_above(layers_at_step, top, smallest, far)
    if path.loc[top, "delta_rms"] == 0 and is_exact:
        return set()
    return {int(number) for number in fallen}


def _has_tiny_above(layers_at_step: pd.DataFrame, layer: int, smallest: float, far: float) -> bool:
    """Whether the nearest signal above a layer is so small that it may be lost on the way there."""
    above = layers_at_step[(layers_at_step["layer"] > layer) & (layers_at_step["delta_rms"] > 0)]
    if not len(above):
        return False
    nearest = above.sort_values("layer", kind="stable").iloc[0]
    num_layers = int(nearest["layer"]) - layer
    lost = math.log(far) * num_layers
    return bool(np.log(float(nearest["delta_rms"])) <= math.log(smallest) + lost)
