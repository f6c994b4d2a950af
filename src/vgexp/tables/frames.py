"""Reads tables as DataFrames."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vgexp import files
from vgexp.errors import unknown
from vgexp.quantities import TABLES
from vgexp.tables.cells import cells_of, rows_of
from vgexp.tables.files import broken, readable
from vgexp.tables.plain import read_plain

HALF_LINE = "half_line"
"""`read(...).attrs[HALF_LINE]` is the text of a cut last line that was dropped, else None."""

HAS_VALUE = "has_value"
"""The column of a frame that says whether a cell is not empty, where a file said so."""

ABSENT = "absent"
"""`read(...).attrs[ABSENT]` are the columns that the file does not have and that read as empty."""

_CHUNK_BYTES = 2**20

# Columns that identify a row and so are never empty, but for the layer of a weight that a user's
# model never calls.
_KEYS = ("step", "layer")
_END = 2**63
"""Of 64-bit integers."""
_PLAIN_TYPES: Mapping[str, str] = {
    "key": "int64",
    "int": "Int64",
    "float": "float64",
    "text": "object",
}


def read(folder: Path | str, table: str, columns: Collection[str] | None = None) -> pd.DataFrame:
    """Reads a table of a run folder, in the order of its file; only `columns`, if they are named.

    Floats are float64 (exact: the shortest form reads back to the same number), `step` and
    `layer` int64 (Int64 where a weight has no layer), other integers Int64 with <NA> where empty.
    Columns that `quantities` does not know are kept; one that it knows and the file lacks, as
    that of an earlier version, is not measured: it comes last, empty, and is named in
    `attrs[ABSENT]`. A last line without its end was cut while being
    written: it is dropped, and its text is in `attrs[HALF_LINE]`.

    Raises:
        QuestionError: a file that is missing, empty or broken, or a column that nobody knows.
    """
    path = _table_path(folder, table)
    frame = _read_at_once(path, table, columns)
    if frame is not None:
        return frame
    text = cells_of(path, table, columns)
    kinds = {column.name: column.kind for column in TABLES[table]}
    frame = pd.DataFrame(
        {name: _parse(path, name, cells, kinds.get(name)) for name, cells in text.columns.items()}
    )
    frame.attrs |= {HALF_LINE: text.half_line, ABSENT: text.absent}
    return frame


def empty_cells(
    folder: Path | str, table: str, columns: Collection[str] | None = None
) -> pd.DataFrame:
    """Says which cells of the frame that `read` returns are empty, as booleans."""
    path = _table_path(folder, table)
    plain = read_plain(path, table, columns, dtype="object", na_values=[""])
    if plain is not None:
        return plain[0].isna()
    text = cells_of(path, table, columns)
    return pd.DataFrame(
        {name: pd.array([not c for c in cells], bool) for name, cells in text.columns.items()}
    )


def may_hold_nan(folder: Path | str, table: str) -> bool:
    """Says whether any cell of a table may hold the value nan; faster than `empty_cells`."""
    before = b""
    path = _table_path(folder, table)
    with readable(path), files.open_to_read(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if b"nan" in (before + chunk).lower():
                return True
            before = chunk[-2:]
    return False


def column_names(folder: Path | str, table: str) -> list[str]:
    """Reads the names of a table's columns, in the order of its file, and nothing else.

    Raises:
        QuestionError: a file that is missing or empty, or is another table.
    """
    return next(rows_of(_table_path(folder, table), table, []))


def _read_at_once(
    path: Path, table: str, columns: Collection[str] | None = None
) -> pd.DataFrame | None:
    """Reads a file that is just as a run writes it with pandas' own reader.

    None for any other file, which is then read cell by cell and, if it is broken, named.
    """
    kinds = {
        column.name: column.kind
        for column in TABLES[table]
        if columns is None or column.name in columns
    }
    plain = read_plain(
        path,
        table,
        columns,
        dtype={name: _PLAIN_TYPES[_kind_of(name, kind)] for name, kind in kinds.items()},
        na_values={n: ["", "nan"] if kind == "float" else [""] for n, kind in kinds.items()},
    )
    if plain is None:
        return None
    frame, half_line = plain
    # Older pandas makes a negative number of one that is too large, or a column without a sign.
    integers = [frame[name] for name, kind in kinds.items() if kind == "int" and name in frame]
    if any(column.dtype.kind != "i" or (column.array < 0).any() for column in integers):
        return None
    for name, kind in kinds.items():
        if kind == "text" and (frame[name].dtype != np.dtype("object") or frame[name].hasnans):
            frame[name] = frame[name].astype("object").where(frame[name].notna(), None)
    # A copy has columns of one type in one array, of which pandas takes rows five times as fast.
    frame = frame.copy()
    frame.attrs |= {HALF_LINE: half_line, ABSENT: []}
    return frame


def _parse(path: Path, name: str, cells: Sequence[str], kind: str | None) -> Any:
    if kind == "text":
        return pd.Series([cell or None for cell in cells], dtype="object")
    if kind is None:
        return _guess(cells)
    try:
        if name == "step" or (name in _KEYS and all(cells)):
            return pd.array([_whole_number(cell) for cell in cells], "int64")
        return _integers(cells) if kind == "int" else _floats(cells)
    except (ValueError, OverflowError) as error:
        raise broken(path, f"has a cell in column {name} that is no number: {error}") from None


def _guess(cells: Sequence[str]) -> Any:
    kinds: tuple[Callable[[Sequence[str]], Any], ...] = (_integers, _floats)
    for kind in kinds:
        try:
            return kind(cells)
        except (ValueError, OverflowError):
            continue
    return pd.Series([cell or None for cell in cells], dtype="object")


def _integers(cells: Sequence[str]) -> Any:
    return pd.array([_whole_number(cell) if cell else None for cell in cells], "Int64")


def _whole_number(cell: str) -> int:
    number = int(cell)
    if not -_END <= number < _END:  # pandas would make another number of it
        raise ValueError(f"{cell[:40]} has more than 64 bits")
    return number


def _floats(cells: Sequence[str]) -> Any:
    return pd.Series([float(cell or "nan") for cell in cells], dtype="float64")


def _table_path(folder: Path | str, table: str) -> Path:
    if table not in TABLES:
        raise unknown("table", table, TABLES)
    return Path(folder) / f"{table}.csv"


def _kind_of(name: str, kind: str) -> str:
    return "key" if name in _KEYS else kind
