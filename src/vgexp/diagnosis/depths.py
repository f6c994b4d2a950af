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
_PASSED = 0.1
"""Size of h over that of z, below which a rectifier passes next to nothing."""
NEARLY_ALL = 0.9
"""Share of dead units from which on a layer is dead."""


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


def are_dead(rows: pd.DataFrame) -> np.ndarray:
    """Which rows are of layers of which nearly all units are dead; not those at the flat ends of a
    sigmoid or one of its kin, whose slope is exactly 0 there as well."""
    is_flat: np.ndarray = values_of(rows, "saturated_fraction") >= NEARLY_ALL
    is_dead: np.ndarray = (values_of(rows, "dead_fraction") >= NEARLY_ALL) & ~is_flat
    return is_dead


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


def nearly_silent(evidence: Evidence) -> pd.DataFrame:
    """The rows of step 0 of rectifiers that pass next to nothing of their z, where units of whole
    layers are dead at the next measured step: with few units a layer is dead on most examples at
    once, and on all a little later (Lu et al. 2020).

    Half of a z around 0 passes a ReLU: its output is 0.71 times as large, as root mean square.
    """
    rows, layers = rows_at(evidence, 0), evidence.tables.get("layers")
    if layers is None or not len(rows):
        return rows.head(0)
    dead = values_of(rows, "dead_fraction")
    with np.errstate(all="ignore"):
        given = np.hypot(values_of(rows, "preact_mean"), values_of(rows, "preact_std"))
        passed = np.hypot(values_of(rows, "act_mean"), values_of(rows, "act_std")) / given
    is_rectifier = np.isfinite(dead) & ~np.isfinite(values_of(rows, "saturated_fraction"))
    is_silent = is_rectifier & (values_of(rows, "act_mean") >= 0) & (passed < _PASSED)
    later = layers.loc[layers["step"] > 0, "step"]
    if not is_silent.any() or not len(later):
        return rows.head(0)
    dies = values_of(rows_at(evidence, int(later.min())), "dead_fraction") >= NEARLY_ALL
    silent: pd.DataFrame = rows[is_silent] if dies.any() else rows.head(0)
    return silent


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
