"""CSV files that grow row by row: constant memory, whole lines only, nothing recorded is lost."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import numpy as np
import orjson
from numpy.typing import NDArray

from vgexp import files
from vgexp.errors import LostError, QuestionError
from vgexp.folders import MOST_HEADER, Prefix, sync
from vgexp.location import leads_to
from vgexp.quantities import COMMON, TABLES, Quantity, is_header
from vgexp.records import Floats, Rows


@final
class CsvFiles:
    """Appends rows to `<table>.csv`; each batch of rows is one write of whole lines.

    If a write fails half-way (a full disk, an interrupt), the file is cut back to its last whole
    line, so that earlier rows stay readable. A checksum of all bytes written is kept; it shows
    whether somebody else has changed the file.
    """

    def __init__(
        self,
        folder: Path,
        tables: Iterable[str] = COMMON,
        prefixes: Mapping[str, Prefix] | None = None,
        columns: Mapping[str, Sequence[Quantity]] = TABLES,
    ) -> None:
        """Creates the files; one with a prefix is opened and cut back to that prefix.

        A file that exists keeps its columns, since an earlier version may have begun it. No file is
        cut before all were found to be the tables that their names say.

        Args:
            columns: of each table.

        Raises:
            QuestionError: a file that exists is not a regular one, or is not this table.
        """
        self._files: dict[str, _File] = {}
        self._columns = {table: [each.name for each in columns[table]] for table in tables}
        known = prefixes or {}
        for table in self._columns.keys() & known.keys():
            path = folder / f"{table}.csv"
            self._columns[table] = _header_of(path, known[table], self._columns[table])
        try:
            for table, names in self._columns.items():
                self._files[table] = _File(folder / f"{table}.csv", names, known.get(table))
            # The names of the files too, so that no summary or checkpoint outlasts them.
            sync(folder)
        except BaseException:
            self.close()
            raise

    def __call__(self, rows: Rows) -> None:
        columns = [rows.columns.get(name) for name in self._columns[rows.table]]
        empty = [""] * len(rows)
        cells = [empty if values is None else _texts(values) for values in columns]
        lines = map(",".join, zip(*cells, strict=True))
        self._files[rows.table].append("\n".join(lines) + "\n" if len(rows) else "")

    def settle(self) -> Mapping[str, Prefix]:
        """Waits until all rows so far are on the disk itself; table -> its file by then."""
        return {table: file.settle() for table, file in self._files.items()}

    def require_in(self, folder: Path) -> None:
        """Requires that every file is still found under its name in a folder.

        Raises:
            LostError: one was removed or replaced.
        """
        for table, file in self._files.items():
            if not file.is_at(folder / f"{table}.csv"):
                raise LostError(
                    f"{table}.csv in {folder} was removed or replaced while it was being written"
                )

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _header_of(path: Path, prefix: Prefix, columns: Sequence[str]) -> list[str]:
    """Reads the columns of a table that will be cut back to its first bytes.

    Args:
        columns: those of this version; an earlier one may have begun the table with fewer.

    Raises:
        QuestionError: these bytes do not begin with a header of this table.
    """
    with files.open_to_read(path) as file:
        header = file.readline(min(prefix.num_bytes, MOST_HEADER))
    names = header.decode(errors="replace").rstrip("\n").split(",")
    if not header.endswith(b"\n") or not is_header(names, columns):
        raise QuestionError(
            f"{path} does not begin with the columns of this table\n"
            "allowed: the table that this run wrote; or train again into a new folder"
        )
    return names


def _texts(values: Sequence[Any]) -> list[str]:
    """Writes each value as the shortest text that reads back in its dtype; None as no text."""
    if isinstance(values, Floats):
        return _float_cells(values)
    present = [value for value in values if value is not None]
    first = present[0] if present else None
    if isinstance(first, str):
        texts = [_quote(value) for value in present]
    elif isinstance(first, float | np.floating):
        texts = _float_texts(np.array(present, dtype=getattr(first, "dtype", float)))
    else:
        texts = [str(value) for value in present]
    if len(present) == len(values):
        return texts
    remaining = iter(texts)
    return ["" if value is None else next(remaining) for value in values]


def _float_cells(column: Floats) -> list[str]:
    if column.present is None:
        return _float_texts(column.values)
    texts = np.full(len(column), "", dtype=object)
    texts[column.present] = _float_texts(column.values[column.present])
    cells: list[str] = texts.tolist()
    return cells


def _float_texts(values: NDArray[Any]) -> list[str]:
    """Writes floats by a JSON library, 30 times as fast as `str`; nan and inf by `str`."""
    if len(values) == 0:
        return []
    values = np.ascontiguousarray(values)
    text = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    texts = text[1:-1].split(",")
    if "null" in text:
        return [str(v) if t == "null" else t for v, t in zip(values, texts, strict=True)]
    return texts


@lru_cache(maxsize=4096)
def _quote(text: str) -> str:
    """Writes a name as a CSV cell (RFC 4180)."""
    if any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


class _File:
    """The file of one table: a new one with its header, or one that rows are appended to."""

    def __init__(self, path: Path, columns: Sequence[str], prefix: Prefix | None) -> None:
        flags = os.O_WRONLY | os.O_APPEND
        if prefix is None:
            flags |= os.O_CREAT | os.O_EXCL
        self._descriptor = files.open_regular(path, flags)
        self._path = path
        self._whole = prefix or Prefix(0, 0)
        if prefix is None:
            self.append(",".join(columns) + "\n")
        else:
            os.ftruncate(self._descriptor, prefix.num_bytes)
        # False on file systems whose file numbers change.
        self._is_known = leads_to(path, self._descriptor)

    def is_at(self, path: Path) -> bool:
        """Whether a name leads to this file; True where that cannot be known."""
        return not self._is_known or leads_to(path, self._descriptor)

    def append(self, lines: str) -> None:
        data = lines.encode()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except BaseException as error:
            os.ftruncate(self._descriptor, self._whole.num_bytes)
            if isinstance(error, OSError):
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            raise
        num_bytes, crc32 = self._whole
        self._whole = Prefix(num_bytes + len(data), zlib.crc32(data, crc32))

    def settle(self) -> Prefix:
        os.fsync(self._descriptor)
        return self._whole

    def close(self) -> None:
        os.close(self._descriptor)
