"""Every table of a run, with its columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vgexp.quantities.initialisation import JACOBIAN, PATHS, SHATTERING
from vgexp.quantities.layers import LAYERS, PREDICTED
from vgexp.quantities.networks import ATTENTION, HISTOGRAMS, PREDICTED_IN_TIME, RECURRENCE, TIME
from vgexp.quantities.parameters import PARAMETERS, WIRING
from vgexp.quantities.quantity import Quantity, amount
from vgexp.quantities.training import CURVATURE, EVALS, LOSS, PRETRAINING, STEPS, TIMING

TABLES: Mapping[str, tuple[Quantity, ...]] = {
    "layers": (*LAYERS, *PREDICTED),
    "steps": STEPS,
    "evals": EVALS,
    "timing": TIMING,
    "loss": LOSS,
    "parameters": PARAMETERS,
    "wiring": WIRING,
    "histograms": HISTOGRAMS,
    "time": (*TIME, *PREDICTED_IN_TIME),
    "recurrence": RECURRENCE,
    "attention": ATTENTION,
    "pretraining": PRETRAINING,
    "curvature": CURVATURE,
    "flight": LAYERS,
    "jacobian": JACOBIAN,
    "paths": PATHS,
    "shattering": SHATTERING,
}
"""Table (its file is `<table>.csv`) -> its columns in order."""

KEYS: Mapping[str, tuple[str, ...]] = {
    table: tuple(column.name for column in columns if column.role == "key")
    for table, columns in TABLES.items()
}
"""Table -> the columns that tell its rows apart, within one seed."""

COMMON = ("layers", "steps", "evals", "timing")
"""The tables that every run has; others are there where the run has such a thing."""

LATER_TABLES = ("parameters", "wiring")
"""Tables of most runs that the first ones did not have: one that goes on may lack them."""


def lacking_columns(table: str, header: Collection[str]) -> list[str]:
    """The columns for want of which a file is not this table; none of one that can be read.

    It has to say which row each is, and to have half of what is measured. Any other column may be
    absent, as in the table of a version that did not have it yet: it reads as not measured.
    """
    measured = [column for column in TABLES[table] if not column.is_predicted]
    values = [column.name for column in measured if column.role == "value"]
    missing = [column.name for column in measured if column.name not in header]
    is_table = set(missing) <= set(values) and len(missing) <= len(values) / 2
    return [] if is_table else missing


def is_header(names: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether names are the header of a table as this version or an earlier one writes it.

    Args:
        columns: those of this version, in order. An earlier one may have begun with fewer.
    """
    return [*names][:1] == [*columns][:1] and set(names) <= set(columns)


def absence(table: str, names: Collection[str]) -> str:
    """In words: which columns a file does not have, and which version was the first to write them;
    empty where it has all."""
    words = [f"{name} (written since vgexp {column_of(table, name).since})" for name in names]
    return f"has no {', '.join(words)}" if words else ""


def column_of(table: str, name: str) -> Quantity:
    """A column of a table; of a name that is not declared, a plain amount."""
    known = (column for column in TABLES[table] if column.name == name)
    return next(known, amount(name, ""))
