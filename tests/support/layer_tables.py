"""Tables of layers and steps with chosen numbers, and the summary of a run that had them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from vgexp.diagnosis import summarise
from vgexp.quantities import TABLES

GUESSING = math.log(10)


def layers_of(deltas: Any, step: int = 0, **columns: Any) -> pd.DataFrame:
    """Hidden layers 1..L with these deltas, and a read-out."""
    num = len(deltas)
    usual = {
        **{column.name: np.nan for column in TABLES["layers"]},
        "step": step,
        "layer": range(1, num + 2),
        "name": [f"layers.{i}" for i in range(num)] + ["readout"],
        "kind": ["linear"] * num + ["readout"],
        "delta_rms": [*deltas, 0.3],
        "weight_norm": 8.0,
        "dead_fraction": 0.0,
    }
    return pd.DataFrame(usual | columns, range(num + 1))


def steps_of(losses: Any, **columns: Any) -> pd.DataFrame:
    """An update for each loss; what is not given was not measured."""
    frame = pd.DataFrame({column.name: np.nan for column in TABLES["steps"]}, range(len(losses)))
    frame["step"], frame["loss"] = range(len(losses)), np.asarray(losses, dtype="float64")
    return frame.assign(**{"accuracy": 0.1, "clipped": 0} | columns)


NO_EVALS = pd.DataFrame({column.name: [] for column in TABLES["evals"]})


def summary_of(
    layers: pd.DataFrame, losses: Any, evals: pd.DataFrame = NO_EVALS, **changes: Any
) -> dict[str, Any]:
    """The metrics of a run with these tables, which guesses among ten classes."""
    arguments: dict[str, Any] = {
        "constant_loss": GUESSING,
        "num_examples": 64,
        "dtype": "float32",
        "status": "completed",
        "divergence": None,
    }
    return summarise(layers, steps_of(losses), evals, **(arguments | changes))


VANISHING = layers_of(0.1 ** np.arange(9, -1.0, -1))
"""A factor of 0.1 a layer, 1e-9 in all."""
STEADY = layers_of(np.full(10, 0.5))
EXPLODING = layers_of(10.0 ** np.arange(9, -1.0, -1))
