"""What the rows of a step say of the layers one behind another: factors, and what makes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from vgexp.diagnosis.cells import is_plain
from vgexp.diagnosis.evidence import Evidence
from vgexp.diagnosis.signal import main_path
from vgexp.diagnosis.users_path import users_main_path

T = TypeVar("T")


class Factors(NamedTuple):
    """Amplitude factors of a layer in the middle: medians over the layers."""

    backward: float
    """delta_rms of a layer over that of the next."""
    weights: float
    """sigma_w: the weight's norm over the root of the units that it reads, where a bias tells their
    number; else the std of z over the rms of what the layer reads (Poole et al. 2016)."""
    slope: float
    """What is left of the backward factor without the weights: the root mean square of phi'."""


def rows_at(evidence: Evidence, step: int) -> pd.DataFrame:
    """The main path at a step, to be read only; no rows without a table of layers."""
    return once(evidence, ("rows_at", step), partial(_rows_at, evidence, step))


def _rows_at(evidence: Evidence, step: int) -> pd.DataFrame:
    layers = evidence.tables.get("layers")
    if layers is None:
        return pd.DataFrame({"layer": [], "name": []})
    rows = layers[layers["step"] == step]
    return users_main_path(rows) if "compared" in evidence.metrics else main_path(rows)


def silent_readouts(evidence: Evidence, step: int) -> pd.DataFrame:
    """The rows of read-outs whose own activation gives exactly 0 on every example at a step, and
    that get a gradient of exactly 0 there and at all later measured steps: they are lost for good.
    """
    layers = evidence.tables.get("layers")
    if layers is None or "kind" not in layers:
        return pd.DataFrame({"layer": [], "name": []})
    rows = layers[layers["kind"] == "readout"]
    later = rows[rows["step"] >= step]
    moved = set(later.loc[values_of(later, "grad_norm") != 0, "name"])
    is_silent = (values_of(rows, "dead_fraction") == 1) & (values_of(rows, "act_max") == 0)
    kept: pd.DataFrame = rows[is_silent & (rows["step"] == step) & ~rows["name"].isin(moved)]
    return kept


def once(evidence: Evidence, key: tuple[str, object], compute: Callable[[], T]) -> T:
    """What several rules ask for of the same evidence, computed for the first of them."""
    kept: dict[tuple[str, object], T] = evidence.kept
    if key not in kept:
        kept[key] = compute()
    return kept[key]


def values_of(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float64; nan where the table lacks it."""
    if column not in rows:
        return np.full(len(rows), np.nan)
    values = rows[column]
    if not is_plain(values.dtype):
        values = pd.to_numeric(values, errors="coerce")
    return values.to_numpy(dtype="float64", na_value=np.nan)


def factors_of(evidence: Evidence, step: int | None = None) -> Factors | None:
    """The factors at a step; None where fewer than two layers tell them."""
    step = evidence.first_step if step is None else step
    return once(evidence, ("factors_of", step), partial(_factors_of, evidence, step))


def _factors_of(evidence: Evidence, step: int) -> Factors | None:
    rows = rows_at(evidence, step)
    deltas, z, mean, std = (
        values_of(rows, name) for name in ("delta_rms", "preact_std", "act_mean", "act_std")
    )
    if len(deltas) < 2:
        return None
    with np.errstate(all="ignore"):
        weights = z[1:] / np.hypot(mean[:-1], std[:-1])
        # Biases spread z over units; of a layer with one the weights themselves tell.
        counted = values_of(rows, "weight_norm")[1:] / np.sqrt(_num_units(evidence, rows)[:-1])
        weights = np.where(np.isfinite(counted), counted, weights)
        backward = deltas[:-1] / deltas[1:]
        each = [_median(values) for values in (backward, weights, backward / weights)]
    return None if any(math.isnan(value) for value in each[:2]) else Factors(*each)


def _num_units(evidence: Evidence, rows: pd.DataFrame) -> np.ndarray:
    """The number of units of each layer: the entries of its bias; nan where it has none."""
    parameters = evidence.tables.get("parameters")
    if parameters is None or "entries" not in parameters:
        return np.full(len(rows), np.nan)
    entries = parameters.drop_duplicates("name").set_index("name")["entries"]
    biases = [str(name).removesuffix("weight") + "bias" for name in rows["name"]]
    return np.array([float(entries.get(name, np.nan)) for name in biases])


def _median(values: np.ndarray) -> float:
    usable = values[np.isfinite(values) & (values > 0)]
    return float(np.median(usable)) if usable.size else math.nan
