"""Which rows of `wiring.csv` rules look at, and which weights they name."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from vgexp.diagnosis.depths import values_of
from vgexp.diagnosis.evidence import Evidence

A_FACT = "it is a fact of the wiring, which no threshold decides"


def held_rows(evidence: Evidence) -> pd.DataFrame:
    """The rows of parameters that the optimizer holds and that require a gradient."""
    wiring: pd.DataFrame = evidence.tables["wiring"]
    is_held = (values_of(wiring, "in_optimizer") == 1) & (values_of(wiring, "requires_grad") == 1)
    held: pd.DataFrame = wiring[is_held]
    return held


def weights_in(rows: pd.DataFrame) -> tuple[str, ...]:
    """The names in rows, those of weights if there are any."""
    names = [str(name) for name in dict.fromkeys(rows["name"])]
    return tuple([name for name in names if "bias" not in name] or names)


def still_weights(evidence: Evidence, names: set[str]) -> tuple[str, ...]:
    """Those weights of the names whose norm is the same at all of two or more measured steps."""
    layers = evidence.tables.get("layers")
    if layers is None or "weight_norm" not in layers:
        return ()
    found = []
    for name, rows in layers[layers["name"].isin(names)].groupby("name", sort=False):
        norms = rows["weight_norm"].dropna().to_numpy(dtype="float64")
        if len(norms) > 1 and (norms == norms[0]).all():
            found.append(str(name))
    return tuple(found)


def beside_the_path(evidence: Evidence) -> set[str]:
    """The weights that ran and get no gradient, where all layers that read the data do: nothing
    cuts those off, so that what is not reached gives something that leads to no loss."""
    layers, wiring = evidence.tables.get("layers"), evidence.tables.get("wiring")
    if layers is None or wiring is None:
        return set()
    rows = layers[layers["step"] == layers["step"].min()]
    rows = rows[np.isfinite(values_of(rows, "preact_std"))]
    came = set(wiring.loc[values_of(wiring, "gradient_came") == 1, "name"])
    trained = rows[rows["name"].isin(set(held_rows(evidence)["name"]))]
    reached = trained["name"].isin(came)
    numbers = values_of(trained, "layer")
    lowest = trained[numbers == np.nanmin(numbers, initial=math.inf)]
    if not len(lowest) or not lowest["name"].isin(came).all():
        return set()  # layers are numbered along the graph: behind a cut they begin at 1 anew
    return {str(name) for name in trained.loc[~reached, "name"]}


def used_weights(evidence: Evidence, names: Iterable[object]) -> tuple[str, ...]:
    """Those of the names that have a row with a forward pass in the table of layers."""
    layers = evidence.tables.get("layers")
    if layers is None or "preact_std" not in layers:
        return ()
    ran = {str(name) for name in layers.loc[layers["preact_std"].notna(), "name"]}
    return tuple(dict.fromkeys(str(name) for name in names if str(name) in ran))
