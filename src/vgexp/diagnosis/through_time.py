"""Metrics of the gradient on its way back through time, from `time.csv`.

A recurrent network multiplies by the same matrix at each step, so that the total derivative by a
state falls or grows as a power of the distance (Bengio 1994, Pascanu 2013). The metrics are about h
of the last stacked layer, whose gradient comes from its own future and the read-out alone; of a
recurrence that is written by hand about z of the weight whose uses keep most of it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vgexp.diagnosis.signal import attenuation_of, fit_factor

_STATE, _USES = ".h", ".z"
_MEASURED = ("backward_factor_per_time_step", "time_attenuation")
_PREDICTED_FACTOR = "predicted_backward_factor_per_time_step"
METRICS = (*_MEASURED, _PREDICTED_FACTOR)
"""The metrics of the first measured step."""


def time_metrics(time: pd.DataFrame | None) -> dict[str, float]:
    """The factor a step back in time and the attenuation; nan without a table.

    Both are of the first measured step, and with `_last` of the last; the `predicted_` factor is
    that of step 0. The factor is exp(-slope) of the least-squares line of ln delta_rms on t, which
    leaves out states with a zero or non-finite delta_rms; below 1 the gradient vanishes, above 1 it
    explodes. The attenuation is delta_rms of the first watched time over that of the last, by the
    conventions of `signal_of`.
    """
    if time is None or not len(time):
        names = (*METRICS, *(f"{name}_last" for name in _MEASURED))
        return dict.fromkeys(names, np.nan)
    first, last = (_at(time, step) for step in (time["step"].min(), time["step"].max()))
    predicted = np.nan
    if "predicted_delta_rms" in time:
        found = _at(time, time["step"].min(), "predicted_delta_rms")
        predicted = found["backward_factor_per_time_step"]
    at_last = {f"{name}_last": value for name, value in last.items()}
    return {**first, **at_last, _PREDICTED_FACTOR: predicted}


def growth_until_not_finite(values: np.ndarray) -> float:
    """By how much a signal grew on its way, until it was not finite; nan where it stays finite.

    Args:
        values: its size at each place, in the order in which it passes them.
    """
    bad = np.flatnonzero(~np.isfinite(values))
    if not bad.size or bad[0] < 2 or not values[0] > 0:
        return np.nan
    return float(values[bad[0] - 1] / values[0])


def growth_in_time(time: pd.DataFrame | None, step: int) -> float:
    """By how much the gradient of h of the last stacked layer grew at a step on its way back
    through time, until it was not finite; nan where it stays finite, and without a table."""
    if time is None or not len(rows := time[time["step"] == step]):
        return np.nan
    states = pd.to_numeric(last_hidden(rows)["delta_rms"], errors="coerce")
    return growth_until_not_finite(states.to_numpy(dtype="float64", na_value=np.nan)[::-1])


def last_hidden(time: pd.DataFrame) -> pd.DataFrame:
    """The rows of h of the last stacked layer, in order of time, those of the longest sequences.

    Where there is no h, those of z of a recurrence by hand: of the weights of its last layer the
    one whose first use gets most of what its last one gets, for a signal takes each of the ways.
    """
    names = time["name"].astype("str")
    is_state = names.str.endswith(_STATE)
    is_by_hand = not is_state.any()
    kept = time[names.str.endswith(_USES) if is_by_hand else is_state]
    last_layer = kept[kept["layer"] == kept["layer"].max()]
    by_name = {name: rows.sort_values("t") for name, rows in last_layer.groupby("name")}
    if len(by_name) < 2:
        return pd.DataFrame(last_layer.sort_values("t"))
    lengths = {name: rows["t"].nunique() for name, rows in by_name.items()}
    longest = [name for name, length in lengths.items() if length == max(lengths.values())]
    if is_by_hand:
        longest = [max(longest, key=lambda name: _share_kept(by_name[name]))]
    return pd.DataFrame(last_layer[last_layer["name"].isin(longest)].sort_values("t"))


def attenuation_at(time: pd.DataFrame, step: int) -> float:
    """`time_attenuation` at a step; nan without rows."""
    return _at(time, step)["time_attenuation"]


def _share_kept(rows: pd.DataFrame) -> float:
    """The first gradient over the last, of the first step that there are rows of."""
    deltas = rows.loc[rows["step"] == rows["step"].min(), "delta_rms"].to_numpy(dtype="float64")
    share = attenuation_of(float(deltas[0]), float(deltas[-1]))
    return -1.0 if np.isnan(share) else share


def _at(time: pd.DataFrame, step: int, column: str = "delta_rms") -> dict[str, float]:
    states = last_hidden(time[time["step"] == step])
    numbers = states["t"].to_numpy(dtype="float64")
    deltas = states[column].to_numpy(dtype="float64")
    usable = np.isfinite(deltas) & (deltas > 0)
    per_step = fit_factor(numbers[usable], np.log(deltas[usable]))
    ends = attenuation_of(float(deltas[0]), float(deltas[-1])) if deltas.size else np.nan
    return dict(zip(_MEASURED, (per_step, ends), strict=True))
