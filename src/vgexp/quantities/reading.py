"""How a summary metric is read off a column of a table, where that is all there is to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NUM_STEPS_AVERAGED = 20
"""Rows in a row over which a running mean is taken; all where there are fewer."""


@dataclass(frozen=True)
class Reading:
    """One value of a column; undefined where the column has none."""

    table: str
    column: str
    pick: Literal["first", "last", "lowest", "highest", "mean"]
    """`lowest` and `highest` are of finite values, `mean` is over all that were measured."""
    split: str = ""
    """Of `evals`: of which split; empty: every row."""
    of_means: bool = False
    """Whether it is one of the running means over 20 rows."""
