"""Checks that a figure is given the table that it draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import pandas as pd
from matplotlib.figure import Figure

from vgexp.errors import QuestionError
from vgexp.quantities import KEYS, SEED, TABLES

P = ParamSpec("P")


def draws_table(
    table: str, *needed: str, over_seeds: bool = False
) -> Callable[[Callable[P, Figure]], Callable[P, Figure]]:
    """Decorates a figure: it refuses a frame that does not have the rows of `table`.

    The frame is the parameter that is named like the table, or else the first one. None passes.

    Args:
        table: a name in `TABLES`.
        needed: the columns without which the figure cannot be drawn.
        over_seeds: whether the frame may hold the rows of several seeds.
    """

    def decorate(make: Callable[P, Figure]) -> Callable[P, Figure]:
        signature = inspect.signature(make)
        parameter = table if table in signature.parameters else next(iter(signature.parameters))

        @wraps(make)
        def checked(*args: P.args, **kwargs: P.kwargs) -> Figure:
            frame = signature.bind(*args, **kwargs).arguments.get(parameter)
            if frame is not None:
                require_table(make.__name__, frame, table, needed)
                if not over_seeds:
                    _require_one_seed(make.__name__, frame)
            return make(*args, **kwargs)

        return checked

    return decorate


def require_table(figure: str, frame: object, table: str, needed: tuple[str, ...]) -> None:
    """Checks that something is a DataFrame with the rows of a table.

    A frame is another table's if a column is missing, or if it has a column that tells rows of
    the other table apart: several rows of `layers` share a step, those of `steps` do not.

    Args:
        figure: what is to be drawn, for the message.

    Raises:
        QuestionError: it is another table, or no DataFrame.
    """
    allowed = f"allowed: a DataFrame with the rows of {table}.csv, columns {', '.join(needed)}"
    if not isinstance(frame, pd.DataFrame):
        raise QuestionError(f"{figure} was given a {type(frame).__name__}\n{allowed}")
    declared = {column.name for column in TABLES[table]}
    keys = {key for columns in KEYS.values() for key in columns}
    others = sorted(str(name) for name in frame.columns if name in keys - declared)
    missing = [name for name in needed if name not in frame.columns]
    if not missing and not others:
        return
    what = f"lacks {', '.join(missing)}" if missing else f"has a column {others[0]}"
    like = _most_like(frame)
    told = f"; its columns are those of {like}" if like and like != table else ""
    raise QuestionError(f"{figure} draws the table {table}, but the frame {what}{told}\n{allowed}")


def _most_like(frame: pd.DataFrame) -> str | None:
    """The table that has most of the frame's columns; None where no table has two of them."""
    names = set(map(str, frame.columns))
    shares = {
        table: len(names & {column.name for column in columns}) for table, columns in TABLES.items()
    }
    best = max(shares, key=lambda table: shares[table])
    return best if shares[best] > 1 else None


def _require_one_seed(figure: str, frame: pd.DataFrame) -> None:
    if SEED.name not in frame.columns:
        return
    num_seeds = frame[SEED.name].nunique()
    if num_seeds > 1:
        raise QuestionError(
            f"{figure} draws one network, but the frame has {num_seeds} seeds\n"
            f"allowed: the rows of one seed; at_start and time_at_start draw several"
        )
