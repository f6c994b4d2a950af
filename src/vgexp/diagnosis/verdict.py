"""The verdict on a run and the figures that `summary.json` keeps of its tables.

A figure that is undefined, not measured or not finite is null: JSON has no other numbers, and a
text in a column of numbers would break every reader. `signal`, `verdict` and `cause` say which.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from vgexp.diagnosis.cause import cause_of
from vgexp.diagnosis.landscape import landscape_figures
from vgexp.diagnosis.shift import shifts
from vgexp.diagnosis.signal import Signal, loss_scales, signal_of, underflow
from vgexp.diagnosis.through_time import through_time

LEARNED_BELOW = 0.9
"""Share of a constant guess's loss below which a network has learned."""
NUM_STEPS_AVERAGED = 20
"""Updates in a row over which a mean loss is taken."""


def learned(steps: pd.DataFrame, constant_loss: float) -> bool | None:
    """Whether the best mean training loss over 20 steps is below 0.9 of a constant guess's.

    A window that holds a non-finite loss does not count. Fewer than 20 steps: the mean over all.
    None where a constant guess's loss is not known (nan).
    """
    if math.isnan(constant_loss):
        return None
    means = _running_means(steps["loss"])
    return bool((means < LEARNED_BELOW * constant_loss).any())


def verdict_of(
    status: str, has_diverged: bool, has_learned: bool | None, signal: str
) -> str | None:
    """`diverged`, else `healthy` if it learned, else the signal unless steady, else `stalled`.

    None where it is not known whether it learned.
    """
    if status == "diverged" or has_diverged:
        return "diverged"
    if has_learned is None:
        return None
    if has_learned:
        return "healthy"
    return signal if signal != "steady" else "stalled"


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
    time: pd.DataFrame | None = None,
    curvature: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """The figures of a run that its tables decide, ready for JSON.

    Args:
        layers, steps, evals: the tables.
        constant_loss: the best loss of a prediction that ignores the input; nan: not known.
        num_examples: N of an update, all micro-batches together.
        dtype: of the network.
        status: how the run ended.
        divergence: what became non-finite first and where; None if nothing did.
        num_layers: L; None for as many as the rows tell of.
        time, curvature: `time.csv` and `curvature.csv`, where the run has them.

    Returns:
        Those that `figures.FIGURES` defines as far as tables tell them, and `unmeasured_ends`: of
        layers 1 and L those that have no row, for want of which there is no attenuation. Of a
        diverged run `_last` is its last step, null if nothing there was finite.
    """
    first = signal_of(layers[layers["step"] == layers["step"].min()], num_layers)
    last = signal_of(layers[layers["step"] == _last_step(layers, status)], num_layers)
    has_no_end = status == "diverged" and math.isnan(last.attenuation)
    has_diverged = not np.isfinite(steps["loss"].to_numpy(dtype="float64")).all()
    verdict = verdict_of(status, has_diverged, learned(steps, constant_loss), first.signal)
    summary: dict[str, Any] = {
        "status": status,
        "signal": first.signal,
        "signal_last": None if has_no_end else last.signal,
        "verdict": verdict,
        "underflow": underflow(layers, num_examples, dtype, loss_scales(steps)),
        "num_layers": first.num_layers,
        "depth_trained": _depth_trained(verdict, first),
        "dtype": dtype,
        "constant_loss": constant_loss,
        **_training_figures(steps),
        **_evaluation_figures(evals),
        **_signal_figures(first, ""),
        **_signal_figures(last, "_last"),
        "layers_left_out": first.num_left_out,
        "weight_gradient_ratio": first.weight_gradient_ratio,
        **shifts(layers),
        **through_time(time),
        **landscape_figures(curvature),
        "unmeasured_ends": list(first.unmeasured_ends),
    }
    summary = {key: for_json(value) for key, value in summary.items()}
    summary["cause"] = cause_of(summary, divergence or _first_bad_loss(steps))
    return summary


def _depth_trained(verdict: str | None, signal: Signal) -> int | None:
    if verdict is None:
        return None
    return signal.num_layers if verdict == "healthy" else 0


def _running_means(values: pd.Series) -> np.ndarray:
    """Means over 20 consecutive values, each window summed afresh: no drift from a huge one."""
    numbers = values.to_numpy(dtype="float64")
    if not numbers.size:
        return numbers
    window = min(NUM_STEPS_AVERAGED, numbers.size)
    with np.errstate(all="ignore"):
        means = np.lib.stride_tricks.sliding_window_view(numbers, window).mean(axis=1)
    return np.asarray(means)


def _last_step(layers: pd.DataFrame, status: str) -> int | None:
    with_signal = layers if status == "diverged" else layers[layers["delta_rms"].notna()]
    return int(with_signal["step"].max()) if len(with_signal) else None


def _first_bad_loss(steps: pd.DataFrame) -> str:
    bad = steps[~np.isfinite(steps["loss"].to_numpy(dtype="float64"))]
    if not len(bad):
        return "the run diverged"
    return f"the loss became {bad['loss'].iloc[0]} at step {bad['step'].iloc[0]}"


def _training_figures(steps: pd.DataFrame) -> dict[str, Any]:
    clipped = steps["clipped"].dropna()
    figures: dict[str, Any] = {}
    for name, best in (("loss", np.fmin), ("accuracy", np.fmax)):
        series = (
            ("", steps[name].to_numpy(dtype="float64")),
            (f"_mean_{NUM_STEPS_AVERAGED}", _running_means(steps[name])),
        )
        for suffix, values in series:
            figures[f"{name}_first{suffix}"] = values[0] if values.size else None
            figures[f"{name}_last{suffix}"] = values[-1] if values.size else None
            figures[f"{name}_best{suffix}"] = _best(values, best)
    figures["clip_fraction"] = float((clipped == 1).mean()) if len(clipped) else None
    return figures


def _evaluation_figures(evals: pd.DataFrame) -> dict[str, Any]:
    val, test = evals[evals["split"] == "val"], evals[evals["split"] == "test"]
    figures: dict[str, Any] = {}
    for name, best in (("loss", np.fmin), ("accuracy", np.fmax)):
        values = val[name].to_numpy(dtype="float64")
        figures[f"val_{name}_last"] = values[-1] if values.size else None
        figures[f"val_{name}_best"] = _best(values, best)
        figures[f"test_{name}"] = test[name].iloc[-1] if len(test) else None
    return figures


def _signal_figures(signal: Signal, suffix: str) -> dict[str, Any]:
    return {
        f"attenuation{suffix}": signal.attenuation,
        f"backward_factor_per_layer{suffix}": signal.backward_factor_per_layer,
    }


def _best(values: np.ndarray, better: np.ufunc) -> float | None:
    finite = values[np.isfinite(values)]
    return float(better.reduce(finite)) if finite.size else None


def for_json(value: Any) -> Any:
    """A plain value of a figure; None where it is not finite."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
