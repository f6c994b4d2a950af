"""The metrics of `vgexp signal`'s summary, which are means over networks at initialisation.

What a network does to the gradient is a product of random factors, one for each layer, so that
logarithms are averaged over seeds: means are geometric, spreads are standard deviations of
logarithms (Hanin and Nica 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from vgexp.diagnosis.signal import Signal, classify, main_path, signal_of
from vgexp.diagnosis.start_tables import start_table_metrics
from vgexp.diagnosis.through_time import METRICS as TIME_METRICS
from vgexp.diagnosis.through_time import time_metrics
from vgexp.diagnosis.verdict import for_json
from vgexp.quantities import PREDICTION

PREDICTED_METRICS = ("attenuation", "backward_factor_per_layer")
"""Those that theory predicts too, under the name `predicted_...`."""

_FAR = math.log(1e3)
"""Logarithm of the change that the signal depth is about."""
_STEADY = 0.1
"""Relative difference up to which the logarithms of two factors are called equal."""
_MOST_TIMES = 10
"""How many times the depth of the network its factor is extrapolated to at the most."""


def summarise_start(
    layers: pd.DataFrame,
    num_layers: int | None = None,
    theory: Mapping[str, Any] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, Any]:
    """The metrics of a table of layers at step 0 with a column `seed`.

    A metric that is undefined or not finite is None.

    Args:
        num_layers: L; None to take it from the rows.
        theory: metrics that theory gives, which are added.
        tables: further tables by name: `time` with the rows of all seeds, and those that
            `start_table_metrics` reads, with the rows of one seed.
    """
    by_seed = [rows[rows["step"] == 0] for _, rows in layers.groupby("seed")]
    signals = [signal_of(rows, num_layers) for rows in by_seed]
    predictions = [predicted_signal(rows, num_layers) for rows in by_seed]
    attenuation, attenuation_spread = average_geometrically([each.attenuation for each in signals])
    factor, factor_spread = average_geometrically(
        [each.backward_factor_per_layer for each in signals]
    )
    tables = tables or {}
    depth = max((each.num_layers for each in signals), default=0)
    metrics = {
        "signal": classify(attenuation),
        "attenuation": attenuation,
        "attenuation_log_std": attenuation_spread,
        "backward_factor_per_layer": factor,
        "backward_factor_log_std": factor_spread,
        **{
            f"{PREDICTION}{name}": average_geometrically(
                [getattr(each, name) for each in predictions]
            )[0]
            for name in PREDICTED_METRICS
        },
        "predicted_signal_depth": signal_depth(by_seed[0]) if by_seed else math.nan,
        "weight_gradient_ratio": average_geometrically(
            [each.weight_gradient_ratio for each in signals]
        )[0],
        "num_layers": depth,
        "layers_left_out": max((each.num_left_out for each in signals), default=0),
        **(theory or {}),
        **(_time_metrics(tables["time"]) if "time" in tables else {}),
        **start_table_metrics(tables, depth),
    }
    return {name: for_json(value) for name, value in metrics.items()}


def predicted_signal(layers_at_start: pd.DataFrame, num_layers: int | None = None) -> Signal:
    """The signal of a step, with the `delta_rms` that theory predicts for the measured one."""
    predicted = f"{PREDICTION}delta_rms"
    values = layers_at_start.get(predicted, pd.Series(math.nan, index=layers_at_start.index))
    return signal_of(layers_at_start.assign(delta_rms=values), num_layers)


def signal_depth(layers_at_start: pd.DataFrame) -> float:
    """The number of layers after which the predicted `delta_rms` has changed by a factor of 1e3.

    Layers are counted back from the last hidden one. If the network is too shallow, its factor is
    extrapolated; if the two halves of the network have different factors, or more than ten times
    its depth would be needed, the depth is nan.
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


def _time_metrics(time: pd.DataFrame) -> dict[str, float]:
    """Geometric means over seeds of the metrics through time at step 0."""
    by_seed = [time_metrics(rows) for _, rows in time.groupby("seed")]
    return {
        name: average_geometrically([each[name] for each in by_seed])[0] for name in TIME_METRICS
    }


def average_geometrically(values: Sequence[float]) -> tuple[float, float]:
    """The geometric mean, and the standard deviation (n - 1) of the logarithms.

    nan are left out. With a zero among the values the mean is 0, else with an infinite one it is
    inf. The deviation is that of the values that are finite and positive; nan for fewer than two.
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
