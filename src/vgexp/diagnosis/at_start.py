"""What networks at initialisation say, one a seed: the figures of `vgexp signal`'s summary.

Factors over seeds are products of random factors, a layer each, so that their logarithms average:
means are geometric, spreads are standard deviations of logarithms (Hanin and Nica 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vgexp.diagnosis.directions import direction_figures
from vgexp.diagnosis.signal import Signal, kind, main_path, signal_of
from vgexp.diagnosis.through_time import FIGURES as TIME_FIGURES
from vgexp.diagnosis.through_time import through_time
from vgexp.diagnosis.verdict import for_json
from vgexp.quantities import PREDICTION

PREDICTED_METRICS = ("attenuation", "backward_factor_per_layer")
"""Those that theory predicts, as `predicted_...`."""

_FAR = math.log(1e3)
_STEADY = 0.1
"""Relative difference up to which two factors' logarithms are called equal."""
_MOST_TIMES = 10
"""Depths of the net up to which its factor is continued."""


def summarise_start(
    layers: pd.DataFrame,
    num_layers: int | None = None,
    theory: Mapping[str, Any] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """The figures of a table of step 0 with a column `seed`.

    A figure that is undefined or not finite is None.

    Args:
        num_layers: L; None: the rows tell.
        theory: further figures, of theory.
        tables: those that there are beside it, by name: `time` of all seeds, and those of
            `direction_figures` of one.
    """
    by_seed = [rows[rows["step"] == 0] for _, rows in layers.groupby("seed")]
    signals = [signal_of(rows, num_layers) for rows in by_seed]
    predictions = [predicted_signal(rows, num_layers) for rows in by_seed]
    attenuation, attenuation_spread = geometric([each.attenuation for each in signals])
    factor, factor_spread = geometric([each.backward_factor_per_layer for each in signals])
    tables = tables or {}
    depth = max((each.num_layers for each in signals), default=0)
    figures = {
        "signal": kind(attenuation),
        "attenuation": attenuation,
        "attenuation_log_std": attenuation_spread,
        "backward_factor_per_layer": factor,
        "backward_factor_log_std": factor_spread,
        **{
            f"{PREDICTION}{name}": geometric([getattr(each, name) for each in predictions])[0]
            for name in PREDICTED_METRICS
        },
        "predicted_signal_depth": signal_depth(by_seed[0]) if by_seed else math.nan,
        "weight_gradient_ratio": geometric([each.weight_gradient_ratio for each in signals])[0],
        "num_layers": depth,
        "layers_left_out": max((each.num_left_out for each in signals), default=0),
        **(theory or {}),
        **(_time_figures(tables["time"]) if "time" in tables else {}),
        **direction_figures(tables, depth),
    }
    return {name: for_json(value) for name, value in figures.items()}


def predicted_signal(layers_at_start: pd.DataFrame, num_layers: int | None = None) -> Signal:
    """`signal_of` with theory's `delta_rms` for the measured one."""
    predicted = f"{PREDICTION}delta_rms"
    values = layers_at_start.get(predicted, pd.Series(math.nan, index=layers_at_start.index))
    return signal_of(layers_at_start.assign(delta_rms=values), num_layers)


def signal_depth(layers_at_start: pd.DataFrame) -> float:
    """Layers after which theory's `delta_rms`, on its way back, has changed by the factor 1e3.

    Where the net is too shallow for that, what its factor gives, if that is the same in both halves
    of the net and no more than ten times its depth is needed; else nan.
    """
    path = main_path(layers_at_start).sort_values("layer")
    deltas = path.get(f"{PREDICTION}delta_rms", pd.Series(dtype="float64")).to_numpy("float64")
    if len(deltas) < 2 or not (np.isfinite(deltas) & (deltas > 0)).all():
        return math.nan
    back = np.abs(np.log(deltas[::-1] / deltas[-1]))
    beyond = np.flatnonzero(back >= _FAR)
    if beyond.size:
        last = int(beyond[0])
        return last - 1 + float((_FAR - back[last - 1]) / (back[last] - back[last - 1]))
    factors = np.diff(np.log(deltas[::-1]))
    half = len(factors) // 2
    if not half:
        return math.nan
    ends = factors[:half].mean(), factors[-half:].mean()
    is_steady = abs(ends[0] - ends[1]) <= _STEADY * max(map(abs, ends))
    depth = _FAR / abs(float(factors.mean())) if factors.any() else math.inf
    return depth if is_steady and depth <= _MOST_TIMES * len(deltas) else math.nan


def _time_figures(time: pd.DataFrame) -> dict[str, float]:
    """Geometric means over seeds of the figures at step 0."""
    by_seed = [through_time(rows) for _, rows in time.groupby("seed")]
    return {name: geometric([each[name] for each in by_seed])[0] for name in TIME_FIGURES}


def geometric(values: Sequence[float]) -> tuple[float, float]:
    """Geometric mean, and standard deviation (n - 1) of the logarithms.

    A zero among the values makes the mean 0, else an infinite one inf; nan are left out. The
    spread is over what is finite and positive; nan of fewer than two.
    """
    numbers = np.asarray(values, dtype="float64")
    numbers = numbers[~np.isnan(numbers)]
    if not numbers.size:
        return math.nan, math.nan
    with np.errstate(divide="ignore"):
        logs = np.log(numbers)
    plain = logs[np.isfinite(logs)]
    spread = float(plain.std(ddof=1)) if plain.size > 1 else math.nan
    if (numbers == 0).any():
        return 0.0, spread
    return float(np.exp(logs.mean())), spread
