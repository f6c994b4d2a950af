"""From a data set's configuration to its examples.

Each module of this folder registers its own function with `read`, for a class of configurations.
"""

from __future__ import annotations

from functools import singledispatch

from vgexp.config import DataConfig, unmade
from vgexp.data.examples import Examples
from vgexp.data.splits import UserSplits


@singledispatch
def read(config: DataConfig, seed: int) -> Examples | UserSplits:  # noqa: ARG001
    """Reads or draws the examples of a data set.

    Raises:
        QuestionError: the data cannot be had.
    """
    raise unmade(config)
