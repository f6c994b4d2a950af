"""Keeps the rows of tables in little memory: arrays, and beyond a limit a temporary file."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from vgexp.quantities import TABLES
from vgexp.records import Floats, Rows

if TYPE_CHECKING:
    import pandas

MOST_BYTES = 2**24
"""What all tables may have in memory; what comes beyond goes into a temporary file."""
_SMALL = 2**18
"""Bytes of a piece from which on it is not copied into a larger one."""
_MOST_SMALL = 64
"""Small pieces of a table at most, since each array has a hundred bytes of its own."""
_NO_TEXT = -1


class _Column(NamedTuple):
    """The cells of a column: numbers, or places in the list of texts."""

    values: NDArray[Any]
    present: NDArray[np.bool_] | None
    """Whether each cell has a value; None: all have. Of texts always None."""

    @property
    def num_bytes(self) -> int:
        return self.values.nbytes + (0 if self.present is None else self.present.nbytes)


@dataclass(frozen=True)
class _Piece:
    """Some rows of a table, in memory."""

    num_rows: int
    columns: Mapping[str, _Column]

    @property
    def num_bytes(self) -> int:
        return sum(column.num_bytes for column in self.columns.values())

    def read(self) -> _Piece:
        return self


@dataclass(frozen=True)
class _Spilled:
    """Some rows of a table in a file: column -> dtype, and whether a mask follows the values."""

    num_rows: int
    file: IO[bytes]
    start: int
    columns: Mapping[str, tuple[np.dtype[Any], bool]]

    def read(self) -> _Piece:
        """Reads the rows back."""
        self.file.seek(self.start)
        columns = {}
        for name, (dtype, has_mask) in self.columns.items():
            values = self._array(dtype)
            columns[name] = _Column(values, self._array(np.dtype(np.bool_)) if has_mask else None)
        return _Piece(self.num_rows, columns)

    def _array(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        data = self.file.read(self.num_rows * dtype.itemsize)
        return np.frombuffer(data, dtype, count=self.num_rows)


@final
class RowStore:
    """The rows of all tables so far.

    A number takes the bytes of its dtype, a name is held once. Where the numbers exceed `limit`
    bytes, they are moved to a temporary file without a name, which the operating system removes
    with this object. Where that fails, as on a full disk, they stay in memory.

    Args:
        note: is told why rows could not be moved.
        limit: bytes of all tables in memory; None: `MOST_BYTES`.
    """

    def __init__(self, note: Callable[[str], object], limit: int | None = None) -> None:
        self._note = note
        self._limit: float = MOST_BYTES if limit is None else limit
        self._pieces: dict[str, list[_Piece | _Spilled]] = {}
        self._num_bytes = 0
        self._num_taken: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        self._file: IO[bytes] | None = None

    def add(self, rows: Rows) -> None:
        """Adds rows to their table."""
        if not len(rows):
            return
        pieces = self._pieces.setdefault(rows.table, [])
        columns = {name: self._column(values) for name, values in rows.columns.items()}
        piece = _Piece(len(rows), columns)
        pieces.append(piece)
        self._num_bytes += piece.num_bytes
        _merge_small(pieces)
        if self._num_bytes > self._limit:
            self._spill()

    def take_new(self) -> list[Rows]:
        """Returns the rows since the last call; they stay here as well."""
        taken = []
        for table, pieces in self._pieces.items():
            before = self._num_taken.get(table, 0)
            start = 0
            for piece in pieces:
                end = start + piece.num_rows
                if end > before:
                    taken.append(self._rows(table, piece.read())[max(0, before - start) :])
                start = end
            self._num_taken[table] = start
        return taken

    def columns(self, table: str, names: Sequence[str]) -> Mapping[str, Floats | list[str | None]]:
        """Returns columns of all rows of a table; what was never measured is empty."""
        pieces = [piece.read() for piece in self._pieces.get(table, [])]
        joined = _joined(pieces) if pieces else _Piece(0, {})
        found: dict[str, Floats | list[str | None]] = {}
        for name in names:
            column = joined.columns.get(name)
            if column is None:
                empty = np.zeros(joined.num_rows, np.bool_)
                found[name] = Floats(np.zeros(joined.num_rows), empty)
            elif column.values.dtype == np.int32:
                found[name] = self._read_texts(column.values)
            else:
                found[name] = Floats(column.values, column.present)
        return found

    # ------------------------------------------------------------ cells

    def _column(self, values: Sequence[Any]) -> _Column:
        if isinstance(values, Floats):
            # Copies: these may be views of the cells of a whole block, or of tensors.
            present = None if values.present is None else values.present.copy()
            return _Column(values.values.copy(), present)
        given = [value for value in values if value is not None]
        if not given or isinstance(given[0], str):
            places = (_NO_TEXT if value is None else self._place(value) for value in values)
            return _Column(np.fromiter(places, np.int32, len(values)), None)
        found = np.array(given)
        dtype = found.dtype if found.dtype.kind == "f" else np.dtype(np.int64)
        if len(given) == len(values):
            return _Column(found.astype(dtype), None)
        present = np.array([value is not None for value in values])
        cells = np.zeros(len(values), dtype)
        cells[present] = found
        return _Column(cells, present)

    def _place(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))

    def _read_texts(self, places: NDArray[Any]) -> list[str | None]:
        known: list[str | None] = [*self._texts, None]
        return [known[place] for place in places.tolist()]

    def _rows(self, table: str, piece: _Piece) -> Rows:
        columns: dict[str, Sequence[Any]] = {}
        for name, (values, present) in piece.columns.items():
            if values.dtype == np.int32:
                columns[name] = self._read_texts(values)
            elif values.dtype.kind == "f":
                columns[name] = Floats(values, present)
            else:
                cells: list[int | None] = values.tolist()
                if present is not None:
                    cells = [
                        cell if there else None for cell, there in zip(cells, present, strict=True)
                    ]
                columns[name] = cells
        return Rows(table, columns)

    # ------------------------------------------------------------ the file

    def _spill(self) -> None:
        """Moves everything to the file."""
        try:
            if self._file is None:
                self._file = _temporary_file()
                weakref.finalize(self, self._file.close)
            for table, pieces in self._pieces.items():
                there = [piece for piece in pieces if isinstance(piece, _Spilled)]
                moved = [piece for piece in pieces if isinstance(piece, _Piece)]
                if moved:
                    self._pieces[table] = [*there, _write(self._file, _joined(moved))]
            self._num_bytes = 0
        except OSError as error:
            self._limit = float("inf")
            self._note(f"its rows stay in memory: no temporary file: {error}")


def _temporary_file() -> IO[bytes]:
    """A file without a buffer, which would be written again and again where the disk is full."""
    return tempfile.TemporaryFile(prefix="vgexp-", buffering=0)


def _write(file: IO[bytes], piece: _Piece) -> _Spilled:
    start = file.seek(0, 2)
    for values, present in piece.columns.values():
        for array in (values,) if present is None else (values, present):
            data = array.tobytes()
            written = 0
            while written < len(data):
                written += file.write(data[written:])
    layout = {n: (c.values.dtype, c.present is not None) for n, c in piece.columns.items()}
    return _Spilled(piece.num_rows, file, start, layout)


def _merge_small(pieces: list[_Piece | _Spilled]) -> None:
    """Joins the small pieces at the end of a table where they are many."""
    small: list[_Piece] = []
    for piece in reversed(pieces):
        if isinstance(piece, _Spilled) or piece.num_bytes >= _SMALL:
            break
        small.insert(0, piece)
    if len(small) >= _MOST_SMALL:
        pieces[-len(small) :] = [_joined(small)]


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    """Joins pieces of one table; a column that a piece lacks is empty there."""
    if len(pieces) == 1:
        return pieces[0]
    names = dict.fromkeys(name for piece in pieces for name in piece.columns)
    return _Piece(
        sum(piece.num_rows for piece in pieces), {name: _join(pieces, name) for name in names}
    )


def _join(pieces: Sequence[_Piece], name: str) -> _Column:
    known = [(piece.num_rows, piece.columns.get(name)) for piece in pieces]
    # A column without any value looks like one of texts.
    dtypes = {c.values.dtype for _, c in known if c is not None and not _is_empty(c)}
    dtype = np.result_type(*dtypes) if dtypes else np.dtype(np.int32)
    if dtype == np.int32:
        gaps = (np.full(n, _NO_TEXT, np.int32) if c is None else c.values for n, c in known)
        return _Column(np.concatenate(list(gaps)), None)
    values, present = [], []
    for num_rows, column in known:
        if column is None or _is_empty(column):
            values.append(np.zeros(num_rows, dtype))
            present.append(np.zeros(num_rows, np.bool_))
        else:
            values.append(column.values.astype(dtype, copy=False))
            mask = column.present
            present.append(np.ones(num_rows, np.bool_) if mask is None else mask)
    mask = np.concatenate(present)
    return _Column(np.concatenate(values), None if mask.all() else mask)


def _is_empty(column: _Column) -> bool:
    return column.values.dtype == np.int32 and bool((column.values == _NO_TEXT).all())


def kinds_of(table: str) -> dict[str, str]:
    """The columns of a table that a probe may fill, with their kinds: there is no theory of a
    user's model."""
    return {column.name: column.kind for column in TABLES[table] if not column.is_predicted}


def frame_of(columns: Mapping[str, Any], kinds: Mapping[str, str]) -> pandas.DataFrame:
    """Makes a DataFrame of a table's columns, which are of these kinds."""
    import pandas as pd

    types = {"int": "Int64", "float": "float64", "text": "str"}
    made = {}
    for name, cells in columns.items():
        if not isinstance(cells, Floats):
            made[name] = pd.Series(cells, dtype=types[kinds[name]])
            continue
        is_missing = np.zeros(len(cells), np.bool_) if cells.present is None else ~cells.present
        if kinds[name] == "int":
            values = np.where(is_missing, 0, cells.values).astype(np.int64)
            made[name] = pd.Series(pd.arrays.IntegerArray(values, is_missing))
        else:
            values = cells.values.astype(np.float64)
            values[is_missing] = np.nan
            made[name] = pd.Series(values, dtype=types[kinds[name]])
    return pd.DataFrame(made)
