"""The verdict on a run and the metrics that `summary.json` keeps of its tables.

A metric that is undefined, not measured or not finite is null: JSON has no such numbers, and a text
in a column of numbers would break every reader. `signal`, `verdict` and `cause` say which it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vgexp.diagnosis.cause import cause_of
from vgexp.diagnosis.evidence import path_metrics
from vgexp.diagnosis.landscape import landscape_metrics
from vgexp.diagnosis.learning import Learning, learning_of
from vgexp.diagnosis.readings import read_metrics
from vgexp.diagnosis.shift import shift_metrics
from vgexp.diagnosis.signal import Signal, loss_scales, signal_of, underflow
from vgexp.diagnosis.through_time import time_metrics


def verdict_of(
    status: str, has_diverged: bool, learning: Learning, signal: str | None
) -> str | None:
    """The verdict, by the rules of `quantities.VERDICTS`; None if nobody knows whether it
    learned."""
    if status == "diverged" or has_diverged:
        return "diverged"
    if learning.learned is None:
        return None
    if learning.learned:
        return "healthy" if learning.keeps else "relapsed"
    if signal not in (None, "steady"):
        return signal
    return "undecided" if learning.is_short else "stalled"


def summarise(
    layers: pd.DataFrame,
    steps: pd.DataFrame,
    evals: pd.DataFrame,
    *,
    constant_loss: float,
    num_examples: int,
    dtype: str,
    status: str,
    divergence: str | None,
    num_layers: int | None = None,
    is_users: bool = False,
    time: pd.DataFrame | None = None,
    curvature: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """The metrics of a run that follow from its tables, ready for JSON.

    Args:
        layers, steps, evals: the tables.
        constant_loss: the best loss of a prediction that ignores the input; nan: not known.
        num_examples: N of an update, all micro-batches together.
        dtype: of the network.
        status: how the run ended.
        divergence: what became non-finite first and where; None if nothing did.
        num_layers: L; None to take it from the rows.
        is_users: whether it is a user's model (`signal_of`).
        time, curvature: `time.csv` and `curvature.csv`, where the run has them.

    Returns:
        Those of `quantities.SUMMARY` that follow from tables, and `unmeasured_ends`: those of
        layers 1 and L that have no row, without which there is no attenuation. The last step of a
        diverged run is its very last one; its metrics are null if nothing in it was finite.
    """
    first, last = _signals(layers, status, num_layers, is_users)
    has_diverged = not np.isfinite(steps["loss"].to_numpy(dtype="float64")).all()
    learning = learning_of(steps, constant_loss)
    verdict = verdict_of(status, has_diverged, learning, first.signal)
    tables = {"layers": layers, "steps": steps, "evals": evals, "time": time}
    metrics: dict[str, Any] = {
        "status": status,
        "verdict": verdict,
        **_signal_metrics(first, last, status),
        "underflow": underflow(layers, num_examples, dtype, loss_scales(steps)),
        "depth_trained": _depth_trained(verdict, first),
        "dtype": dtype,
        "constant_loss": constant_loss,
        "relapse_step": learning.relapse_step if verdict == "relapsed" else None,
        **_table_metrics({**tables, "curvature": curvature}),
    }
    summary = {key: for_json(value) for key, value in metrics.items()}
    summary["unmeasured_ends"] = list(first.unmeasured_ends)
    summary |= path_metrics(first)
    summary["cause"] = cause_of(summary, divergence or _first_bad_loss(steps), len(steps))
    return summary


def _table_metrics(tables: Mapping[str, pd.DataFrame | None]) -> dict[str, Any]:
    """The metrics that follow from one table each, whatever the verdict is."""
    layers = tables["layers"]
    assert layers is not None
    return {
        **read_metrics(tables),
        **shift_metrics(layers),
        **time_metrics(tables["time"]),
        **landscape_metrics(tables["curvature"]),
    }


def _signals(
    layers: pd.DataFrame, status: str, num_layers: int | None, is_users: bool
) -> tuple[Signal, Signal]:
    """The signals of the first step and of the last that has one."""
    first = layers["step"] == layers["step"].min()
    last = layers["step"] == _last_step(layers, status)
    return (
        signal_of(layers[first], num_layers, is_users=is_users),
        signal_of(layers[last], num_layers, is_users=is_users),
    )


def _depth_trained(verdict: str | None, signal: Signal) -> int | None:
    if verdict is None:
        return None
    return signal.num_layers if verdict == "healthy" else 0


def _last_step(layers: pd.DataFrame, status: str) -> int | None:
    with_signal = layers if status == "diverged" else layers[layers["delta_rms"].notna()]
    return int(with_signal["step"].max()) if len(with_signal) else None


def _first_bad_loss(steps: pd.DataFrame) -> str:
    bad = steps[~np.isfinite(steps["loss"].to_numpy(dtype="float64"))]
    if not len(bad):
        return "the run diverged"
    return f"the loss became {bad['loss'].iloc[0]} at step {bad['step'].iloc[0]}"


def _signal_metrics(first: Signal, last: Signal, status: str) -> dict[str, Any]:
    """What two signals say. Of a run that diverged the last may have no finite value in it."""
    has_no_end = status == "diverged" and math.isnan(last.attenuation)
    return {
        "signal": first.signal,
        "signal_last": None if has_no_end else last.signal,
        "num_layers": first.num_layers,
        "layers_left_out": first.num_left_out,
        "weight_gradient_ratio": first.weight_gradient_ratio,
        "attenuation": first.attenuation,
        "attenuation_last": last.attenuation,
        "backward_factor_per_layer": first.backward_factor_per_layer,
        "backward_factor_per_layer_last": last.backward_factor_per_layer,
    }


def for_json(value: Any) -> Any:
    """The value of a metric as JSON has it; None if it is not finite."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
