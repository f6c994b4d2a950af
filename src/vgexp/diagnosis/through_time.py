"""The gradient as it comes back through time, of `time.csv`: what one step back leaves of it.

A recurrent net multiplies by the same matrix at each step, so that the total derivative by a state
falls or grows as a power of the distance (Bengio 1994, Pascanu 2013). The figures are of h of the
last stacked layer, at the first measured step: that layer's gradient comes from its own future and
the read-out alone.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from vgexp.diagnosis.signal import attenuation, factor

_STATE = ".h"


def through_time(time: pd.DataFrame | None) -> dict[str, float]:
    """`backward_factor_per_time_step` and `time_attenuation`; nan without such a table.

    The factor is exp(-slope) of the least-squares line of ln delta_rms on t, zero and non-finite
    states left out: below 1 vanishing, above 1 exploding. The attenuation is delta_rms of the first
    watched time over that of the last, by the conventions of `signal_of`.
    """
    numbers, deltas = np.zeros(0), np.zeros(0)
    if time is not None and len(time):
        first = time[time["step"] == time["step"].min()]
        last_layer = first[first["layer"] == first["layer"].max()]
        states = last_layer[last_layer["name"].str.endswith(_STATE)].sort_values("t")
        numbers = states["t"].to_numpy(dtype="float64")
        deltas = states["delta_rms"].to_numpy(dtype="float64")
    usable = np.isfinite(deltas) & (deltas > 0)
    ends = attenuation(float(deltas[0]), float(deltas[-1])) if deltas.size else np.nan
    return {
        "backward_factor_per_time_step": factor(numbers[usable], np.log(deltas[usable])),
        "time_attenuation": ends,
    }
