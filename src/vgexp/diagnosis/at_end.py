"""The backward signal over the last steps: those whose mean loss a verdict is about."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import pandas as pd

from vgexp.diagnosis.signal import signal_of
from vgexp.diagnosis.through_time import time_metrics
from vgexp.quantities import NUM_STEPS_AVERAGED


def attenuation_at_end(
    layers: pd.DataFrame | None,
    time: pd.DataFrame | None,
    num_steps: int,
    *,
    num_layers: int | None = None,
    is_users: bool = False,
) -> float:
    """The geometric mean of the attenuation at the measured steps among the last 20.

    Args:
        layers, time: rows as in `layers.csv` and `time.csv`; None where there are none. Of a
            recurrent net, which has the second, it is the attenuation through time.
        num_steps: number of steps that the run made.
        num_layers, is_users: as `signal_of` takes them.

    Returns:
        0 where it is 0 at one of them, else inf where it is inf; nan where none of them has one.
    """
    first = num_steps - NUM_STEPS_AVERAGED
    if time is not None and len(time):
        rows = time[time["step"] >= first]
        return geometric_mean(
            [time_metrics(rows[rows["step"] == step])["time_attenuation"] for step in _steps(rows)]
        )
    if layers is None:
        return math.nan
    rows = layers[(layers["step"] >= first) & layers["delta_rms"].notna()]
    return geometric_mean(
        [
            signal_of(rows[rows["step"] == step], num_layers, is_users=is_users).attenuation
            for step in _steps(rows)
        ]
    )


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of logarithms, without nan; 0 where one is 0, nan where there is none."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return math.nan
    return 0.0 if min(known) <= 0 else math.exp(statistics.fmean(map(math.log, known)))


def _steps(rows: pd.DataFrame) -> list[int]:
    return sorted({*rows["step"].tolist()})
