"""Which layers of a user's own model can be compared, and why none can where that is so.

How the layers of vgexp's models are connected is known. Of a user's model the probe has learnt it,
as far as modules and autograd's graph tell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_JUMP = 3.0
"""Change of log10 of the gain, from one layer to the next, that is called a jump."""
_MOST_JUMPS = 2
"""More jumps up and down, by turns, are those of branches."""

ZERO_READOUT = "the read-out's weight is 0, so nothing is sent back at this step by design"
BRANCHES = (
    "most weights lie on branches, and no module's output carries what goes past them, so that no"
    " path of layers can be told"
)
JUMPS = (
    "from layer to layer the signal jumps up and down by more than 1e3 times, as it does where"
    " layers are branches, so that no path of layers can be told"
)
NO_SIGNAL = "no layer of the path has a signal"
RECURRENT = (
    "one layer alone has a known signal: of recurrent layers z is not known, and time.csv has what"
    " comes back through time"
)


@dataclass(frozen=True)
class UsersPath:
    """The layers of the main path that are compared."""

    first: int
    last: int
    """The first and the last layer that have a signal."""
    reason: str = ""
    """Why they cannot be compared; empty where they can."""


def users_main_path(layers_at_step: pd.DataFrame) -> pd.DataFrame:
    """The hidden layers of one step: of each the first row that has a signal, or the first row.

    Beside a weight whose z is known, none stands for its layer: where a frozen weight reads what
    needs no gradient, the first matrix of the adapter beside it gets next to nothing by design.
    """
    hidden = hidden_rows(layers_at_step)
    number, delta = (
        layers_at_step[name].to_numpy(dtype="float64", na_value=np.nan)[hidden]
        for name in ("layer", "delta_rms")
    )
    is_beside = np.ones(len(hidden), dtype=bool)
    is_beside[np.unique(number, return_index=True)[1]] = False
    is_silent = np.isnan(delta) | ((delta == 0) & is_beside)
    if "preact_std" in layers_at_step:
        std = layers_at_step["preact_std"].to_numpy(dtype="float64", na_value=np.nan)[hidden]
        is_silent |= is_beside & np.isin(number, number[~is_beside & ~np.isnan(std)])
    by_signal = np.lexsort((is_silent, number))  # stable
    _, first = np.unique(number[by_signal], return_index=True)
    return layers_at_step.iloc[hidden[by_signal[first]]]


def hidden_rows(layers_at_step: pd.DataFrame) -> NDArray[np.intp]:
    """The places of the rows that are no read-out's and have a layer's number."""
    number = layers_at_step["layer"].to_numpy(dtype="float64", na_value=np.nan)
    is_readout = (layers_at_step["kind"] == "readout").to_numpy(dtype=bool)
    return np.flatnonzero(~is_readout & ~np.isnan(number))


def users_path(
    layers_at_step: pd.DataFrame, num_layers: int, path: pd.DataFrame | None = None
) -> UsersPath:
    """Finds which layers of a step can be compared.

    Args:
        layers_at_step: rows with `layer`, `kind` and `delta_rms`.
        num_layers: the number of layers before the read-out.
        path: `users_main_path` of the rows, where it is known already.
    """
    path = users_main_path(layers_at_step) if path is None else path
    heard = path[path["delta_rms"].notna()]
    if not len(heard):
        return UsersPath(1, num_layers, NO_SIGNAL if len(path) else "")
    first, last = (int(heard["layer"].iloc[end]) for end in (0, -1))
    deltas = heard["delta_rms"].to_numpy(dtype="float64")
    reason = ""
    if (deltas == 0).all() and _has_zero_readout(layers_at_step):
        reason = ZERO_READOUT
    elif len(heard) < 2 and _num_branches(layers_at_step) > len(path):
        reason = BRANCHES
    elif len(heard) < 2 and _has_unheard_recurrence(path):
        reason = RECURRENT
    elif _jumps_often(deltas):
        reason = JUMPS
    return UsersPath(first, last, reason)


def _has_zero_readout(layers_at_step: pd.DataFrame) -> bool:
    if "weight_norm" not in layers_at_step:
        return False
    norms = layers_at_step.loc[layers_at_step["kind"] == "readout", "weight_norm"].dropna()
    return len(norms) > 0 and bool((norms == 0).all())


def _num_branches(layers_at_step: pd.DataFrame) -> int:
    """The number of weights that have a signal and no place on the path."""
    rows = layers_at_step[layers_at_step["layer"].isna()]
    return int(rows["delta_rms"].notna().sum())


def _has_unheard_recurrence(path: pd.DataFrame) -> bool:
    return bool((path["delta_rms"].isna() & (path["kind"] == "recurrent")).any())


def _jumps_often(deltas: np.ndarray) -> bool:
    """Whether the gain jumps up and down, by turns, more than twice in a row."""
    deltas = deltas[np.isfinite(deltas) & (deltas > 0)]
    jumps = np.diff(np.diff(np.log10(deltas)))
    run, before = 0, 0
    for jump in jumps:
        sign = int(np.sign(jump)) if abs(jump) > _JUMP else 0
        run = 0 if sign == 0 else run + 1 if sign == -before else 1
        before = sign
        if run > _MOST_JUMPS:
            return True
    return False
