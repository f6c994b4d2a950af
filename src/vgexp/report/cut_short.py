"""Leaves out a last step that was measured only in part, as in a run that was killed."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd


class Whole(NamedTuple):
    """Rows of a table with `step` and `layer`, without those of a last step that lacks layers."""

    rows: pd.DataFrame
    left_out: int | None
    """That step."""

    @property
    def note(self) -> str:
        """The note for the name of an axis; empty where nothing was left out."""
        if self.left_out is None:
            return ""
        return f" (step {self.left_out} left out: some layers have no row)"


def without_cut_step(rows: pd.DataFrame) -> Whole:
    """Leaves out the last step where it has rows of fewer layers than the first.

    By rows, not by values: what is not finite was measured.
    """
    layers = rows.groupby("step")["layer"].nunique()
    if len(layers) < 2 or layers.iloc[-1] >= layers.iloc[0]:
        return Whole(rows, None)
    last = int(layers.index[-1])
    return Whole(rows[rows["step"] != last], last)
