"""A user's sink: `output.sinks=[csv,package.module.Name]`.

`Name` is a class or a function. It is called once a run, when the run folder is there, with those
of these arguments that it names:

    folder      the run folder, a `pathlib.Path`
    tables      table -> its columns, `{"steps": ["step", "epoch", "lr", ...], ...}`
    config      a copy of the run's `vgexp.config.Config`
    first_step  0; in a run that is gone on with, the step that it goes on from: rows of this step
                and of later ones may have come before, when the run was cut short

What it returns is called with a copy of each batch of rows, a `vgexp.records.Rows`: `rows.table` is
the table's name, `rows.columns` has a sequence of cells a column, and a column that is not there
was not measured. If it has a method `close`, that is called without arguments when the run ends.

    class Print:
        def __call__(self, rows):
            print(rows.table, len(rows))

What it raises is told once and ends this sink alone. What it draws from global generators of
random numbers does not change the run's numbers.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

from vgexp import lookup
from vgexp.errors import QuestionError
from vgexp.records import Rows
from vgexp.sinks.sink import Make, Sink, SinkContext

KEY = "output.sinks"
OFFERED = ("folder", "tables", "config", "first_step")
"""Arguments that a maker of a sink is given if it names them."""


def own_sink(path: str) -> Make:
    """Finds what makes a user's sink.

    Raises:
        QuestionError: there is nothing of that name, or it cannot be called with what is offered.
    """
    found = lookup.find(KEY, path)
    allowed = "allowed: a class or a function that returns a sink, with none or some of the"
    allowed += f" arguments {', '.join(OFFERED)}"
    if not callable(found):
        raise QuestionError(f"{KEY} names {path!r}, of type {type(found).__name__}\n{allowed}")
    names = [name for name in OFFERED if name in (lookup.list_parameters(found) or ())]
    try:
        inspect.signature(found).bind(**dict.fromkeys(names))
    except TypeError as error:
        raise QuestionError(f"{KEY} names {path!r}: {error}\n{allowed}") from None
    except ValueError:  # written in C, without a signature
        names = []

    def make(context: SinkContext) -> Sink:
        tables = {
            table: [column.name for column in columns] for table, columns in context.tables.items()
        }
        given: dict[str, Any] = {
            "folder": context.folder,
            "tables": tables,
            "config": copy.deepcopy(context.config),
            "first_step": context.first_step,
        }
        return _OwnSink(found(**{name: given[name] for name in names}))

    return make


class _OwnSink:
    """Calls what the user's code made; `close` is theirs if they have one."""

    def __init__(self, sink: Any) -> None:
        if not callable(sink):
            raise TypeError(f"it made a {type(sink).__name__}, which cannot be called with rows")
        self._sink = sink

    def __call__(self, rows: Rows) -> None:
        # A copy: what the user's code does to it reaches neither later sinks nor the display.
        self._sink(copy.deepcopy(rows))

    def close(self) -> None:
        close = getattr(self._sink, "close", None)
        if close is not None:
            close()
