"""Since when, and in which layers, a column of a table of layers is beyond a limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

_MOST_LISTED = 4
"""Layers that are listed one by one; of more the first and the last are named."""


class Onset(NamedTuple):
    """That a layer is beyond a limit from a step on, up to the last one measured."""

    name: str
    layer: int
    step: int
    """The first of these steps."""
    is_always: bool
    """Whether it was so at every measured step."""
    first: float
    """The value at the first measured step."""
    last: float
    """The value at the last one."""


def onsets(
    layers: pd.DataFrame, column: str, is_beyond: Callable[[pd.Series], pd.Series]
) -> list[Onset]:
    """The layers whose column is beyond a limit at the last step at which it was measured.

    Args:
        layers: rows as in `layers.csv`. Weights that no forward pass used are left out.
        is_beyond: from values that were measured to booleans.

    Returns:
        In the order of the layers; none where there is no such column.
    """
    if column not in layers or "name" not in layers:
        return []
    numbers = pd.to_numeric(layers[column], errors="coerce").astype("float64")
    values = layers[["step", "name", "layer"]].assign(**{column: numbers}).dropna()
    values = values.sort_values("step", kind="stable")
    beyond = is_beyond(values[column]).to_numpy(dtype=bool)
    at_end = beyond & ~values["name"].duplicated(keep="last").to_numpy()
    found = []
    for name in values.loc[at_end, "name"]:
        of_layer = (values["name"] == name).to_numpy()
        rows, is_bad = values[of_layer], beyond[of_layer]
        sound = np.flatnonzero(~is_bad)
        start = int(sound[-1]) + 1 if sound.size else 0
        found.append(
            Onset(
                str(name),
                int(rows["layer"].iloc[-1]),
                int(rows["step"].iloc[start]),
                not sound.size,
                float(rows[column].iloc[0]),
                float(rows[column].iloc[-1]),
            )
        )
    return sorted(found, key=lambda each: each.layer)


def describe_layers(found: Sequence[Onset]) -> str:
    """`layer 3 (name)`, `layers 3 to 5 (name to name)`, `layers 1 and 4 (name and name)`."""
    numbers, names = [each.layer for each in found], [each.name for each in found]
    if len(found) == 1:
        return f"layer {numbers[0]} ({names[0]})"
    if numbers == [*range(numbers[0], numbers[-1] + 1)]:
        return f"layers {numbers[0]} to {numbers[-1]} ({names[0]} to {names[-1]})"
    if len(found) <= _MOST_LISTED:
        return f"layers {_listed(numbers)} ({_listed(names)})"
    distinct = len(set(numbers))
    return f"{distinct} layers from {numbers[0]} to {numbers[-1]} ({names[0]}, ..., {names[-1]})"


def describe_since(found: Sequence[Onset]) -> str:
    """`at every measured step`, `since step 20`, or the step of the first and that of the last."""
    if all(each.is_always for each in found):
        return "at every measured step"
    first, last = (pick(each.step for each in found) for pick in (min, max))
    if first == last:
        return f"since step {first}"
    earliest = next(each for each in found if each.step == first)
    return f"since step {first} (layer {earliest.layer}) and, the last of them, step {last}"


class NotFinite(NamedTuple):
    """The first value of a table that is not finite."""

    step: int
    maker: str
    """`update`, `forward` or `backward`, as far as the table tells: the weights before the update,
    z and h, or the gradients."""
    name: str
    layer: int


_OF_WEIGHTS = ("weight_norm",)
_BY_MAKER = {
    "update": _OF_WEIGHTS,
    "forward": ("preact_mean", "preact_std", "act_mean", "act_std"),
    "backward": ("delta_rms", "grad_norm", "grad_max"),
}
_OF_GRADIENTS = ("grad_norm", "grad_max")


def first_not_finite(layers: pd.DataFrame) -> NotFinite | None:
    """The first step with a value that is not finite, and what made it; None where all are finite.

    A table has NaN both for what is nan and for what was not measured. It counts as nan where
    another layer has a value in that column at the same step, or, of a gradient, where the weight
    has its norm at that step; and where the same layer had a value before. A module that was not
    called, or got an empty batch, has no value either: it has no gradient, or one of 0 (`ran_bad`).

    Args:
        layers: rows as in `layers.csv`.
    """
    if "name" not in layers:
        return None
    frame = layers.dropna(subset=["layer", "step"]).sort_values(["step", "layer"], kind="stable")
    bad = {maker: _bad_cells(frame, columns) for maker, columns in _BY_MAKER.items()}
    is_bad = np.logical_or.reduce(list(bad.values()))
    if not is_bad.any():
        return None
    step = frame["step"].to_numpy()[is_bad].min()
    at_step = (frame["step"] == step).to_numpy()
    maker = next(maker for maker, cells in bad.items() if (cells & at_step).any())
    rows = frame[bad[maker] & at_step]
    row = rows.iloc[-1 if maker == "backward" else 0]
    return NotFinite(int(step), maker, str(row["name"]), int(row["layer"]))


def ran_bad(frame: pd.DataFrame) -> np.ndarray:
    """By row, whether an empty cell of z, h or a gradient may be one that is not finite.

    Values that are not finite make gradients that are not. So they may be in a layer whose gradient
    was measured and is not finite; or, of one that never has a gradient, at a step of such a layer.
    Every row may where the table does not say which gradients were measured.

    Args:
        frame: rows as in `layers.csv`, of all steps.
    """
    if not {"grad_norm", "grad_zero_fraction"} <= {*frame}:
        return np.ones(len(frame), dtype=bool)
    is_measured = frame["grad_zero_fraction"].notna()
    if not is_measured.any():
        return np.ones(len(frame), dtype=bool)
    norms = pd.to_numeric(frame["grad_norm"], errors="coerce").astype("float64")
    is_bad = is_measured & ~norms.abs().lt(np.inf)
    has_gradients = is_measured.groupby(frame["name"]).transform("any")
    at_bad_step = is_bad.groupby(frame["step"]).transform("any")
    return (is_bad | (~has_gradients & at_bad_step)).to_numpy(dtype=bool)


def _bad_cells(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Whether any of these columns has a value that is not finite, by row."""
    bad = np.zeros(len(frame), dtype=bool)
    may_be = np.ones(len(frame), dtype=bool) if columns == _OF_WEIGHTS else ran_bad(frame)
    for column in columns:
        if column not in frame:
            continue
        values = pd.to_numeric(frame[column], errors="coerce").astype("float64")
        is_there = values.notna()
        is_due = is_there.groupby(frame["step"]).transform("any")
        if column in _OF_GRADIENTS and "weight_norm" in frame:
            is_due |= frame["weight_norm"].notna()
        had = is_there.groupby(frame["name"]).cummax()
        is_empty = ~is_there & is_due & had & may_be
        bad |= (values.abs().eq(np.inf) | is_empty).to_numpy(dtype=bool)
    return bad


def _listed(words: Sequence[object]) -> str:
    return f"{', '.join(map(str, words[:-1]))} and {words[-1]}"
