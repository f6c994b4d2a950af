"""Since when two runs part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from vgexp.diagnosis.readings import running_means
from vgexp.quantities import NUM_STEPS_AVERAGED

APART = 0.1
"""Relative difference of two mean losses above which the runs have parted: beyond the noise of
batches, which a mean over 20 of them leaves."""


class Parting(NamedTuple):
    """The first step at which two losses are apart, and both."""

    step: int
    here: float
    baseline: float


def find_parting(ours: pd.DataFrame, theirs: pd.DataFrame) -> Parting | None:
    """Finds where mean losses over 20 steps part; None where they do not.

    A loss that is not finite is apart from one that is.

    Args:
        ours, theirs: rows of `steps.csv`.
    """
    num = min(len(ours), len(theirs))
    if not num:
        return None
    here, there = (running_means(table["loss"].iloc[:num]) for table in (ours, theirs))
    with np.errstate(invalid="ignore"):
        are_apart = np.abs(here - there) > APART * np.minimum(np.abs(here), np.abs(there))
    are_apart |= np.isfinite(here) != np.isfinite(there)
    places = np.flatnonzero(are_apart)
    if not places.size:
        return None
    at = int(places[0])
    last = at + min(NUM_STEPS_AVERAGED, num) - 1
    return Parting(int(ours["step"].iloc[last]), float(here[at]), float(there[at]))
